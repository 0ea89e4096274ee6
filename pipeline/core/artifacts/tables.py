"""The tables that stages hand to each other: where they are, how they are read, checked and
written.

Roots are the environment variables DATA, MODELS and SUBMISSIONS, by default the folders of those
names. Ids are strings everywhere (`0015719` stays so). Whatever is written goes to a temporary name
first and is renamed when whole.
"""

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import require_plain, write_text
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.runtime.errors import UserError

# What every read_raw gives first; patient columns and labels follow.
IMAGE_COLUMNS = ("image_id", "file", "patient_id", "unit_id", "split", "source")
# Columns of images.csv that `prepare` measures: the least that each can be.
LEAST = {"width": 1, "height": 1, "brightness": 0, "file_bytes": 0}
ID_COLUMNS = (*IMAGE_COLUMNS, "phash", "lesion_id", "duplicate_of", "decoded")
SCORE_NAMES = ("member", "stage", "label")  # of scores.csv, text as well
# What may stand for a missing number. In a column of ids only the empty cell is blank: a patient
# may be called NA, and one that is read back as blank may be split over two folds.
BLANK_NUMBERS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
    "NaN",
    "nan",
    "-nan",
    "NULL",
    "null",
    "None",
)
# How pandas calls the packings of a table; a packed one may have so many bytes.
PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}
LARGEST_TABLE = 1 << 30
SPLITS = ("train", "valid", "test")


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV; floats with 9 significant digits, enough to give a float32 back exactly."""
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n")


def as_written(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its floats rounded to nine significant digits, as `csv_text` writes them: what
    networks and learners see elsewhere is then what they learned from."""
    floats = table.select_dtypes("float")
    return table.assign(**{name: nine_digits(column) for name, column in floats.items()})


def nine_digits(column: pd.Series) -> np.ndarray:
    """Numbers rounded to nine significant digits, float64 (n,)."""
    # 0 and what is not finite have no logarithm: they stay as they are.
    values = column.to_numpy(np.float64)
    size = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
    places = 10.0 ** (8 - np.floor(np.log10(size)))
    return np.round(values * places) / places


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, as `csv_text` has it."""
    write_text(path, csv_text(table))


def read_csv(
    path: Path, needed: Sequence[str] = (), made_by: str = "", ids: Sequence[str] = ()
) -> pd.DataFrame:
    """A table whose ID_COLUMNS and `ids` are strings exactly as they stand there, NaN where the
    cell is empty; packed as .gz, .bz2, .xz or .zip, too. A UserError names a missing file or column
    and what is no table."""
    require_plain(path)
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file" + (f"; `{made_by}` makes it" if made_by else "")
        )
    text = (*ID_COLUMNS, *ids)
    packing = PACKINGS.get(path.suffix)
    try:
        require_unpackable(path)
        # pandas takes what is blank by column, so it has to know the columns first.
        columns = pd.read_csv(path, nrows=0, compression=packing).columns
        blank = {column: [""] if column in text else BLANK_NUMBERS for column in columns}
        table = pd.read_csv(
            path,
            compression=packing,
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values=blank,
        )
    except (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: this is not a CSV file: {error}") from None
    for column in needed:
        if column not in table.columns:
            raise UserError(
                f"{path}: the column {column!r} is missing; there are {', '.join(table.columns)}"
            )
    return table


def require_unpackable(path: Path) -> None:
    """Raise a UserError where a packed table is more than LARGEST_TABLE bytes: a stranger's file of
    a megabyte may unpack to a thousand."""
    size = 0
    if path.suffix == ".zip":
        # Reading ends where the directory says, so that it may be believed.
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    elif path.suffix in PACKINGS:
        unpacked = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[path.suffix]
        with unpacked(path) as file:
            while size <= LARGEST_TABLE and (block := file.read(1 << 20)):
                size += len(block)
    if size > LARGEST_TABLE:
        raise UserError(f"{path}: too large for a table: {size:,} bytes unpacked")


def read_images(competition: str) -> pd.DataFrame:
    """images.csv, one row an image, checked: ids present and unique, splits known, what was
    measured a number or blank."""
    path = data_folder(competition) / "images.csv"
    table = read_csv(path, ("image_id", "patient_id", "split"), f"make prepare COMP={competition}")
    check_id_column(path, table)
    for row, split in enumerate(table["split"]):
        if split not in SPLITS:
            raise UserError(
                f"{path}: row {row + 2}, column split: {split!r} is none of {', '.join(SPLITS)}"
            )
    for column in table.columns.intersection(list(LEAST)):
        values = pd.to_numeric(table[column], errors="coerce")
        wrong = table[column].notna() & ~values.between(LEAST[column], np.finfo(np.float32).max)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UserError(
                f"{path}: row {row + 2}, column {column}: {str(table[column].iloc[row])!r} is not "
                f"a number from {LEAST[column]} on"
            )
    return table


def check_id_column(path: Path, table: pd.DataFrame, column: str = "image_id") -> None:
    """Raise a UserError that names the first blank or repeated id; rows count as an editor shows
    them, header = 1."""
    ids = table[column]
    if ids.isna().any():
        raise UserError(f"{path}: row {ids.isna().to_numpy().argmax() + 2}, column {column}: blank")
    if ids.duplicated().any():
        row = ids.duplicated().to_numpy().argmax()
        raise UserError(f"{path}: row {row + 2}, column {column}: {ids.iloc[row]!r} is there twice")


def read_folds(competition: str) -> pd.DataFrame:
    """folds.csv: patient_id, fold; a patient has one row, so a patient cannot be in two folds."""
    path = data_folder(competition) / "folds.csv"
    table = read_csv(path, ("patient_id", "fold"), f"make folds COMP={competition}")
    check_id_column(path, table, "patient_id")
    if not pd.api.types.is_integer_dtype(table["fold"]):
        raise UserError(f"{path}: column fold: not all are whole numbers")
    return table


def fold_numbers(folds: pd.DataFrame) -> list[int]:
    """The folds that are validated, ascending; -1 (always trains) is none of them."""
    return sorted(int(fold) for fold in folds["fold"].unique() if fold >= 0)


IDS_SHOWN = 3  # ids that an error lists


def align(
    where: object, table: pd.DataFrame, ids: pd.Series, what: str, column: str = "image_id"
) -> np.ndarray:
    """Positions in `table` of each id; UserError naming ids that are missing, extra or there
    twice."""
    found = pd.Index(table[column])
    if found.has_duplicates:
        raise UserError(
            f"{where}: column {column}: {first_ids(found[found.duplicated()])} more than once"
        )
    missing = pd.Index(ids).difference(found, sort=False)
    if len(missing):
        raise UserError(
            f"{where}: {len(missing)} of the {len(ids)} rows {what} are missing: "
            f"{first_ids(missing)}"
        )
    extra = found.difference(pd.Index(ids), sort=False)
    if len(extra):
        raise UserError(
            f"{where}: {len(extra)} rows are not among the {len(ids)} {what}: {first_ids(extra)}"
        )
    return found.get_indexer(pd.Index(ids))


def first_ids(ids: Sequence) -> str:
    """The first ids, and how many more."""
    shown = ", ".join(map(str, ids[:IDS_SHOWN]))
    return shown + (f" and {len(ids) - IDS_SHOWN} more" if len(ids) > IDS_SHOWN else "")
