"""From the organiser's labels (1, 0, -1 = uncertain, blank) to the targets of one phase, with the
counts."""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np
import pandas as pd

from pipeline.core.config.task import Task, Uncertain


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
    """float32 (N, K) labels to score against: 1, 0, and NaN where uncertain, or blank unless blanks
    are negative."""
    return targets(images, labels, task, {}, seed=0)


def prevalence(images: pd.DataFrame, task: Task) -> pd.Series:
    """Label -> share of positives among the training rows of images.csv whose label is known; NaN
    where none is."""
    train = images[images["split"] == "train"]
    return pd.DataFrame(truth(train, task.labels, task), columns=list(task.labels)).mean()


def count_table(
    images: pd.DataFrame, labels: Sequence[str], made: np.ndarray, policies: Mapping[str, Uncertain]
) -> str:
    """A printed table: what was given for each label, the policy for -1, and what the loss will
    see."""
    rows = []
    for column, label in enumerate(labels):
        given, target = images[label].to_numpy(np.float64), made[:, column]
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
