"""exchange_test: brute-force exchanges, invariances, agreement of p and interval, false alarms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.metrics import exchange_test as module
from pipeline.core.metrics.delong import delong_test
from pipeline.core.metrics.exchange_test import auc_difference
from pipeline.core.metrics.roc import auc, mean_auc, midranks
from tests.cases.clustered_scores import drawn, sample


def exchanged(first, second, labels, groups, swap) -> float:
    """The difference of AUCs after the ranks of the patients in `swap` are exchanged."""
    ranks = np.stack([midranks(first), midranks(second)])
    turned = np.isin(groups, swap)
    ranks[:, turned] = ranks[::-1, turned]
    return auc(ranks[0], labels) - auc(ranks[1], labels)


@pytest.mark.parametrize("seed", range(5))
def test_all_exchanges_one_by_one(seed):
    """Ten patients, 1,024 exchanges; ties included."""
    scores, labels, groups = sample(seed, rows=40, positives=14, columns=2, per_patient=4)
    first, second = np.round(scores).T
    found = auc(first, labels) - auc(second, labels)
    differences = []
    for size in range(11):
        for swap in itertools.combinations(range(10), size):
            differences.append(exchanged(first, second, labels, groups, swap))
    differences = np.array(differences)
    more = np.count_nonzero(np.abs(differences) > abs(found) + 1e-9)
    equal = np.count_nonzero(np.abs(np.abs(differences) - abs(found)) < 1e-9)
    expected = (more + equal / 2) / len(differences) if found else 1.0
    parts = module.patient_parts(first[:, None], second[:, None], labels[:, None], groups)
    assert parts.sum() == pytest.approx(found, abs=1e-12)
    assert module.exchange_error(found, parts)[1] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.floats(1.2, 3.5))
def test_saddlepoint_is_the_tail_of_random_signs(seed, distance):
    """Within 15 % of the share of 40,000 draws; sizes as different as one positive's and one
    negative's."""
    generator = np.random.default_rng(seed)
    sizes = generator.exponential(size=60) * generator.choice([0.02, 1], 60, p=[0.8, 0.2])
    found = min(distance * math.sqrt((sizes**2).sum()), 0.95 * sizes.sum())
    signs = generator.choice([-1.0, 1.0], (40_000, 60))
    share = (np.abs(signs @ sizes) >= found).mean()
    p = module.exchange_error(found, sizes)[1]
    error = math.sqrt(max(share, p) / 40_000)
    assert p == pytest.approx(share, abs=4 * error + 0.15 * share)


def test_large_samples_agree_with_delong():
    scores, labels, groups = sample(1, rows=3000, positives=600, columns=2)
    first, second = scores[:, 0] + 0.1 * labels, scores[:, 1]
    difference, low, high, p = auc_difference(first, second, labels, groups)
    expected = delong_test(first, second, labels, groups)
    assert difference == pytest.approx(expected[0], abs=1e-12)
    assert (low, high) == pytest.approx(expected[1:3], abs=0.06 * (high - low))
    assert p == pytest.approx(expected[3], abs=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_p_agrees_with_the_limits(seed):
    scores, labels, groups = sample(seed, positives=8, columns=2)
    first, second = np.round(2 * scores).T
    for level in (0.5, 0.8, 0.95):
        difference, low, high, p = auc_difference(first, second, labels, groups, level)
        assert -1 <= low <= difference <= high <= 1
        assert (p < 1 - level) == (low > 0 or high < 0)
    assert difference == pytest.approx(auc(first, labels) - auc(second, labels), abs=1e-12)


def test_what_changes_nothing():
    scores, labels, groups = sample(3, columns=2)
    first, second = scores.T
    plain = auc_difference(first, second, labels, groups)
    # Monotone transforms; the order of rows; names for numbers; every row twice in its patient.
    assert auc_difference(first**3, np.exp(second), labels, groups) == plain
    order = np.random.default_rng(1).permutation(len(labels))
    mixed = auc_difference(first[order], second[order], labels[order], groups[order])
    assert mixed == pytest.approx(plain, abs=1e-9)
    assert auc_difference(first, second, labels, groups.astype(str)) == pytest.approx(plain)
    alone = auc_difference(first, second, labels)
    twice = [np.repeat(values, 2) for values in (first, second, labels, np.arange(len(labels)))]
    assert auc_difference(*twice) == pytest.approx(alone, abs=1e-9)
    # The models, or the classes, the other way round.
    difference, low, high, p = auc_difference(second, first, labels, groups)
    assert (-difference, -high, -low, p) == pytest.approx(plain, abs=1e-12)
    assert auc_difference(-first, -second, 1 - labels, groups) == pytest.approx(plain, abs=1e-9)
    # What the bootstrap took.
    assert auc_difference(first, second, labels, groups, replicates=9, seed=1) == plain


def test_equal_models_and_two_perfect_models():
    scores, labels, groups = sample(9)
    x = scores[:, 0]
    assert auc_difference(x, np.exp(x), labels, groups) == (0.0, 0.0, 0.0, 1.0)
    # Two perfect models that differ: no exchange changes anything, yet the truth is not known.
    other = groups + 100 * labels
    difference, low, high, p = auc_difference(x + 100 * labels, other, labels, groups)
    assert (difference, p) == (0.0, 1.0)
    assert low < -0.01 and high > 0.01


def test_a_clear_difference_is_far_in_the_tail():
    scores, labels, groups = sample(4)
    difference, low, _, p = auc_difference(labels, scores[:, 0], labels, groups)
    assert difference > 0.1 and low > 0 and 0 < p < 1e-3


@pytest.mark.parametrize("positives", [0, 4, 56, 60])
def test_too_few_are_not_told(positives):
    labels = np.arange(60) < positives
    scores = np.random.default_rng(0).standard_normal(60)
    difference, *rest = auc_difference(scores, -scores, labels)
    assert np.isnan(rest).all()
    assert math.isnan(difference) == (positives in (0, 60))


def test_missing_labels_are_left_out_and_labels_are_averaged():
    scores, labels, groups = sample(11, columns=2)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    scores[::7] = np.nan
    first, second = scores.T
    plain = auc_difference(first[known], second[known], labels[known], groups[known])
    assert auc_difference(first, second, labels, groups) == pytest.approx(plain, abs=1e-9)
    # One label given twice is that label; of two, the difference is of the means.
    twice = auc_difference(scores[:, [0, 0]], scores[:, [1, 1]], labels, groups)
    assert twice == pytest.approx(plain, abs=1e-9)
    other = np.where(known, np.roll(np.nan_to_num(labels), 7), np.nan)
    truth = np.column_stack([labels, other])
    found = auc_difference(scores, scores[:, ::-1], truth, groups)[0]
    assert found == pytest.approx(mean_auc(scores, truth) - mean_auc(scores[:, ::-1], truth))


@pytest.mark.parametrize("positives, shift", [(6, 1.5602), (10, 2.7027)])
def test_false_alarms(positives, shift):
    """The percentile bootstrap rejects .08 to .14 here (tests/bench/RESULTS.md)."""
    generator = np.random.default_rng(0)
    rejected = []
    while len(rejected) < 400:
        scores, labels, groups = drawn(generator, 300, positives, shift)
        p = auc_difference(scores[:, 0], scores[:, 1], labels, groups)[3]
        if not math.isnan(p):
            rejected.append(p < 0.05)
    assert np.mean(rejected) < 0.075
