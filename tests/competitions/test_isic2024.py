"""ISIC 2024's files: images by key in HDF5 or in folders, what only training rows tell, test sets
of any size."""

import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.competitions import isic2024
from pipeline.core.images.decoding.decode import decode
from pipeline.core.raw.read import read_source
from pipeline.core.runtime.errors import UserError
from pipeline.demo import isic2024 as synthetic
from tests.cases.raw_downloads import contents, write


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("isic2024")
    synthetic.write(folder, images=60, seed=1, side=48)
    return folder


def copy_tables(raw, folder):
    """The three tables in another folder."""
    return write(folder, {file.name: file.read_text() for file in raw.glob("*.csv")})


def test_images_are_found_by_key_and_decode(raw):
    table = isic2024.read_raw(raw)
    assert table["split"].value_counts().to_dict() == {"train": 60, "test": 3}
    with h5py.File(raw / "train-image.hdf5") as file:
        first = table.iloc[0]
        assert bytes(read_source(raw, first["file"])) == file[first["image_id"]][()].tobytes()
    assert decode(read_source(raw, first["file"])).pixels.shape[2] == 3
    assert list(isic2024.sample(raw)["isic_id"]) == list(
        table["image_id"][table["split"] == "test"]
    )


def test_columns_that_tell_the_diagnosis_are_not_read(raw):
    secret = {
        "iddx_full",
        "iddx_1",
        "mel_thick_mm",
        "mel_mitotic_index",
        "tbp_lv_dnn_lesion_confidence",
        "attribution",
    }
    told = pd.read_csv(raw / "train-metadata.csv", nrows=1)
    assert len(told.columns) == 55 and secret < set(told.columns)
    assert not secret & set(isic2024.read_raw(raw).columns)
    columns = {*isic2024.task.numeric, *isic2024.task.categorical}
    assert columns < set(pd.read_csv(raw / "test-metadata.csv", nrows=1).columns)


def test_folders_instead_of_hdf5(raw, tmp_path):
    copy_tables(raw, tmp_path)
    ids = {
        split: pd.read_csv(raw / f"{split}-metadata.csv")["isic_id"] for split in ("train", "test")
    }
    write(
        tmp_path, {f"{split}-image/image/{name}.jpg": name for split in ids for name in ids[split]}
    )
    table = isic2024.read_raw(tmp_path)
    assert contents(tmp_path, table) == {name: name for name in table["image_id"]}


def test_an_empty_test_set(raw, tmp_path):
    copy_tables(raw, tmp_path)
    for name in ("train-image.hdf5", "test-image.hdf5"):
        (tmp_path / name).symlink_to(raw / name)
    for name in ("test-metadata.csv", "sample_submission.csv"):
        (tmp_path / name).write_text((raw / name).read_text().splitlines()[0] + "\n")
    assert set(isic2024.read_raw(tmp_path)["split"]) == {"train"} and not len(
        isic2024.sample(tmp_path)
    )


def test_a_test_row_that_is_a_training_row(raw, tmp_path):
    copy_tables(raw, tmp_path)
    for name in ("train-image.hdf5", "test-image.hdf5"):
        (tmp_path / name).symlink_to(raw / name)
    test = pd.read_csv(raw / "test-metadata.csv")
    test.loc[1, "isic_id"] = pd.read_csv(raw / "train-metadata.csv")["isic_id"][5]
    test.to_csv(tmp_path / "test-metadata.csv", index=False)
    with pytest.raises(UserError, match=r"is in train-metadata\.csv too"):
        isic2024.read_raw(tmp_path)


def test_measurements_are_numbers(raw):
    table = isic2024.read_raw(raw)
    assert all(np.issubdtype(table[name].dtype, np.floating) for name in isic2024.task.numeric)
    assert table["lesion_id"][table["target"] == 1].notna().all()
