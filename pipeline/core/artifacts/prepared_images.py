"""Which sizes of images are prepared, which the runs need, how the pixels were made, and the images
themselves, each checked as it is read.

Read from data/<comp>/prepare.json, which `pipeline.prepare` writes last, and from
data/<comp>/images/<size>.csv, which says what it wrote: image_id, bytes, crc32.
"""

import stat
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import data_folder, image_path
from pipeline.core.artifacts.tables import check_id_column, read_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import as_json
from pipeline.core.config.target_path import parse_target, runs_of
from pipeline.core.runtime.errors import UserError

CHECKSUM_COLUMNS = ("image_id", "bytes", "crc32")  # the columns of images/<size>.csv


class PreparedImage(NamedTuple):
    """Where a prepared image lies, and the bytes and CRC-32 that were written there; None for both
    where they are not known."""

    path: Path
    bytes: int | None = None
    crc32: int | None = None

    def read(self) -> bytes:
        """The file's bytes; UserError where they are not what was written.

        CRC-32 finds any damage within four bytes and all but one in 4e9 of the rest; it costs 0.4 %
        of the decoding at 384 pixels, SHA-256 3.7 %.
        """
        try:
            # A pipe of that name could be waited for without end.
            data = self.path.read_bytes() if stat.S_ISREG(self.path.stat().st_mode) else b""
        except OSError as error:
            raise self.fault(error.strerror) from None
        if self.bytes not in (None, len(data)):
            raise self.fault(f"{len(data):,} bytes, where prepare wrote {self.bytes:,}")
        if self.crc32 not in (None, zlib.crc32(data)):
            raise self.fault("not the image that prepare wrote")
        return data

    def fault(self, reason: str) -> UserError:
        """The error of this image, with what repairs it."""
        # data/<comp>/images/<size>/, where a million of them lie in folders of their own.
        folders = (folder for folder in self.path.parents if folder.name == "images")
        images = next(folders, self.path.parent)
        competition = images.parent.name
        return UserError(
            f"{self.path}: {reason}; `make prepare COMP={competition}` finds and repairs it"
        )


def prepared_images(competition: str, size: int, ids: Iterable[str]) -> list[PreparedImage]:
    """The prepared images of these ids; not checked where `prepare` did not make them."""
    ids = list(ids)
    paths = [image_path(competition, size, image) for image in ids]
    if not (data_folder(competition) / "prepare.json").is_file():
        return [PreparedImage(path) for path in paths]

    table = checksum_table(competition, size)
    places = table.index.get_indexer(ids)
    if (places < 0).any():
        first = PreparedImage(paths[int((places < 0).argmax())])
        raise first.fault(f"not listed in {checksum_file(competition, size)}")
    rows = table.iloc[places]
    return list(map(PreparedImage, paths, rows["bytes"].tolist(), rows["crc32"].tolist()))


def checksum_file(competition: str, size: int) -> Path:
    """images/<size>.csv: what `prepare` wrote at that size."""
    return data_folder(competition) / "images" / f"{size}.csv"


def checksum_table(competition: str, size: int) -> pd.DataFrame:
    """Its rows by image_id: bytes and crc32, whole numbers."""
    path = checksum_file(competition, size)
    status = path.stat() if path.is_file() else None
    return read_checksums(path, competition, status and (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4)
def read_checksums(path: Path, competition: str, _stamp: tuple | None) -> pd.DataFrame:
    table = read_csv(path, CHECKSUM_COLUMNS, f"make prepare COMP={competition}")
    check_id_column(path, table)
    for column in CHECKSUM_COLUMNS[1:]:
        if not pd.api.types.is_integer_dtype(table[column]):
            raise UserError(
                f"{path}: column {column}: not all are whole numbers; delete it, and "
                f"`make prepare COMP={competition}` makes it again"
            )
    return table.set_index("image_id")


def needed_sizes(competition: Competition, targets: Iterable[str]) -> set[int]:
    """The sizes of the runs that the targets mean; targets of other competitions do not count."""
    sizes = set()
    for target in map(parse_target, targets):
        if target.competition == competition.name:
            sizes |= {run.size for run in runs_of(competition, target)}
    return sizes


def prepared_sizes(competition: Competition) -> set[int]:
    """The sizes made by today's resize specification, those whose checksums are there; empty
    without images.csv."""
    folder = data_folder(competition.name)
    if not (folder / "images.csv").is_file() or not (folder / "prepare.json").is_file():
        return set()
    facts = read_json(folder / "prepare.json", needed=("sizes", "resize"))
    if facts["resize"] != as_json(competition.task.resize):
        return set()
    return {size for size in facts["sizes"] if checksum_file(competition.name, size).is_file()}


def pixels(competition: Competition) -> dict | None:
    """How the prepared images were resized: {"resize": ..., "method": ...}.

    Weights and predictions carry it. None where no prepare.json says it: images of the user's own.
    """
    path = data_folder(competition.name) / "prepare.json"
    if not path.is_file():
        return None
    facts = read_json(path, needed=("resize",))
    return {"resize": facts["resize"], "method": facts.get("method")}
