"""Scores of networks to scores of units, by the averages of `ensemble`, from whatever there was
time for."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.run import METADATA
from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import blend_metadata, on_scale, weighted_mean
from pipeline.core.ensemble.units import unit_scores

Key = tuple[str, int]  # member and fold
Made = Mapping[
    Key, pd.DataFrame
]  # a row a picture, the labels that the member predicts as columns, NaN rows = none


def combine(
    about: dict,
    quantiles: Mapping,
    rows: pd.DataFrame,
    made: Made,
    task: Task,
    unreadable: Collection[int] = (),
) -> pd.DataFrame:
    """unit_id and the labels, one row a unit of `rows`, never NaN.

    about      package.json; quantiles: "members" of quantiles.json, where the blend's method needs
               it
    rows       what the pictures are: unit_id, and the view where frontal_first asks for it
    made       what has been scored so far, the metadata network among it
    unreadable positions of pictures that cannot be read: a unit of nothing else takes the mean of
    the other units A picture not reached yet is left out where its study has others, else it takes
    the mean of those that are. A label that no network has scored takes the share of positives in
    training.
    """
    names = list(about["labels"])
    scored = np.ones(len(rows), bool)
    for key, scores in made.items():
        scored &= (key[0] == METADATA) | scores.notna().all(axis=1).to_numpy()
    images = filled(
        image_scores(about, quantiles, made, scored), [about["prior"][name] for name in names]
    )
    patients = member_scores(METADATA, about, quantiles, made, np.ones(len(rows), bool))
    if patients is not None:
        images = blend_metadata(images, patients, about["metadata"])
    readable = rows["unit_id"][~np.isin(np.arange(len(rows)), list(unreadable))]
    kept = scored | ~rows["unit_id"].isin(rows["unit_id"][scored]).to_numpy()
    rows, images = rows[kept], images[kept]
    units = pd.unique(rows["unit_id"]) if task.unit == "study" else rows["unit_id"].to_numpy()
    scores = np.array(unit_scores(rows, images, task) if len(rows) else images)
    known = pd.Series(units).isin(readable).to_numpy()
    if known.any():
        scores[~known] = scores[known].mean(axis=0)
    return pd.DataFrame(scores, columns=names).assign(unit_id=units)[["unit_id", *names]]


def image_scores(about: dict, quantiles: Mapping, made: Made, scored: np.ndarray) -> np.ndarray:
    """(n, K) weighted mean of the runs that have been scored; NaN for the other rows, and for
    labels nobody scored."""
    images = np.full((len(scored), len(about["labels"])), np.nan)
    parts = {name: member_scores(name, about, quantiles, made, scored) for name in about["weights"]}
    parts = {name: part for name, part in parts.items() if part is not None}
    if parts:
        weights = np.array(
            [[about["weights"][name][label] for label in about["labels"]] for name in parts]
        )
        images[scored] = weighted_mean(list(parts.values()), weights)
    return images


def member_scores(
    name: str, about: dict, quantiles: Mapping, made: Made, rows: np.ndarray
) -> np.ndarray | None:
    """(n of `rows`, K) mean of a member's folds on the scale of the blend's method; None where no
    fold was scored."""
    folds = [
        comparable(key, scores[rows].reindex(columns=about["labels"]), about["method"], quantiles)
        for key, scores in made.items()
        if key[0] == name
    ]
    return np.mean(folds, axis=0) if folds else None


def comparable(key: Key, scores: pd.DataFrame, method: str, quantiles: Mapping) -> np.ndarray:
    """(n, K) of one network on the scale of "mean", "rank" (within these rows) or "quantile" (by
    its frozen maps)."""
    values = scores.to_numpy(np.float64)
    if method != "quantile" or not len(values):
        return on_scale(values, method)
    maps = quantiles[key[0]][f"fold{key[1]}"]
    return on_scale(values, method, maps=[maps.get(label) for label in scores.columns])


def filled(images: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """The scores with a column's mean where a row has none, and the prior where a column has
    none."""
    images = images.copy()
    for column, share in zip(images.T, prior, strict=True):
        gaps = np.isnan(column)
        column[gaps] = share if gaps.all() else column[~gaps].mean()
    return images
