"""Making folds.csv: by the search, from an imported map, or from the organiser's own validation
set."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.config.task import OFFICIAL, Task
from pipeline.core.folds.balanced_search import group_table, split_groups
from pipeline.core.folds.groups import links, patient_groups
from pipeline.core.folds.import_map import imported_folds
from pipeline.core.folds.split import (
    TEST_TWIN,
    external_twins,
    first_reasons,
    patient_keys,
    scored,
    shared_with_test,
    taking_part,
)
from pipeline.core.runtime.errors import UserError


def split(
    folder: Path,
    images: pd.DataFrame,
    task: Task,
    folds: int | None = None,
    seed: int = 0,
    path: Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """(folds.csv, folds_dropped.csv, how they were made): from the map at `path`, or by the search,
    or the official.

    folds: what --folds says, None = the task's choice; folder: where images.csv is, for messages.
    """
    # External twins of scored and test images leave first: they have no say in the folds. The
    # links take a minute at 223,414 images, so they are found once.
    linked = links(images, task)
    dropped = dropped_images(images, linked, task)

    # The fold of every patient, by one of the three ways.
    wanted = task.folds if folds is None else folds
    removed = dropped[:0]
    if path:
        origin = {"by": "import", "map": path.name}
        if folds:
            origin["modulo"] = folds
        fold, removed = imported_folds(path, images, task, folds)
    elif wanted == OFFICIAL:
        origin = {"by": OFFICIAL}
        fold, removed = official_folds(folder, images, linked)
    else:
        origin = {"by": "search", "folds": wanted, "seed": seed}
        fold = searched_folds(folder, images, linked, dropped, task, wanted, seed)

    # An image may be dropped for two reasons; folds_dropped.csv names one.
    dropped = first_reasons(dropped, removed)
    return fold_table(images, fold, dropped), dropped, origin


def dropped_images(images: pd.DataFrame, linked: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Rows of folds_dropped.csv for twins of scored and test images, and for test patients where
    the task says so."""
    dropped = external_twins(images, linked, task)

    # Knowing a test patient's other images is fair in some competitions and a leak in others.
    if task.test_patients == "drop":
        shared = shared_with_test(images)
        rows = images[images["patient_id"].isin(shared) & (images["split"] != "test")]
        known = rows[["image_id"]].assign(reason="patient is in the test set", twin="")
        dropped = first_reasons(dropped, known)
    return dropped


def searched_folds(
    folder: Path,
    images: pd.DataFrame,
    linked: pd.DataFrame,
    dropped: pd.DataFrame,
    task: Task,
    folds: int,
    seed: int,
) -> pd.Series:
    """patient -> fold by `split_groups`; groups without a scored image get -1."""
    if folds < 2:
        reason = "one fold would validate everyone and leave no one to train on"
        raise UserError(f"--folds {folds}: {reason}; at least 2")

    # Only images that will be validated are shared out: the others weigh nothing in a score.
    groups = patient_groups(images, linked)
    rows = images[scored(images, task) & taking_part(images, dropped)]
    patient = patient_keys(rows).to_numpy()
    group = groups.loc[patient].to_numpy()

    # A patient's images form one group, and a group is never cut.
    count = len(np.unique(group))
    if count < folds:
        available = f"{count} groups of patients that have nothing in common"
        asked = f"{folder / 'images.csv'}: {folds} folds asked of {available}"
        raise UserError(f"{asked}; ask for fewer with --folds")

    # The search over what each group brings to a fold.
    labels = rows.assign(**{label: pd.to_numeric(rows[label]) for label in task.labels})
    table = group_table(labels, group, patient, task.labels, task.categorical)
    fold = pd.Series(split_groups(table, folds, seed), index=table.index)

    # Groups of external images only have no fold: they always train.
    return groups.map(fold).fillna(-1).astype(int)


def official_folds(
    folder: Path, images: pd.DataFrame, linked: pd.DataFrame
) -> tuple[pd.Series, pd.DataFrame]:
    """(patient -> 0 for the patients of the organiser's validation set, -1 for all others; the
    training images to drop because their group reaches into that set)."""
    keys = patient_keys(images)
    valid = keys[images["split"] == "valid"]
    if valid.empty:
        reason = "no row is 'valid', so there is no official validation set"
        where = f"{folder / 'images.csv'}: column split"
        raise UserError(f"{where}: {reason}; ask for folds with --folds 5")

    # The groups of validation images, and the first image of each.
    groups = patient_groups(images, linked)
    ids = images["image_id"][valid.index].to_numpy()
    first = pd.Series(ids, index=groups.loc[valid]).groupby(level=0).min()

    # The organiser's validation set stays whole, or its AUC would not compare with published ones:
    # what belongs to it leaves the training set.
    group = keys.map(groups)
    hit = (images["split"] == "train") & group.isin(first.index)
    removed = pd.DataFrame(
        {
            "image_id": images["image_id"][hit],
            "reason": "belongs together with a validation image",
            "twin": keys[hit].map(groups).map(first),
        }
    )
    return pd.Series(np.where(groups.index.isin(valid), 0, -1), index=groups.index), removed


def fold_table(images: pd.DataFrame, fold: pd.Series, dropped: pd.DataFrame) -> pd.DataFrame:
    """folds.csv, by patient; a patient none of whose images takes part gets -1.

    Twins of test images count as taking part here, so that test rows leave folds.csv as it was.
    """
    # In a fold, a patient with no image left would be counted there and validate nothing.
    lasting = dropped[~dropped["reason"].str.startswith(TEST_TWIN)]
    present = patient_keys(images)[taking_part(images, lasting)].unique()
    table = fold.where(fold.index.isin(present), -1).sort_index()
    return pd.DataFrame({"patient_id": table.index, "fold": table.to_numpy()})
