"""Auxiliary columns (`Run.auxiliary`): what stage 1 is taught beside the labels.

reads   data/<comp>/auxiliary.csv    image_id and columns, written once from the raw download by the
                                     competition's `auxiliary(raw)`; columns of images.csv need none
        data/<comp>/auxiliary.json   the digest of what was written
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash, read_json
from pipeline.core.artifacts.labels import valid_labels
from pipeline.core.artifacts.paths import data_folder, raw_folder
from pipeline.core.artifacts.provenance import write_sidecar
from pipeline.core.artifacts.tables import check_id_column, first_ids, read_csv, write_csv
from pipeline.core.config.run import Auxiliary
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError

AUXILIARY = "auxiliary.csv"


def auxiliary_targets(job: Job, rows: pd.DataFrame, columns: Sequence[Auxiliary]) -> np.ndarray:
    """float32 (N, A) targets of auxiliary columns of the run: 1, 0, NaN where one is left out."""
    parts = [np.empty((len(rows), 0), np.float32)]
    for one in columns:
        values = auxiliary_column(job, rows, one.column)
        parts.append(class_targets(values, one) if one.classes else label_targets(values, one))
    return np.concatenate(parts, axis=1)


def auxiliary_column(job: Job, rows: pd.DataFrame, column: str) -> pd.Series:
    """A column's values for these rows, from images.csv or from the competition's own table."""
    if column in rows:
        return rows[column]
    table = auxiliary_table(job)
    if column not in table:
        known = ", ".join(name for name in table if name != "image_id")
        where = data_folder(job.competition.name) / AUXILIARY
        raise UserError(f"{where}: the column {column!r} is missing; there are {known}")
    return table.set_index("image_id")[column].reindex(rows["image_id"])


def auxiliary_table(job: Job) -> pd.DataFrame:
    """auxiliary.csv, written from the raw download where it is not there."""
    competition = job.competition
    path = data_folder(competition.name) / AUXILIARY
    if not path.is_file():
        read = getattr(competition.module, "auxiliary", None)
        if read is None:
            columns = ", ".join(one.column for one in job.run.auxiliary)
            raise UserError(
                f"run {job.run.name}: auxiliary names {columns}: not all are in images.csv, and "
                f"pipeline/competitions/{competition.name}.py has no auxiliary(raw)"
            )
        write_csv(path, read(raw_folder(competition.name)))
        write_sidecar(path, competition.name)
    table = read_extra_table(path)
    check_id_column(path, table)
    return table


def read_extra_table(path: Path) -> pd.DataFrame:
    """A table with image_id; UserError where what is recorded beside it is about other bytes."""
    # A user's own table has nothing beside it.
    sidecar = path.with_suffix(".json")
    if sidecar.is_file() and read_json(sidecar).get("digest") != file_hash(path):
        raise UserError(
            f"{path}: differs from what was written (damaged, or changed by hand); delete it and "
            f"make it again, or delete {sidecar.name} where the change is yours"
        )
    return read_csv(path, ("image_id",))


def label_targets(values: pd.Series, one: Auxiliary) -> np.ndarray:
    """float32 (N, 1) of a column of 1, 0, -1 and blank."""
    numbers = label_numbers(values, one.column)
    numbers[numbers == -1] = np.nan
    return numbers.astype(np.float32)[:, None]


def label_numbers(values: pd.Series, column: str) -> np.ndarray:
    """float64 (N,) of 1, 0, -1 and NaN; UserError for any other value."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, copy=True)
    wrong = ~valid_labels(numbers, values.isna())
    if wrong.any():
        cell = str(values.iloc[int(np.argmax(wrong))])
        raise UserError(
            f"auxiliary column {column!r}: {cell!r} is not 0, 1, -1 or blank; name its classes"
        )
    return numbers


def class_targets(values: pd.Series, one: Auxiliary) -> np.ndarray:
    """float32 (N, C), 1 in the column of a row's class; rows of no class named are NaN."""
    found = np.stack([(values == name).to_numpy() for name in one.classes], axis=1)
    # A misspelt class would be learnt as one that never comes.
    for name, anywhere in zip(one.classes, found.any(axis=0)):
        if not anywhere:
            there = first_ids(sorted(map(str, values.dropna().unique())))
            raise UserError(
                f"auxiliary column {one.column!r}: no training row is of class {name!r}; there "
                f"are {there}"
            )
    targets = found.astype(np.float32)
    targets[~found.any(axis=1)] = np.nan
    return targets
