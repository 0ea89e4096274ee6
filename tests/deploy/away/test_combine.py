"""What was scored becomes the ensemble's own numbers; what was not becomes neutral, never NaN."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import apply_map, quantile_map, ranks_within
from pipeline.deploy.away.combine import combine_runs

RNG = np.random.default_rng(0)


def package(**changes) -> dict:
    return {
        "labels": ["a", "b"],
        "method": "mean",
        "metadata": 0.0,
        "prior": {"a": 0.2, "b": 0.4},
        "weights": {"x": {"a": 0.5, "b": 0.5}, "y": {"a": 0.5, "b": 0.5}},
        **changes,
    }


def images(count: int) -> pd.DataFrame:
    return pd.DataFrame({"unit_id": [f"u{number}" for number in range(count)]})


def scores(count: int, labels=("a", "b")) -> pd.DataFrame:
    return pd.DataFrame(RNG.random((count, len(labels))), columns=list(labels))


TASK = Task(title="t", labels=("a", "b"))


def test_means_over_folds_then_runs_then_metadata():
    tables = {(name, fold): scores(7) for name in "xy" for fold in (0, 1)} | {
        ("metadata", 0): scores(7)
    }
    table = combine_runs(package(metadata=0.3), {}, images(7), tables, TASK)
    mean = sum(tables[name, fold] for name in "xy" for fold in (0, 1)) / 4
    np.testing.assert_allclose(table[["a", "b"]], 0.7 * mean + 0.3 * tables["metadata", 0])
    assert table["unit_id"].tolist() == [f"u{number}" for number in range(7)]


def test_weights_and_labels_that_a_run_does_not_predict():
    weights = {"x": {"a": 1.0, "b": 0.25}, "y": {"a": 0.0, "b": 0.75}}
    tables = {("x", 0): scores(5), ("y", 0): scores(5, ["b"])}
    table = combine_runs(package(weights=weights), {}, images(5), tables, TASK)
    np.testing.assert_allclose(table["a"], tables["x", 0]["a"])
    np.testing.assert_allclose(table["b"], 0.25 * tables["x", 0]["b"] + 0.75 * tables["y", 0]["b"])


def test_ranks_and_frozen_quantiles():
    tables = {("x", 0): scores(6), ("y", 0): scores(6)}
    table = combine_runs(package(method="rank"), {}, images(6), tables, TASK)
    one = np.zeros(6)
    expected = (
        ranks_within(tables["x", 0].to_numpy(), one) + ranks_within(tables["y", 0].to_numpy(), one)
    ) / 2
    np.testing.assert_allclose(table[["a", "b"]], expected)
    maps = {
        name: {"fold0": {label: quantile_map(RNG.random(50)) for label in "ab"}} for name in "xy"
    }
    table = combine_runs(package(method="quantile"), maps, images(6), tables, TASK)
    expected = np.mean(
        [apply_map(tables[name, 0]["b"].to_numpy(), maps[name]["fold0"]["b"]) for name in "xy"],
        axis=0,
    )
    np.testing.assert_allclose(table["b"], expected)
    alone = combine_runs(
        package(method="quantile"),
        maps,
        images(1),
        {key: one[:1] for key, one in tables.items()},
        TASK,
    )
    assert (
        alone["b"].iloc[0] == table["b"].iloc[0]
    )  # one row at a time gives what the whole set gives


def test_an_unreadable_image_is_neutral():
    tables = {("x", 0): scores(4)}
    tables["x", 0].iloc[2] = np.nan
    tables["metadata", 0] = scores(4)
    table = combine_runs(package(metadata=0.5), {}, images(4), tables, TASK, [2])
    blended = (tables["x", 0]["a"] + tables["metadata", 0]["a"]) / 2
    np.testing.assert_allclose(table["a"][[0, 1, 3]], blended[[0, 1, 3]])
    np.testing.assert_allclose(table["a"][2], blended.drop(index=2).mean())


def test_an_image_not_reached_goes_by_its_patient():
    tables = {("x", 0): scores(4), ("metadata", 0): scores(4)}
    tables["x", 0].iloc[2:] = np.nan
    table = combine_runs(package(metadata=0.5), {}, images(4), tables, TASK)
    np.testing.assert_allclose(
        table["a"][2:], (tables["x", 0]["a"][:2].mean() + tables["metadata", 0]["a"][2:]) / 2
    )


def test_nothing_scored_is_the_prior():
    table = combine_runs(package(), {}, images(3), {}, TASK)
    assert table["a"].tolist() == [0.2] * 3 and table["b"].tolist() == [0.4] * 3
    tables = {("x", 0): scores(3, ["a"])}
    assert combine_runs(package(), {}, images(3), tables, TASK)["b"].tolist() == [0.4] * 3


def test_a_study_goes_by_its_readable_views():
    task = Task(title="t", labels=("a", "b"), unit="study", aggregate="max")
    rows = pd.DataFrame({"unit_id": ["s2", "s1", "s2", "s3"]})
    tables = {
        ("x", 0): pd.DataFrame({"a": [0.9, 0.3, np.nan, np.nan], "b": [0.1, 0.2, np.nan, np.nan]})
    }
    table = combine_runs(package(), {}, rows, tables, task).set_index("unit_id")
    assert table["a"].to_dict() == {"s2": 0.9, "s1": 0.3, "s3": pytest.approx(0.6)}
    table = combine_runs(
        package(),
        {},
        rows.iloc[[0, 0, 1, 3]],
        {("x", 0): tables["x", 0].iloc[[0, 0, 1, 3]]},
        task,
        [3],
    )
    assert table["a"].to_numpy() == pytest.approx(
        [0.9, 0.3, 0.6]
    )  # the mean of the other two studies


def test_frontal_first_takes_laterals_where_there_is_nothing_else():
    task = Task(title="t", labels=("a", "b"), unit="study", aggregate="frontal_first", view="view")
    rows = pd.DataFrame({"unit_id": ["s1", "s1", "s2"], "view": ["Frontal", "Lateral", "Lateral"]})
    tables = {("x", 0): pd.DataFrame({"a": [0.1, 0.9, 0.5], "b": [0.2, 0.8, 0.6]})}
    assert combine_runs(package(), {}, rows, tables, task).set_index("unit_id")["a"].to_dict() == {
        "s1": 0.1,
        "s2": 0.5,
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 6), st.data())
def test_a_score_for_every_unit_whatever_is_missing(count, data):
    method = data.draw(st.sampled_from(["mean", "rank", "quantile"]))
    unit, how = data.draw(
        st.sampled_from([("image", "mean"), ("study", "max"), ("study", "frontal_first")])
    )
    units = (
        data.draw(st.lists(st.sampled_from(["s0", "s1", "s2"]), min_size=count, max_size=count))
        if unit == "study"
        else [f"u{number}" for number in range(count)]
    )
    views = data.draw(
        st.lists(st.sampled_from(["Frontal", "Lateral"]), min_size=count, max_size=count)
    )
    missing = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    tables = {}
    for key in data.draw(st.lists(st.sampled_from([("x", 0), ("x", 1), ("y", 0)]), unique=True)):
        tables[key] = scores(count, data.draw(st.sampled_from([("a", "b"), ("a",), ("b",)])))
        tables[key].iloc[missing] = np.nan
    share = data.draw(st.sampled_from([0.0, 0.5]))
    if share:
        tables["metadata", 0] = scores(count)
    frozen = {label: quantile_map(RNG.random(9)) for label in "ab"}
    maps = {name: {"fold0": frozen, "fold1": frozen} for name in ("x", "y", "metadata")}
    rows = pd.DataFrame(
        {"unit_id": pd.Series(units, dtype="str"), "view": pd.Series(views, dtype="str")}
    )
    task = Task(title="t", labels=("a", "b"), unit=unit, aggregate=how, view="view")
    gone = [number for number in range(count) if missing[number] and data.draw(st.booleans())]
    table = combine_runs(package(method=method, metadata=share), maps, rows, tables, task, gone)
    assert sorted(table["unit_id"]) == sorted(set(units))
    values = table[["a", "b"]].to_numpy(float)
    assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
