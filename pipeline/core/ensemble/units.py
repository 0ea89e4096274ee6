"""Units, what the organiser scores: images, or studies whose image scores are aggregated."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth
from pipeline.core.config.task import Task
from pipeline.core.folds.split import patient_keys


@dataclass(frozen=True)
class Units:
    """What the organiser scores, one row each in order of first appearance.

    keys   unit_id, image_id (the unit's first), split, fold, patient_id
    truth  (U, K) of 1, 0, NaN = not scored
    """

    keys: pd.DataFrame
    truth: np.ndarray


def unit_of_image(images: pd.DataFrame) -> pd.Series:
    """The unit id of each row of images.csv: unit_id, or image_id where there is no such column."""
    return images["unit_id"] if "unit_id" in images else images["image_id"]


def units_of(images: pd.DataFrame, task: Task) -> Units:
    """The units of some rows of images.csv. A unit is positive when one of its images is; test rows
    have no truth."""
    unit = unit_of_image(images)
    keys = pd.DataFrame(
        {
            "unit_id": unit.to_numpy(),
            "image_id": images["image_id"].to_numpy(),
            "split": images["split"].to_numpy(),
            "patient_id": patient_keys(images).to_numpy(),
            "fold": images["fold"].to_numpy() if "fold" in images else -1,
        }
    )
    # no rows: the test images may not have been scored
    if len(images):
        known = truth(images, task.labels, task)
    else:
        known = np.empty((0, len(task.labels)), np.float32)
    is_test = (images["split"] == "test").to_numpy()
    known = np.where(is_test[:, None], np.nan, known)
    # a study is positive when one of its images is; NaN only where all its images are NaN
    if task.unit == "study":
        known = pd.DataFrame(known).groupby(unit.to_numpy(), sort=False).max().to_numpy()
        keys = keys.drop_duplicates("unit_id").reset_index(drop=True)
    return Units(keys, known)


def to_units(images: pd.DataFrame, scores: np.ndarray, task: Task) -> np.ndarray:
    """Image scores (n, K) of these rows to unit scores (U, K), the rows of `units_of`."""
    return unit_scores(images, scores, task) if len(images) else scores


def aggregate(
    scores: np.ndarray, unit: np.ndarray, how: str, frontal: np.ndarray | None = None
) -> np.ndarray:
    """Image scores (n, K) to unit scores (U, K), units in order of first appearance.

    unit: (n,) ids. how: "max", "mean", or "frontal_first": the mean of a unit's frontal images, of
    all its images where it has none; frontal: (n,) bool, needed for that.
    """
    # sort=False keeps the order of first appearance, which `units_of` has too
    columns = pd.DataFrame(scores)
    if how == "frontal_first":
        if frontal is None:
            raise ValueError("frontal_first needs to know which images are frontal")
        has_frontal = pd.Series(frontal).groupby(unit, sort=False).transform("any").to_numpy()
        kept = np.asarray(frontal) | ~has_frontal
        means = columns[kept].groupby(np.asarray(unit)[kept], sort=False).mean()
        # a unit's first image may have been left out, which would change the order
        return means.reindex(pd.unique(pd.Series(unit))).to_numpy()
    grouped = columns.groupby(np.asarray(unit), sort=False)
    return (grouped.max() if how == "max" else grouped.mean()).to_numpy()


def unit_scores(images: pd.DataFrame, scores: np.ndarray, task: Task) -> np.ndarray:
    """Image scores (n, K) of the rows of images.csv `images` to the task's unit: (n, K) itself for
    images, else (U, K) with units in order of first appearance of unit_id."""
    if task.unit == "image":
        return scores
    frontal = None
    if task.view:
        frontal = (images[task.view].astype("str").str.lower() == "frontal").to_numpy()
    return aggregate(scores, images["unit_id"].to_numpy(), task.aggregate, frontal)
