"""Writing files so that a killed program leaves nothing half-made: a temporary name first, renamed
when whole."""

import ctypes
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pipeline.core.runtime.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; renamed to `path` when the block ends well,
    removed otherwise."""
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


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


def read_json(path: Path, made_by: str = "", needed: Sequence[str] = ()) -> dict:
    """A JSON object; UserError where it is missing, cut short or lacks a `needed` key."""
    if not path.is_file():
        way = f"; `{made_by}` makes it" if made_by else ""
        raise UserError(f"{path}: there is no such file{way}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also bytes that are not UTF-8
        raise UserError(f"{path}: not a JSON file ({error}); delete it and make it again") from None
    missing = [key for key in needed if not isinstance(value, dict) or key not in value]
    if missing or not isinstance(value, dict):
        raise UserError(
            f"{path}: not written by this pipeline ({', '.join(missing) or 'not an object'} is "
            "missing); delete it and make it again"
        )
    return value
