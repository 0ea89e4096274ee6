"""Rows that train and rows that validate, for one fold: the rule that every stage uses.

folds.csv gives a patient's fold; -1 always trains. folds_dropped.csv (image_id, reason, twin) lists
images that take no part: twins of a validation or test image, and duplicates removed by an imported
map. Rows of other sources than the task's scored one train but are never validated.
"""

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.task import Task

# Reasons for which two images show the same; a lesion may be photographed twice.
SAME_IMAGE = ("duplicate_of", "phash")
SCORED_TWIN = "twin of a scored image"
TEST_TWIN = "twin of a test image"
DROPPED_COLUMNS = ("image_id", "reason", "twin")


def patient_keys(images: pd.DataFrame) -> pd.Series:
    """The patient of every image, as folds.csv names it: patient_id, or "image:<image_id>" where
    that is blank."""
    # An image without a patient is a patient of its own: it belongs together with nothing.
    alone = "image:" + images["image_id"].astype(str)
    return images["patient_id"].fillna(alone).astype(str)


def scored(images: pd.DataFrame, task: Task) -> np.ndarray:
    """True for the images that may be validated, (rows,): not test, and from the task's scored
    source.

    A table without that source (all of one origin, named otherwise) counts as scored throughout.
    """
    known = (images["split"] != "test").to_numpy()
    if "source" not in images or not task.scored_source:
        return known
    # External images come from other cameras and hospitals; an AUC over both would partly measure
    # how well the network tells the sources apart.
    own = (images["source"] == task.scored_source).to_numpy()
    return known & own if (known & own).any() else known


def read_dropped(competition: str) -> pd.DataFrame:
    """folds_dropped.csv; without that file nothing is dropped."""
    path = data_folder(competition) / "folds_dropped.csv"
    if not path.is_file():
        return pd.DataFrame(columns=list(DROPPED_COLUMNS), dtype="str")
    return read_csv(path, DROPPED_COLUMNS, ids=DROPPED_COLUMNS).astype("str")


def fold_of(images: pd.DataFrame, folds: pd.DataFrame) -> pd.Series:
    """The fold of every image's patient, float; NaN for test images and for patients folds.csv does
    not name."""
    by_patient = folds.set_index(folds["patient_id"].astype(str))["fold"]
    fold = patient_keys(images).map(by_patient).astype(float)
    # A patient may have both training and test images: the latter neither train nor validate.
    return fold.where(images["split"] != "test")


def taking_part(images: pd.DataFrame, dropped: pd.DataFrame, test: bool = False) -> np.ndarray:
    """True for train and valid images that are not dropped, (rows,); with `test`, for test images
    too."""
    here = (test | (images["split"] != "test")).to_numpy()
    return here & ~images["image_id"].isin(dropped["image_id"]).to_numpy()


def training_images(
    images: pd.DataFrame, folds: pd.DataFrame, dropped: pd.DataFrame, fold: int | str
) -> pd.DataFrame:
    """The images that train when `fold` validates: all that take part and whose patient is not in
    that fold. No patient is in ALL."""
    own = fold_of(images, folds)
    # NaN != fold is true: without the test for NaN, unknown patients would train.
    elsewhere = own.notna().to_numpy() & (own != fold).to_numpy()
    return images[taking_part(images, dropped) & elsewhere]


def validation_rows(
    images: pd.DataFrame, folds: pd.DataFrame, dropped: pd.DataFrame, fold: int | str, task: Task
) -> pd.DataFrame:
    """The images that `fold` validates: the scored images of its patients that take part; none for
    ALL."""
    own = (fold_of(images, folds) == fold).to_numpy()
    return images[own & taking_part(images, dropped) & scored(images, task)]


def external_twins(images: pd.DataFrame, linked: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Images of other sources that show the same as a scored or test image, as rows of
    folds_dropped.csv."""
    # Every pair both ways: (row that may be dropped, its twin).
    same = linked[linked["reason"].isin(SAME_IMAGE)]
    both = pd.DataFrame(
        {
            "row": np.append(same["first"], same["second"]).astype(int),
            "twin": np.append(same["second"], same["first"]).astype(int),
            "by": np.tile(same["reason"].to_numpy(), 2),
        }
    )

    # An external image goes, the scored or test image stays: only that one is ever scored.
    test = (images["split"] == "test").to_numpy()
    own = scored(images, task)
    external = ~test & ~own
    hit = both[external[both["row"]] & (test | own)[both["twin"]]]

    # A row for each image, with the reason in words.
    kind = pd.Series(np.where(test[hit["twin"]], TEST_TWIN, SCORED_TWIN), index=hit.index)
    ids = images["image_id"].to_numpy()
    columns = {
        "image_id": ids[hit["row"]],
        "reason": kind + " (" + hit["by"] + ")",
        "twin": ids[hit["twin"]],
    }
    return first_reasons(pd.DataFrame(columns))


def first_reasons(*tables: pd.DataFrame) -> pd.DataFrame:
    """Rows of folds_dropped.csv from several tables, one per image, in the order of image_id."""
    # The empty table gives the columns where there is no other row; sorted by all of them, so
    # that which of two reasons is named does not depend on the order of the tables.
    columns = list(DROPPED_COLUMNS)
    table = pd.concat([pd.DataFrame(columns=columns, dtype="str"), *tables])
    return table.sort_values(columns).drop_duplicates("image_id").reset_index(drop=True)


def shared_with_test(images: pd.DataFrame) -> set[str]:
    """The patients who have both test images and others; blank ids are left out."""
    test = images["split"] == "test"
    known = images["patient_id"].notna()  # two blanks are not one patient
    return set(images["patient_id"][test & known]) & set(images["patient_id"][~test & known])
