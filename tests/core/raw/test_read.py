"""Locators: files, zip members, HDF5 rows; nothing outside the raw folder, nothing that could be
waited for."""

import os
import zipfile

import numpy as np
import pytest

from pipeline.core.raw import read
from pipeline.core.raw.read import is_outside, read_source
from pipeline.core.raw.unreadable import UnreadableImage


@pytest.fixture
def raw(tmp_path):
    """A raw folder with one of each container, beside a file that is not to be read."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "raw"
    (folder / "jpeg").mkdir(parents=True)
    (folder / "jpeg" / "a.jpg").write_bytes(b"plain")
    with zipfile.ZipFile(folder / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jpeg/train/a.jpg", b"zipped" * 100)
        archive.writestr("jpeg/train/", b"")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 and nothing more")
    return folder


@pytest.mark.parametrize(
    "locator",
    [
        "/etc/passwd",
        "../secret",
        "jpeg/../../secret",
        "",
        ".",
        "::a",
        "C:\\x.jpg",
        "a\\..\\..\\b",
        "x\0.jpg",
        "../x.zip::a",
    ],
)
def test_nothing_outside_is_read(raw, locator):
    assert is_outside(locator)
    with pytest.raises(UnreadableImage, match="refused"):
        read_source(raw, locator)


@pytest.mark.parametrize(
    "locator", ["a.jpg", "a/b.c/d..e.jpg", "x.zip::../a", "CheXpert-v1.0 batch 1 (a & b)/p.jpg"]
)
def test_paths_inside_are_taken(locator):
    assert not is_outside(locator)


def test_files_and_zip_members(raw):
    assert read_source(raw, "jpeg/a.jpg") == b"plain"
    assert read_source(raw, "all.zip::jpeg/train/a.jpg") == b"zipped" * 100


@pytest.mark.parametrize(
    "locator, why",
    [
        ("jpeg/none.jpg", "missing"),
        ("jpeg", "not an image: it is a folder"),
        ("none.zip::a", "missing"),
        ("all.zip::none.jpg", "missing"),
        ("all.zip::jpeg/train/", "not an image"),
        ("broken.zip::a.jpg", "damaged"),
        ("jpeg/a.jpg/b.jpg", "unreadable"),
        ("x" * 300 + ".jpg", "unreadable"),
    ],
)
def test_what_is_not_there_says_so(raw, locator, why):
    with pytest.raises(UnreadableImage, match=why):
        read_source(raw, locator)


def test_a_pipe_is_not_waited_for(raw):
    os.mkfifo(raw / "pipe.jpg")
    with pytest.raises(UnreadableImage, match="not a plain file"):
        read_source(raw, "pipe.jpg")


def test_a_changed_byte_in_a_zip_is_noticed(raw):
    content = bytearray((raw / "all.zip").read_bytes())
    content[content.index(b"a.jpg") + 8] ^= 0xFF
    (raw / "changed.zip").write_bytes(content)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_source(raw, "changed.zip::jpeg/train/a.jpg")


def test_what_is_too_large_is_not_read(raw, monkeypatch):
    monkeypatch.setattr(read, "MAX_BYTES", 4)
    for locator in ("jpeg/a.jpg", "all.zip::jpeg/train/a.jpg"):
        with pytest.raises(UnreadableImage, match="too large"):
            read_source(raw, locator)


def test_hdf5(raw):
    h5py = pytest.importorskip("h5py")
    stack = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with h5py.File(raw / "all.hdf5", "w") as file:
        file["ISIC_1"] = np.void(b"jpeg\0bytes\0")
        file["ISIC_2"] = np.frombuffer(b"jpeg bytes", np.uint8)
        file["ISIC_3"] = stack[0]
        file.create_dataset("x", data=stack, compression="gzip")
        file.create_dataset(
            "rows", data=np.array([b"ab", b"cd"], dtype=h5py.string_dtype("ascii", 2))
        )
    assert read_source(raw, "all.hdf5::ISIC_1") == b"jpeg\0bytes\0"
    assert read_source(raw, "all.hdf5::ISIC_2") == b"jpeg bytes"
    assert np.array_equal(read_source(raw, "all.hdf5::ISIC_3"), stack[0])
    for row in range(5):
        assert np.array_equal(read_source(raw, f"all.hdf5::x/{row}"), stack[row])
    assert read_source(raw, "all.hdf5::rows/1") == b"cd"
    for key in ("none", "x/5", "x/-1", "x/y", "ISIC_3/a/1"):
        with pytest.raises(UnreadableImage, match="missing"):
            read_source(raw, f"all.hdf5::{key}")
    (raw / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UnreadableImage, match="damaged"):
        read_source(raw, "broken.h5::x")
