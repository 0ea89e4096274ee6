"""Raw downloads as they come: tables and images in folders, or in zips that nobody has unpacked.

A locator says where a file lies, relative to the raw folder: `train.csv`,
`jpeg/train/ISIC_0015719.jpg`, or `archive.zip::jpeg/train/ISIC_0015719.jpg`. A table is read as
text, every cell as the organiser wrote it, so that an error can name the file, the row (as an
editor counts them, the header is 1), the column and the value; its index is that row. Images are
located from folder listings, never by asking the disk for each: a table of 223,414 rows takes
seconds, and what is missing or unreadable is for `prepare` to report.
"""

import csv
import itertools
import os
import posixpath
import re
import zipfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core.runtime.errors import UserError

PICTURES = (".jpg", ".jpeg", ".png", ".dcm")
LABELS = (1.0, 0.0, -1.0)
SAFE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
SAFE_PATH = r"(?!.*(?:^|/)\.\.(?:/|$))(?!.*::)[^/\\:\x00][^\\:\x00]*"


@lru_cache(maxsize=32)
def _members(path: str, _size: int, _mtime: int) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name for name in archive.namelist() if not name.endswith("/"))
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: this is no whole zip file ({error}); download it again") from None


def archives(raw: Path, folder: str = "") -> dict[str, tuple[str, ...]]:
    """The zips that lie directly in a folder of `raw`: locator -> the paths of the files inside."""
    found = {}
    for path in sorted((raw / folder).glob("*.zip")):
        status = path.stat()
        found[path.relative_to(raw).as_posix()] = _members(
            str(path), status.st_size, status.st_mtime_ns
        )
    return found


def find_table(raw: Path, names: Iterable[str], folders: Iterable[str] = ("",)) -> str | None:
    """The locator of the first CSV there is: in one of the folders of `raw`, else in a zip there
    (the least deep)."""
    names, folders = tuple(names), tuple(folders)
    for name, folder in itertools.product(names, folders):
        if (raw / folder / name).is_file():
            return (PurePosixPath(folder) / name).as_posix()
    zipped = [
        (archive, [member for member in members if member.endswith(".csv")])
        for folder in folders
        for archive, members in archives(raw, folder).items()
    ]
    for name, (archive, members) in itertools.product(names, zipped):
        inside = [member for member in members if PurePosixPath(member).name == name]
        if inside:
            return f"{archive}::{min(inside, key=lambda member: (member.count('/'), member))}"
    return None


def need_table(raw: Path, name: str, folders: Iterable[str] = ("",)) -> str:
    """The locator of a CSV that has to be there."""
    locator = find_table(raw, (name,), folders)
    if locator is None:
        raise UserError(
            f"{raw / name}: there is no such file, nor one of that name in a zip beside it"
        )
    return locator


def read_table(raw: Path, locator: str, needed: Iterable[str] = ()) -> pd.DataFrame:
    """A CSV as text: every cell a stripped string, "" where blank; index = row in the file, 2 for
    the first.

    A UserError says what is wrong with the file: no CSV, cut short, a needed column missing.
    """
    where, (archive, inside, member) = raw / locator, locator.partition("::")
    options = dict(dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    try:
        if inside:
            with zipfile.ZipFile(raw / archive) as opened, opened.open(member) as file:
                table = pd.read_csv(file, **options)
        else:
            table = pd.read_csv(where, **options)
            check_last_row(where, len(table.columns))
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"{where}: this is no CSV file: {error}") from None
    check_header(where, table)
    for column in needed:
        if column not in table.columns:
            raise UserError(
                f"{where}: the column {column!r} is missing; there are {', '.join(table.columns)}"
            )
    table.index = pd.RangeIndex(2, len(table) + 2)
    table = table.fillna("").apply(lambda cells: cells.str.strip())
    return table[(table != "").any(axis=1)]


def check_header(where: object, table: pd.DataFrame) -> None:
    """Raise a UserError when rows are longer than the header, or two columns have one name (pandas
    writes `name.1`)."""
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{where}: its rows have more columns than its header")
    for column in table.columns:
        name, dot, number = column.rpartition(".")
        if dot and number.isdigit() and name in table.columns:
            raise UserError(f"{where}: two columns are called {name!r}")


