"""The organiser's tables, and where the images lie: in folders, or in zips that are not unpacked.

A locator says where a file lies, relative to the raw folder: `train.csv`,
`jpeg/train/ISIC_0015719.jpg`, or `archive.zip::jpeg/train/ISIC_0015719.jpg`. A table is read as
text, every cell as the organiser wrote it, so that an error can name the file, the row (as an
editor counts them, the header is 1), the column and the value; its index is that row. Images are
located from folder listings, never by asking the disk for each: a table of 223,414 rows takes
seconds, and what is missing or unreadable is for `prepare` to report.
"""

import csv
import itertools
import lzma
import os
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import NOT_A_LABEL, valid_labels
from pipeline.core.artifacts.tables import LARGEST_TABLE
from pipeline.core.runtime.errors import UserError

# Of image files, in the order they are looked for.
LOWER = (".jpg", ".jpeg", ".png", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp", ".jp2")
SUFFIXES = (*LOWER, *map(str.upper, LOWER))
SAFE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
SAFE_PATH = r"(?!.*(?:^|/)\.\.(?:/|$))(?!.*::)[^/\\:\x00][^\\:\x00]*"
NOT_A_NAME = "is not a plain name (letters, digits, _ - .)"


@lru_cache(maxsize=32)
def zip_members(path: str, _size: int, _mtime: int) -> tuple[str, ...]:
    """The files inside a zip; size and time are there so that a changed zip is read again."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name for name in archive.namelist() if not name.endswith("/"))
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{path}: this is not a whole zip file ({error}); download it again"
        ) from None


def archives(raw: Path, folder: str = "") -> dict[str, tuple[str, ...]]:
    """The zips that lie directly in a folder of `raw`: locator -> the paths of the files inside."""
    members = {}
    for path in sorted((raw / folder).glob("*.zip")):
        # A pipe of that name could be waited for without end.
        if not path.is_file():
            raise UserError(f"{path}: this is not a file, so it is no zip")
        status = path.stat()
        locator = path.relative_to(raw).as_posix()
        members[locator] = zip_members(str(path), status.st_size, status.st_mtime_ns)
    return members


def find_table(raw: Path, names: Iterable[str], folders: Iterable[str] = ("",)) -> str | None:
    """The locator of the first CSV that exists: in one of the folders of `raw`, else in a zip
    there (the least deep)."""
    names = tuple(names)
    folders = tuple(folders)

    # On disk.
    for name, folder in itertools.product(names, folders):
        if (raw / folder / name).is_file():
            return (PurePosixPath(folder) / name).as_posix()

    # In a zip.
    zipped = []
    for folder in folders:
        for archive, members in archives(raw, folder).items():
            zipped.append((archive, [member for member in members if member.endswith(".csv")]))
    for name, (archive, members) in itertools.product(names, zipped):
        inside = [member for member in members if PurePosixPath(member).name == name]
        if inside:
            return f"{archive}::{min(inside, key=lambda member: (member.count('/'), member))}"
    return None


def need_table(raw: Path, name: str, folders: Iterable[str] = ("",)) -> str:
    """The locator of a CSV that has to exist; UserError where it does not."""
    locator = find_table(raw, (name,), folders)
    if locator is None:
        raise UserError(
            f"{raw / name}: there is no such file, nor one of that name in a zip beside it"
        )
    return locator


def read_table(raw: Path, locator: str, needed: Iterable[str] = ()) -> pd.DataFrame:
    """A CSV as text: every cell a stripped string, "" where blank; index = row in the file, 2 for
    the first.

    A UserError gives the fault of the file: not a CSV, cut short, a needed column missing.
    """
    where = raw / locator
    archive, inside, member = locator.partition("::")
    options = dict(dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    try:
        if inside:
            with zipfile.ZipFile(raw / archive) as opened, opened.open(member) as file:
                size = opened.getinfo(member).file_size
                if size > LARGEST_TABLE:
                    raise UserError(f"{where}: too large for a table: {size:,} bytes")
                table = pd.read_csv(file, **options)
        else:
            table = pd.read_csv(where, **options)
            # Only on disk: a zip has checksums, and one cut short does not open.
            check_last_row(where, len(table.columns))
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise UserError(f"{where}: this is not a CSV file: {error}") from None

    check_header(where, table)
    for column in needed:
        if column not in table.columns:
            present = ", ".join(table.columns)
            raise UserError(f"{where}: the column {column!r} is missing; there are {present}")

    # Rows are numbered before blank ones are left out, so that the numbers are those of the file.
    table.index = pd.RangeIndex(2, len(table) + 2)
    table = table.fillna("").apply(lambda cells: cells.str.strip())
    return table[(table != "").any(axis=1)]


def check_header(where: object, table: pd.DataFrame) -> None:
    """Raise a UserError when rows are longer than the header, or two columns have one name."""
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{where}: its rows have more columns than its header")
    for column in table.columns:
        # pandas calls the second of two columns `name`  `name.1`.
        name, dot, number = column.rpartition(".")
        if dot and number.isdigit() and name in table.columns:
            raise UserError(f"{where}: two columns are called {name!r}")


def check_last_row(path: Path, columns: int) -> None:
    """Raise a UserError when the last row has fewer cells than the header.

    That is the mark of a download cut short; the last 64 KiB are looked at.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        lines = file.read().decode("utf-8-sig", "replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    cells = len(next(csv.reader([last]), []))
    if cells < columns:
        raise UserError(
            f"{path}: the last row, {last[:60]!r}, has {cells} of {columns} columns; "
            "is it cut short?"
        )


def refuse(
    where: object, column: str, values: pd.Series, bad: np.ndarray | pd.Series, reason: str
) -> None:
    """Raise a UserError that names the first row where `bad` holds; nothing where it holds
    nowhere.

    bad: (rows,) bool. The message is "where: row R, column C: 'value' reason".
    """
    bad = np.asarray(bad, bool)
    if not bad.any():
        return
    first = int(bad.argmax())
    more = int(bad.sum()) - 1
    rest = f" (and {more:,} more rows)" if more else ""
    raise UserError(
        f"{where}: row {values.index[first]}, column {column}: {values.iloc[first]!r} "
        f"{reason}{rest}"
    )


def is_formula(cells: pd.Series) -> np.ndarray:
    """True where a spreadsheet would run a text cell: it begins with = + - @, a tab or a carriage
    return, and is no number.

    >>> is_formula(pd.Series(["=cmd|' /C calc'!A0", "-1.5", "-x", "torso", None])).tolist()
    [True, False, True, False, False]
    """
    text = cells.fillna("").astype("str")
    begins = text.str.match(r"[=+\-@\t\r]").to_numpy(bool)
    return begins & pd.to_numeric(text, errors="coerce").isna().to_numpy()


def names(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column of ids that become file names: filled, unique, and made of letters, digits, `_`,
    `-` and `.` only."""
    values = present(where, table, column)
    refuse(where, column, values, ~values.str.fullmatch(SAFE_NAME), NOT_A_NAME)
    refuse(where, column, values, values.duplicated(), "occurs twice")
    return values


def present(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column that may not be blank."""
    refuse(where, column, table[column], table[column] == "", "is blank")
    return table[column]


def paths(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column of relative paths, unique, none of which leaves the folder it is relative to."""
    values = present(where, table, column)
    unsafe = ~values.str.fullmatch(SAFE_PATH)
    refuse(where, column, values, unsafe, "is not a path inside the download")
    refuse(where, column, values, values.duplicated(), "occurs twice")
    return values


def labels(where: object, table: pd.DataFrame, column: str, blank: bool = True) -> pd.Series:
    """A label column as float64: 1, 0, -1 (uncertain) or NaN (blank); UserError for anything
    else, and for a blank where `blank` is False."""
    values = table[column]
    reason = NOT_A_LABEL if blank else "is not 0, 1 or -1"
    refuse(where, column, values, ~valid_labels(values, blank & (values == "")), reason)
    return pd.to_numeric(values, errors="coerce").astype("float64")


def numbers(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A numeric patient column as float64, NaN where blank, `nan` or `na`; UserError for anything
    else that is not a finite number."""
    # Organisers write missing numbers in three ways.
    values = table[column]
    missing = values.str.lower().isin(("", "nan", "na"))
    parsed = pd.to_numeric(values.mask(missing), errors="coerce").astype("float64")
    refuse(where, column, values, ~(np.isfinite(parsed) | missing), "is not a number")
    return parsed


def categories(table: pd.DataFrame, column: str) -> pd.Series:
    """A categorical patient column, None where blank; all None where the file lacks the column."""
    if column not in table.columns:
        return pd.Series(None, index=table.index, dtype=object)
    values = table[column].astype(object)
    return values.where(~values.isin(("", "nan", "NaN", "NA")), None)


def optional_ids(table: pd.DataFrame, column: str) -> pd.Series:
    """A column of ids, None where blank (and only there: `NA` is an id); all None where the file
    lacks the column."""
    if column not in table.columns:
        return pd.Series(None, index=table.index, dtype=object)
    values = table[column].astype(object)
    return values.where(values != "", None)


def has_image(folder: Path, suffix: str) -> bool:
    """True when the folder holds a file of that suffix; stops at the first."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def find_images(raw: Path, folders: Iterable[str], inside: str = "") -> tuple[str, str]:
    """Where a split's images lie: (prefix, suffix), so that prefix + name + suffix is the locator
    of an image.

    Folders are tried in the order given, on disk (below `inside`) first, then in the zips there. In
    a zip, the folder may lie below others, and the zip's own name counts as one:
    `jpeg.zip::train/x.jpg` and `train.zip::x.jpg` do. UserError where no folder has any.
    """
    folders = tuple(folders)

    # On disk.
    for folder, suffix in itertools.product(folders, SUFFIXES):
        if has_image(raw / inside / folder, suffix):
            return prefix(PurePosixPath(inside, folder).as_posix()), suffix

    # In a zip.
    zipped = zipped_folders(raw, inside)
    for folder, suffix in itertools.product(folders, SUFFIXES):
        for (path, ending), locator in zipped.items():
            if ending == suffix and f"/{path}".endswith(f"/{folder}"):
                return locator, suffix

    raise UserError(
        f"{raw / inside}: no folder {', '.join(folders)} with images ({', '.join(LOWER)}), "
        "nor a zip"
    )


def prefix(folder: str) -> str:
    """A folder's path as the start of a locator: "" for the raw folder itself."""
    return "" if folder in ("", ".") else f"{folder}/"


def zipped_folders(raw: Path, folder: str = "") -> dict[tuple[str, str], str]:
    """The folders with images in the zips of a folder of `raw`: (zip's name/path inside, suffix)
    -> start of the locator."""
    starts = {}
    for archive, members in archives(raw, folder).items():
        kinds = {(posixpath.dirname(path), posixpath.splitext(path)[1]) for path in members}
        for parent, suffix in sorted(kinds):
            if suffix in SUFFIXES:
                path = "/".join(part for part in (PurePosixPath(archive).stem, parent) if part)
                starts[path, suffix] = f"{archive}::{prefix(parent)}"
    return starts


def clean_name(text: str) -> str:
    """A folder's name as part of an id: lower case letters, digits and `_`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
