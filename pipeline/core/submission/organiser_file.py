"""The organiser's file: filled in from the ensemble, and checked before anyone else sees it.

Read with the csv module rather than pandas, so that the check sees what stands in the file:
repeated column names, ragged rows, `nan` as a word, ids with their leading zeros. Rows count as an
editor shows them: the header is row 1.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.config.task import Submission, Task
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.ids import check_ids, plain_id
from pipeline.core.submission.plausibility import Finding, listed, suspicions

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What a submission is held against.

    ids       the organiser's ids, in the organiser's order
    columns   the organiser's columns in order, the id column among them
    strict    True where the organiser takes exactly these columns; False where they are looked up
              by name
    unit      "image" or "study": what a row is
    probability  scores must lie in [0, 1]
    """

    ids: pd.Series
    columns: tuple[str, ...]
    id_column: str
    strict: bool = True
    unit: str = "image"
    probability: bool = False

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column != self.id_column)


def wanted(sample: pd.DataFrame, submission: Submission, task: Task) -> Wanted:
    """What the organiser's sample asks for; columns are exact on Kaggle, looked up by name
    elsewhere."""
    for column in (submission.id_column, *submission.columns.values()):
        if column not in sample.columns:
            raise UserError(
                f"the organiser's sample lacks the column {column!r}; it has "
                f"{', '.join(sample.columns)}"
            )
    return Wanted(
        sample[submission.id_column].astype("str").reset_index(drop=True),
        tuple(sample.columns),
        submission.id_column,
        bool(task.slug),
        task.unit,
        submission.probability,
    )


def fill(sample: pd.DataFrame, scores: pd.DataFrame, submission: Submission) -> pd.DataFrame:
    """The sample with its score columns filled in by id.

    `scores` has unit_id and the labels, one row a unit. Raises UserError for an id without a score,
    a score that is no number, or a unit twice; units that the organiser did not ask for are left
    out.
    """
    keys = scores["unit_id"].astype("str").map(plain_id)
    if keys.duplicated().any():
        raise UserError(f"unit {keys[keys.duplicated()].iloc[0]!r} has two rows in the ensemble")
    ids = sample[submission.id_column].astype("str")
    found = scores.set_index(keys)[list(submission.columns)].reindex(ids.map(plain_id))
    blank = found.isna().to_numpy().any(axis=1)
    if blank.any():
        raise UserError(
            f"{blank.sum()} of the organiser's {len(ids)} ids have no score, first "
            f"{ids[blank].iloc[0]!r}; "
            "is the ensemble older than the raw download?"
        )
    filled = sample.copy()
    for label, column in submission.columns.items():
        filled[column] = found[label].to_numpy(dtype=np.float64)
    return filled


