"""Files in the organiser's form: what is true of its units, and what radiologists called them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth as task_truth
from pipeline.core.artifacts.labels import valid_labels
from pipeline.core.artifacts.tables import align
from pipeline.core.config.competition import Competition
from pipeline.core.metrics import reader_point
from pipeline.core.metrics.roc import classes
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.ids import plain_id


@dataclass(frozen=True)
class Truth:
    """The organiser's units: ids (n,), truth (n, K) of 1, 0, NaN, groups (n,) of patients."""

    ids: pd.Series
    labels: np.ndarray
    groups: np.ndarray


def read_table(path: Path, needed: Sequence[str], identity: str) -> pd.DataFrame:
    """A CSV with its ids as text, without trailing slashes; UserError for a missing file or column,
    or a blank id."""
    try:
        table = pd.read_csv(path, dtype={identity: "str", "patient_id": "str"})
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: this is no CSV file: {error}") from None
    for column in (identity, *needed):
        if column not in table.columns:
            raise UserError(
                f"{path}: the column {column!r} is missing; there are "
                f"{', '.join(map(str, table.columns))}"
            )
    if table[identity].isna().any():
        raise UserError(
            f"{path}: row {int(table[identity].isna().argmax()) + 2}, column {identity}: blank"
        )
    table[identity] = table[identity].map(plain_id)
    return table


def read_truth(competition: Competition, path: Path) -> Truth:
    """The truth of every label, one row an id; UserError for a value that is no label or a label of
    one class only."""
    task, submission = competition.task, competition.submission
    names = [submission.columns[label] for label in task.labels]
    table = read_table(path, names, submission.id_column)
    align(path, table, table[submission.id_column], "", submission.id_column)  # no id twice
    values = numbers(path, table, names, blank=task.blank != "error")
    for column, name in enumerate(names):
        wrong = ~valid_labels(values[:, column], np.isnan(values[:, column]))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"{path}: row {row + 2}, column {name}: {values[row, column]:g} is not 0, 1, -1 "
                "or blank"
            )
    known = task_truth(pd.DataFrame(values, columns=list(task.labels)), task.labels, task)
    for name, defined in zip(names, classes(known)):
        if not defined:
            raise UserError(f"{path}: column {name} has one class only; an AUC needs both")
    return Truth(table[submission.id_column], known, groups_of(table, submission.id_column))


def groups_of(table: pd.DataFrame, identity: str) -> np.ndarray:
    """The patient of each row: patient_id, else patientNNNNN in the id, else the row itself."""
    ids = table[identity]
    found = table["patient_id"] if "patient_id" in table else ids.str.extract(r"(patient\d+)")[0]
    return found.fillna(ids).to_numpy(object)


def numbers(path: Path, table: pd.DataFrame, names: Sequence[str], blank: bool) -> np.ndarray:
    """Columns as float64 (n, K); UserError naming the first cell that is no finite number (nor
    blank, if allowed)."""
    values = np.stack(
        [pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in names], axis=1
    )
    wrong = ~np.isfinite(values) & ~(blank & table[list(names)].isna().to_numpy())
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise UserError(
            f"{path}: row {table.index[row] + 2}, column {names[column]}: "
            f"{str(table[names[column]].iloc[row])!r} is no finite number"
        )
    return values


def read_readers(
    competition: Competition, folder: Path, known: Truth
) -> dict[str, list[tuple[float, float]]]:
    """label -> (specificity, sensitivity) of each reader, a CSV of 0/1 calls each, in the order of
    the file names."""
    identity, columns = competition.submission.id_column, competition.submission.columns
    paths = sorted(path for path in folder.glob("*.csv*") if path.is_file())
    if not paths:
        raise UserError(f"{folder}: no CSV file of a reader in it")
    points: dict[str, list[tuple[float, float]]] = {label: [] for label in competition.task.labels}
    for path in paths:
        names = [columns[label] for label in points]
        table = read_table(path, names, identity)
        calls = numbers(path, table, names, blank=False)[
            align(path, table, known.ids, "of the truth", identity)
        ]
        for column, label in enumerate(points):
            if not np.isin(calls[:, column], (0, 1)).all():
                raise UserError(f"{path}: column {names[column]}: a call is not 0 or 1")
            points[label].append(reader_point(calls[:, column], known.labels[:, column]))
    return points
