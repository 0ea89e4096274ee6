"""Facts that should tell nothing: an order that tells is found, chance is not, a column that names
patients is."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core.ensemble.suspects import singled_out, suspicion_lines, suspicious_columns


def images(patients=150, seed=0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows, labels and patients, four images each, in random order."""
    generator = np.random.default_rng(seed)
    code = generator.permutation(np.repeat(np.arange(patients), 4))
    number = generator.permutation(len(code))
    table = pd.DataFrame(
        {
            "image_id": [f"ISIC_{one:07d}" for one in number],
            "patient_id": [f"IP_{one:05d}" for one in generator.permutation(patients)[code]],
            "age": generator.choice([40.0, 50.0, np.nan], len(code)),
            "born": 1900 + code / 7,
        }
    )
    labels = (generator.random(len(code)) < 0.2).astype(float)
    return table, labels, table["patient_id"].to_numpy()


def test_chance_is_not_reported():
    table, labels, patients = images()
    found = suspicious_columns(table, labels, patients, ("age",))
    assert {row["column"] for row in found} == {
        "row in images.csv",
        "number in image_id",
        "last digit of image_id",
        "number in patient_id",
        "age",
    }
    assert suspicion_lines(found) == []


def test_an_order_that_tells_is_reported_and_a_column_in_use_may_tell():
    table, labels, patients = images()
    order = np.argsort(labels, kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    labels = labels[order]
    table["age"] = labels + np.random.default_rng(1).normal(size=len(labels))
    found = suspicious_columns(table, labels, patients[order], ("age",))
    by_name = {row["column"]: row for row in found}
    assert by_name["row in images.csv"]["auc"] == 1
    assert by_name["age"]["tells"]
    (line,) = suspicion_lines(found)
    assert line == "tells the label though it should not (AUC): row in images.csv 1.000"


def test_a_column_that_names_patients_is_reported():
    table, labels, patients = images()
    found = suspicious_columns(table, labels, patients, ("age", "born"))
    assert "names patients (share singled out): born 100%" in suspicion_lines(found)


def test_singled_out_by_hand():
    patients = np.array(["a", "a", "b", "b", "c", "c", "d"])
    values = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 9.0])
    # a alone has its value in all its images; b shares it with c; c varies; d has one image
    assert singled_out(values, patients) == pytest.approx(1 / 3)
    assert singled_out(np.full(7, np.nan), patients) == 0
