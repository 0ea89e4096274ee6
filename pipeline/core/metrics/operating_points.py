"""One point of a ROC curve: its threshold, sensitivity and specificity with an interval over groups
(patients), predictive values, confusion counts; and the same interval along the whole curve.

A row is called positive where its score is at least the threshold. The interval of a sensitivity at
a given specificity is Wilson's (1927) for an effective number of positives n_e, as for proportions
from surveys of clusters (Korn and Graubard 1998):
    n_e = s (1 - s) / V, at most the number of positives,
s being the sensitivity and V its variance over resamples of groups, each at its own threshold for
that specificity, so that the threshold's own error counts. Where s is 0 or 1, V is 0 and means
nothing: n_e is Kish's number of groups with a positive. The quantile is t's, of as many degrees of
freedom less one. A specificity at a given sensitivity is the
same with the classes exchanged and the scores negated. Fewer than 5 positives, negatives, or groups
with either: NaN, too few to tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.core.metrics.bootstrap import bootstrap_curves
from pipeline.core.metrics.delong import group_codes
from pipeline.core.metrics.roc import checked_rows, roc_points
from pipeline.core.metrics.score_interval import FEW

ROUNDING = 1e-12  # of rates that are compared


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with what it does.

    fixed        "specificity" or "sensitivity": which was asked for, at least `at`
    low, high    interval of the other one, NaN = too few to tell
    """

    fixed: str
    at: float
    threshold: float
    sensitivity: float
    specificity: float
    low: float
    high: float

    @property
    def found(self) -> float:
        """The rate that was not asked for."""
        return self.sensitivity if self.fixed == "specificity" else self.specificity


def point_at_specificity(
    scores, labels, specificity: float, groups=None, level: float = 0.95, replicates: int = 1000
) -> OperatingPoint:
    """The point of the highest sensitivity among those of at least that specificity; one class only
    is a ValueError."""
    return points_at_specificities(scores, labels, [specificity], groups, level, replicates)[0]


def point_at_sensitivity(
    scores, labels, sensitivity: float, groups=None, level: float = 0.95, replicates: int = 1000
) -> OperatingPoint:
    """The point of the highest specificity among those of at least that sensitivity; one class only
    is a ValueError."""
    return points_at_sensitivities(scores, labels, [sensitivity], groups, level, replicates)[0]


def points_at_specificities(
    scores,
    labels,
    specificities: Sequence[float],
    groups=None,
    level: float = 0.95,
    replicates: int = 1000,
) -> list[OperatingPoint]:
    """`point_at_specificity` of each, all on the same resamples."""
    curve = roc_points(scores, labels, drop_collinear=False)
    false_positive, true_positive, _ = curve
    places = [
        int(np.flatnonzero(false_positive <= 1 - specificity + ROUNDING)[-1])
        for specificity in specificities
    ]
    limits = rate_limits(
        scores, labels, true_positive[places], specificities, groups, level, replicates
    )
    return points_of("specificity", specificities, places, curve, limits)


def points_at_sensitivities(
    scores,
    labels,
    sensitivities: Sequence[float],
    groups=None,
    level: float = 0.95,
    replicates: int = 1000,
) -> list[OperatingPoint]:
    """`point_at_sensitivity` of each, all on the same resamples."""
    curve = roc_points(scores, labels, drop_collinear=False)
    false_positive, true_positive, _ = curve
    places = [
        int(np.flatnonzero(true_positive >= sensitivity - ROUNDING)[0])
        for sensitivity in sensitivities
    ]
    # Negatives of low scores are found as positives of high ones are.
    limits = rate_limits(
        -np.asarray(scores, np.float64),
        1 - np.asarray(labels, np.float64),
        1 - false_positive[places],
        sensitivities,
        groups,
        level,
        replicates,
    )
    return points_of("sensitivity", sensitivities, places, curve, limits)


def points_of(
    fixed: str, asked: Sequence[float], places: Sequence[int], curve: tuple, limits: tuple
) -> list[OperatingPoint]:
    """The points of a curve (`roc_points`) at these places, with the limits (low, high) of each."""
    false_positive, true_positive, thresholds = curve
    return [
        OperatingPoint(
            fixed=fixed,
            at=at,
            threshold=float(thresholds[place]),
            sensitivity=float(true_positive[place]),
            specificity=float(1 - false_positive[place]),
            low=float(low),
            high=float(high),
        )
        for at, place, low, high in zip(asked, places, *limits)
    ]


