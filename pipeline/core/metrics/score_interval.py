"""Intervals of an AUC and of a mean of AUCs, for few positives and for patients with several rows;
no resampling, O(n log n). Their paired difference: `exchange_test`.

With few positives an AUC near 1 is skewed, and its estimated variance is small just when the AUC
came out high: an interval built from the estimate and its own variance starts too high. A score
interval asks instead, for each candidate value t, whether the AUC found is within reach of t with
the variance that t itself implies (Newcombe 2006, method 5, Statistics in Medicine 25, 559-573):

    (A - t)^2 <= q^2 r V(t; m, n)                                                            (1)
    V(t; m, n) = t (1 - t) [1 + h (1 - t) / (2 - t) + h t / (1 + t)] / (m n),                (2)
    h = (m + n) / 2 - 1.

A is the AUC found. Newcombe has m positives, n negatives, r = 1 and q the normal quantile. Here:

- Rows of one patient count less. With m_g positives in patient g and rho the correlation of two
  scores of one class and patient (of their ranks, Kish 1965),
      m = P / [1 + rho (sum m_g^2 / P - 1)],  P = sum m_g,  and n likewise.                  (3)
- r corrects V by DeLong's clustered variance D of the data (Obuchowski 1997), as far as the data
  can tell a variance: w is the degrees of freedom of D, few where placements have a high kurtosis,
      r = [c + w D / V(A; m, n)] / (c + w),  c = 1.5,                                        (4)
      w = 2 / [1 / (A (1 - A)) - 3.2] * (m' + n') m' n' / (m'^2 - m' n' + n'^2),             (5)
  m' = P^2 / sum m_g^2 - 1 (Kish's effective number of patients, less one), and n' likewise. The
  first factor is 2 / (kurtosis - 1) of binormal placements within 10 % for A from .5 to .99; the
  second is Satterthwaite's for the two classes in (2).
- q is Student's t quantile at (c + w)^2 / w degrees of freedom, those of r.                 (6)

(3), (4), (5) and their use with (1) were chosen by simulation (bench_intervals.py), as were s_j in
(7); no publication vouches for them. With
c -> infinity and one row per patient, (1) is Newcombe's interval.

Too few to tell: fewer than 5 positives, 5 negatives, or 5 patients having either; the limits are
NaN.
"""

import math

import numpy as np
from scipy.special import ndtri, stdtrit

from pipeline.core.metrics.delong import group_codes, placements
from pipeline.core.metrics.roc import checked_rows, midranks, paired_columns

FEW = 5  # positives, negatives, and patients with either, below which nothing is told
PRIOR = 1.5  # c in (4): how many degrees of freedom equation (2) is worth
PAIRS = 2  # rows of unknown correlation that are taken as fully correlated in (3)
STEPS = 60  # bisections of (1): the error is below 1e-16


