"""Where images and tables are found, and what stands under their names without being them."""

import os
import struct
import zipfile

import pytest

from pipeline.core import raw as source
from pipeline.core.runtime.errors import UserError


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".tif", ".TIFF", ".dcm"])
def test_images_are_found_by_any_usual_ending(tmp_path, suffix):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/readme.txt").touch()
    with pytest.raises(UserError, match=r"no folder train with images \(\.jpg, "):
        source.find_images(tmp_path, ("train",))
    (tmp_path / f"train/a{suffix}").touch()
    assert source.find_images(tmp_path, ("train",)) == ("train/", suffix)


def test_a_pipe_called_zip_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.zip")
    with pytest.raises(UserError, match=r"train\.zip: this is not a file"):
        source.find_table(tmp_path, ("train.csv",))


def zipped_table(folder, content: str, method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    with zipfile.ZipFile(folder / "t.zip", "w", method) as archive:
        archive.writestr("t.csv", content)
    return bytearray((folder / "t.zip").read_bytes())


def test_a_zipped_table_has_a_size_limit(tmp_path):
    data = zipped_table(tmp_path, "image_id\na\n")
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, (1 << 30) + 1)
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.csv: too large for a table: 1,073,741,825 bytes"):
        source.read_table(tmp_path, "t.zip::t.csv")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_zipped_table_is_told(tmp_path, method):
    lines = "".join(f"{number},{number * 7919 % 1009}\n" for number in range(2000))
    data = zipped_table(tmp_path, "image_id,x\n" + lines, method)
    assert len(source.read_table(tmp_path, "t.zip::t.csv")) == 2000
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "t.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"t\.csv: this is not a CSV file"):
        source.read_table(tmp_path, "t.zip::t.csv")
