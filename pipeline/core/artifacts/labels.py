"""Labels (1, 0, -1 = uncertain, blank): which values are valid, and the targets they become.

Equation of a target: the label itself; -1 by the label's policy; blank by the task's rule.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import pandas as pd

from pipeline.core.config.task import Task, Uncertain

LABELS = (1.0, 0.0, -1.0)  # positive, negative, uncertain
NOT_A_LABEL = "is not 0, 1, -1 or blank"  # what an error says of any other value


def valid_labels(cells: pd.Series | np.ndarray, blank: pd.Series | np.ndarray) -> np.ndarray:
    """True where a cell is 1, 0 or -1, as a number or as text, or is a blank, (n,) bool.

    blank: (n,) bool, the cells that are blank and may be; what counts as blank depends on the file.
    """
    numbers = pd.to_numeric(pd.Series(cells), errors="coerce")
    return numbers.isin(LABELS).to_numpy() | np.asarray(blank, bool)


def targets(
    images: pd.DataFrame,
    labels: Sequence[str],
    task: Task,
    policies: Mapping[str, Uncertain],
    seed: int,
) -> np.ndarray:
    """float32 (N, K) targets in [0, 1], NaN where a label is left out of the loss.

    A blank is 0 or left out as the task says; -1 follows the label's policy, drawn once per image
    from (seed, image_id, label) where it is smoothed, so neither row order nor interruption changes
    it.
    """
    columns = [
        one_label(images, label, task, policies.get(label, Uncertain()), seed) for label in labels
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def one_label(
    images: pd.DataFrame, label: str, task: Task, policy: Uncertain, seed: int
) -> np.ndarray:
    """float64 (N,) targets of one label."""
    given = images[label].to_numpy(np.float64)
    values = given.copy()
    if task.blank == "negative":
        values[np.isnan(given)] = 0.0
    uncertain = given == -1
    if policy.policy == "ignore":
        values[uncertain] = np.nan
    elif policy.smooth:
        ids = images["image_id"].to_numpy()[uncertain]
        values[uncertain] = [
            policy.low + (policy.high - policy.low) * part(seed, label, image) for image in ids
        ]
    else:
        values[uncertain] = float(policy.policy == "ones")
    return values


def part(seed: int, label: str, image_id: str) -> float:
    """A number in [0, 1) that depends on these three alone."""
    return np.random.default_rng((seed, crc32(label.encode()), crc32(image_id.encode()))).random()


def truth(images: pd.DataFrame, labels: Sequence[str], task: Task) -> np.ndarray:
    """float32 (N, K) labels to score against: 1, 0, and NaN where uncertain.

    A blank is 0 where the task says that blanks are negative, else NaN.
    """
    values = np.stack([images[label].to_numpy(np.float64) for label in labels], axis=1)
    if task.blank == "negative":
        values[np.isnan(values)] = 0.0
    values[values == -1] = np.nan
    return values.astype(np.float32)


def prevalence(images: pd.DataFrame, task: Task) -> pd.Series:
    """Label -> share of positives among the training rows of images.csv whose label is known; NaN
    where none is."""
    train = images[images["split"] == "train"]
    return pd.DataFrame(truth(train, task.labels, task), columns=list(task.labels)).mean()


def targets_text(
    images: pd.DataFrame,
    labels: Sequence[str],
    values: np.ndarray,
    policies: Mapping[str, Uncertain],
) -> str:
    """The targets (N, K) as a printed table: what was given for each label, the policy for -1, and
    what the loss will see."""
    rows = []
    for column, label in enumerate(labels):
        given = images[label].to_numpy(np.float64)
        target = values[:, column]
        policy = policies.get(label, Uncertain())
        drawn = f" in [{policy.low}, {policy.high}]" if policy.smooth else ""
        rows.append(
            {
                "label": label,
                "1": (given == 1).sum(),
                "0": (given == 0).sum(),
                "-1": (given == -1).sum(),
                "blank": np.isnan(given).sum(),
                "-1 becomes": policy.policy + drawn if (given == -1).any() else "",
                "positive": (target > 0.5).sum(),
                "negative": (target <= 0.5).sum(),
                "left out": np.isnan(target).sum(),
            }
        )
    return pd.DataFrame(rows).to_string(index=False)
