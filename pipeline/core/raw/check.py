"""The table that a competition's read_raw gives, checked before anything is written."""

import pandas as pd

from pipeline.core.artifacts.tables import IMAGE_COLUMNS, SPLITS
from pipeline.core.config.task import Task
from pipeline.core.raw.read import outside
from pipeline.core.raw.tables import LABELS, SAFE_NAME, refuse
from pipeline.core.runtime.errors import UserError

LONGEST = 200  # bytes of an image_id: file systems take names of 255


def check_raw_table(competition: str, table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The table with a fresh index, when every row can be prepared; else a UserError names the
    first that cannot."""
    where = f"{competition}: read_raw"
    for column in (*IMAGE_COLUMNS, *task.labels, *task.numeric, *task.categorical):
        if column not in table.columns:
            there = ", ".join(map(str, table.columns))
            raise UserError(f"{where}: the column {column!r} is missing; there are {there}")
    if not len(table):
        raise UserError(f"{where}: there are no rows")
    table = table.set_axis(range(len(table)))
    check_ids(where, table)
    check_files(where, table)
    split = table["split"]
    refuse(where, "split", split, ~split.isin(SPLITS), f"is none of {', '.join(SPLITS)}")
    if task.patient_missing == "error":
        patient = table["patient_id"].astype("str")
        refuse(where, "patient_id", patient, blank(table["patient_id"]), "is blank")
    for name in task.labels:
        check_label(where, table, name, task)
    return table


def blank(values: pd.Series) -> pd.Series:
    """True where a text cell is missing or empty."""
    return values.isna() | (values.astype("str").str.strip() == "")


def check_ids(where: str, table: pd.DataFrame) -> None:
    """image_id: present, unique, a plain file name."""
    if blank(table["image_id"]).any():
        raise UserError(
            f"{where}: row {int(blank(table['image_id']).argmax())}, column image_id: blank"
        )
    ids = table["image_id"].astype("str")
    refuse(
        where,
        "image_id",
        ids,
        ~ids.str.fullmatch(SAFE_NAME),
        "is no plain name (letters, digits, _ - .)",
    )
    refuse(where, "image_id", ids, ids.str.len() > LONGEST, f"is longer than {LONGEST} characters")
    refuse(where, "image_id", ids, ids.duplicated(), "stands there twice")


def check_files(where: str, table: pd.DataFrame) -> None:
    """file: present, below the raw folder."""
    if blank(table["file"]).any():
        raise UserError(f"{where}: row {int(blank(table['file']).argmax())}, column file: blank")
    files = table["file"].astype("str")
    refuse(where, "file", files, files.map(outside), "is no path inside the raw folder")


def check_label(where: str, table: pd.DataFrame, name: str, task: Task) -> None:
    """A label: 1, 0, -1 or blank; blank outside the test set only where the task says what that
    means."""
    numbers = pd.to_numeric(table[name], errors="coerce")
    present = ~blank(table[name])
    refuse(where, name, table[name], present & ~numbers.isin(LABELS), "is not 0, 1, -1 or blank")
    if task.blank == "error":
        missing = ~present & (table["split"] != "test")
        refuse(
            where,
            name,
            table[name].astype("str"),
            missing,
            "is blank, and the task's `blank` is 'error'",
        )
