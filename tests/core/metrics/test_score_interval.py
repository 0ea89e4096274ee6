"""score_interval: closed forms, invariances, degenerate samples, and coverage."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import stdtrit

from pipeline.core.metrics import score_interval as module
from pipeline.core.metrics.delong import delong
from pipeline.core.metrics.roc import auc
from pipeline.core.metrics.score_interval import auc_interval, mean_auc_interval
from tests.cases.clustered_scores import drawn, sample

SINGLE_TOLERANCE = 1e-9


def newcombe(area: float, m: float, n: float, reach: float) -> tuple[float, float]:
    """Newcombe's equation as he prints it, by scipy's root finder; reach = z^2 (times r)."""
    star = (m + n) / 2 - 1

    def gap(t: float) -> float:
        spread = t * (1 - t) * (1 + star * (1 - t) / (2 - t) + star * t / (1 + t)) / (m * n)
        return (t - area) ** 2 - reach * spread

    tiny = 1e-15
    low = brentq(gap, tiny, area, xtol=1e-14) if gap(area) < 0 else area
    high = brentq(gap, area, 1 - tiny, xtol=1e-14) if area < 1 else 1.0
    return low, high


@pytest.mark.parametrize("seed", range(4))
def test_newcombe_is_the_limit_of_a_strong_prior(seed, monkeypatch):
    monkeypatch.setattr(module, "PRIOR", 1e12)
    scores, labels, _ = sample(seed)
    area = auc(scores[:, 0], labels)
    expected = newcombe(area, 20, 180, 1.959963984540054**2)
    assert auc_interval(scores[:, 0], labels) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("per_patient", [1, 3, 7])
def test_equations_1_to_6_written_out_pair_by_pair(per_patient):
    scores, labels, groups = sample(5, per_patient=per_patient)
    x = scores[:, 0]
    area = auc(x, labels)
    sizes = []
    patients = []
    products = 2.0
    several = 2.0
    for value in (1, 0):
        rows = np.flatnonzero(labels == value)
        own = groups[rows]
        count = np.array([np.count_nonzero(own == group) for group in np.unique(own)])
        sizes.append((len(rows), (count**2).sum()))
        patients.append(len(rows) ** 2 / (count**2).sum())
        rank = np.array([np.count_nonzero(x[rows] < x[row]) for row in rows], float)
        rank = (rank - rank.mean()) / rank.std()
        for group in np.unique(own):
            inside = rank[own == group]
            k = len(inside)
            if k > 1:
                pairs = [inside[i] * inside[j] for i in range(k) for j in range(k) if i != j]
                products += k * np.mean(pairs)
                several += k
    rho = min(1, max(0, products / several))
    m, n = (rows / (1 + rho * (squares / rows - 1)) for rows, squares in sizes)
    a, b = (number - 1 for number in patients)
    w = 2 / (1 / (area * (1 - area)) - 3.2) * (a + b) * a * b / (a * a - a * b + b * b)
    half = (m + n) / 2 - 1
    implied = area * (1 - area) / (m * n)
    implied *= 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    data = float(delong(x, labels, groups)[1][0, 0])
    r = (1.5 + w * data / implied) / (1.5 + w)
    q = stdtrit((1.5 + w) ** 2 / w, 0.975)
    expected = newcombe(area, m, n, q * q * r)
    assert auc_interval(x, labels, groups) == pytest.approx(expected, abs=SINGLE_TOLERANCE)


def test_covariance_is_delongs():
    scores, labels, groups = sample(1, columns=3)
    columns = module.reduced(scores, np.repeat(labels[:, None], 3, axis=1), groups)
    expected = delong(scores, labels, groups)[1]
    np.testing.assert_allclose(module.covariance_of(columns), expected, rtol=1e-10)


def test_patients_of_one_row_are_independent_rows():
    scores, labels, _ = sample(2, columns=2)
    names = np.random.default_rng(0).permutation(200).astype(str)
    assert auc_interval(scores[:, 0], labels, names) == auc_interval(scores[:, 0], labels)


def test_monotone_transforms_change_nothing():
    scores, labels, groups = sample(3, columns=2)
    x = scores[:, 0]
    assert auc_interval(np.exp(x), labels, groups) == auc_interval(x, labels, groups)


def test_swapped_classes_and_negated_scores():
    scores, labels, groups = sample(4, columns=2)
    x = scores[:, 0]
    low, high = auc_interval(x, labels, groups)
    assert auc_interval(-x, 1 - labels, groups) == pytest.approx((low, high), abs=1e-12)
    assert auc_interval(-x, labels, groups) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_order_of_rows():
    scores, labels, groups = sample(6, columns=2)
    order = np.random.default_rng(1).permutation(len(labels))
    first = scores[:, 0]
    interval = auc_interval(first[order], labels[order], groups[order])
    assert interval == pytest.approx(auc_interval(first, labels, groups), abs=1e-12)


def test_every_row_twice_in_its_patient_changes_nothing():
    scores, labels, groups = sample(7, columns=2)
    first = scores[:, 0]
    twice = [np.repeat(values, 2) for values in (first, labels)]
    independent = np.arange(len(labels))
    interval = auc_interval(twice[0], twice[1], np.repeat(independent, 2))
    assert interval == pytest.approx(auc_interval(first, labels), abs=1e-9)
    # Of patients with three rows only the correlation within them is seen higher.
    low, high = auc_interval(twice[0], twice[1], np.repeat(groups, 2))
    plain_low, plain_high = auc_interval(first, labels, groups)
    assert high - low == pytest.approx(plain_high - plain_low, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_limits_hold_the_estimate(seed):
    scores, labels, groups = sample(seed, positives=8)
    first = np.round(2 * scores[:, 0])
    low, high = auc_interval(first, labels, groups)
    assert 0 <= low <= auc(first, labels) <= high <= 1


def test_width_shrinks_with_size_and_grows_with_level():
    widths = []
    for times in (1, 4, 16):
        scores, labels, _ = sample(8, per_patient=1)
        low, high = auc_interval(np.tile(scores[:, 0], times), np.tile(labels, times))
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.1)
    assert widths[2] == pytest.approx(widths[1] / 2, rel=0.1)
    by_level = [
        np.diff(auc_interval(scores[:, 0], labels, level=level))[0] for level in (0.5, 0.9, 0.99)
    ]
    assert by_level == sorted(by_level)


def test_perfect_and_reversed_scores():
    labels = np.repeat([1, 0], [6, 60])
    low, high = auc_interval(labels.astype(float), labels)
    assert high == pytest.approx(1)
    assert 0.6 < low < 0.95
    assert auc_interval(-labels, labels) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert auc_interval(np.zeros(66), labels)[0] < 0.5 < auc_interval(np.zeros(66), labels)[1]


@pytest.mark.parametrize("positives", [0, 4, 56, 60])
def test_too_few_rows_are_not_told(positives):
    labels = np.arange(60) < positives
    scores = np.random.default_rng(0).standard_normal(60)
    assert np.isnan(auc_interval(scores, labels)).all()


def test_too_few_patients_are_not_told():
    scores, labels, groups = sample(10, positives=30)
    assert np.isnan(auc_interval(scores[:, 0], labels, np.zeros(200))).all()
    assert np.isnan(auc_interval(scores[:, 0], labels, np.arange(200) % 4)).all()
    assert not np.isnan(auc_interval(scores[:, 0], labels, np.arange(200) % 5)).any()
    with pytest.raises(ValueError, match="level"):
        auc_interval(scores[:, 0], labels, groups, level=95)


def test_missing_labels_are_left_out():
    scores, labels, groups = sample(11, columns=2)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    scores[::7] = np.nan
    first = scores[:, 0]
    expected = auc_interval(first[known], labels[known], groups[known])
    assert auc_interval(first, labels, groups) == pytest.approx(expected, abs=1e-12)


def test_means_over_labels():
    scores, labels, groups = sample(12, columns=2)
    truth = np.column_stack([labels, np.roll(labels, 1)])
    x = scores[:, 0]
    plain = auc_interval(x, labels, groups)
    # The mean of one label given twice is that label.
    same = mean_auc_interval(np.column_stack([x, x]), labels, groups)
    assert same == pytest.approx(plain, abs=1e-9)
    assert mean_auc_interval(scores[:, :1], labels[:, None], groups) == plain
    # Two labels know the mean better than the worse of them is known.
    low, high = mean_auc_interval(scores, truth, groups)
    widths = [np.diff(auc_interval(scores[:, k], truth[:, k], groups))[0] for k in range(2)]
    assert high - low < max(widths)
    with pytest.raises(ValueError, match="do not fit"):
        mean_auc_interval(scores, truth[:, [0, 1, 1]], groups)


def test_replicates_and_seed_are_taken_and_change_nothing():
    scores, labels, groups = sample(13)
    plain = auc_interval(scores[:, 0], labels, groups)
    assert auc_interval(scores[:, 0], labels, groups, 0.95, replicates=10, seed=3) == plain


@pytest.mark.parametrize(
    "positives, area, shift", [(6, 0.865, 1.5602), (10, 0.972, 2.7027), (30, 0.865, 1.5602)]
)
def test_coverage(positives, area, shift):
    """The percentile bootstrap covers under .88 of the first two (tests/bench/RESULTS.md)."""
    generator = np.random.default_rng(0)
    covered = []
    while len(covered) < 400:
        scores, labels, groups = drawn(generator, 300, positives, shift)
        low, high = auc_interval(scores[:, 0], labels, groups)
        if not math.isnan(low):
            covered.append(low <= area <= high)
    assert 0.935 < np.mean(covered) < 0.998
