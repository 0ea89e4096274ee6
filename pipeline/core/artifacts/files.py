"""Writing files so that a killed program leaves nothing half-made, and reading back JSON that tells
when it has been damaged.

A file is written under a temporary name and renamed when whole. A JSON object that a stage leaves
behind carries a checksum of itself, by which reading it finds any changed byte.
"""

import ctypes
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.interruption import interruptible, uninterrupted

CHECKSUM = "checksum"  # the key of a sealed object's own checksum, its last


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file to write to; renamed to `path` when the block ends well, removed otherwise.

    It lies in a folder of its own beside `path`, so that what a library leaves around it when it
    is killed is known by that folder's name, and goes when `path` is written the next time.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        with uninterrupted():
            folder, handle = locked_folder(path)
            try:
                with interruptible():
                    # The mode that the user's umask gives; safetensors would make the file private.
                    temporary = folder / path.name
                    temporary.touch()
                    mode = temporary.stat().st_mode
                    yield temporary
                    temporary.chmod(mode)
                    with temporary.open("rb") as file:
                        os.fsync(file.fileno())
                    temporary.replace(path)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(handle)
    except OSError as error:
        # A full disk has no name of its own, and a temporary one helps nobody.
        raise OSError(error.errno, error.strerror, str(path)) from error


def locked_folder(path: Path) -> tuple[Path, int]:
    """A new temporary folder beside `path`, and a handle that locks it as long as it is open, hence
    while its process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        # Before it is locked, another process's `remove_abandoned` may take it away.
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            # Some network file systems lock no folders: there its leftovers stay.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():
                return folder, handle
            os.close(handle)


def remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of `path` whose writers were killed, those that nobody locks."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        try:
            handle = os.open(folder, os.O_RDONLY)
        except OSError:
            continue  # another process has removed it
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sync_filesystem(folder: Path) -> None:
    """Have all that was written to a folder's file system on the disk when this returns: for many
    files far cheaper than to sync each."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if libc is None or not hasattr(libc, "syncfs"):
            os.sync()
        elif libc.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)


def plain_text(text: str) -> str:
    """The text as it can be written: under LANG=C the bytes of a path's other letters reach Python
    as lone surrogates, which become those letters again; a byte that is no UTF-8 becomes \ufffd."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(plain_text(text), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_sealed(path: Path, value: dict) -> None:
    """Write a JSON object with its checksum, as `write_json` does; `read_json` checks it."""
    # The checksum is of what will be read.
    written = json.loads(plain_text(json.dumps(value, ensure_ascii=False)))
    write_json(path, sealed(written))


def sealed(value: dict) -> dict:
    """The object with a checksum of itself as its last key.

    >>> value = sealed({"a": 1})
    >>> is_intact(value), is_intact({**value, "a": 2}), is_intact({"a": 2})
    (True, False, True)
    """
    return {**value, CHECKSUM: checksum(value)}


def is_intact(value: dict) -> bool:
    """False where an object is not the one that was sealed; True where it has no checksum: older
    versions wrote none, and no single changed byte both takes it away and harms the rest."""
    rest = {key: item for key, item in value.items() if key != CHECKSUM}
    return value.get(CHECKSUM, checksum(rest)) == checksum(rest)


def checksum(value: object) -> str:
    """The first 16 digits of the sha256 of a JSON value, whatever its spacing."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


@lru_cache(maxsize=64)
def _hash(path: str, _size: int, _mtime: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:  # noqa: PTH123  # str is what the cache keys on
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    require_plain(path)
    status = path.stat()
    return _hash(str(path), status.st_size, status.st_mtime_ns)


def file_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256 of files below a folder, to be held against them later by `first_changed`."""
    return {name: file_hash(folder / name) for name in names}


def first_changed(folder: Path, hashes: dict[str, str]) -> str:
    """The first of the files below a folder that is missing or has another sha256, "" where none
    does."""
    for name, expected in hashes.items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            return name
    return ""


def require_plain(path: Path) -> None:
    """Raise a UserError where `path` exists and is no plain file: a pipe would be waited for
    without end."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise UserError(f"{path}: is {kind}, not a file; remove it and run the same command again")


def read_text(path: Path) -> str:
    """A file's text; UserError where it is no plain file or not UTF-8."""
    require_plain(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; mend it by hand") from None


def unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object; ValueError where a key is there twice, of which others would take the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def read_json(path: Path, made_by: str = "", needed: Sequence[str] = ()) -> dict:
    """A JSON object without its checksum; UserError where it is missing, damaged or lacks a
    `needed` key."""
    require_plain(path)
    if not path.is_file():
        way = f"; `{made_by}` makes it" if made_by else ""
        raise UserError(f"{path}: there is no such file{way}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise UserError(f"{path}: not a JSON file ({error}); delete it and make it again") from None
    missing = [key for key in needed if not isinstance(value, dict) or key not in value]
    if missing or not isinstance(value, dict):
        raise UserError(
            f"{path}: not written by this pipeline ({', '.join(missing) or 'an object'} is "
            "missing); delete it and make it again"
        )
    if not is_intact(value):
        raise UserError(
            f"{path}: differs from what was written (damaged, or changed by hand); delete it and "
            "make it again"
        )
    value.pop(CHECKSUM, None)
    return value
