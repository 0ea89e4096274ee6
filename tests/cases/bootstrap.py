"""The percentile bootstrap of AUCs over patients, fast: what the score interval replaced, for tests
and benchmarks to compare with.

Scores are sorted once; a replicate is then only a count of draws per group, and its AUC a weighted
count of pairs. All replicates together are two sparse-times-dense products: 1,000 replicates of
33,126 rows in 2,056 patients take 40 to 90 ms against 8 to 20 s for resample-and-score.
"""

import numpy as np
from scipy.sparse import csr_array

from pipeline.core.metrics.bootstrap import CHUNK, draws, prepared
from pipeline.core.metrics.roc import checked_rows


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
