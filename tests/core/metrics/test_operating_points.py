"""Operating points: counts by hand, symmetry, Bayes's rule, coverage of the interval."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from pipeline.core.metrics import (
    confusion_counts,
    point_at_sensitivity,
    point_at_specificity,
    predictive_values,
    rate_interval,
    roc_band,
)
from pipeline.core.metrics.operating_points import wilson_limits
from tests.cases.clustered_scores import drawn, sample


def test_a_point_by_hand():
    """Ten negatives 0 to 9, five positives 4.5, 6, 8, 9.5, 10."""
    scores = np.array([*range(10), 4.5, 6, 8, 9.5, 10])
    labels = np.array([0] * 10 + [1] * 5)
    point = point_at_specificity(scores, labels, 0.8, replicates=50)
    # Specificity .8 allows the false positives 8 and 9: the lowest such threshold is the score 8.
    assert (point.threshold, point.sensitivity, point.specificity) == (8, 0.6, 0.8)
    assert point.found == 0.6 and point.low < 0.6 < point.high
    counts = confusion_counts(scores, labels, point.threshold)
    assert list(counts.values()) == [3, 2, 2, 8]
    point = point_at_sensitivity(scores, labels, 0.8, replicates=50)
    assert (point.threshold, point.sensitivity, point.specificity) == (6, 0.8, 0.6)
    assert point.found == 0.6 and point.low < 0.6 < point.high


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]))
def test_the_best_of_all_thresholds(seed, rate):
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [12, 40])
    scores = generator.integers(0, 12, 52) + 3 * labels
    rates = [
        ((scores >= t)[labels == 1].mean(), (scores < t)[labels == 0].mean())
        for t in [*np.unique(scores), np.inf]
    ]
    point = point_at_specificity(scores, labels, rate, replicates=2)
    assert point.sensitivity == pytest.approx(max(a for a, b in rates if b >= rate - 1e-9))
    point = point_at_sensitivity(scores, labels, rate, replicates=2)
    assert point.specificity == pytest.approx(max(b for a, b in rates if a >= rate - 1e-9))


def test_too_few_to_tell_and_one_class():
    labels = np.arange(60) < 4
    scores = np.random.default_rng(0).normal(size=60)
    point = point_at_specificity(scores, labels, 0.9)
    assert math.isnan(point.low) and math.isnan(point.high) and 0 <= point.sensitivity <= 1
    assert np.isnan(roc_band(scores, labels)[1]).all()
    with pytest.raises(ValueError, match="both classes"):
        point_at_specificity(scores, np.zeros(60), 0.9)


def test_wilson_without_clusters():
    """9 of 10: Wilson's interval as Brown, Cai and DasGupta's formula gives it, with t for z."""
    p, n, z = 0.9, 10, 2.2621571627409915
    centre = (9 + z * z / 2) / (n + z * z)
    half = z * math.sqrt(n) / (n + z * z) * math.sqrt(p * (1 - p) + z * z / (4 * n))
    low, high = wilson_limits(np.array([p]), np.array([p * (1 - p) / n]), n, n, 0.95)
    assert (low[0], high[0]) == pytest.approx((centre - half, centre + half))
    # Twice the variance is half the rows; a rate of 1 has the groups' number.
    wider = wilson_limits(np.array([p]), np.array([2 * p * (1 - p) / n]), n, n, 0.95)
    assert wider[0][0] < low[0] and wider[1][0] > high[0]
    low, high = wilson_limits(np.array([1.0]), np.array([0.0]), 20, 10, 0.95)
    assert high[0] == pytest.approx(1) and low[0] == pytest.approx(10 / (10 + z * z))


def test_a_mean_of_hits_by_hand_and_in_clusters():
    """30 of 40 without clusters is Wilson's interval of 39; copies in one group add nothing."""
    hits = np.repeat([1.0, 0.0], [30, 10])
    variance = np.array([0.75 * 0.25 / 39])
    low, high = wilson_limits(np.array([0.75]), variance, 40, 40, 0.95)
    assert rate_interval(hits) == pytest.approx((low[0], high[0]))
    copies = rate_interval(np.repeat(hits, 3), np.repeat(np.arange(40), 3))
    assert copies == pytest.approx((low[0], high[0]))
    assert all(map(math.isnan, rate_interval(np.ones(20), np.arange(20) // 5)))
    low, high = rate_interval(np.ones(20))
    assert 0.8 < low < 1 and high == 1


def test_coverage_of_a_mean_of_clusters():
    """Groups of 1 to 4 that share half of their chance; without groups the interval is too
    narrow."""
    generator = np.random.default_rng(0)
    covered = {True: 0, False: 0}
    for _ in range(400):
        groups = np.repeat(np.arange(60), generator.integers(1, 5, 60))
        chance = generator.beta(1.4, 0.6, 60)  # of mean 0.7
        hits = (generator.random(len(groups)) < chance[groups]).astype(float)
        for grouped in covered:
            low, high = rate_interval(hits, groups if grouped else None)
            covered[grouped] += low <= 0.7 <= high
    assert covered[True] >= 0.93 * 400 and covered[False] < covered[True]


def test_the_band_holds_the_curve_and_agrees_with_the_point():
    scores, labels, groups = sample(5, rows=300, positives=60)
    grid, low, high = roc_band(scores[:, 0], labels, groups, replicates=200)
    assert ((low >= 0) & (high <= 1) & (low < high)).all()
    point = point_at_specificity(scores[:, 0], labels, 0.9, groups, replicates=200)
    place = int(np.argmin(np.abs(grid - 0.1)))
    assert (point.low, point.high) == pytest.approx((low[place], high[place]), abs=0.03)


def test_predictive_values_are_shares_of_a_population():
    """Of 10,000 with 100 sick: 80 found, 20 missed, 495 false alarms, 9,405 cleared."""
    ppv, npv = predictive_values(0.8, 0.95, 0.01)
    assert ppv == pytest.approx(80 / 575) and npv == pytest.approx(9405 / 9425)
    assert math.isnan(predictive_values(0, 1, 0.1)[0])


def test_coverage_of_a_sensitivity():
    """The percentile bootstrap covers .68 of these (tests/bench/RESULTS.md)."""
    generator = np.random.default_rng(0)
    truth = ndtr(2.7027 - ndtri(0.9))
    covered = []
    for _ in range(150):
        scores, labels, groups = drawn(generator, 300, 10, 2.7027)
        point = point_at_specificity(scores[:, 0], labels, 0.9, groups, replicates=60)
        if not math.isnan(point.low):
            covered.append(point.low <= truth <= point.high)
    assert np.mean(covered) > 0.92
