"""Preparing one image, the journal of what was prepared, and the sizes that exist.

A journal holds one JSON object a line, appended as each image ends, so that a killed run loses
the images in hand and no more:
    image_id, file, stamp [bytes, mtime in ns of the file or its archive], and either
    width, height, phash, decoded, brightness, file_bytes, written {size: [bytes, CRC-32]}       or
    reason                              why there is no image
"""

import json
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.artifacts.files import CHECKSUM, is_intact, sealed
from pipeline.core.artifacts.paths import image_in
from pipeline.core.config.task import Resize
from pipeline.core.images.phash import perceptual_hash
from pipeline.core.images.resize import resized, to_jpeg
from pipeline.core.raw.read import read_source
from pipeline.core.raw.unreadable import UnreadableImage

LUMA = (0.114, 0.587, 0.299)  # of blue, green, red

ImageTask = tuple[str, str, list[int]]  # image_id, locator, stamp


def prepare_one(
    task: ImageTask, raw: Path, images: Path, sizes: tuple[int, ...], resize: Resize
) -> dict:
    """Decode once, write every size into images/<size>; return the journal's line.

    A disk that cannot be written to is not a fault of the image: {"failed": reason}.
    """
    image_id, file, stamp = task
    line = {"image_id": image_id, "file": file, "stamp": stamp}

    # Everything in memory first: an image that fails writes no size at all.
    try:
        data = read_source(raw, file)
        by_size, image = resized(data, sizes, resize)
        if stamp_of(raw, file) != stamp:
            raise UnreadableImage("changed: the file was written to while it was read; run again")
        encoded = {size: to_jpeg(pixels, resize) for size, pixels in by_size.items()}
        phash = perceptual_hash(image.pixels)
    except UnreadableImage as unreadable:
        return line | {"reason": str(unreadable)}
    except MemoryError:
        return line | {"reason": "too large: memory ran out"}

    try:
        for size, content in encoded.items():
            put(image_in(images / str(size), image_id), content)
    except OSError as error:
        return {"failed": f"{images}: {error.strerror}"}
    return line | {
        "width": image.width,
        "height": image.height,
        "phash": phash,
        "decoded": image.note,
        "brightness": brightness(image.pixels),
        "file_bytes": len(data) if isinstance(data, bytes) else None,
        "written": {
            str(size): [len(content), zlib.crc32(content)] for size, content in encoded.items()
        },
    }


def brightness(pixels: np.ndarray) -> float:
    """The mean gray value, 0 to 255, of uint8 (h, w) or (h, w, 3) BGR pixels (luma of ITU-R
    BT.601), to one decimal."""
    means = cv2.mean(pixels)
    gray = means[0] if pixels.ndim == 2 else float(np.dot(LUMA, means[:3]))
    return round(gray, 1)


def put(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it.

    No fsync, which would take longer than everything else: `prepare` syncs all files of a journal
    at once before the journal counts as whole.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, path)  # noqa: PTH105  # a third of the cost of Path.replace


def stamp_of(raw: Path, file: str) -> list[int]:
    """[bytes, mtime in ns] of an image's file or archive, which show that it has changed; [] where
    it does not exist."""
    try:
        status = (raw / file.partition("::")[0]).stat()
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def read_journal(path: Path) -> Iterable[dict]:
    """The whole lines of a journal; a last line cut short by a kill is left out, and so, with a
    warning, is any that is damaged: what it was about is done again."""
    if not path.is_file():
        return
    damaged = 0
    for text in path.read_bytes().split(b"\n")[:-1]:
        line = journal_line(text)
        if line is None:
            damaged += 1
        else:
            yield line
    if damaged:
        again = f"{damaged} damaged lines; doing those images again"
        print(f"warning: {path}: {again}", file=sys.stderr)


def journal_text(line: dict) -> str:
    """A line of a journal, with its checksum."""
    return json.dumps(sealed(line)) + "\n"


def journal_line(text: bytes) -> dict | None:
    """What a line of a journal says, without its checksum; None where it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(line, dict) and is_intact(line) and {"image_id", "file", "stamp"} <= {*line}
    return {key: value for key, value in line.items() if key != CHECKSUM} if whole else None
