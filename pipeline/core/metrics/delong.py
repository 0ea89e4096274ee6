"""Variance of an AUC and the paired test of two, without resampling: DeLong et al. 1988, Obuchowski
1997 for clusters; O(n log n).

An AUC is a mean over (positive, negative) pairs, so its variance follows from each row's placement:
the share of the other class that it beats. Rows of one patient are not independent; with `groups`
their placements are summed per patient before squaring.
"""

import math

import numpy as np
from scipy.special import ndtr, ndtri

from pipeline.core.metrics.roc import checked_rows


def group_codes(groups, rows: int) -> np.ndarray:
    """Consecutive integers (n,) for group names (n,) of any type; every row its own group when
    None. A missing name is a ValueError."""
    if groups is None:
        return np.arange(rows)
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(f"groups of shape {groups.shape} for {rows} rows")
    if groups.dtype == object:
        # Names of any type, numbered as they come: they may have no order to sort by.
        number_of: dict = {}
        numbers = (number_of.setdefault(group, len(number_of)) for group in groups)
        codes = np.fromiter(numbers, np.int64, rows)
        missing = [group for group in number_of if group is None or group != group]
        if missing:
            row = int(np.argmax(codes == number_of[missing[0]]))
            raise ValueError(f"row {row}: the group is missing")
        return codes
    if groups.dtype.kind == "f" and np.isnan(groups).any():
        raise ValueError(f"row {int(np.argmax(np.isnan(groups)))}: the group is missing")
    return np.unique(groups, return_inverse=True)[1]


def placements(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each key, ties counting 1/2: (len(keys),)."""
    others = np.sort(others)
    order = np.argsort(keys)
    # Sorted look-ups stay in cache: 10 times faster at a million rows.
    sorted_keys = keys[order]
    shares = np.empty(len(keys))
    # Below, plus below or tied: twice the number below with a tie counting 1/2.
    twice = others.searchsorted(sorted_keys, "left") + others.searchsorted(sorted_keys, "right")
    shares[order] = twice / (2 * len(others))
    return shares


def delong(scores, labels, groups=None) -> tuple[np.ndarray, np.ndarray]:
    """(AUCs (K,), covariance (K, K)) of K score columns on the same rows.

    scores: (n,) or (n, K); labels (n,) of 0, 1, NaN; groups: (n,) patient or study of each row,
    None = independent rows. All NaN when a class has fewer than two rows (or groups).
    """
    columns = np.asarray(scores)
    if columns.ndim == 1:
        columns = columns[:, None]
    codes = group_codes(groups, len(columns))
    parts = [class_parts(column, labels, codes) for column in columns.T]
    aucs = np.array([part[0] for part in parts])

    # How many rows of each class, and in how many groups: G10 with positives, G01 with negatives.
    _, positive, negative = checked_rows(columns[:, 0], labels)
    P = np.count_nonzero(positive)
    N = np.count_nonzero(negative)
    G10 = np.unique(codes[positive]).size
    G01 = np.unique(codes[negative]).size
    G = np.unique(codes[positive | negative]).size
    if min(G10, G01) < 2:
        return aucs, np.full((len(aucs), len(aucs)), np.nan)

    # Obuchowski 1997: the positives' and the negatives' sums of squares, and the products within
    # groups that hold both classes, which vanish when every row is a group.
    of_positives = np.stack([part[1] for part in parts])
    of_negatives = np.stack([part[2] for part in parts])
    cross = of_positives @ of_negatives.T
    covariance = (
        G10 / (G10 - 1) / P**2 * of_positives @ of_positives.T
        + G01 / (G01 - 1) / N**2 * of_negatives @ of_negatives.T
        + G / (G - 1) / (P * N) * (cross + cross.T)
    )
    return aucs, covariance


def class_parts(scores, labels, codes: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """(AUC, sums per group of the positives' placements less the AUC, the same of the negatives'):
    the terms that are squared."""
    scores, positive, negative = checked_rows(scores, labels)
    if not positive.any() or not negative.any():
        return float("nan"), np.full(1, np.nan), np.full(1, np.nan)
    of_positives = placements(scores[positive], scores[negative])
    of_negatives = 1 - placements(scores[negative], scores[positive])
    area = float(of_positives.mean())
    size = int(codes.max()) + 1
    return (
        area,
        np.bincount(codes[positive], of_positives - area, size),
        np.bincount(codes[negative], of_negatives - area, size),
    )


def delong_interval(scores, labels, groups=None, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of one AUC on the logit scale, which keeps it inside (0, 1); (AUC, AUC) when the
    variance is 0."""
    aucs, covariance = delong(scores, labels, groups)
    area, variance = float(aucs[0]), float(covariance[0, 0])
    if variance == 0:
        return area, area
    if math.isnan(variance) or variance < 0 or not 0 < area < 1:
        return math.nan, math.nan
    # The logit's derivative is 1 / (A (1 - A)).
    half = ndtri((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    return 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit))


def delong_test(
    first, second, labels, groups=None, level: float = 0.95
) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of AUC(first) - AUC(second) on the same rows; p is two-sided.
    Equal rankings give (0, 0, 0, 1)."""
    aucs, covariance = delong(np.column_stack([first, second]), labels, groups)
    difference = float(aucs[0] - aucs[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if math.isnan(variance):
        return difference, math.nan, math.nan, math.nan
    error = math.sqrt(max(0.0, variance))
    half = float(ndtri((1 + level) / 2)) * error
    # Two equal rankings have a variance of rounding errors.
    if error > 1e-12:
        p = 2 * float(ndtr(-abs(difference) / error))
    else:
        p = float(difference == 0)
    return difference, difference - half, difference + half, p
