"""Scores of networks to scores of units, by the averages of `ensemble`, from whatever networks
there was time for.

A network is known by its member and fold. Its table has one row for each image, in the images'
order, and as columns the labels that the member predicts; a row of NaN is an image not scored.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.run import METADATA, fold_name
from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import blend_metadata, on_scale, weighted_mean
from pipeline.core.ensemble.units import unit_scores

Key = tuple[str, int | str]  # member and fold
ScoreTables = Mapping[Key, pd.DataFrame]


def combine_runs(
    package: dict,
    quantiles: Mapping,
    rows: pd.DataFrame,
    tables: ScoreTables,
    task: Task,
    unreadable: Collection[int] = (),
    earned: np.ndarray | None = None,
) -> pd.DataFrame:
    """The scores of the units of `rows`: columns unit_id and the labels, a row a unit, never NaN.

    package    what package.json says
    quantiles  "members" of quantiles.json, where the blend's method needs it
    rows       the images: unit_id, and the view where frontal_first asks for it
    tables     what has been scored so far, by the metadata network too
    unreadable positions of images that cannot be read: a unit of nothing else takes the mean of the
               other units
    earned     (n, K) scores of the earned combination, instead of the runs' mean

    An image not reached yet is left out where its study has others, else it takes the mean of those
    that are. A label that no network has scored takes the share of positives in training.
    """
    labels = list(package["labels"])

    # Image networks; an image counts as scored when every one of them has scored it.
    scored = np.ones(len(rows), bool)
    for key, scores in tables.items():
        if key[0] != METADATA:
            scored &= scores.notna().all(axis=1).to_numpy()
    images = earned
    if images is None:
        images = mean_image_scores(package, quantiles, tables, scored)
    images = without_gaps(images, [package["prior"][label] for label in labels])

    # The metadata network, which scores every row.
    patients = member_scores(METADATA, package, quantiles, tables, np.ones(len(rows), bool))
    if patients is not None:
        images = blend_metadata(images, patients, package["metadata"])

    # Units: of their scored images, of all where none is. A study's maximum is then over real
    # scores, not over the means that fill the gaps of images still to come.
    is_readable = ~np.isin(np.arange(len(rows)), list(unreadable))
    readable_units = rows["unit_id"][is_readable]
    unit_scored = rows["unit_id"].isin(rows["unit_id"][scored]).to_numpy()
    kept = scored | ~unit_scored
    rows = rows[kept]
    images = images[kept]
    units = pd.unique(rows["unit_id"]) if task.unit == "study" else rows["unit_id"].to_numpy()
    scores = np.array(unit_scores(rows, images, task) if len(rows) else images)

    # A unit none of whose images can be read: the mean of the others says nothing either way.
    known = pd.Series(units).isin(readable_units).to_numpy()
    if known.any():
        scores[~known] = scores[known].mean(axis=0)
    return pd.DataFrame(scores, columns=labels).assign(unit_id=units)[["unit_id", *labels]]


def mean_image_scores(
    package: dict, quantiles: Mapping, tables: ScoreTables, scored: np.ndarray
) -> np.ndarray:
    """float64 (n, K) weighted mean of the runs that have been scored; NaN for rows that are not
    `scored` (n,), and for labels that no network scored."""
    # A member without any scored fold is left out; the mean is over the others.
    labels = package["labels"]
    parts = []
    weights = []
    for member, of_label in package["weights"].items():
        part = member_scores(member, package, quantiles, tables, scored)
        if part is not None:
            parts.append(part)
            weights.append([of_label[label] for label in labels])
    images = np.full((len(scored), len(labels)), np.nan)
    if parts:
        images[scored] = weighted_mean(parts, np.array(weights))
    return images


def member_scores(
    member: str, package: dict, quantiles: Mapping, tables: ScoreTables, rows: np.ndarray
) -> np.ndarray | None:
    """float64 (rows.sum(), K) mean of a member's folds on the scale of the blend's method, for the
    rows that are True in `rows` (n,); None where no fold was scored."""
    # Each fold on the common scale first: folds are calibrated differently.
    folds = []
    for key, scores in tables.items():
        if key[0] == member:
            scores = scores[rows].reindex(columns=package["labels"])
            folds.append(scores_on_scale(key, scores, package["method"], quantiles))
    return np.mean(folds, axis=0) if folds else None


def scores_on_scale(key: Key, scores: pd.DataFrame, method: str, quantiles: Mapping) -> np.ndarray:
    """float64 (n, K) of one network on the scale of "mean", "rank" (within these rows) or
    "quantile" (by its frozen maps)."""
    values = scores.to_numpy(np.float64)
    if method != "quantile" or not len(values):
        return on_scale(values, method)
    # Maps from out-of-fold scores, so that a score does not depend on which images came with it.
    maps = quantiles[key[0]][fold_name(key[1])]
    return on_scale(values, method, maps=[maps.get(label) for label in scores.columns])


def without_gaps(images: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """The scores (n, K) with a column's mean where a row has none, and its prior where the whole
    column has none."""
    # The organiser refuses a file with a single blank.
    images = images.copy()
    for column, share in zip(images.T, prior, strict=True):
        gaps = np.isnan(column)
        column[gaps] = share if gaps.all() else column[~gaps].mean()
    return images