def check_last_row(path: Path, columns: int) -> None:
    """Raise a UserError when the last row has fewer cells than the header: the mark of a download
    cut short."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        lines = file.read().decode("utf-8-sig", "replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    cells = len(next(csv.reader([last]), []))
    if cells < columns:
        raise UserError(
            f"{path}: the last row, {last[:60]!r}, has {cells} of {columns} columns; is it cut "
            "short?"
        )


def refuse(
    where: object, column: str, values: pd.Series, bad: np.ndarray | pd.Series, reason: str
) -> None:
    """Raise a UserError that names the first row where `bad` holds; nothing where it holds
    nowhere."""
    bad = np.asarray(bad, bool)
    if bad.any():
        first, more = int(bad.argmax()), int(bad.sum()) - 1
        rest = f" (and {more:,} more rows)" if more else ""
        raise UserError(
            f"{where}: row {values.index[first]}, column {column}: {values.iloc[first]!r} "
            f"{reason}{rest}"
        )


def names(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column of ids that become file names: present, unique, and made of letters, digits, `_`,
    `-` and `.` only."""
    values = table[column]
    refuse(where, column, values, values == "", "is blank")
    refuse(
        where,
        column,
        values,
        ~values.str.fullmatch(SAFE_NAME),
        "is no plain name (letters, digits, _ - .)",
    )
    refuse(where, column, values, values.duplicated(), "stands there twice")
    return values


def present(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column that may not be blank."""
    refuse(where, column, table[column], table[column] == "", "is blank")
    return table[column]


def paths(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A column of relative paths, unique, none of which leaves the folder it is relative to."""
    values = present(where, table, column)
    refuse(
        where, column, values, ~values.str.fullmatch(SAFE_PATH), "is no path inside the download"
    )
    refuse(where, column, values, values.duplicated(), "stands there twice")
    return values


def labels(where: object, table: pd.DataFrame, column: str, blank: bool = True) -> pd.Series:
    """A label column as float: 1, 0, -1 (uncertain) or NaN (blank); anything else is a
    UserError."""
    values = table[column]
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    allowed, wanted = numbers.isin(LABELS), "is not 0, 1 or -1"
    if blank:
        allowed, wanted = allowed | (values == ""), "is not 0, 1, -1 or blank"
    refuse(where, column, values, ~allowed, wanted)
    return numbers


def numbers(where: object, table: pd.DataFrame, column: str) -> pd.Series:
    """A numeric patient column as float, NaN where blank; anything but a finite number is a
    UserError."""
    values = table[column]
    parsed = pd.to_numeric(
        values.mask(values.str.lower().isin(("nan", "na"))), errors="coerce"
    ).astype("float64")
    finite = np.isfinite(parsed) | values.str.lower().isin(("", "nan", "na"))
    refuse(where, column, values, ~finite, "is no number")
    return parsed


def categories(table: pd.DataFrame, column: str) -> pd.Series:
    """A categorical patient column, None where blank; a column that the file does not have is all
    blank."""
    if column not in table.columns:
        return pd.Series(None, index=table.index, dtype=object)
    values = table[column].astype(object)
    return values.where(~values.isin(("", "nan", "NaN", "NA")), None)


def has_picture(folder: Path, suffix: str) -> bool:
    """True when the folder holds a file of that suffix; stops at the first."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def find_pictures(raw: Path, folders: Iterable[str], inside: str = "") -> tuple[str, str]:
    """Where a split's pictures lie: (prefix, suffix), so that prefix + name + suffix is the locator
    of a picture.

    Folders are tried in the order given, on disk (below `inside`) first, then in the zips there. In
    a zip, the folder may lie below others, and the zip's own name counts as one:
    `jpeg.zip::train/x.jpg` and `train.zip::x.jpg` do.
    """
    folders = tuple(folders)
    for folder in folders:
        for suffix in PICTURES:
            if has_picture(raw / inside / folder, suffix):
                return prefix(PurePosixPath(inside, folder).as_posix()), suffix
    kept = zipped_folders(raw, inside)
    for folder in folders:
        for suffix in PICTURES:
            for (path, ending), locator in kept.items():
                if ending == suffix and f"/{path}".endswith(f"/{folder}"):
                    return locator, suffix
    raise UserError(
        f"{raw / inside}: no folder {', '.join(folders)} with pictures ({', '.join(PICTURES)}), "
        "nor a zip"
    )


def prefix(folder: str) -> str:
    """A folder's path as the start of a locator: "" for the raw folder itself."""
    return "" if folder in ("", ".") else f"{folder}/"


def zipped_folders(raw: Path, folder: str = "") -> dict[tuple[str, str], str]:
    """The folders in the zips of a folder of `raw`: (zip's name/path inside, suffix) -> start of
    the locator."""
    kept = {}
    for archive, members in archives(raw, folder).items():
        for parent, suffix in sorted(
            {(posixpath.dirname(m), posixpath.splitext(m)[1]) for m in members}
        ):
            if suffix in PICTURES:
                path = "/".join(part for part in (PurePosixPath(archive).stem, parent) if part)
                kept[path, suffix] = f"{archive}::{prefix(parent)}"
    return kept


def clean_name(text: str) -> str:
    """A folder's name as part of an id: lower case letters, digits and `_`."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
