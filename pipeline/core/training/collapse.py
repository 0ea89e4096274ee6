"""Networks that learn no ranking: some label's scores stay equal within every batch."""

import numpy as np

COLLAPSED = 5  # windows of equal scores, that is 100 steps, before a run is stopped


def all_equal(scores: np.ndarray) -> list[bool]:
    """Of each label, whether a batch's scores (B, K) are the same but for rounding."""
    # Some eight units in the last place of float32 (1.2e-7), relative to the largest score.
    rounding = 1e-6 * (1 + np.abs(scores).max(axis=0))
    return (np.ptp(scores, axis=0) <= rounding).tolist()


class CollapseCheck:
    """Counts the windows in a row in which some label's scores were equal within every batch.

    Within a batch, since a bias may still move from one to the next.

    level    of the window's batches so far: which labels' scores were all equal
    windows  such windows in a row
    """

    def __init__(self) -> None:
        self.level: list[list[bool]] = []
        self.windows = 0

    def add(self, scores: np.ndarray) -> None:
        """Note one batch's scores (B, K); those of a single image are equal and mean nothing."""
        if len(scores) > 1:
            self.level.append(all_equal(scores))

    def end_window(self) -> bool:
        """Count the window that ends here; True when there were COLLAPSED in a row."""
        # A label counts where it was level in every batch of the window.
        equal = bool(self.level) and bool(np.all(self.level, axis=0).any())
        self.windows = self.windows + 1 if equal else 0
        self.level = []
        return self.windows >= COLLAPSED
