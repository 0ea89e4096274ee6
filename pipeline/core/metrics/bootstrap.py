"""Bootstrap intervals and permutation tests of AUCs, resampling whole groups (patients, studies).

A replicate draws as many groups as there are, with replacement. Scores are sorted once; a replicate
is then only a count of draws per group, and its AUC a weighted count of pairs. All replicates
together are two sparse-times-dense products: 1,000 replicates of 33,126 rows in 2,056 patients take
40 to 90 ms against 8 to 20 s for resample-and-score. The same seed and the same groups give the
same draws, so columns, models and labels scored in separate calls share their resamples, and
differences of such replicates are paired.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array

from pipeline.core.metrics.delong import group_codes
from pipeline.core.metrics.roc import auc, auc_of_classes, checked_rows

# Numbers held at once per array (32 MB): beyond the caches a larger chunk is no faster.
CHUNK = 4_000_000


def draws(groups: int, replicates: int, seed: int, chunk: int) -> Iterator[np.ndarray]:
    """Blocks (groups, <= chunk) of float64: how often each group is drawn in each replicate; each
    column sums to `groups`."""
    generator = np.random.default_rng(seed)
    for start in range(0, replicates, chunk):
        width = min(chunk, replicates - start)
        block = np.empty((width, groups))
        for row in block:
            row[:] = np.bincount(generator.integers(groups, size=groups), minlength=groups)
        # Counting wants a replicate a row, the products below a replicate a column.
        yield np.ascontiguousarray(block.T)


class PairCounter:
    """The pairs of one score column, counted once so that any number of draws per group can be
    scored.

    Levels are the distinct scores of the rarer class. `below` (levels, groups) holds each row of
    the other class at the first level above it, a tied row half at its own level and half at the
    next; its running sum times `at` (levels, groups) is the number of pairs in order.
    """

    def __init__(self, scores, labels, codes: np.ndarray, groups: int) -> None:
        scores, positive, negative = checked_rows(scores, labels)
        # The rarer class gives the levels; where it is the negatives, 1 - AUC is counted.
        self.flipped = bool(np.count_nonzero(positive) > np.count_nonzero(negative))
        keys, others = (negative, positive) if self.flipped else (positive, negative)
        self.defined = bool(keys.any())
        if not self.defined:
            return
        levels, level = np.unique(scores[keys], return_inverse=True)
        left = levels.searchsorted(scores[others], "left")
        right = levels.searchsorted(scores[others], "right")
        self.at = csr_array(
            (np.ones(len(level)), (level, codes[keys])), shape=(len(levels), groups)
        )
        # An untied row has left = right, so its two halves fall on one level.
        halves = np.full(2 * len(left), 0.5)
        places = (np.concatenate([left, right]), np.tile(codes[others], 2))
        self.below = csr_array((halves, places), shape=(len(levels) + 1, groups))
        for matrix in (self.at, self.below):
            matrix.sum_duplicates()

    @property
    def width(self) -> int:
        """Replicates that fit into one chunk."""
        if not self.defined:
            return CHUNK
        return max(1, CHUNK // max(self.below.shape))

    def aucs(self, counts: np.ndarray) -> np.ndarray:
        """AUC of each replicate (R,) from draws per group (groups, R); NaN where a class was not
        drawn."""
        if not self.defined:
            return np.full(counts.shape[1], np.nan)
        at = self.at @ counts
        below = self.below @ counts
        pairs = at.sum(axis=0) * below.sum(axis=0)
        won = np.zeros(counts.shape[1])
        running = np.zeros(counts.shape[1])
        # Level by level: numpy's cumsum down the columns is 3 times slower.
        for at_level, below_level in zip(at, below):
            running += below_level
            won += at_level * running
        # 0 / 0 = NaN where a class is missing.
        with np.errstate(invalid="ignore"):
            areas = won / pairs
        return 1 - areas if self.flipped else areas


def bootstrap_aucs(
    scores, labels, groups=None, replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """AUC of every replicate: (replicates,) for scores (n,), (replicates, K) for scores (n, K), one
    resample shared by all columns.

    labels: (n,) or (n, K) of 0, 1, NaN. Rows without any label are left out before groups are
    drawn. NaN in a replicate that drew one class only.
    """
    columns, truth, codes, count = prepared(scores, labels, groups)
    pairs = zip(columns.T, truth.T)
    counters = [PairCounter(column, label, codes, count) for column, label in pairs]
    # As many replicates at once as fit into memory for the column that needs most.
    widths = [counter.width for counter in counters]
    width = max(1, min([*widths, CHUNK // max(count, 1)]))
    blocks = []
    for block in draws(count, replicates, seed, width):
        aucs = [counter.aucs(block) for counter in counters]
        blocks.append(np.stack(aucs, axis=1))
    result = np.concatenate(blocks)
    return result[:, 0] if np.ndim(scores) == 1 else result


def bootstrap_metric(
    metric: Callable, scores, labels, groups=None, replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """Any metric(scores, labels) on the resamples of `bootstrap_aucs` (replicates,), by drawing the
    rows: some hundred times slower than that."""
    columns, truth, codes, count = prepared(np.ravel(scores), labels, groups)
    scores = columns[:, 0]
    truth = truth[:, 0]
    values = []
    for block in draws(count, replicates, seed, max(1, CHUNK // max(count, 1))):
        for weights in block.T:
            times = weights[codes].astype(np.int64)
            rows = np.repeat(np.arange(len(codes)), times)
            values.append(metric(scores[rows], truth[rows]))
    return np.array(values)


def prepared(scores, labels, groups) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(scores (m, K), labels (m, K), group codes (m,), number of groups) of the rows with at least
    one label."""
    columns, truth = as_columns(np.asarray(scores), np.asarray(labels))
    # Before rows are left out, so that an error names the caller's row.
    for column, label in zip(columns.T, truth.T):
        checked_rows(column, label)
    codes = group_codes(groups, len(columns))
    if truth.dtype.kind in "fO":
        known = ~np.isnan(truth.astype(np.float64)).all(axis=1)
        columns = columns[known]
        truth = truth[known]
        codes = codes[known]
    kept, codes = np.unique(codes, return_inverse=True)
    return columns, truth, codes, len(kept)


