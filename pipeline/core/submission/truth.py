"""Files in the organiser's form: the true labels of its units, and radiologists' calls of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth as task_truth
from pipeline.core.artifacts.labels import valid_labels
from pipeline.core.artifacts.tables import align, read_csv
from pipeline.core.config.competition import Competition
from pipeline.core.metrics import reader_point
from pipeline.core.metrics.roc import classes
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.ids import plain_id


@dataclass(frozen=True)
class Truth:
    """The organiser's units: ids (n,), labels (n, K) of 1, 0, NaN, groups (n,) of patients."""

    ids: pd.Series
    labels: np.ndarray
    groups: np.ndarray


def read_truth_table(path: Path, needed: Sequence[str], identity: str) -> pd.DataFrame:
    """A CSV with its ids as text, without trailing slashes; UserError for a missing file or column,
    or a blank id."""
    table = read_csv(path, (identity, *needed), ids=(identity,))

    # Rows count as an editor shows them: the header is row 1.
    blank = table[identity].isna()
    if blank.any():
        raise UserError(f"{path}: row {int(blank.argmax()) + 2}, column {identity}: blank")
    table[identity] = table[identity].map(plain_id)
    return table


def read_truth(competition: Competition, path: Path) -> Truth:
    """The truth of every label, one row an id.

    UserError for an id that is there twice, a value that is not a label, and a label of one class
    only.
    """
    task = competition.task
    identity = competition.submission.id_column
    columns = [competition.submission.columns[label] for label in task.labels]
    table = read_truth_table(path, columns, identity)
    align(path, table, table[identity], "", identity)  # raises for an id that is there twice

    # The labels as they were given.
    values = numeric_columns(path, table, columns, blank=task.blank != "error")
    valid = [valid_labels(column, np.isnan(column)) for column in values.T]
    wrong = ~np.stack(valid, axis=1)
    for k in np.flatnonzero(wrong.any(axis=0)):
        row = int(np.argmax(wrong[:, k]))
        where = f"{path}: row {row + 2}, column {columns[k]}"
        raise UserError(f"{where}: {values[row, k]:g} is not 0, 1, -1 or blank")

    # The labels to score against: what is uncertain is not scored.
    labels = task_truth(pd.DataFrame(values, columns=list(task.labels)), task.labels, task)
    for column, both in zip(columns, classes(labels)):
        if not both:
            raise UserError(f"{path}: column {column} has one class only; an AUC needs both")
    return Truth(table[identity], labels, patients_of(table, identity))


def patients_of(table: pd.DataFrame, identity: str) -> np.ndarray:
    """The patient of each row (n,): patient_id, else patientNNNNN in the id, else the id."""
    # CheXpert's `groundtruth.csv` names the patient in the study's path only; an id without one is
    # a patient of its own, so that the interval over patients is one over rows.
    ids = table[identity]
    if "patient_id" in table:
        patients = table["patient_id"]
    else:
        patients = ids.str.extract(r"(patient\d+)")[0]
    return patients.fillna(ids).to_numpy(object)


def numeric_columns(
    path: Path, table: pd.DataFrame, names: Sequence[str], blank: bool
) -> np.ndarray:
    """Columns as float64 (n, K); UserError naming the first cell that is not a finite number (nor
    blank, if allowed)."""
    # Text becomes NaN here, and is distinguished from a blank below.
    columns = [pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in names]
    values = np.stack(columns, axis=1)
    wrong = ~np.isfinite(values)
    if blank:
        wrong &= ~table[list(names)].isna().to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        cell = str(table[names[column]].iloc[row])
        where = f"{path}: row {table.index[row] + 2}, column {names[column]}"
        raise UserError(f"{where}: {cell!r} is not a finite number")
    return values


def reader_files(folder: Path) -> list[Path]:
    """The CSV of each reader, gzipped or not, in the order of their names."""
    return sorted(path for path in folder.glob("*.csv*") if path.is_file())


def read_readers(
    competition: Competition, folder: Path, truth: Truth
) -> dict[str, list[tuple[float, float]]]:
    """label -> (specificity, sensitivity) of each reader, a CSV of 0/1 calls each, in the order of
    `reader_files`."""
    # The organiser's columns, which need not be named as the task's labels are.
    identity = competition.submission.id_column
    labels = competition.task.labels
    columns = [competition.submission.columns[label] for label in labels]
    paths = reader_files(folder)
    if not paths:
        raise UserError(f"{folder}: no CSV file of a reader in it")

    # One point a reader: a yes or no has no threshold to draw a curve with.
    points: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    for path in paths:
        table = read_truth_table(path, columns, identity)
        places = align(path, table, truth.ids, "of the truth", identity)
        calls = numeric_columns(path, table, columns, blank=False)[places]
        for k, label in enumerate(labels):
            if not np.isin(calls[:, k], (0, 1)).all():
                raise UserError(f"{path}: column {columns[k]}: a call is not 0 or 1")
            points[label].append(reader_point(calls[:, k], truth.labels[:, k]))
    return points