class Column:
    """One score column against one label, reduced to what the intervals need.

    area: AUC. counts (2, G): positives and negatives per patient. sums (2, G): placements less the
    AUC, summed per patient and divided by the size of the class. sizes: m and n of (3). patients:
    m' + 1 and n' + 1 of (5). All float64.
    """

    def __init__(self, scores, labels, codes: np.ndarray, groups: int) -> None:
        scores, positive, negative = checked_rows(scores, labels)
        masks = positive, negative
        values = [scores[mask] for mask in masks]
        owners = [codes[mask] for mask in masks]
        self.counts = np.stack([np.bincount(owner, minlength=groups) for owner in owners])
        self.counts = self.counts.astype(np.float64)
        self.area = math.nan
        if not self.counts.any(axis=1).all():
            return
        # Placements: the share of the other class that a row beats.
        beaten = placements(values[0], values[1])
        beating = 1 - placements(values[1], values[0])
        self.area = float(beaten.mean())
        # Each patient's share in the error of the AUC, from its positives and from its negatives.
        self.sums = np.stack(
            [
                np.bincount(owner, share - self.area, groups) / len(share)
                for owner, share in zip(owners, (beaten, beating))
            ]
        )
        rho = self.correlation(values, owners)
        rows = self.counts.sum(axis=1)
        crowding = (self.counts**2).sum(axis=1) / rows
        self.sizes = rows / (1 + rho * (crowding - 1))
        self.patients = rows / crowding

    def correlation(self, values: list[np.ndarray], owners: list[np.ndarray]) -> float:
        """rho of (3): mean product of the standardised ranks of two rows of one class and patient.

        Each patient with several rows of the class weighs as many as it has, and PAIRS rows of
        correlation 1 are added: 1 where nothing is known.
        """
        products = float(PAIRS)
        rows = float(PAIRS)
        for value, owner, count in zip(values, owners, self.counts):
            several = count > 1
            if not several.any():
                continue
            rows += count[several].sum()
            rank = midranks(value)
            rank -= rank.mean()
            spread = math.sqrt((rank**2).mean())
            if spread == 0:
                products += count[several].sum()
                continue
            rank /= spread
            total = np.bincount(owner, rank, len(count))[several]
            own = np.bincount(owner, rank**2, len(count))[several]
            products += ((total**2 - own) / (count[several] - 1)).sum()
        return min(1.0, max(0.0, products / rows))

    def interval_terms(self, variance: float) -> tuple[float, float]:
        """(r, degrees of freedom) of (4) to (6), from the clustered DeLong variance D."""
        m, n = self.sizes
        implied = float(variance_of(self.area, m, n))
        if implied <= 0 or not variance > 0:
            return 1.0, math.inf
        known = information(self.area, *(self.patients - 1))
        if known <= 0:
            return 1.0, math.inf
        ratio = (PRIOR + known * variance / implied) / (PRIOR + known)
        return ratio, (PRIOR + known) ** 2 / known

    def limits(self, reach: float) -> tuple[float, float]:
        """(low, high): the values t that satisfy (1); reach = q^2 r."""
        m, n = self.sizes
        ends = []
        for outer in (0.0, 1.0):
            inner = self.area
            for _ in range(STEPS):
                middle = (inner + outer) / 2
                if (self.area - middle) ** 2 <= reach * variance_of(middle, m, n):
                    inner = middle
                else:
                    outer = middle
            ends.append((inner + outer) / 2)
        return ends[0], ends[1]


def variance_of(area: float, m: float, n: float) -> float:
    """V of (2)."""
    half = (m + n) / 2 - 1
    pairs = 1 + half * (1 - area) / (2 - area) + half * area / (1 + area)
    return area * (1 - area) * max(pairs, 0.0) / (m * n)


def information(area: float, m: float, n: float) -> float:
    """w of (5), from m' and n'; 0 where a class has a single patient."""
    if min(m, n) <= 1e-9:
        return 0.0
    kurtosis = 1 / (area * (1 - area)) - 3.2
    return 2 / kurtosis * (m + n) * m * n / (m * m - m * n + n * n)


def reduced(scores: np.ndarray, labels: np.ndarray, groups) -> list[Column]:
    """The columns of scores (n, K) against those of labels (n, K), on common patients."""
    codes = group_codes(groups, len(scores))
    size = int(codes.max(initial=-1)) + 1
    return [Column(score, label, codes, size) for score, label in zip(scores.T, labels.T)]


def too_few(columns: list[Column]) -> bool:
    """Whether nothing is told: fewer than FEW rows or patients of a class over all labels together,
    or fewer than two patients of a class for one label."""
    counts = sum(column.counts for column in columns)
    patients = (counts > 0).sum(axis=1)
    if min(counts.sum(axis=1).min(), patients.min()) < FEW:
        return True
    return any((column.counts > 0).sum(axis=1).min() < 2 for column in columns)


def covariance_of(columns: list[Column]) -> np.ndarray:
    """Clustered DeLong covariance (K, K) of the AUCs of K columns, as
    `metrics.delong`, also for columns of different labels.

    Each class is corrected by its own number of patients, G / (G - 1), and their product by all.
    """

    def corrected(place: int, present: np.ndarray) -> np.ndarray:
        sums = np.stack([column.sums[place] for column in columns])
        return sums * np.sqrt(present / (present - 1))[:, None]

    either = np.array([column.counts.any(axis=0).sum() for column in columns])
    cross = corrected(0, either) @ corrected(1, either).T
    covariance = cross + cross.T
    for place in (0, 1):
        own = np.array([(column.counts[place] > 0).sum() for column in columns])
        sums = corrected(place, own)
        covariance += sums @ sums.T
    return covariance


