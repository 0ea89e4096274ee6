"""Scores as probabilities: Brier score, reliability curve, calibration fitted out of fold, and the
net benefit of acting on them (decision curve).

Calibration is scikit-learn's: Platt's logistic regression on the logit of the score, and isotonic
regression. Each fold's rows are mapped by a function fitted on the other folds' rows, so that a
patient never decides its own probability.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pipeline.core.metrics.delong import group_codes
from pipeline.core.metrics.operating_points import wilson_limits
from pipeline.core.metrics.roc import checked_rows

CALIBRATIONS = ("Platt", "isotonic")
EDGE = 1e-6  # scores are kept this far from 0 and 1, whose logits are infinite


def brier(probabilities, labels) -> float:
    """Mean squared distance of probabilities (n,) in [0, 1] from labels (n,) of 0 and 1; NaN labels
    are left out. Always saying the prevalence p scores p (1 - p)."""
    probabilities, positive, negative = checked_rows(probabilities, labels)
    known = positive | negative
    return float(((probabilities[known] - positive[known]) ** 2).mean())


def calibrated(scores, labels, folds, method: str = "Platt") -> np.ndarray:
    """Probabilities (n,) for scores (n,) in [0, 1], each fold's fitted on the other folds.

    folds: (n,), no patient in two. NaN where the other folds lack a class, or there is one fold.
    """
    scores, positive, negative = checked_rows(scores, labels)
    folds = np.asarray(folds)
    result = np.full(len(scores), np.nan)
    for fold in np.unique(folds):
        inside = folds == fold
        fitting = (positive | negative) & ~inside
        if not positive[fitting].any() or not negative[fitting].any():
            continue
        if method == "isotonic":
            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
            model.fit(scores[fitting], positive[fitting])
            result[inside] = model.predict(scores[inside])
        else:
            model = LogisticRegression(C=1e6)
            model.fit(logits(scores[fitting]), positive[fitting])
            result[inside] = model.predict_proba(logits(scores[inside]))[:, 1]
    return result


def logits(scores: np.ndarray) -> np.ndarray:
    """log(s / (1 - s)) of scores (n,) as a column (n, 1)."""
    inside = np.clip(np.asarray(scores, np.float64), EDGE, 1 - EDGE)
    return np.log(inside / (1 - inside))[:, None]


def reliability(
    probabilities, labels, groups=None, bins: int = 10, level: float = 0.95
) -> list[dict[str, float]]:
    """Per bin of about equally many rows, from low to high: said (mean probability), seen (share of
    positives), low, high (its interval over groups), n.

    Tied probabilities stay in one bin, so there may be fewer bins.
    """
    probabilities, positive, negative = checked_rows(probabilities, labels)
    known = positive | negative
    probabilities = probabilities[known].astype(np.float64)
    positive = positive[known]
    codes = group_codes(groups, len(known))[known]
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, probabilities, "right")
    rows = []
    for number in np.unique(place):
        inside = place == number
        seen = positive[inside].mean()
        low, high = share_limits(positive[inside], codes[inside], level)
        rows.append(
            {
                "said": float(probabilities[inside].mean()),
                "seen": float(seen),
                "low": low,
                "high": high,
                "n": int(inside.sum()),
            }
        )
    return rows


def share_limits(positive: np.ndarray, codes: np.ndarray, level: float) -> tuple[float, float]:
    """The interval of a share of rows (n,) bool, over the groups that they belong to."""
    share = positive.mean()
    counts = np.bincount(codes)
    residuals = np.bincount(codes, positive - share)
    count = np.count_nonzero(counts)
    variance = float((residuals**2).sum()) / len(positive) ** 2 * count / max(count - 1, 1)
    kish = len(positive) ** 2 / (counts**2).sum()
    low, high = wilson_limits(
        np.array([share]), np.array([variance]), len(positive), float(kish), level
    )
    return float(low[0]), float(high[0])


def net_benefit(probabilities, labels, thresholds: Sequence[float]) -> np.ndarray:
    """(T,) net benefit of treating where the probability is at least t (Vickers and Elkin 2006,
    Medical Decision Making 26, 565-574): true positives minus t / (1 - t) false ones, per row.

    Treating nobody has 0; treating all is `net_benefit` of probabilities of 1. thresholds: in
    [0, 1).
    """
    probabilities, positive, negative = checked_rows(probabilities, labels)
    rows = np.count_nonzero(positive | negative)
    benefits = []
    for threshold in thresholds:
        treated = probabilities >= threshold
        true_positives = np.count_nonzero(positive & treated)
        false_positives = np.count_nonzero(negative & treated)
        weight = threshold / (1 - threshold)
        benefits.append((true_positives - weight * false_positives) / rows)
    return np.array(benefits)
