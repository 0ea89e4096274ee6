"""Importing a fold map from elsewhere: the community's `tfrecord` shards, or any table of patients
or images and folds."""

from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.task import Task
from pipeline.core.folds.split import patient_keys, scored
from pipeline.core.runtime.errors import UserError

IDS = ("image_name", "image_id", "patient_id")  # the first that exists says what a row is about
NUMBERS = ("fold", "tfrecord")  # "tfrecord": the community's 15 shards of SIIM-ISIC 2020


def imported_folds(
    path: Path, images: pd.DataFrame, task: Task, modulo: int | None
) -> tuple[pd.Series, pd.DataFrame]:
    """(patient -> fold for every train and valid patient, rows of folds_dropped.csv for images the
    map removed).

    A patient in two folds, or a scored patient who is not in the map, is a UserError; other
    sources' patients who are not in it always train.
    """
    column, number, table = read_map(path)
    known = images[images["split"] != "test"]
    keys = patient_keys(known)

    # -1 in the community's shards marks a removed duplicate (434 of SIIM's images); in a map of
    # our own form it means "always trains".
    removed = pd.Series(False, index=table.index)
    if number == "tfrecord":
        removed = table[number] == -1

    # The patient of each row of the map, and the one fold of each patient.
    if column == "patient_id":
        patient = table[column]
    else:
        patient = table[column].map(keys.set_axis(known["image_id"]))
    here = patient.isin(keys) & ~removed
    fold = one_fold(path, patient[here], table.loc[here, number], modulo)

    # The images that the map removed; a map of patients removes none.
    gone = known["image_id"].isna()
    if column != "patient_id":
        gone = known["image_id"].isin(table.loc[removed, column])

    # Every patient with a scored image must be in it; put in the training set instead, a patient
    # would silently miss from the out-of-fold score.
    need = keys[scored(known, task) & ~gone.to_numpy()]
    lost = need[~need.isin(fold.index)]
    if len(lost):
        count = f"({lost.nunique()} such patients)"
        raise UserError(f"{path}: patient {lost.iloc[0]} of images.csv is not in it {count}")
    columns = {"image_id": known["image_id"][gone], "reason": f"removed by {path.name}", "twin": ""}
    return fold.reindex(sorted(keys.unique()), fill_value=-1), pd.DataFrame(columns)


def read_map(path: Path) -> tuple[str, str, pd.DataFrame]:
    """(id column, number column, table) with ids as strings and whole numbers from -1 on."""
    table = read_csv(path, ids=IDS)

    # What a row is about, and which column has its number.
    column = next((name for name in IDS if name in table), None)
    number = next((name for name in NUMBERS if name in table), None)
    if column is None or number is None:
        needed = f"{' or '.join(IDS)}, and {' or '.join(NUMBERS)}"
        raise UserError(f"{path}: columns {', '.join(table.columns)}; a fold map has {needed}")

    # Below -1 there is no meaning; a fraction would be cut to another fold's number.
    value = pd.to_numeric(table[number], errors="coerce")
    wrong = (value.isna() | (value % 1 != 0) | (value < -1)).to_numpy()
    if wrong.any():
        row = wrong.argmax()
        cell = table[number].iloc[row]
        where = f"{path}: row {row + 2}, column {number}"
        raise UserError(f"{where}: {cell!r} is not a whole number from -1 on")
    return column, number, table.assign(**{number: value.astype(int)})


def one_fold(path: Path, patient: pd.Series, fold: pd.Series, modulo: int | None) -> pd.Series:
    """patient -> fold; a UserError names a patient who has two."""
    # 15 shards become 5 folds; -1 % 5 would be 4, so negative numbers stay.
    if modulo:
        fold = fold.where(fold < 0, fold % modulo)
    pairs = pd.DataFrame({"patient": patient, "fold": fold}).drop_duplicates()
    pairs = pairs.sort_values(["patient", "fold"])
    twice = pairs["patient"].duplicated(keep=False)
    if twice.any():
        name = pairs["patient"][twice].iloc[0]
        both = ", ".join(map(str, pairs["fold"][pairs["patient"] == name]))
        reason = "images of one patient would train and validate"
        raise UserError(f"{path}: patient {name} is in folds {both}: {reason}")
    return pairs.set_index("patient")["fold"]
