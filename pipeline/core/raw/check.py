"""Checks of the table that a competition's read_raw returns, before anything is written."""

import sys

import pandas as pd

from pipeline.core.artifacts.labels import NOT_A_LABEL, valid_labels
from pipeline.core.artifacts.tables import IMAGE_COLUMNS, SPLITS
from pipeline.core.config.task import Task
from pipeline.core.raw.read import is_outside
from pipeline.core.raw.tables import NOT_A_NAME, SAFE_NAME, is_formula, refuse
from pipeline.core.runtime.errors import UserError

MAX_ID_BYTES = 200  # bytes of an image_id: file systems take names of 255


def check_raw_table(competition: str, table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return the table with an index 0..n-1 when every row can be prepared.

    Otherwise a UserError names the column, the row and the value of the first that cannot.
    """
    where = f"{competition}: read_raw"

    # All columns, and at least one row.
    for column in (*IMAGE_COLUMNS, *task.labels, *task.numeric, *task.categorical):
        if column not in table.columns:
            present = ", ".join(map(str, table.columns))
            raise UserError(f"{where}: the column {column!r} is missing; there are {present}")
    if not len(table):
        raise UserError(f"{where}: there are no rows")
    table = table.set_axis(range(len(table)))

    # Then the cells, column by column.
    check_image_ids(where, table)
    check_files(where, table)
    split = table["split"]
    refuse(where, "split", split, ~split.isin(SPLITS), f"is none of {', '.join(SPLITS)}")
    if task.patient_missing == "error":
        patient = table["patient_id"].astype("str")
        refuse(where, "patient_id", patient, blank(table["patient_id"]), "is blank")
    for name in task.labels:
        check_label(where, table, name, task)
    warn_of_formulas(where, table, ("patient_id", "unit_id", *task.categorical))
    return table


def blank(values: pd.Series) -> pd.Series:
    """True where a text cell is missing or empty."""
    return values.isna() | (values.astype("str").str.strip() == "")


def check_filled(where: str, table: pd.DataFrame, column: str) -> None:
    """Raise a UserError that names the first row where a column is blank."""
    empty = blank(table[column])
    if empty.any():
        raise UserError(f"{where}: row {int(empty.argmax())}, column {column}: blank")


def check_image_ids(where: str, table: pd.DataFrame) -> None:
    """image_id: filled, unique, a plain file name."""
    check_filled(where, table, "image_id")
    ids = table["image_id"].astype("str")
    too_long = f"is longer than {MAX_ID_BYTES} characters"
    refuse(where, "image_id", ids, ~ids.str.fullmatch(SAFE_NAME), NOT_A_NAME)
    refuse(where, "image_id", ids, ids.str.len() > MAX_ID_BYTES, too_long)
    refuse(where, "image_id", ids, ids.duplicated(), "occurs twice")


def check_files(where: str, table: pd.DataFrame) -> None:
    """file: filled, below the raw folder."""
    check_filled(where, table, "file")
    files = table["file"].astype("str")
    refuse(where, "file", files, files.map(is_outside), "is not a path inside the raw folder")


def warn_of_formulas(where: str, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Print a warning for each of the columns with a cell that a spreadsheet would run."""
    for column in columns:
        runs = is_formula(table[column])
        if runs.any():
            first = int(runs.argmax())
            print(
                f"warning: {where}: row {first}, column {column}: {table[column].iloc[first]!r} "
                f"begins like a formula ({runs.sum()} such rows): do not open images.csv in a "
                "spreadsheet",
                file=sys.stderr,
            )


def check_label(where: str, table: pd.DataFrame, name: str, task: Task) -> None:
    """A label: 1, 0, -1 or blank; outside the test set blank only where `task.blank` allows it."""
    values = table[name]
    empty = blank(values)
    refuse(where, name, values, ~valid_labels(values, empty), NOT_A_LABEL)
    if task.blank == "error":
        missing = empty & (table["split"] != "test")
        reason = "is blank, and the task's `blank` is 'error'"
        refuse(where, name, values.astype("str"), missing, reason)
