"""Where an image lies, by locator, and its bytes.

    jpeg/train/ISIC_0015719.jpg              a file, relative to the raw folder
    archive.zip::jpeg/train/ISIC_0015719.jpg a member of a zip
    train-image.hdf5::ISIC_0015670           a dataset of an HDF5 file (encoded bytes, or an array
                                             of pixels)
    train_x.h5::x/17                         row 17 of such a dataset
    training10_0.tfrecords::89765            the TFRecord that begins at that byte
    test10_data.npy::17                      row 17 of an array of images

A locator comes from a CSV, so it is checked: nothing outside the raw folder is ever opened. What a
raw folder itself links to is the user's own choice.
"""

import lzma
import math
import os
import re
import stat
import zipfile
import zlib
from collections import deque
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.core.raw import tfrecords
from pipeline.core.raw.unreadable import MAX_BYTES, UnreadableImage, check_sides

HDF5 = (".hdf5", ".h5")
NUMBERED = {
    ".tfrecords": tfrecords.tfrecord_image,
    ".tfrecord": tfrecords.tfrecord_image,
    ".npy": tfrecords.npy_image,
}
OPEN_ARCHIVES = 8  # kept open by each worker
# Bytes that a byte of a zip's member gives at most, where there is a bound.
EXPANDS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
LINKS = 16  # soft links that an HDF5 key may pass; more go in a circle


def is_outside(locator: str) -> bool:
    """True when a locator's file is not below the raw folder.

    That is: absolute, with '..', a drive letter, a backslash or NUL.
    """
    path = locator.partition("::")[0]
    if not path or "\0" in locator or "\\" in path or re.match(r"[A-Za-z]:", path):
        return True
    parts = PurePosixPath(path).parts
    return path.startswith("/") or ".." in parts or not parts


def read_source(raw: Path, locator: str) -> bytes | np.ndarray:
    """The encoded bytes, or the pixels of an HDF5 or .npy row as an array.

    UnreadableImage gives the reason where there are none.
    """
    if is_outside(locator):
        raise UnreadableImage("refused: its path leads out of the raw folder")
    file, inside, member = locator.partition("::")
    path = raw / file
    if not inside:
        return read_file(path)

    # A container: its suffix says how to read the member.
    check_regular(path)
    suffix = path.suffix.lower()
    if suffix in NUMBERED:
        return read_numbered(path, member)
    if suffix in HDF5:
        return read_hdf5(path, member)
    return read_zip(path, member)


def read_numbered(path: Path, number: str) -> bytes | np.ndarray:
    """One image of a TFRecord file (by the byte its record begins at) or of an .npy file (by its
    row)."""
    if not number.isdecimal():
        raise UnreadableImage(f"missing: {number!r} is not a number of an image in {path.name}")
    try:
        return NUMBERED[path.suffix.lower()](path, int(number))
    except (ValueError, OSError, EOFError) as error:
        raise UnreadableImage(f"damaged: in {path.name}: {error}") from None


