"""Precision-recall and calibration against closed forms, scikit-learn and the rows' definition."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from pipeline.core.metrics.calibration import brier, calibrated, net_benefit, reliability
from pipeline.core.metrics.precision_recall import average_precision, precision_recall_points


def scored(rows: int = 4000, seed: int = 0):
    """(true probabilities, labels drawn from them, folds)."""
    generator = np.random.default_rng(seed)
    truth = generator.beta(1, 6, rows)
    return truth, (generator.random(rows) < truth).astype(float), np.arange(rows) % 4


def test_average_precision_by_its_definition():
    scores = np.array([9.0, 8, 7, 6, 5])
    labels = np.array([1, 0, 1, 0, np.nan])
    assert average_precision(scores, labels) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(np.zeros(5), labels) == pytest.approx(0.5)
    assert np.isnan(average_precision(scores, np.zeros(5)))
    recall, precision = precision_recall_points(scores, labels)
    assert recall[0] == 0 and recall[-1] == 1 and precision[0] == 1 and precision[-1] == 0.5
    with pytest.raises(ValueError, match="both classes"):
        precision_recall_points(scores, np.ones(5))


def test_brier_leaves_unlabelled_rows_out():
    truth, labels, _ = scored()
    expected = brier_score_loss(labels[10:], truth[10:])
    labels[:10] = np.nan
    assert brier(truth, labels) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["Platt", "isotonic"])
def test_calibration_finds_the_probabilities_behind_a_bent_score(method):
    truth, labels, folds = scored(8000)
    bent = 1 / (1 + np.exp(-(2 * np.log(truth / (1 - truth)) + 3)))
    found = calibrated(bent, labels, folds, method)
    assert np.abs(found - truth).mean() < 0.02 < np.abs(bent - truth).mean()


@pytest.mark.parametrize("method", ["Platt", "isotonic"])
def test_a_row_never_decides_its_own_probability(method):
    truth, labels, folds = scored(400)
    before = calibrated(truth, labels, folds, method)
    labels[folds == 2] = 1 - labels[folds == 2]
    after = calibrated(truth, labels, folds, method)
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds == 1], after[folds == 1])
    assert np.isnan(calibrated(truth, labels, np.zeros(400), method)).all()


def test_reliability_of_true_probabilities():
    truth, labels, _ = scored(20_000)
    rows = reliability(truth, labels)
    assert sum(row["n"] for row in rows) == 20_000 and len(rows) == 10
    assert sum(row["low"] <= row["said"] <= row["high"] for row in rows) >= 8
    # Each row twice in its patient tells no more.
    twice = reliability(np.repeat(truth, 2), np.repeat(labels, 2), np.repeat(np.arange(20_000), 2))
    for one, two in zip(rows, twice):
        assert two["high"] - two["low"] == pytest.approx(one["high"] - one["low"], rel=0.1)


def test_net_benefit_by_hand():
    """Of ten, two sick: at t = .2, both found with two false alarms: (2 - 2 / 4) / 10."""
    probabilities = np.array([0.9, 0.3, 0.5, 0.25, *[0.1] * 6])
    labels = np.array([1, 1, 0, 0, *[0] * 6])
    assert net_benefit(probabilities, labels, [0.2])[0] == pytest.approx((2 - 2 * 0.25) / 10)
    everyone = net_benefit(np.ones(10), labels, [0, 0.2])
    assert everyone == pytest.approx([0.2, 0.2 - 0.8 * 0.25])
