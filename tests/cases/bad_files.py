"""Twenty kinds of bad image files, each with the beginning of the true reason."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def photograph(seed: int, side: int = 64) -> np.ndarray:
    """A small RGB image that differs from seed to seed."""
    y, x = np.mgrid[0:side, 0:side]
    return np.stack(
        [(x * 3 + seed) % 256, (y * 2 + seed // 7) % 256, (x + y + seed) % 256], axis=2
    ).astype(np.uint8)


def encoded(seed: int, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph(seed)).save(file, kind, **options)
    return file.getvalue()


def with_sides(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims other sides."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def dicom_without_pixels() -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0"
    element = struct.pack("<HH2sH", 2, 16, b"UI", len(syntax)) + syntax
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(128) + b"DICM" + group + element + struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 64)


def write_zip(path: Path, name: str, seed: int) -> None:
    """A zip whose one member has a changed byte."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, encoded(seed))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


CONTENT = {
    "empty": (lambda _: b"", "empty"),
    "text": (lambda seed: b"not an image %d" % seed, "not an image"),
    "web page": (lambda _: b"<!doctype html><title>403</title>", "not an image"),
    "zeros": (lambda _: bytes(3000), "not an image"),
    "pdf": (lambda _: b"%PDF-1.4\n1 0 obj\n", "not an image"),
    "cut jpeg": (lambda seed: encoded(seed)[: -len(encoded(seed)) // 3], "truncated"),
    "cut jpeg header": (lambda seed: encoded(seed)[:150], "truncated"),
    "jpeg bomb": (lambda seed: with_sides(encoded(seed), 65000, 65000), "too large"),
    "jpeg without rows": (lambda seed: with_sides(encoded(seed), 64, 0), "no pixels"),
    "jpeg of 12 bits": (
        lambda seed: encoded(seed).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
        "a JPEG of",
    ),
    "cut png": (lambda seed: encoded(seed, "PNG")[: len(encoded(seed, "PNG")) // 2], "truncated"),
    "changed png": (
        lambda seed: encoded(seed, "PNG").replace(b"IDAT", b"IDAT\0", 1)[:-1],
        "damaged",
    ),
    "png bomb": (lambda seed: png_header(50000, 50000) + encoded(seed, "PNG")[33:], "too large"),
    "cut tiff": (lambda seed: encoded(seed, "TIFF")[:5000], "truncated"),
    "gif bomb": (
        lambda _: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        "too large",
    ),
    "dicom without pixels": (lambda _: dicom_without_pixels() + b"\x40\0", "no pixels"),
}
ELSEWHERE = ("missing", "folder", "pipe", "broken zip")  # what a file's bytes alone cannot be
KINDS = (*CONTENT, *ELSEWHERE)
REASONS = {
    "missing": "missing",
    "folder": "not an image: it is a folder",
    "pipe": "not an image: it is not a plain file",
    "broken zip": "damaged",
    **{kind: reason for kind, (_, reason) in CONTENT.items()},
}


def make(raw: Path, kind: str, seed: int) -> str:
    """Put a bad file of that kind into `raw`; its locator."""
    name = f"bad_{KINDS.index(kind):02d}_{seed}.jpg"
    if kind in CONTENT:
        (raw / name).write_bytes(CONTENT[kind][0](seed))
    elif kind == "folder":
        (raw / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(raw / name)
    elif kind == "broken zip":
        write_zip(raw / f"{name}.zip", "a.jpg", seed)
        return f"{name}.zip::a.jpg"
    return name
