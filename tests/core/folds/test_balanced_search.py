"""Group splitting against brute force, the proved bound, exact arithmetic, and edge cases."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.folds import balanced_search
from pipeline.core.folds.balanced_search import (
    group_table,
    iterative_stratification,
    scales,
    split_groups,
    totals,
    whole_weights,
)

LABELS = ("a", "b")


def random_rows(seed: int, patients: int = 30, rate: float = 0.2) -> pd.DataFrame:
    """Images with a heavy-tailed number per patient, two labels of 1, 0, -1 and blank, two
    sources."""
    random = np.random.RandomState(seed)
    patient = np.repeat(
        np.arange(patients), 1 + random.geometric(0.3, patients) * random.randint(0, 3, patients)
    )
    values = random.choice(
        [1, 0, -1, np.nan], size=(len(patient), 2), p=[rate, 0.9 - rate, 0.05, 0.05]
    )
    return pd.DataFrame(
        {
            "patient": patient,
            "a": values[:, 0],
            "b": values[:, 1],
            "source": random.choice(["x", "y"], len(patient)),
        }
    )


def table_of(rows: pd.DataFrame, labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    return group_table(rows, rows["patient"].to_numpy(), rows["patient"].to_numpy(), labels)


def objective(x: np.ndarray, weight: np.ndarray, fold: np.ndarray, folds: int) -> float:
    """J by its definition."""
    sums = np.array([[x[fold == k, f].sum() for f in range(x.shape[1])] for k in range(folds)])
    return float((weight * (sums - x.sum(axis=0) / folds) ** 2).sum())


def test_group_table_by_hand():
    rows = pd.DataFrame({"a": [1, 0, 1, -1, np.nan], "source": ["x", "x", "y", "y", "y"]})
    table = group_table(
        rows, np.array([0, 0, 0, 1, 1]), np.array(["p", "p", "q", "r", "r"]), ("a",)
    )
    expected = {
        ("images", ""): [3, 2],
        ("label", "a=1"): [2, 0],
        ("label", "a=-1"): [0, 1],
        ("label", "a=blank"): [0, 1],
        ("source", "x"): [2, 0],
        ("source", "y"): [1, 2],
        ("patients", ""): [2, 1],
        ("positive patients", "a"): [2, 0],
        ("at most", 1): [1, 0],
        ("at most", 2): [2, 1],
    }
    assert {name: list(column) for name, column in table.items()} == expected


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    patients=st.integers(2, 40),
    folds=st.integers(2, 6),
    rate=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_never_above_the_bound_and_never_worse_than_the_start(seed, patients, folds, rate):
    table = table_of(random_rows(seed, patients, rate))
    folds = min(folds, len(table))
    fold = split_groups(table, folds, seed)
    x = table.to_numpy()
    weight = whole_weights(scales(table, folds), folds)
    found = objective(x, weight, fold, folds)
    assert sorted(set(fold)) == list(range(folds))
    assert found <= (1 - 1 / folds) * (weight * x * x).sum() * (1 + 1e-12)
    # Hence for every total and fold: |S_kf - T_f| <= sqrt((1 - 1/K) sum_g |g|^2 / w_f).
    away = np.abs(totals(x, fold, folds) - x.sum(axis=0) / folds)
    assert (away <= np.sqrt((1 - 1 / folds) * (weight * x * x).sum() / weight) * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", range(6))
def test_no_swap_or_move_is_left_that_lowers_the_sum(seed):
    table = table_of(random_rows(seed, 14))
    x = table.to_numpy()
    weight = whole_weights(scales(table, 3), 3)
    fold = iterative_stratification(table, 3, np.random.RandomState(seed))
    start = objective(x, weight, fold, 3)
    balanced_search.lower_sum(x, weight, fold, 3, np.random.RandomState(seed))
    end = objective(x, weight, fold, 3)
    assert end <= start
    for g, h in product(range(len(x)), range(len(x))):
        swapped = fold.copy()
        swapped[[g, h]] = fold[[h, g]]
        assert objective(x, weight, swapped, 3) >= end * (1 - 1e-12)
    for g, k in product(range(len(x)), range(3)):
        moved = fold.copy()
        moved[g] = k
        assert objective(x, weight, moved, 3) >= end * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_worst_deviation_is_never_raised_by_the_last_phase(seed):
    table = table_of(random_rows(seed, 40))
    x = table.to_numpy()
    scale = scales(table, 4)
    folds = 4
    fold = balanced_search.fill_empty(
        iterative_stratification(table, folds, np.random.RandomState(seed)), x, folds
    )
    balanced_search.lower_sum(
        x, whole_weights(scale, folds), fold, folds, np.random.RandomState(seed)
    )
    before = balanced_search.excess(totals(x, fold, folds), x.sum(axis=0) / folds, scale)
    balanced_search.lower_worst(x, scale, fold, folds, np.random.RandomState(seed))
    after = balanced_search.excess(totals(x, fold, folds), x.sum(axis=0) / folds, scale)
    assert after.max() <= before.max()
    assert (after**balanced_search.POWER).sum() <= (before**balanced_search.POWER).sum()
    assert np.bincount(fold, minlength=folds).min() > 0


def test_best_split_of_a_tiny_table_is_found():
    # Six groups of 1..6 images, the odd ones positive: {1,4,5... } brute force over all 2^6 splits
    # into two folds.
    rows = pd.DataFrame({"patient": np.repeat(np.arange(6), np.arange(1, 7))})
    rows["a"] = (rows["patient"] % 2 == 0).astype(float)
    table = table_of(rows, ("a",))
    x = table.to_numpy()
    weight = whole_weights(scales(table, 2), 2)
    best = min(
        objective(x, weight, np.array(fold), 2)
        for fold in product((0, 1), repeat=6)
        if 0 < sum(fold) < 6
    )
    found = min(objective(x, weight, split_groups(table, 2, seed), 2) for seed in range(5))
    assert found == best


def test_equal_groups_differ_by_at_most_one():
    rows = pd.DataFrame({"patient": np.arange(23), "a": 0.0})
    assert sorted(np.bincount(split_groups(table_of(rows, ("a",)), 5))) == [4, 4, 5, 5, 5]


def test_one_giant_patient_leaves_the_others_even():
    rows = pd.DataFrame(
        {"patient": np.concatenate([np.zeros(500, dtype=int), np.repeat(np.arange(1, 81), 2)])}
    )
    rows["a"] = (rows["patient"] % 4 == 1).astype(float)
    fold = split_groups(table_of(rows, ("a",)), 5)
    images = np.array([np.bincount(fold[rows["patient"]], minlength=5)]).ravel()
    others = np.delete(images, fold[0])
    assert images[fold[0]] >= 500
    assert others.max() - others.min() <= 2


def test_a_single_positive_and_fewer_positive_patients_than_folds():
    rows = pd.DataFrame({"patient": np.arange(40), "a": 0.0, "b": 0.0})
    rows.loc[7, "a"] = 1
    rows.loc[[1, 2, 3], "b"] = 1
    fold = split_groups(table_of(rows), 5)
    assert sorted(np.bincount(fold)) == [8] * 5
    assert len(set(fold[[1, 2, 3]])) == 3


def test_as_many_groups_as_folds():
    rows = pd.DataFrame({"patient": [0, 1, 2, 2, 2], "a": [1.0, 0, 0, 0, 1]})
    assert sorted(split_groups(table_of(rows, ("a",)), 3)) == [0, 1, 2]


def test_sums_are_exact_in_any_order():
    table = table_of(random_rows(3, 400))
    weight = whole_weights(scales(table, 5), 5)
    x = table.to_numpy()
    assert (weight == np.floor(weight)).all() and weight.min() >= 1
    assert 2 * (weight * x).sum(axis=0) @ x.sum(axis=0) < 2.0**53
    gap = totals(x, np.arange(len(x)) % 5, 5)
    order = np.random.RandomState(0).permutation(x.shape[1])
    forward = (x * weight) @ (gap[0] - gap[1])
    shuffled = (x * weight)[:, order] @ (gap[0] - gap[1])[order]
    assert np.array_equal(forward, shuffled)


def test_sampled_search_ends_move_optimal(monkeypatch):
    monkeypatch.setattr(balanced_search, "PATIENTS_OF_A_SAMPLE", 10)
    table = table_of(random_rows(5, 120))
    x = table.to_numpy()
    weight = whole_weights(scales(table, 3), 3)
    fold = np.random.RandomState(0).randint(0, 3, len(table))
    balanced_search.lower_sum(x, weight, fold, 3, np.random.RandomState(0))
    end = objective(x, weight, fold, 3)
    for g, k in product(range(len(x)), range(3)):
        moved = fold.copy()
        moved[g] = k
        assert objective(x, weight, moved, 3) >= end * (1 - 1e-12)


def test_seeds_give_other_folds_and_the_same_seed_the_same():
    table = table_of(random_rows(1, 60))
    first = split_groups(table, 5, 0)
    again = split_groups(table, 5, 0)
    other = split_groups(table, 5, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
