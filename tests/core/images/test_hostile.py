"""Files made to harm: each ends in its true reason, within bounds of memory, in the worker that
`prepare` and the packages decode in."""

import io
import itertools
import os
import re
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline.core.images.decoding.decode import decode
from pipeline.core.raw.read import hdf5_array, read_source
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runtime.workers import WorkerDied, worker_pool
from tests.cases.bad_files import CONTENT as BAD
from tests.cases.bad_files import encoded, photograph, png_header, with_sides

pydicom = pytest.importorskip("pydicom")
from tests.cases.dicoms import RAMP, made, written  # noqa: E402

MOST_MEMORY = 300 << 20  # bytes that a worker may need for any of these files
HUGE = 60_000  # a side of more pixels than are opened
LARGE = 11_000  # a side of as many as are


def saved(kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph(1)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def tiff(side: int, **options) -> bytes:
    """A small TIFF that claims these sides."""
    data = saved("TIFF", **options)
    # The sides are 16 or 32 bits, whichever the writer chose.
    for tag, (kind, form) in itertools.product((256, 257), ((3, "<HH"), (4, "<I"))):
        place = data.find(struct.pack("<HHI", tag, kind, 1)) + 8
        if place >= 8:
            value = struct.pack(form, *(side, 0)[: len(form) - 1])
            data = data[:place] + value + data[place + 4 :]
    return data


def bmp(side: int) -> bytes:
    data = saved("BMP")
    return data[:18] + struct.pack("<II", side, side) + data[26:]


def webp(side: int) -> bytes:
    """A lossless WebP that claims these sides."""
    data = saved("WEBP", lossless=True)
    bits = (side - 1) | (side - 1) << 14
    return data[:21] + struct.pack("<I", bits) + data[25:]


def jp2(side: int, tile: int) -> bytes:
    """A JPEG 2000 that claims these sides, and tiles of that side."""
    data = saved("JPEG2000")
    place = data.index(b"\xff\x4f\xff\x51") + 8
    sides = struct.pack(">6I", side, side, 0, 0, tile, tile)
    header = data.index(b"ihdr") + 4
    data = data[:header] + struct.pack(">II", side, side) + data[header + 8 :]
    return data[:place] + sides + data[place + 24 :]


def png_of_one_byte(side: int) -> bytes:
    body = zlib.compress(b"\0")
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body
    return png_header(side, side) + chunk + struct.pack(">I", zlib.crc32(b"IDAT" + body)) + END


END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))


def dicom(syntax: str, frame: bytes | None = None, **tags) -> bytes:
    """A DICOM of 64 x 64, with this compressed frame in it."""
    dataset = made(RAMP)
    if frame is not None:
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in tags.items():
        setattr(dataset, name, value)
    return written(dataset)


def jpeg_ls(side: int) -> bytes:
    """A JPEG-LS frame of nothing that claims these sides."""
    frame = struct.pack(">BHHB", 12, side, side, 1) + b"\1\x11\0"
    scan = b"\1\1\0\0\0\0"
    return (
        b"\xff\xd8\xff\xf7" + struct.pack(">H", len(frame) + 2) + frame
        + b"\xff\xda" + struct.pack(">H", len(scan) + 2) + scan + bytes(200) + b"\xff\xd9"
    )  # fmt: skip


LS = "1.2.840.10008.1.2.4.80"
LOSSLESS = "1.2.840.10008.1.2.4.70"
J2K = "1.2.840.10008.1.2.4.90"
PLAIN = "1.2.840.10008.1.2.1"

CONTENT = {
    "jpeg, huge": (lambda: with_sides(encoded(1), 65535, 65535), "too large"),
    "jpeg, large": (lambda: with_sides(encoded(1), LARGE, LARGE), "truncated: .* cannot hold"),
    "png, huge": (lambda: png_of_one_byte(HUGE), "too large"),
    "png, large": (lambda: png_of_one_byte(LARGE), "truncated: .* cannot hold"),
    "gif, huge": (lambda: BAD["gif bomb"][0](1), "too large"),
    "tiff, huge": (lambda: tiff(HUGE), "too large"),
    "tiff, large": (lambda: tiff(LARGE), "truncated: .* cannot hold"),
    "tiff, packed": (lambda: tiff(LARGE, compression="packbits"), "truncated: .* cannot hold"),
    "bmp, huge": (lambda: bmp(HUGE), "too large"),
    "bmp, large": (lambda: bmp(LARGE), "truncated: .* cannot hold"),
    "pnm, large": (lambda: b"P5 11000 11000 255 " + bytes(9), "truncated: .* cannot hold"),
    "pnm, huge": (lambda: b"P6 60000 60000 255 " + bytes(9), "too large"),
    "webp, huge": (lambda: webp(16383), "too large"),
    "qoi, large": (lambda: b"qoif" + struct.pack(">II", LARGE, LARGE) + b"\3\0" + bytes(9),
                   "truncated: .* cannot hold"),
    "jpeg 2000, huge": (lambda: jp2(HUGE, HUGE), "too large"),
    "jpeg 2000, tiles": (lambda: jp2(LARGE, 1), "too large: .* tiles"),
    "dicom, huge": (lambda: dicom(PLAIN, Rows=HUGE, Columns=HUGE), "too large"),
    "dicom, samples": (lambda: dicom(PLAIN, Rows=LARGE, Columns=LARGE, SamplesPerPixel=999),
                       "too large"),
    "dicom, cut": (lambda: dicom(PLAIN, Rows=LARGE, Columns=LARGE), "truncated"),
    "dicom, jpeg-ls lies": (lambda: dicom(LS, jpeg_ls(65535)), "damaged: DICOM: it says 64 x 64"),
    "dicom, lossless lies": (lambda: dicom(LOSSLESS, jpeg_ls(HUGE).replace(b"\xf7", b"\xc3", 1)),
                             "damaged: DICOM: it says 64 x 64"),
    "dicom, jpeg 2000 lies": (lambda: dicom(J2K, jp2(HUGE, HUGE)),
                              "damaged: DICOM: it says 64 x 64"),
    "dicom, jpeg 2000 tiles": (lambda: dicom(J2K, jp2(LARGE, 1), Rows=LARGE, Columns=LARGE),
                               "too large: .* tiles"),
    "dicom, frames": (lambda: dicom(PLAIN, NumberOfFrames=-3), "no pixels"),
    "dicom, empty pixels": (lambda: dicom(PLAIN, PixelData=b""), "no pixels"),
}  # fmt: skip


