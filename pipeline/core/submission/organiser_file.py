"""The organiser's file: filled in from the ensemble, and checked before anyone else reads it.

Read with the csv module rather than pandas, so that the check sees what the file holds: repeated
column names, ragged rows, `nan` as a word, ids with their leading zeros. Rows count as an editor
shows them: the header is row 1.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import require_plain
from pipeline.core.config.task import Submission, Task
from pipeline.core.raw.tables import is_formula
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.ids import id_findings, plain_id
from pipeline.core.submission.plausibility import (
    SHOWN_ROWS,
    Finding,
    first_rows,
    plausibility_findings,
)

# What a scorer reads as a number everywhere: no hexadecimal, no 1_000, no digits of other scripts.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MISSING_WORDS = ("", "nan", "na", "null", "none")  # what programs write for "no value"


@dataclass(frozen=True)
class Wanted:
    """What a submission is checked against.

    ids          the organiser's ids, in the organiser's order
    columns      the organiser's columns in order, the id column among them
    id_column    the name of the id column
    strict       True where the organiser takes exactly these columns; False where they are looked
                 up by name
    unit         "image" or "study": what a row is
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
        """The columns of scores: all but the id column."""
        return tuple(column for column in self.columns if column != self.id_column)


def wanted(sample: pd.DataFrame, submission: Submission, task: Task) -> Wanted:
    """What the organiser's sample asks for; columns are exact on Kaggle, looked up by name
    elsewhere. UserError for a column that the sample does not have."""
    # The sample is the organiser's word: a column it lacks is misspelt in the competition file.
    for column in (submission.id_column, *submission.columns.values()):
        if column not in sample.columns:
            present = ", ".join(sample.columns)
            raise UserError(f"the organiser's sample lacks the column {column!r}; it has {present}")
    return Wanted(
        ids=sample[submission.id_column].astype("str").reset_index(drop=True),
        columns=tuple(sample.columns),
        id_column=submission.id_column,
        strict=bool(task.slug),
        unit=task.unit,
        probability=submission.probability,
    )


def fill(sample: pd.DataFrame, scores: pd.DataFrame, submission: Submission) -> pd.DataFrame:
    """The sample with its score columns filled in by id.

    `scores` has unit_id and the labels, one row a unit. Raises UserError for an id without a score,
    a score that is not a number, or a unit twice; units that the organiser did not ask for are left
    out.
    """
    # A unit with two rows would be filled in twice.
    keys = scores["unit_id"].astype("str").map(plain_id)
    if keys.duplicated().any():
        raise UserError(f"unit {keys[keys.duplicated()].iloc[0]!r} has two rows in the ensemble")

    # The scores in the order of the sample; by id, since two tables in different orders can be
    # combined by position without any complaint.
    ids = sample[submission.id_column].astype("str")
    aligned = scores.set_index(keys)[list(submission.columns)].reindex(ids.map(plain_id))
    blank = aligned.isna().to_numpy().any(axis=1)
    if blank.any():
        count = f"{blank.sum()} of the organiser's {len(ids)} ids have no score"
        first = repr(ids[blank].iloc[0])
        raise UserError(f"{count}, first {first}; is the ensemble older than the raw download?")

    # All else stays as the sample has it: its columns, their order, the spelling of its ids.
    filled = sample.copy()
    for label, column in submission.columns.items():
        filled[column] = aligned[label].to_numpy(dtype=np.float64)
    return filled


