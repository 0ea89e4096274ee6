"""Images and labels packed in TFRecord and .npy files, read without TensorFlow and without pickle.

A TFRecord file is a row of records: length (8 bytes, little endian), its checksum (4), the data,
their checksum (4). The data are a protobuf `Example`: features (1) > entries (1) > key (1), value
(2) > bytes (1), floats (2), int64s (3). Records are named by the byte they begin at, so one is
found without reading those before it. Checksums are not verified: lengths that do not fit the file
are errors.
"""

import mmap
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline.core.raw.unreadable import check_sides

Values = list[bytes] | list[int]
OPEN_FILES = 16  # kept mapped by each process
HEADER = 12  # bytes before a record's data: length and checksum
FOOTER = 4  # bytes after them: checksum

# Protobuf's wire types: how a field's value is stored.
VARINT = 0
LENGTH_DELIMITED = 2
FIXED_BYTES = {1: 8, 5: 4}


@lru_cache(maxsize=OPEN_FILES)
def mapped(path: Path) -> mmap.mmap:
    """The whole file, mapped: only the pages that are looked at are read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def record_span(data: mmap.mmap, start: int) -> tuple[int, int]:
    """(first byte, end) of the data of the record that begins at byte `start`.

    ValueError when it leaves the file.
    """
    if start < 0 or start + HEADER + FOOTER > len(data):
        raise ValueError(f"no record begins at byte {start}")
    (length,) = struct.unpack_from("<Q", data, start)
    end = start + HEADER + length
    if end + FOOTER > len(data):
        raise ValueError(
            f"the record at byte {start} of {length} bytes leaves the file: "
            "not a TFRecord, or cut short"
        )
    return start + HEADER, end


def record_starts(path: Path) -> Iterator[int]:
    """The byte each record of a TFRecord file begins at."""
    data = mapped(path)
    start = 0
    while start < len(data):
        yield start
        start = record_span(data, start)[1] + FOOTER


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A protobuf varint at byte `at`: (value, the byte after it). Seven bits a byte, low first."""
    value = 0
    shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number runs past the end: no tf.train.Example")
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return value, at


def messages(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, bytes or number) of each field of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number = tag >> 3
        kind = tag & 7
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, value
            continue

        if kind == LENGTH_DELIMITED:
            length, at = varint(data, at)
        else:
            length = FIXED_BYTES.get(kind, -1)
        if length < 0 or at + length > len(data):
            raise ValueError(f"field {number} of kind {kind} does not fit: no tf.train.Example")
        yield number, data[at : at + length]
        at += length


def only(data: memoryview, number: int) -> Iterator[memoryview]:
    """The sub-messages of one field number."""
    for field, value in messages(data):
        if field == number and isinstance(value, memoryview):
            yield value


def int64s(data: memoryview) -> list[int]:
    """An Int64List: packed or not, two's complement."""
    numbers = []
    for _, value in messages(data):
        if isinstance(value, int):
            numbers.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = varint(value, at)
            numbers.append(number)
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def parse_example(path: Path, start: int, wanted: tuple[str, ...]) -> dict[str, Values]:
    """The wanted features of the Example at byte `start`: lists of bytes or of int64.

    Floats are left out.
    """
    # Example > features > entries > key and value; keys that are not wanted are not unpacked.
    first, end = record_span(mapped(path), start)
    values: dict[str, Values] = {}
    for features in only(memoryview(mapped(path))[first:end], 1):
        for entry in only(features, 1):
            name = b"".join(bytes(key) for key in only(entry, 1)).decode("utf-8", "replace")
            if name not in wanted:
                continue
            for feature in only(entry, 2):
                for value in feature_values(feature):
                    values[name] = value
    return values


def feature_values(feature: memoryview) -> Iterator[Values]:
    """The lists of a Feature: BytesList (field 1) or Int64List (field 3)."""
    for kind, items in messages(feature):
        if not isinstance(items, memoryview):
            continue
        if kind == 1:
            yield [bytes(item) for item in only(items, 1)]
        elif kind == 3:
            yield int64s(items)


def as_square_image(data: bytes) -> np.ndarray | bytes:
    """Raw gray pixels of a square image as (S, S) uint8; anything else (a JPEG) as it is."""
    # A JPEG's length may be a square number too, so its first bytes decide.
    side = round(len(data) ** 0.5)
    encoded = data[:2] == b"\xff\xd8" or data[:4] == b"\x89PNG"
    if encoded or side * side != len(data):
        return data
    return np.frombuffer(data, np.uint8).reshape(side, side)


def tfrecord_image(path: Path, start: int) -> np.ndarray | bytes:
    """The feature `image` of the record at byte `start`, encoded or as square gray pixels."""
    images = parse_example(path, start, ("image",)).get("image", [])
    if not images:
        raise ValueError(f"the record at byte {start} has no feature 'image'")
    return as_square_image(images[0])


@lru_cache(maxsize=OPEN_FILES)
def npy(path: Path) -> np.ndarray:
    """An .npy file, mapped; object arrays, which would need pickle, are refused."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def npy_image(path: Path, row: int) -> np.ndarray:
    """One row of a stack of images (N, h, w[, c])."""
    stack = npy(path)
    if stack.ndim not in (3, 4) or not 0 <= row < len(stack):
        raise ValueError(f"there is no row {row} of images in an array of shape {stack.shape}")
    check_sides(stack.shape[2], stack.shape[1])
    return np.array(stack[row])