def in_zip(folder: Path, content: bytes, method: int) -> bytes:
    with zipfile.ZipFile(folder / "a.zip", "w", method) as archive:
        archive.writestr("a.jpg", content)
    return (folder / "a.zip").read_bytes()


def zip_claims(folder: Path, size: int) -> str:
    """A zip whose directory claims that its member unpacks to so many bytes."""
    data = bytearray(in_zip(folder, encoded(1), zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, size)
    (folder / "a.zip").write_bytes(data)
    return "a.zip::a.jpg"


def broken_lzma(folder: Path) -> str:
    data = bytearray(in_zip(folder, os.urandom(5000), zipfile.ZIP_LZMA))
    start = 30 + len("a.jpg") + 9  # the local header, the name, LZMA's own header
    data[start : start + 2000] = bytes(2000)
    (folder / "a.zip").write_bytes(data)
    return "a.zip::a.jpg"


def encrypted(folder: Path) -> str:
    data = bytearray(in_zip(folder, encoded(1), zipfile.ZIP_STORED))
    data[data.index(b"PK\1\2") + 8] |= 1
    (folder / "a.zip").write_bytes(data)
    return "a.zip::a.jpg"


def hdf5(folder: Path, fill, key: str = "x") -> str:
    with h5py.File(folder / "a.hdf5", "w") as file:
        fill(file)
    return f"a.hdf5::{key}"


def other_file(folder: Path) -> None:
    """What a link leads to, outside the raw folder."""
    with h5py.File(folder.parent / "secret.h5", "w") as file:
        file["x"] = photograph(1)


def external_link(folder: Path) -> str:
    other_file(folder)
    return hdf5(folder, lambda file: file.__setitem__("x", h5py.ExternalLink("../secret.h5", "x")))


def soft_to_external(folder: Path) -> str:
    other_file(folder)

    def fill(file) -> None:
        file["group/out"] = h5py.ExternalLink("../secret.h5", "/")
        file["x"] = h5py.SoftLink("/group/out/x")

    return hdf5(folder, fill)


def external_storage(folder: Path) -> str:
    (folder.parent / "secret").write_bytes(bytes(4096))
    outside = [("../secret", 0, 4096)]
    return hdf5(folder, lambda file: file.create_dataset("x", (64, 64), np.uint8, external=outside))


def virtual(folder: Path) -> str:
    other_file(folder)
    layout = h5py.VirtualLayout((64, 64, 3), np.uint8)
    layout[:] = h5py.VirtualSource("../secret.h5", "x", (64, 64, 3))
    return hdf5(folder, lambda file: file.create_virtual_dataset("x", layout))


def soft_loop(folder: Path) -> str:
    def fill(file) -> None:
        file["x"] = h5py.SoftLink("/y")
        file["y"] = h5py.SoftLink("/x")

    return hdf5(folder, fill)


def hdf5_of(shape: tuple, chunks: tuple | None = None, key: str = "x"):
    """A function that writes an HDF5 file of zeros that were never stored."""
    return lambda folder: hdf5(
        folder, lambda file: file.create_dataset("x", shape, np.uint8, chunks=chunks), key
    )


def strings(folder: Path) -> str:
    kind = h5py.vlen_dtype(np.uint8)
    return hdf5(folder, lambda file: file.create_dataset("x", (1000,), kind))


def link(folder: Path, target: str) -> str:
    (folder / "a.jpg").symlink_to(target)
    return "a.jpg"


def special(folder: Path, make) -> str:
    make(folder / "a.jpg")
    return "a.jpg"


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))