def read_text_table(path: Path) -> tuple[list[str], pd.DataFrame, list[Finding]]:
    """The header, the rows as text indexed by their line in the file, and what is wrong with the
    file as such (then header and rows may be empty)."""
    require_plain(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    # utf-8-sig: a byte order mark, which spreadsheets write, is not part of the first name
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            lines = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return unreadable(f"not UTF-8 text: {byte:#x} is not a letter")
    except csv.Error as error:
        return unreadable(f"not CSV: {error}")
    if not header:
        return unreadable("the file is empty")

    # Rows with too few or too many fields are named and left out: pandas would fill the short ones
    # with NaN in silence.
    whole = {}
    ragged = []
    for line, row in lines:
        if len(row) == len(header):
            whole[line] = row
        else:
            ragged.append(f"row {line} has {len(row)} fields")
    findings = []
    if ragged:
        message = f"rows that do not have the header's {len(header)} fields"
        findings.append(Finding("error", message, first_rows(ragged), len(ragged)))

    # Columns are numbered, since names may be repeated.
    table = pd.DataFrame(
        list(whole.values()),
        columns=range(len(header)),
        dtype="str",
        index=pd.Index(list(whole), dtype="int64"),
    )
    return header, table, findings


def unreadable(message: str) -> tuple[list[str], pd.DataFrame, list[Finding]]:
    """What `read_text_table` returns for a file without a readable table."""
    return [], pd.DataFrame(), [Finding("error", message)]


def check_file(
    path: Path,
    want: Wanted,
    prevalence: pd.Series | None = None,
    reference: pd.DataFrame | None = None,
) -> list[Finding]:
    """Everything wrong with a submission file, errors first; no error means that the organiser can
    score it.

    prevalence  column -> share of positives in training, for the warnings about inverted scores
    reference   the ensemble's scores of the same rows, indexed by id, the same columns; a file that
                runs against them is inverted
    """
    # The file and its columns; without ids there is nothing that the cells could be compared with.
    header, table, findings = read_text_table(path)
    if header:
        findings += column_findings(header, want)
    if not header or want.id_column not in header:
        return findings

    # The ids.
    ids = table[header.index(want.id_column)]
    findings += id_findings(ids, want.ids, want.unit)
    runs = ids[is_formula(ids)]
    if len(runs):
        rows = first_rows(f"row {line}: {identity!r}" for line, identity in runs.items())
        findings.append(Finding("warning", "ids that a spreadsheet would run", rows, len(runs)))

    # The cells, column by column; a column that is there twice has been reported and is left out.
    scores = {}
    for column in want.scores:
        if header.count(column) == 1:
            cells = table[header.index(column)]
            scores[column] = to_numbers(cells)
            findings += cell_findings(column, cells, ids, want.probability)

    # The numbers as a whole.
    numbers = pd.DataFrame(scores).set_axis(ids.map(plain_id))
    findings += plausibility_findings(numbers, prevalence, reference, want.probability)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def column_findings(header: list[str], want: Wanted) -> list[Finding]:
    """Missing, repeated and extra columns, and their order."""
    missing = [column for column in want.columns if column not in header]
    extra = [column for column in header if column not in want.columns]
    repeated = sorted(column for column in set(want.columns) if header.count(column) > 1)

    findings = []
    if missing:
        hint = column_hint(header, missing)
        findings.append(Finding("error", f"missing columns: {', '.join(missing)}{hint}"))
    if repeated:
        findings.append(Finding("error", f"columns that are there twice: {', '.join(repeated)}"))
    # Kaggle refuses extra columns; CheXpert's evaluator looks columns up by name.
    if extra:
        severity = "error" if want.strict else "warning"
        shown = ", ".join(map(repr, extra[:SHOWN_ROWS]))
        findings.append(Finding(severity, f"columns the organiser did not ask for: {shown}"))

    # Both orders of CheXpert's five occur among files on its board: a warning.
    if not missing and not repeated and not extra and header != list(want.columns):
        theirs = ", ".join(want.columns)
        message = f"columns in the order {', '.join(header)}; the organiser's is {theirs}"
        findings.append(Finding("warning", message))
    return findings


def column_hint(header: list[str], missing: list[str]) -> str:
    """What may have happened to the missing columns, or ''."""
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        return " (the fields are not separated by commas)"
    # Names that differ by case or white space only.
    by_plain_name = {column.strip().lower(): column for column in header}
    near = [
        f"{by_plain_name[column.lower()]!r} for {column!r}"
        for column in missing
        if column.lower() in by_plain_name
    ]
    return f" (the file has {', '.join(near)})" if near else ""


def is_number(cells: pd.Series) -> pd.Series:
    """True for each cell that is written as a number, however large."""
    return cells.map(lambda text: NUMBER.fullmatch(text.strip(" \t")) is not None).astype(bool)


def to_numbers(cells: pd.Series) -> pd.Series:
    """Cells as float64, NaN where a cell is not a finite number."""
    values = cells.str.strip(" \t").where(is_number(cells)).astype("float64")
    return values.where(~np.isinf(values))  # 1e999


def cell_findings(
    column: str, cells: pd.Series, ids: pd.Series, probability: bool
) -> list[Finding]:
    """Cells that are not a finite number, or not a probability where one is wanted.

    cells, ids: text, indexed by their row in the file.
    """
    # Each cell is of one kind at most, so that it is reported once; 1e999 is a number by its
    # spelling and infinite by its value.
    values = to_numbers(cells)
    text = cells.str.strip(" \t").str.lower()
    missing = text.isin(MISSING_WORDS)
    numeric = is_number(cells)
    infinite = text.str.fullmatch(r"[+-]?inf(inity)?").astype(bool) | (numeric & values.isna())
    outside = (values < 0) | (values > 1)
    kinds = {
        "blank or NaN": missing,
        "infinite": infinite,
        "not a number": ~numeric & ~missing & ~infinite,
        "outside [0, 1], and the organiser wants probabilities": outside & probability,
    }
    findings = []
    for kind, where in kinds.items():
        if where.any():
            lines = cells.index[where]
            rows = first_rows(f"row {line}: {cells[line]!r} of {ids[line]!r}" for line in lines)
            findings.append(Finding("error", f"column {column}: {kind}", rows, int(where.sum())))
    return findings


def refuse_errors(path: Path, findings: list[Finding]) -> None:
    """Raise a UserError with the first error, where there is one."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = str(errors[0]).removeprefix("error: ")
        raise UserError(f"{path}: {len(errors)} errors; the first: {first}")
