"""Averages of views, folds, runs and the metadata network, the same at home and where a submission
is made.

Needs numpy only, so that inference on another machine imports nothing more.

A member's scores are first brought to one scale (`on_scale`):
    "mean"      as they are
    "rank"      ranks within the rows that one network scored (a fold's validation images, or the
                test set), over n
    "quantile"  by a map from score to quantile, frozen from the fold's own out-of-fold scores: as
                good as ranks, and a test set of one row, or one fed row by row, gives the same
                values as the whole
and then averaged with weights, label by label, over the members that have that label
(`weighted_mean`, `blend_metadata`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

FrozenMap = Mapping[str, Sequence[float]]  # increasing "values" and their "quantiles" in (0, 1)

# Knots of a frozen map: every score near both ends, where AUC is decided, and even steps between.
END_KNOTS = 256
MIDDLE_KNOTS = 1024


def on_scale(
    scores: np.ndarray,
    method: str,
    folds: np.ndarray | None = None,
    maps: Sequence[FrozenMap | None] = (),
) -> np.ndarray:
    """Scores (n, K) on the scale on which they are averaged; columns of NaN stay NaN.

    method  "mean": the scores themselves; "rank": ranks in (0, 1); "quantile": quantiles in (0, 1)
    folds   for "rank": (n,), which network scored each row; None where one network scored all
    maps    for "quantile": a frozen map for each column, None for a column that has none (NaN)
    """
    if method == "mean":
        return scores
    if method == "rank":
        return ranks_within(scores, np.zeros(len(scores)) if folds is None else folds)
    # quantiles: a column without a map is one that the member does not predict
    quantiles = np.full(scores.shape, np.nan)
    for column, frozen in enumerate(maps):
        if frozen:
            quantiles[:, column] = apply_map(scores[:, column], frozen)
    return quantiles


def normalised_ranks(scores: np.ndarray) -> np.ndarray:
    """(rank - 1/2) / n of each score (n,), ties sharing their mean rank: in (0, 1), mean 1/2."""
    # rank - 1/2 = (how many are below + how many are below or equal) / 2, ties included
    ordered = np.sort(scores)
    twice = ordered.searchsorted(scores, "left") + ordered.searchsorted(scores, "right")
    return twice / (2 * max(len(scores), 1))


def ranks_within(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Normalised ranks of each column of (n, K) within each group (n,) of rows, a fold say; NaN
    columns stay NaN."""
    # networks of different folds may differ in scale, so only ranks within a fold can be pooled
    ranks = np.full(scores.shape, np.nan)
    for group in np.unique(groups):
        rows = groups == group
        for column in range(scores.shape[1]):
            if not np.isnan(scores[rows, column]).any():
                ranks[rows, column] = normalised_ranks(scores[rows, column])
    return ranks


def quantile_map(scores: np.ndarray) -> dict[str, list[float]]:
    """The frozen map of scores (n,), n >= 1: increasing `values` and their `quantiles` in (0, 1);
    lists, for JSON."""
    # the quantile of a value is that of the middle of its ties, as in `normalised_ranks`
    values, counts = np.unique(np.asarray(scores, np.float64), return_counts=True)
    quantiles = (np.cumsum(counts) - counts / 2) / counts.sum()

    # keep at most 2 * END_KNOTS + MIDDLE_KNOTS of them
    last = len(values) - 1
    low_end = np.arange(END_KNOTS)
    high_end = last - np.arange(END_KNOTS)
    middle = np.round(np.linspace(0, last, MIDDLE_KNOTS)).astype(int)
    knots = np.unique(np.concatenate([low_end, high_end, middle]).clip(0, last))
    return {"values": values[knots].tolist(), "quantiles": quantiles[knots].tolist()}


def apply_map(scores: np.ndarray, frozen: FrozenMap) -> np.ndarray:
    """Quantiles in (0, 1) of scores (n,) by a frozen map. Between knots straight lines; beyond them
    the remaining quantile shrinks with the distance, so that scores higher than any seen keep their
    order."""
    scores = np.asarray(scores, np.float64)
    values = np.asarray(frozen["values"], np.float64)
    quantiles = np.asarray(frozen["quantiles"], np.float64)
    inside = np.interp(scores, values, quantiles)

    # beyond the knots: in (0, 1], 1 at the last knot; a map of one value has no spread, so 1 serves
    spread = (values[-1] - values[0]) or 1.0
    above = spread / (spread + np.maximum(scores - values[-1], 0))
    below = spread / (spread + np.maximum(values[0] - scores, 0))
    mapped = np.where(scores < values[0], quantiles[0] * below, inside)
    return np.where(scores > values[-1], 1 - (1 - quantiles[-1]) * above, mapped)


def weighted_mean(
    members: Sequence[np.ndarray], weights: np.ndarray | None = None, method: str = "mean"
) -> np.ndarray:
    """Mean over members of (n, K) scores, each column over the members that have it (NaN columns
    are left out).

    weights: (M,) or (M, K); uniform when None. A column that no member has, or only members of
    weight 0, is NaN. method: ranks and quantiles are rounded to 12 decimals, so that sums of ranks
    that are equal stay tied: on the real CheXpert test set pairs were decided by the 16th digit.
    """
    stacked = np.stack(members)

    # weights (M, K), 0 where a member does not have the column
    present = ~np.isnan(stacked).all(axis=1)
    weights = np.ones(len(stacked)) if weights is None else np.asarray(weights, np.float64)
    if weights.ndim == 1:
        weights = weights[:, None]
    weights = weights * present

    # a NaN times weight 0 would still be NaN, hence 0 in its place
    total = weights.sum(axis=0)
    summed = np.einsum("mnk,mk->nk", np.where(present[:, None, :], stacked, 0.0), weights)
    mean = np.divide(summed, total, out=np.full(summed.shape, np.nan), where=total > 0)
    return mean if method == "mean" else np.round(mean, 12)


def blend_metadata(
    images: np.ndarray, metadata: np.ndarray, share: float, method: str = "mean"
) -> np.ndarray:
    """(1 - share) of the images' mean and `share` of the metadata network, (n, K) each; a label
    that only one of them has is taken from that one."""
    return weighted_mean([images, metadata], np.array([1 - share, share]), method)