def tfrecord(folder: Path) -> str:
    (folder / "a.tfrecords").write_bytes(struct.pack("<Q", 1 << 62) + bytes(40))
    return "a.tfrecords::0"


def npy(folder: Path) -> str:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 60000, 60000), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    (folder / "a.npy").write_bytes(content + bytes(100))
    return "a.npy::0"


def pickled(folder: Path) -> str:
    np.save(folder / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return "a.npy::0"


PLACES = {
    "zip claims a gigabyte more": (lambda raw: zip_claims(raw, (1 << 30) + 1), "too large"),
    "zip claims 100 MB": (lambda raw: zip_claims(raw, 100 << 20), "damaged: in a.zip: .* cannot"),
    "zip, lzma": (broken_lzma, "damaged: in a.zip"),
    "zip, encrypted": (encrypted, "encrypted"),
    "zip, name above": (lambda raw: in_zip(raw, b"", 0) and "a.zip::../../etc/passwd", "missing"),
    "hdf5, external link": (external_link, "refused"),
    "hdf5, link by another": (soft_to_external, "refused"),
    "hdf5, external storage": (external_storage, "refused"),
    "hdf5, virtual": (virtual, "refused"),
    "hdf5, links in a circle": (soft_loop, "damaged: its links go in a circle"),
    "hdf5, huge": (hdf5_of((HUGE, HUGE), (1, HUGE)), "too large"),
    "hdf5, huge bytes": (hdf5_of((1 << 40,), (1 << 20,)), "too large"),
    "hdf5, huge chunk": (hdf5_of((3000, 1000, 1000), (2000, 1000, 1000), "x/0"), "too large"),
    "hdf5, many strings": (strings, "not an image"),
    "tfrecord length": (tfrecord, "damaged"),
    "npy, huge": (npy, "damaged|too large"),
    "npy, pickle": (pickled, "damaged"),
    "pipe": (lambda raw: special(raw, os.mkfifo), "not an image: it is not a plain file"),
    "socket": (lambda raw: special(raw, a_socket), "not an image: it is not a plain file"),
    "folder": (lambda raw: special(raw, Path.mkdir), "not an image: it is a folder"),
    "device": (lambda raw: link(raw, "/dev/zero"), "not an image: it is not a plain file"),
    "link to itself": (lambda raw: link(raw, "a.jpg"), "unreadable: Too many levels"),
    "link to nothing": (lambda raw: link(raw, "gone"), "missing"),
    "absolute name": (lambda _: "/etc/passwd", "refused"),
    "name above": (lambda _: "../secret", "refused"),
    "name above, inside": (lambda _: "a/../../secret", "refused"),
    "archive above": (lambda _: "../a.zip::a.jpg", "refused"),
    "name with NUL": (lambda _: "a\0.jpg", "refused"),
}


def outcome(locator: str, raw: Path) -> tuple[str, int]:
    """(the reason or the shape, bytes of memory at most), in a worker."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest use so far
    before = peak()
    try:
        result = str(decode(read_source(raw, locator)).pixels.shape)
    except UnreadableImage as unreadable:
        result = str(unreadable)
    return result, peak() - before


def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """Decode a file of a raw folder in a worker of its own."""
    raw = tmp_path_factory.mktemp("world") / "raw"
    raw.mkdir()
    with worker_pool(1, outcome, raw, limit=20.0) as run:
        yield raw, lambda locator: next(iter(run([locator])))[1]


@pytest.mark.parametrize("name", [*CONTENT, *PLACES])
def test_a_hostile_file_is_told_and_takes_little_memory(worker, name, monkeypatch):
    raw, decoded = worker
    monkeypatch.chdir(raw)
    place = raw / str(len(list(raw.iterdir())))
    place.mkdir()
    if name in CONTENT:
        make, reason = CONTENT[name]
        (place / "a.jpg").write_bytes(make())
        locator = "a.jpg"
    else:
        make, reason = PLACES[name]
        locator = make(place)
    if not reason.startswith("refused") or "::" in locator:
        locator = f"{place.name}/{locator}"
    result = decoded(locator)
    assert not isinstance(result, WorkerDied), result
    told, memory = result
    assert re.match(reason, told), told
    assert memory < MOST_MEMORY, f"{memory:,} bytes"


def test_sound_files_of_rare_kinds_are_read(tmp_path):
    cmyk = saved("TIFF", "CMYK", compression="tiff_lzw")
    assert decode(cmyk).pixels.shape == (64, 64, 3)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["group/x"] = photograph(1)
        file["y"] = h5py.SoftLink("/group/x")  # a link that stays inside
    assert np.array_equal(read_source(tmp_path, "a.hdf5::y"), photograph(1))


def test_labels_in_hdf5_come_from_their_own_file(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    locator = external_link(raw)
    with pytest.raises(UnreadableImage, match="refused"):
        hdf5_array(raw / locator.partition("::")[0], "x")
    hdf5(raw, lambda file: file.__setitem__("y", [0, 1, 1]))
    assert hdf5_array(raw / "a.hdf5", "y").tolist() == [0, 1, 1]