def as_columns(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) or (n, K) -> (n, K) scores and labels; one column of labels stands for all K."""
    columns = scores[:, None] if scores.ndim == 1 else scores
    truth = labels[:, None] if labels.ndim == 1 else labels
    if len(truth) != len(columns) or truth.shape[1] not in (1, columns.shape[1]):
        raise ValueError(
            f"scores of shape {scores.shape} and labels of shape {labels.shape} do not fit"
        )
    return columns, np.broadcast_to(truth, columns.shape)


def percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """(low, high): the central `level` of the values that are not NaN; NaN when none is."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def auc_interval(
    scores, labels, groups=None, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the AUC, by the percentile bootstrap over groups (n,) such as patients; over
    rows when None.

    Replicates that draw one class only are left out; (NaN, NaN) when the labels have one class
    only.
    """
    return percentiles(bootstrap_aucs(np.ravel(scores), labels, groups, replicates, seed), level)


def mean_auc_interval(
    scores, labels, groups=None, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean over columns of their AUCs; scores (n, K), labels (n, K). Columns are
    resampled together, so that their correlation counts."""
    return percentiles(bootstrap_aucs(scores, labels, groups, replicates, seed).mean(axis=1), level)


def auc_difference(
    first, second, labels, groups=None, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of AUC(first) - AUC(second) on the same rows, or of the means over
    columns for arrays (n, K).

    Both are scored on the same resamples of groups (paired percentile bootstrap). p is two-sided:
    twice the smaller share of replicates on one side of 0, counting the observed one, hence >= 2 /
    (replicates + 1); it is < 1 - level when the interval excludes 0, up to interpolation.
    `delong_test` has no such floor; `permutation_test` is exact for a small sample.
    """
    truth = np.asarray(labels)
    difference = mean_auc(first, truth) - mean_auc(second, truth)
    # The same seed draws the same groups for both.
    of_first = bootstrap_aucs(first, truth, groups, replicates, seed)
    of_second = bootstrap_aucs(second, truth, groups, replicates, seed)
    differences = of_first - of_second
    if differences.ndim == 2:
        differences = differences.mean(axis=1)
    return difference, *percentiles(differences, level), two_sided(differences)


def two_sided(differences: np.ndarray) -> float:
    """Two-sided bootstrap p of the hypothesis that the difference is 0; NaN without replicates."""
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return float("nan")
    # Two equal rankings differ by rounding only.
    tolerance = 1e-12
    at_most = np.count_nonzero(differences <= tolerance)
    at_least = np.count_nonzero(differences >= -tolerance)
    smaller = int(min(at_most, at_least))
    return min(1.0, 2 * (1 + smaller) / (1 + len(differences)))


def mean_auc(scores, labels) -> float:
    """Mean over columns of their AUCs: scores (n, K), labels (n, K) or (n,); plain AUC for (n,).
    NaN when a column has one class only."""
    if np.ndim(scores) == 1:
        return auc(scores, labels)
    columns, truth = as_columns(np.asarray(scores), np.asarray(labels))
    return float(np.mean([auc(column, label) for column, label in zip(columns.T, truth.T)]))


def permutation_test(
    first, second, labels, groups=None, permutations: int = 1000, seed: int = 0
) -> float:
    """Two-sided p that two score columns (n,) rank equally well: the two models' ranks are
    exchanged, a whole group at a time.

    Scores are replaced by their midranks first, since only ranks can be exchanged between models on
    different scales. The observed arrangement counts as one: p >= 1 / (permutations + 1).
    """
    ranks = []
    for scores in (first, second):
        scores, positive, negative = checked_rows(scores, labels)
        known = positive | negative
        ranks.append(midranks(scores[known]))
    positive = positive[known]
    codes = group_codes(groups, len(known))[known]

    def difference(swap: np.ndarray) -> float:
        """AUC of the first minus that of the second, the ranks exchanged where `swap` is True."""
        one = np.where(swap, ranks[1], ranks[0])
        other = np.where(swap, ranks[0], ranks[1])
        of_one = auc_of_classes(one[positive], one[~positive])
        return of_one - auc_of_classes(other[positive], other[~positive])

    observed = abs(difference(np.zeros(len(codes), bool)))
    if np.isnan(observed):
        return float("nan")
    generator = np.random.default_rng(seed)
    size = int(codes.max(initial=0)) + 1
    as_large = 0
    for _ in range(permutations):
        swap = generator.random(size)[codes] < 0.5
        # 1e-12: arrangements that are equal differ by rounding only.
        as_large += bool(abs(difference(swap)) >= observed - 1e-12)
    return (1 + as_large) / (1 + permutations)


def midranks(values) -> np.ndarray:
    """Ranks from 1, tied values sharing their mean rank: float64 (n,)."""
    values = np.asarray(values)
    ordered = np.sort(values)
    return (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right") + 1) / 2


def roc_band(
    scores,
    labels,
    groups=None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    grid=None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(false positive rates, low, high): the pointwise band of the true positive rate over the
    bootstrap replicates of groups.

    grid: false positive rates to read at, default 201 from 0 to 1. A curve is read between its
    points by straight lines; where it is vertical, at the upper end.
    """
    grid = np.linspace(0, 1, 201) if grid is None else np.asarray(grid, float)
    columns, truth, codes, count = prepared(np.ravel(scores), labels, groups)
    scores, positive, negative = checked_rows(columns[:, 0], truth[:, 0])
    if not positive.any() or not negative.any():
        return grid, np.full(len(grid), np.nan), np.full(len(grid), np.nan)

    # Sorted once; a replicate only changes how often each row counts.
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    ordered = scores[order]
    positive = positive[order]
    codes = codes[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    curves = []
    for block in draws(count, replicates, seed, max(1, CHUNK // len(codes))):
        for weights in block.T:
            curve = read_curve(weights[codes], positive, last, grid)
            if curve is not None:
                curves.append(curve)
    low, high = np.quantile(np.array(curves), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return grid, low, high


def read_curve(
    weights: np.ndarray, positive: np.ndarray, last: np.ndarray, grid: np.ndarray
) -> np.ndarray | None:
    """True positive rate at each false positive rate of the grid, for weighted rows in falling
    order of score; None with one class."""
    true_positives = np.cumsum(weights * positive)[last]
    false_positives = np.cumsum(weights)[last] - true_positives
    if not true_positives[-1] or not false_positives[-1]:
        return None
    x = np.append(0, false_positives) / false_positives[-1]
    y = np.append(0, true_positives) / true_positives[-1]
    # The point at or left of the grid value: the upper end of a vertical piece.
    end = np.searchsorted(x, grid, "right") - 1
    after = np.minimum(end + 1, len(x) - 1)
    # Between points a straight line; where x does not move, its slope is not used.
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x[after] > x[end], (grid - x[end]) / (x[after] - x[end]), 0.0)
    return y[end] + share * (y[after] - y[end])
