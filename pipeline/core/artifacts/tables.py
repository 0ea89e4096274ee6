"""The tables that stages hand to each other: where they are, how they are read, checked and written.

Roots are the environment variables DATA, MODELS and SUBMISSIONS, by default the folders of those names. Ids are strings
everywhere (`0015719` stays so). Whatever is written goes to a temporary name first and is renamed when whole.
"""
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from pipeline.core.runtime.command import UserError

# What every read_raw gives first; patient columns and labels follow.
IMAGE_COLUMNS = ("image_id", "file", "patient_id", "unit_id", "split", "source")
ID_COLUMNS = (*IMAGE_COLUMNS, "phash", "lesion_id", "duplicate_of", "decoded")
SPLITS = ("train", "valid", "test")


def root(name: str) -> Path:
    """The folder that the environment variable DATA, MODELS or SUBMISSIONS names."""
    return Path(os.environ.get(name) or name.lower())


def data_folder(competition: str) -> Path:
    return root("DATA") / competition


def raw_folder(competition: str) -> Path:
    """The raw download, which must be there; nothing is ever written in it."""
    raw = data_folder(competition) / "raw"
    if not raw.is_dir():
        raise UserError(f"{raw}: there is no such folder; put (or link) the download of {competition} there")
    return raw


def image_path(competition: str, size: int, image_id: str) -> Path:
    """Where prepare puts an image of that size."""
    return data_folder(competition) / "images" / str(size) / f"{image_id}.jpg"


def models_folder(competition: str) -> Path:
    return root("MODELS") / competition


def fold_folder(competition: str, run: str, fold: int) -> Path:
    return models_folder(competition) / run / f"fold{fold}"


def submissions_folder(competition: str) -> Path:
    return root("SUBMISSIONS") / competition


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; renamed to `path` when the block ends well, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically; floats with 9 significant digits, enough to give a float32 back exactly."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g")


def read_csv(path: Path, needed: tuple[str, ...] = (), made_by: str = "") -> pd.DataFrame:
    """A table with every id column as string; a UserError names a missing file or column."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file" + (f"; `{made_by}` makes it" if made_by else ""))
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(ID_COLUMNS, "str"))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is no CSV file: {error}") from None
    for column in needed:
        if column not in table.columns:
            raise UserError(f"{path}: the column {column!r} is missing; there are {', '.join(table.columns)}")
    return table


def read_images(competition: str) -> pd.DataFrame:
    """images.csv, one row an image, checked: ids present and unique, splits known."""
    path = data_folder(competition) / "images.csv"
    table = read_csv(path, ("image_id", "patient_id", "split"), f"make prepare COMP={competition}")
    check_ids(path, table)
    for row, split in enumerate(table["split"]):
        if split not in SPLITS:
            raise UserError(f"{path}: row {row + 2}, column split: {split!r} is none of {', '.join(SPLITS)}")
    return table


def check_ids(path: Path, table: pd.DataFrame, column: str = "image_id") -> None:
    """Raise a UserError that names the first blank or repeated id; rows count as an editor shows them, header = 1."""
    ids = table[column]
    if ids.isna().any():
        raise UserError(f"{path}: row {ids.isna().to_numpy().argmax() + 2}, column {column}: blank")
    if ids.duplicated().any():
        row = ids.duplicated().to_numpy().argmax()
        raise UserError(f"{path}: row {row + 2}, column {column}: {ids.iloc[row]!r} stands there twice")


def read_folds(competition: str) -> pd.DataFrame:
    """folds.csv: patient_id, fold; a patient has one row, so a patient cannot be in two folds."""
    path = data_folder(competition) / "folds.csv"
    table = read_csv(path, ("patient_id", "fold"), f"make folds COMP={competition}")
    check_ids(path, table, "patient_id")
    if not pd.api.types.is_integer_dtype(table["fold"]):
        raise UserError(f"{path}: column fold: not all are whole numbers")
    return table


def fold_numbers(folds: pd.DataFrame) -> list[int]:
    """The folds that are validated, ascending; -1 (always trains) is none of them."""
    return sorted(int(fold) for fold in folds["fold"].unique() if fold >= 0)


@lru_cache(maxsize=64)
def _hash(path: str, _size: int, _mtime: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123  # str is what the cache keys on
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    status = path.stat()
    return _hash(str(path), status.st_size, status.st_mtime_ns)


def table_hashes(competition: str) -> dict[str, str]:
    """The sha256 of images.csv and folds.csv, which weights and predictions carry."""
    folder = data_folder(competition)
    return {name: file_hash(folder / f"{name}.csv") for name in ("images", "folds")}


def require_hashes(path: Path, found: dict, expected: dict) -> None:
    """Raise a UserError when `path` was made from other tables than those of today, saying what to delete."""
    for name, value in expected.items():
        if found.get(name) != value:
            was = str(found.get(name))[:12]
            raise UserError(f"{path}: made from another {name}.csv ({was}…) than today's ({value[:12]}…); "
                            f"delete {path.parent} and make it again, or restore that {name}.csv")


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this code, with '+' when files differ from it; 'unknown' outside a checkout."""
    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in ("torch", "timm", "albumentations", "opencv-python-headless", "opencv-python", "pandas",
                    "scikit-learn", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance(**facts: object) -> dict:
    """What made an artifact: the facts given, the commit, and the versions."""
    return {**facts, "commit": commit(), "versions": versions()}
