"""Table 6: three rankings of 25 samples, 3 of them positive, with equal accuracy and very different
AUC.

    python -m pipeline.paper.table6

reads   nothing
writes  nothing; prints the table

The paper prints .78 for the last AUC; it is 52/66 = .7879.
"""

import argparse

import numpy as np

from pipeline.core.metrics import auc
from pipeline.core.runtime.command import run_stage, stage_parser

THRESHOLD = 0.5  # above it a sample is called positive; an AUC needs none
# At that threshold each makes two errors: 23 of 25 right, accuracy .92.
POSITIVES = {
    "Example 1": (0.9, 0.8, 0.7),
    "Example 2": (0.9, 0.41, 0.7),
    "Example 3": (0.9, 0.41, 0.40),
}
HIGH_NEGATIVES = {"Example 1": (0.6, 0.6), "Example 2": (0.6, 0.49), "Example 3": (0.49, 0.48)}
# The paper lists 0.47 to 0.42 and then only the last, 0.1: the 15 between lie below every positive.
LOW_NEGATIVES = (0.47, 0.47, 0.45, 0.43, 0.42, *np.linspace(0.38, 0.1, 15))


def table6_scores(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) of the 25 samples."""
    positives = POSITIVES[name]
    negatives = (*HIGH_NEGATIVES[name], *LOW_NEGATIVES)
    return np.array([*positives, *negatives]), np.repeat([1, 0], [len(positives), len(negatives)])


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The part of the samples on the right side of the threshold."""
    return float(np.mean((scores > THRESHOLD) == labels))


def main(_: argparse.Namespace) -> None:
    print(f"{'':12}accuracy     AUC  pairs ranked right")
    for name in POSITIVES:
        scores, labels = table6_scores(name)
        value = auc(scores, labels)
        # What the AUC counts: pairs of a positive and a negative, 3 x 22.
        pairs = int(labels.sum() * (1 - labels).sum())
        right = f"{round(value * pairs)} of {pairs}"
        print(f"{name:12}{accuracy(scores, labels):8.2f}{value:8.4f}  {right}")


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__, targets=False))