def mean_limits(columns: list[Column], level: float) -> tuple[float, float]:
    """(low, high) of the mean AUC of K columns.

    The distances d_j from each AUC to its limit add up like standard errors (MOVER, Zou and Donner
    2008), with DeLong's correlations R_jk between the AUCs:
        low = mean - sqrt(sum_jk R_jk d_j d_k) / K, and likewise high.                       (7)
    At a limit of the mean, AUC j alone is not at its own limit but at s_j of the way, s_j being its
    correlation with the mean; so d_j is 1 / s_j times the distance at which (1) holds for q s_j.
    All use one t quantile, of the degrees of freedom f, where p_j is column j's share of that sum:
        1 / f = sum_jk |R_jk| p_j p_k / sqrt(f_j f_k).                                       (8)
    For K = 1 this is (1).
    """
    covariance = covariance_of(columns)
    areas = np.array([column.area for column in columns])
    variances = np.diag(covariance)
    terms = [column.interval_terms(variance) for column, variance in zip(columns, variances)]
    ratios = [ratio for ratio, _ in terms]
    freedom = np.array([freedom for _, freedom in terms])
    related = correlations(covariance)
    probability = (1 + level) / 2

    def distances(quantile: float, part: np.ndarray) -> np.ndarray:
        ends = [
            column.limits((quantile * s) ** 2 * ratio)
            for column, ratio, s in zip(columns, ratios, part)
        ]
        return np.abs(np.array(ends).T - areas) / part

    # The normal quantile tells each column's share in the variance and correlation with the mean.
    whole = np.ones(len(columns))
    wide = distances(float(ndtri(probability)), whole).mean(axis=0)
    with_mean = related @ wide
    total = max(float(wide @ with_mean), 1e-300)
    part = np.clip(with_mean / math.sqrt(total), 0.05, 1.0) if len(columns) > 1 else whole
    # They tell the degrees of freedom of the sum.
    weights = wide * with_mean / total / np.sqrt(freedom)
    inverse = float(weights @ np.abs(related) @ weights)
    quantile = float(stdtrit(1 / inverse, probability) if inverse > 0 else ndtri(probability))
    below, above = (
        math.sqrt(max(0.0, d @ related @ d)) / len(columns) for d in distances(quantile, part)
    )
    mean = float(areas.mean())
    return max(0.0, mean - below), min(1.0, mean + above)


def correlations(covariance: np.ndarray) -> np.ndarray:
    """Correlation matrix (K, K); 0 beside the diagonal where a variance is 0."""
    error = np.sqrt(np.diag(covariance))
    scale = np.outer(error, error)
    related = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(related, 1.0)
    return np.clip(related, -1, 1)


def checked_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")


def auc_interval(
    scores,
    labels,
    groups=None,
    level: float = 0.95,
    replicates: int | None = None,
    seed: int | None = None,
) -> tuple[float, float]:
    """(low, high) of the AUC of scores (n,) for labels (n,) of 0, 1, NaN; groups (n,) are patients,
    None = independent rows.

    (NaN, NaN) when there are too few to tell. replicates, seed: nothing is resampled; they are
    taken since callers of the bootstrap gave them.
    """
    del replicates, seed
    return mean_auc_interval(np.ravel(scores), labels, groups, level)


def mean_auc_interval(scores, labels, groups=None, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of the mean over columns of their AUCs; scores (n, K), labels (n, K) or (n,).

    (NaN, NaN) when all labels together have too few to tell, or one label has a class in fewer than
    two patients.
    """
    checked_level(level)
    columns = reduced(*paired_columns(scores, labels), groups)
    if not columns or too_few(columns):
        return math.nan, math.nan
    return mean_limits(columns, level)