def check_regular(path: Path) -> int:
    """The size of a plain file in bytes; a pipe or device could be waited for without end."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UnreadableImage("missing: there is no such file") from None
    except OSError as error:
        raise UnreadableImage(f"unreadable: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImage("not an image: it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not an image: it is not a plain file")
    return status.st_size


def read_file(path: Path) -> bytes:
    """A plain file's bytes."""
    size = check_regular(path)
    if size > MAX_BYTES:
        raise UnreadableImage(f"too large: {size:,} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(f"unreadable: {error.strerror}") from None


# Archives are cached by process as well as by path: a handle that two processes share after a fork
# has one file position for both.


@lru_cache(maxsize=OPEN_ARCHIVES)
def open_zip(path: Path, _process: int) -> zipfile.ZipFile:
    """A zip, its directory read once a process: 33,000 members take 0.3 s."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UnreadableImage(f"damaged: {path.name} is not a whole zip file ({error})") from None


def read_zip(path: Path, member: str) -> bytes:
    """One member's bytes, its checksum checked."""
    archive = open_zip(path, os.getpid())

    # What the directory says of the member, before anything is unpacked.
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise UnreadableImage(f"missing: {path.name} has no such member") from None
    if info.is_dir():
        raise UnreadableImage("not an image: it is a folder")
    if info.file_size > MAX_BYTES:
        raise UnreadableImage(f"too large: {info.file_size:,} bytes")
    if info.flag_bits & 1:
        raise UnreadableImage(f"encrypted: {path.name} wants a password")
    expands = EXPANDS.get(info.compress_type)
    if expands and info.file_size > expands * info.compress_size:
        raise UnreadableImage(
            f"damaged: in {path.name}: {info.compress_size:,} bytes cannot hold {info.file_size:,}"
        )

    try:
        return archive.read(info)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        OSError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise UnreadableImage(f"damaged: in {path.name}: {error}") from None


@lru_cache(maxsize=OPEN_ARCHIVES)
def open_hdf5(path: Path, _process: int):
    """An HDF5 file, opened once a process."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UnreadableImage(f"damaged: {path.name} is not a whole HDF5 file ({error})") from None


def read_hdf5(path: Path, key: str) -> bytes | np.ndarray:
    """A dataset of encoded bytes, an array of pixels, or one row of a stack of either."""
    import h5py

    file = open_hdf5(path, os.getpid())
    parent, _, last = key.rpartition("/")
    try:
        node = hdf5_node(file, key)

        # `x/17` where there is no such key: row 17 of the dataset x.
        stack = hdf5_node(file, parent) if node is None and last.isdecimal() else None
        if isinstance(stack, h5py.Dataset):
            if not stack.shape or int(last) >= stack.shape[0]:
                rows = stack.shape[:1]
                raise UnreadableImage(f"missing: {parent} of {path.name} has {rows} rows")
            return hdf5_value(stack, int(last))

        if not isinstance(node, h5py.Dataset):
            raise UnreadableImage(f"missing: {path.name} has no dataset of that key")
        return hdf5_value(node, ())
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UnreadableImage(f"damaged: in {path.name}: {error}") from None


def hdf5_node(file, key: str):
    """The group or dataset at a key, None where there is none.

    Link by link, since HDF5 itself follows one into any file of the disk. UnreadableImage for such
    a link, and for soft links that go in a circle.
    """
    import h5py

    node = file
    parts = deque(part for part in key.split("/") if part)
    links = 0
    while parts:
        part = parts.popleft()
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise UnreadableImage(f"refused: {part!r} in it is a link to another file")
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > LINKS:
                raise UnreadableImage("damaged: its links go in a circle")
            node = file if link.path.startswith("/") else node
            parts.extendleft(reversed([step for step in link.path.split("/") if step]))
            continue
        node = node[part]
    return node


def hdf5_array(path: Path, key: str) -> np.ndarray:
    """A whole dataset, labels for example; the file is closed again. UnreadableImage where there is
    none, or it lies elsewhere."""
    import h5py

    check_regular(path)
    try:
        with h5py.File(path, "r") as file:
            node = hdf5_node(file, key)
            if not isinstance(node, h5py.Dataset):
                raise UnreadableImage(f"missing: there is no dataset {key!r}")
            check_stored(node, node.shape)
            return np.asarray(node)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UnreadableImage(f"damaged: {error}") from None


def check_stored(dataset, shape: tuple[int, ...]) -> None:
    """Raise UnreadableImage where the values are not in this file, or a part of this shape is too
    large."""
    if dataset.is_virtual or dataset.external:
        raise UnreadableImage("refused: its values lie in another file")
    # HDF5 unpacks whole chunks, whatever part of one is asked for.
    values = max(math.prod(shape), math.prod(dataset.chunks or ()))
    size = values * dataset.dtype.itemsize
    if size > MAX_BYTES:
        raise UnreadableImage(f"too large: {size:,} bytes")


def hdf5_value(dataset, index) -> bytes | np.ndarray:
    """The bytes or pixels at an index of a dataset, checked before it is read."""
    shape = dataset.shape if index == () else dataset.shape[1:]
    check_stored(dataset, shape)
    if len(shape) in (2, 3):
        check_sides(shape[1], shape[0])
    if dataset.dtype.hasobject and shape:
        raise UnreadableImage(f"not an image: {shape} strings")

    # Encoded files are stored as strings, as opaque values or as rows of uint8.
    value = dataset[index]
    if isinstance(value, (bytes, np.bytes_)):
        return bytes(value)
    if isinstance(value, np.void):
        return value.tobytes()
    value = np.asarray(value)
    return value.tobytes() if value.ndim == 1 and value.dtype == np.uint8 else value
