"""Subgroups: who is in which, and AUCs that equal those of the rows picked by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core.config.task import Task
from pipeline.core.metrics import auc, auc_interval
from pipeline.core.report.results.subgroups import (
    MISSING,
    display_order,
    number_bands,
    subgroup_rows,
    subgroups_of,
    unit_numbers,
    unit_values,
)

TASK = Task(title="t", labels=("y",), numeric=("age_approx",), categorical=("sex", "view"))


@pytest.fixture
def images():
    """Three studies: both views, a frontal only, nothing known."""
    return pd.DataFrame(
        {
            "image_id": list("abcd"),
            "unit_id": ["u2", "u1", "u2", "u3"],
            "source": "one",
            "age_approx": [30, 55, 30, np.nan],
            "sex": ["f", "m", None, None],
            "view": ["Lateral", "Frontal", "Frontal", None],
        }
    )


def test_values_of_a_study_are_joined_in_order_of_first_appearance(images):
    assert list(unit_values(images, "view")) == ["Frontal + Lateral", "Frontal", MISSING]
    assert list(unit_values(images, "sex")) == ["f", "m", MISSING]
    assert unit_numbers(images, "age_approx").tolist()[:2] == [30, 55]
    assert np.isnan(unit_numbers(images, "age_approx")[2])


@pytest.mark.parametrize(
    "age, band",
    [
        (0, "under 40"),
        (39.9, "under 40"),
        (40, "40 to 54"),
        (55, "55 to 69"),
        (70, "70 and over"),
        (120, "70 and over"),
        (np.nan, MISSING),
    ],
)
def test_bands_of_age(age, band):
    assert number_bands(pd.Series([age]), "age_approx")[0] == band


def test_other_numbers_are_cut_into_thirds():
    # "age" inside a word does not make a column of ages
    names = number_bands(pd.Series(np.arange(90.0)), "stage_of_disease")
    assert sorted(names.astype(str).value_counts()) in ([30, 30, 30], [29, 30, 31])


def test_columns_with_one_value_are_left_out(images):
    assert list(subgroups_of(images, TASK)) == [
        "age_approx",
        "sex",
        "view",
    ]  # all are of one source
    many = pd.DataFrame(
        {"image_id": [str(i) for i in range(60)], "source": [f"s{min(i, 20)}" for i in range(60)]}
    )
    values = subgroups_of(many, TASK)["source"]
    assert values.nunique() == 13 and (values == "others").sum() == 60 - 40 - 11


def test_bands_of_numbers_come_in_order_of_the_numbers():
    values = pd.Series([*np.arange(90) - 10.0, np.nan])
    assert display_order(number_bands(values, "days")) == [
        "under 19.7",
        "19.7 to 49.3",
        "49.3 and over",
        "missing",
    ]
    ages = number_bands(pd.Series([70.0, 12, 41]), "age")
    assert display_order(ages) == ["under 40", "40 to 54", "70 and over"]


def test_names_come_in_order_and_missing_last():
    values = pd.Series(["missing", "torso", "head", "others"])
    assert display_order(values) == ["head", "torso", "others", "missing"]


def test_aucs_equal_those_of_the_rows_picked_by_hand():
    generator = np.random.default_rng(1)
    truth = (generator.random(400) < 0.3).astype(float)
    scores = truth + generator.normal(size=400)
    patients = generator.integers(0, 150, 400)
    truth[:20] = np.nan
    values = pd.Series(generator.choice(["a", "b"], 400))
    # b has positives only, c negatives only
    values[truth == 0] = values[truth == 0].replace("b", "c")
    rows = {row["group"]: row for row in subgroup_rows(scores, truth, patients, values)}
    inside = (values == "a").to_numpy() & ~np.isnan(truth)
    assert rows["a"]["auc"] == auc(scores[inside], truth[inside])
    assert (rows["a"]["low"], rows["a"]["high"]) == auc_interval(
        scores[inside], truth[inside], patients[inside]
    )
    assert rows["a"]["n"] == inside.sum()
    assert rows["a"]["positives"] == truth[inside].sum()
    assert np.isnan(rows["b"]["auc"])
    assert rows["b"]["n"] == rows["b"]["positives"] > 0
    assert np.isnan(rows["c"]["auc"])
    assert rows["c"]["positives"] == 0