def rate_limits(
    scores,
    labels,
    rates: np.ndarray,
    specificities: Sequence[float],
    groups,
    level: float,
    replicates: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of sensitivities `rates` (F,) that were found at those specificities."""
    rows, patients = effective_positives(scores, labels, groups)
    if not rows:
        return np.full(len(rates), np.nan), np.full(len(rates), np.nan)
    grid = 1 - np.asarray(specificities, float)
    curves = bootstrap_curves(scores, labels, grid, groups, replicates)
    return wilson_limits(rates, curves.var(axis=0), rows, patients, level)


def roc_band(
    scores, labels, groups=None, level: float = 0.95, replicates: int = 1000, grid=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rates, low, high): the same interval of the sensitivity at each of the
    ascending false positive rates `grid`, default 201 from 0 to 1; NaN = too few to tell."""
    grid = np.linspace(0, 1, 201) if grid is None else np.asarray(grid, float)
    rows, patients = effective_positives(scores, labels, groups)
    if not rows:
        return grid, np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    curves = bootstrap_curves(scores, labels, grid, groups, replicates)
    false_positive, true_positive, _ = roc_points(scores, labels, drop_collinear=False)
    # Where the curve is vertical, its upper end, as the resampled curves are read.
    ends = np.append(np.flatnonzero(np.diff(false_positive) > 0), len(false_positive) - 1)
    rates = np.interp(grid, false_positive[ends], true_positive[ends])
    low, high = wilson_limits(rates, curves.var(axis=0), rows, patients, level)
    # The curve rises, so a lower limit holds to its right and an upper one to its left; without
    # this the band jumps where a curve of few positives does.
    return grid, np.maximum.accumulate(low), np.minimum.accumulate(high[::-1])[::-1]


def effective_positives(scores, labels, groups) -> tuple[int, float]:
    """(positives, Kish's number of groups that have one); (0, 0) where too few to tell."""
    _, positive, negative = checked_rows(scores, labels)
    codes = group_codes(groups, len(positive))
    sizes = []
    for rows in (positive, negative):
        counts = np.bincount(codes[rows]) if rows.any() else np.zeros(1, int)
        if counts.sum() < FEW or np.count_nonzero(counts) < FEW:
            return 0, 0.0
        sizes.append(counts)
    of_positives = sizes[0]
    return int(of_positives.sum()), float(of_positives.sum() ** 2 / (of_positives**2).sum())


def wilson_limits(
    rates: np.ndarray, variances: np.ndarray, rows: float, patients: float, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of rates (F,) of known variances, n_e as above."""
    spread = rates * (1 - rates)
    known = (variances > 0) & (spread > 0)
    size = np.full(len(rates), float(patients))
    np.divide(spread, variances, out=size, where=known)
    size = np.minimum(size, rows)
    quantile = float(stdtrit(max(patients - 1, 1), (1 + level) / 2))
    shrink = 1 + quantile**2 / size
    middle = (rates + quantile**2 / (2 * size)) / shrink
    half = quantile / shrink * np.sqrt(spread / size + quantile**2 / (4 * size**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def rate_interval(hits, groups=None, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of the mean of hits (n,) of 0 and 1: the interval above, V being the variance of
    a mean of clusters. NaN: fewer than 5 rows or groups, too few to tell."""
    hits = np.asarray(hits, float)
    codes = group_codes(groups, len(hits))
    sizes = np.bincount(codes)
    sizes = sizes[sizes > 0]
    if len(sizes) < FEW:
        return math.nan, math.nan
    rate = hits.mean()
    sums = np.bincount(codes, hits - rate)
    variance = len(sizes) / (len(sizes) - 1) * (sums**2).sum() / len(hits) ** 2
    patients = len(hits) ** 2 / (sizes**2).sum()
    low, high = wilson_limits(np.array([rate]), np.array([variance]), len(hits), patients, level)
    return float(low[0]), float(high[0])


def confusion_counts(scores, labels, threshold: float) -> dict[str, int]:
    """Counts at a threshold: true_positive, false_positive, false_negative, true_negative; rows
    without a label are left out."""
    scores, positive, negative = checked_rows(scores, labels)
    called = scores >= threshold
    return {
        "true_positive": int(np.count_nonzero(positive & called)),
        "false_positive": int(np.count_nonzero(negative & called)),
        "false_negative": int(np.count_nonzero(positive & ~called)),
        "true_negative": int(np.count_nonzero(negative & ~called)),
    }


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """(PPV, NPV) by Bayes's rule, all rates in [0, 1]; NaN where nobody is called so."""
    true_positive = sensitivity * prevalence
    false_positive = (1 - specificity) * (1 - prevalence)
    true_negative = specificity * (1 - prevalence)
    false_negative = (1 - sensitivity) * prevalence
    called = true_positive + false_positive
    cleared = true_negative + false_negative
    return (
        true_positive / called if called > 0 else math.nan,
        true_negative / cleared if cleared > 0 else math.nan,
    )
