"""Units (studies) as training sees them where a run has `bag`: which rows are one unit's, and the
one label that they share."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.run import Run
from pipeline.core.runtime.errors import UserError


def bags_of(run: Run, rows: pd.DataFrame) -> list[np.ndarray] | None:
    """The positions of each unit's rows, units in order of first appearance; None for a run that
    sees each image by itself."""
    if not run.bag:
        return None
    blank = rows["unit_id"].isna()
    if blank.any():
        image = rows["image_id"][blank].iloc[0]
        raise UserError(f"images.csv: image {image}: column unit_id: blank, and bag= needs units")
    return rows_of_units(rows["unit_id"])


def rows_of_units(units: Sequence[str]) -> list[np.ndarray]:
    """The positions of each unit, in order of first appearance.

    >>> rows_of_units(["b", "a", "b"])
    [array([0, 2]), array([1])]
    """
    codes, names = pd.factorize(pd.Series(units))
    order = np.argsort(codes, kind="stable")
    ends = np.bincount(codes, minlength=len(names)).cumsum()
    return np.split(order, ends[:-1]) if len(names) else []


def drawn_once(rows: pd.DataFrame, bags: Sequence[np.ndarray] | None) -> pd.DataFrame:
    """The rows under the id of their unit's first image, so that a smoothed label, which is drawn
    from the id, is the same for all of them."""
    if bags is None:
        return rows
    ids = rows["image_id"].to_numpy(object, copy=True)
    for images in bags:
        ids[images] = ids[images[0]]
    return rows.assign(image_id=ids)


def of_bags(values: np.ndarray, bags: Sequence[np.ndarray] | None) -> np.ndarray:
    """The largest of each unit's values (N, K) that is not NaN, (U, K): a unit is positive where
    one of its images is."""
    if bags is None:
        return values
    if not bags:
        return values[:0]
    # fmax passes over NaN.
    return np.fmax.reduceat(values[np.concatenate(bags)], starts_of(bags), axis=0)


def mean_of_bags(weights: np.ndarray, bags: Sequence[np.ndarray] | None) -> np.ndarray:
    """The mean of each unit's weights (N,): (U,)."""
    if bags is None:
        return weights
    sums = np.add.reduceat(weights[np.concatenate(bags)], starts_of(bags))
    return sums / np.array(list(map(len, bags)), weights.dtype)


def starts_of(bags: Sequence[np.ndarray]) -> np.ndarray:
    """Where each unit begins among the images of all, unit after unit."""
    return np.cumsum([0, *map(len, bags[:-1])])


def count_text(rows: pd.DataFrame, bags: Sequence[np.ndarray] | None) -> str:
    """`900 images`, or `900 images of 700 units`."""
    return f"{len(rows)} images" + ("" if bags is None else f" of {len(bags)} units")
