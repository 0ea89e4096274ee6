"""Precision and recall: the curve, and the average precision; scikit-learn's, with this project's
rules for labels (NaN left out, one class undefined)."""

import math

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from pipeline.core.metrics.roc import checked_rows


def precision_recall_points(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision), from recall 0 to 1, a point per distinct score; precision is 1 at recall
    0. One class only: ValueError."""
    scores, positive, negative = checked_rows(scores, labels)
    known = positive | negative
    if not positive.any() or not negative.any():
        raise ValueError(
            f"{np.count_nonzero(positive)} positives in {np.count_nonzero(known)} rows: a curve "
            "needs both classes"
        )
    precision, recall, _ = precision_recall_curve(positive[known], scores[known])
    return recall[::-1], precision[::-1]


def average_precision(scores, labels) -> float:
    """Mean over the positives of the precision at their score, ties together; the prevalence for
    scores that say nothing; NaN with one class only."""
    scores, positive, negative = checked_rows(scores, labels)
    known = positive | negative
    if not positive.any() or not negative.any():
        return math.nan
    return float(average_precision_score(positive[known], scores[known]))
