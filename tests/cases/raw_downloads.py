"""Small raw downloads written by hand; every image's bytes are its own name, so that a locator
can be checked."""

import os
import zipfile
from pathlib import Path

import pandas as pd

from pipeline.core.raw.read import read_source

SHARED = Path(os.environ.get("SHARED_DATA", "../shared/data"))


def write(root: Path, files: dict[str, str]) -> Path:
    """Write text files below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def pack(raw: Path, archive: str, files: dict[str, str]) -> Path:
    """Write text files into a zip."""
    raw.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(raw / archive, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return raw


def contents(raw: Path, table: pd.DataFrame) -> dict[str, str]:
    """image_id -> what its locator leads to."""
    return {row.image_id: read_source(raw, row.file).decode() for row in table.itertuples()}