def read_rows(path: Path) -> tuple[list[str], pd.DataFrame, list[Finding]]:
    """The header, the rows as text indexed by their line in the file, and what is wrong with the
    file as such."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        return (
            [],
            pd.DataFrame(),
            [Finding("error", f"not UTF-8 text: {error.object[error.start]:#x} is no letter")],
        )
    except csv.Error as error:
        return [], pd.DataFrame(), [Finding("error", f"not CSV: {error}")]
    if not header:
        return [], pd.DataFrame(), [Finding("error", "the file is empty")]
    ragged = [f"row {line} has {len(row)} fields" for line, row in lines if len(row) != len(header)]
    findings = []
    if ragged:
        told = f"rows that do not have the header's {len(header)} fields"
        findings.append(Finding("error", told, listed(ragged), len(ragged)))
    whole = [(line, row) for line, row in lines if len(row) == len(header)]
    table = pd.DataFrame(
        [row for _, row in whole],
        columns=range(len(header)),
        dtype="str",
        index=pd.Index([line for line, _ in whole], dtype="int64"),
    )
    return header, table, findings


def check_file(
    path: Path,
    want: Wanted,
    prevalence: pd.Series | None = None,
    reference: pd.DataFrame | None = None,
) -> list[Finding]:
    """Everything wrong with a submission file, errors first; no error means that the organiser can
    score it.

    prevalence  column -> share of positives in training, for the warnings about inverted scores
    reference   scores of the same rows made at home, indexed by id, the same columns; a file that
                runs against them is inverted
    """
    header, table, findings = read_rows(path)
    if header:
        findings += check_columns(header, want)
    if not header or want.id_column not in header:
        return findings
    ids = table[header.index(want.id_column)]
    findings += check_ids(ids, want.ids, want.unit)
    numbers = {}
    for column in want.scores:
        if header.count(column) == 1:
            found, values = check_numbers(
                column, table[header.index(column)], ids, want.probability
            )
            findings += found
            numbers[column] = values
    findings += suspicions(
        pd.DataFrame(numbers).set_axis(ids.map(plain_id)), prevalence, reference, want.probability
    )
    return sorted(findings, key=lambda finding: finding.severity != "error")


def check_columns(header: list[str], want: Wanted) -> list[Finding]:
    """Missing, repeated and extra columns, and their order."""
    missing = [column for column in want.columns if column not in header]
    extra = [column for column in header if column not in want.columns]
    twice = sorted(
        {column for column in header if column in want.columns and header.count(column) > 1}
    )
    findings = []
    if missing:
        hint = column_hint(header, missing)
        findings.append(Finding("error", f"missing columns: {', '.join(missing)}{hint}"))
    if twice:
        findings.append(Finding("error", f"columns that stand there twice: {', '.join(twice)}"))
    if extra:
        named, severity = ", ".join(map(repr, extra[:5])), "error" if want.strict else "warning"
        findings.append(Finding(severity, f"columns the organiser did not ask for: {named}"))
    if not missing and not twice and not extra and header != list(want.columns):
        findings.append(
            Finding(
                "warning",
                f"columns in the order {', '.join(header)}; the organiser's is "
                f"{', '.join(want.columns)}",
            )
        )
    return findings


def column_hint(header: list[str], missing: list[str]) -> str:
    """What may have happened to the missing columns, or ''."""
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        return " (the fields are not separated by commas)"
    tidy = {column.strip().lower(): column for column in header}
    near = [
        f"{tidy[column.lower()]!r} for {column!r}" for column in missing if column.lower() in tidy
    ]
    return f" (the file has {', '.join(near)})" if near else ""


def check_numbers(
    column: str, cells: pd.Series, ids: pd.Series, probability: bool
) -> tuple[list[Finding], pd.Series]:
    """Cells that are no finite number (or no probability where one is wanted), and the numbers, NaN
    for those."""
    stripped = cells.str.strip(" \t")
    numeric = stripped.map(lambda cell: NUMBER.fullmatch(cell) is not None).astype(bool)
    values = stripped.where(numeric).astype("float64")
    word = stripped.str.lower().isin(["", "nan", "na", "null", "none"])
    infinite = np.isinf(values) | stripped.str.lower().str.fullmatch(r"[+-]?inf(inity)?").astype(
        bool
    )
    outside = (values < 0) | (values > 1)
    kinds: Iterable[tuple[str, pd.Series]] = (
        ("blank or NaN", word),
        ("infinite", infinite),
        ("not a number", ~numeric & ~word & ~infinite),
        (
            "outside [0, 1], and the organiser wants probabilities",
            outside & ~infinite & probability,
        ),
    )
    findings = []
    for kind, where in kinds:
        rows = (f"row {line}: {cells[line]!r} of {ids[line]!r}" for line in cells.index[where])
        if where.any():
            findings.append(
                Finding("error", f"column {column}: {kind}", listed(rows), int(where.sum()))
            )
    return findings, values.where(~infinite)


def refuse_errors(path: Path, findings: list[Finding]) -> None:
    """Raise a UserError with the first error, where there is one."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise UserError(
            f"{path}: {len(errors)} errors; the first: {str(errors[0]).removeprefix('error: ')}"
        )
