"""Near-duplicates and ensemble selection."""

import numpy as np
import pytest

from pipeline.core.ensemble.selection import (
    Climber,
    nearly_equal_members,
    nested_gain,
    nested_weighted_scores,
    patient_folds,
    select,
    without_duplicates,
)
from pipeline.core.metrics import auc
from tests.cases.ensembles import members_of


def test_near_duplicates_are_found_and_count_once():
    members, _ = members_of([1, 1, 1])
    members[2] = np.exp(members[0])
    assert [(label, i, j) for label, i, j, _ in nearly_equal_members(members)] == [(0, 0, 2)]
    assert without_duplicates(members)[:, 0].tolist() == [1, 1, 0]
    members[1] = -members[0]
    inverted = [pair for pair in nearly_equal_members(members) if pair[3] < 0]
    assert [(i, j) for _, i, j, _ in inverted] == [(0, 1), (1, 2)]
    assert without_duplicates(members)[:, 0].tolist() == [1, 1, 0]


def test_duplicates_of_a_missing_column_or_a_constant_are_none():
    members, _ = members_of([1, 1])
    members[1] = np.nan
    assert nearly_equal_members(members) == [] and without_duplicates(members)[:, 0].tolist() == [
        1,
        0,
    ]
    members[1] = 0.5
    assert nearly_equal_members(members) == []


def test_a_step_of_the_climb_is_the_best_by_brute_force():
    members, truth = members_of([1, 0.5, 0.8, 0], n=200)
    climber = Climber(members[:, :, 0], truth[:, 0])
    counts = np.array([2.0, 0, 1, 0])
    areas = [auc(members[:, :, 0].T @ (counts + one), truth[:, 0]) for one in np.eye(4)]
    assert climber.best_step(counts, np.arange(4)) == (
        int(np.argmax(areas)),
        pytest.approx(max(areas)),
    )
    final = climber.climb(np.arange(4), 10)
    assert climber.auc(final) >= max(auc(member[:, 0], truth[:, 0]) for member in members)


def test_selection_prefers_good_members():
    members, truth = members_of([1.5, 1.5, 0, 0])
    weights = select(members[:, :, 0], truth[:, 0])
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[:2].sum() > 0.7
    assert np.array_equal(weights, select(members[:, :, 0], truth[:, 0]))
    assert select(members[:, :, 0], np.ones(600)).tolist() == [0.25] * 4


def test_the_nested_estimate_never_sees_the_rows_it_scores():
    """Labels of fold 0 are turned round: weights fitted on the others, and so fold 0's scores, must
    not change."""
    members, truth = members_of([1, 0.8, 0.2])
    folds = np.arange(600) % 3
    candidates = np.ones((3, 1))
    before = nested_weighted_scores(members, truth, candidates, folds)
    truth[folds == 0] = 1 - truth[folds == 0]
    after = nested_weighted_scores(members, truth, candidates, folds)
    assert np.array_equal(before[folds == 0], after[folds == 0])
    assert not np.array_equal(before[folds == 1], after[folds == 1])


def test_a_gain_is_accepted_only_when_it_is_more_than_noise():
    """Good members beside useless ones: fitted weights win. Members equally good: they must not be
    accepted."""
    members, truth = members_of([1.5, 1.5, 0, 0, 0, 0])
    groups = np.arange(600)
    folds = np.arange(600) % 3
    useful = nested_gain(members, truth, np.ones((6, 1)), folds, groups)
    assert useful["accepted"] and useful["gain"] > 0.02 and useful["low"] > 0
    accepted = 0
    for seed in range(10):
        members, truth = members_of([1, 1, 1], n=300, seed=seed)
        accepted += nested_gain(members, truth, np.ones((3, 1)), folds[:300], groups[:300])[
            "accepted"
        ]
    assert accepted <= 1


def test_patient_folds_keep_patients_together():
    groups = np.random.default_rng(0).integers(0, 50, 300)
    folds = patient_folds(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert set(folds) == set(range(5)) and np.array_equal(folds, patient_folds(groups))
