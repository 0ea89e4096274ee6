"""DDSM+ and PatchCamelyon in their public layouts, of small size, through read_raw and down to the
pixels."""

import h5py
import numpy as np
import pytest

from pipeline.competitions import ddsm, patchcamelyon
from pipeline.core.raw.read import read_source
from pipeline.core.runtime.errors import UserError
from tests.cases.tfrecords import example, tfrecord


@pytest.fixture
def tiles(tmp_path):
    """Two TFRecord files (one in a folder of its own) and the two halves of the test data."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7, 299, 299), dtype=np.uint8)
    examples = []
    for number, image in enumerate(pixels):
        label = number % 5
        facts = {"label": [label], "label_normal": [int(label > 0)], "image": [image.tobytes()]}
        examples.append(example(facts))
    (tmp_path / "training10_1").mkdir()
    (tmp_path / "training10_0.tfrecords").write_bytes(tfrecord(*examples[:4]))
    (tmp_path / "training10_1/training10_1.tfrecords").write_bytes(tfrecord(*examples[4:]))
    for part, count in (("test10", 3), ("cv10", 2)):
        data = random.integers(0, 256, (count, 299, 299, 1), dtype=np.uint8)
        np.save(tmp_path / f"{part}_data.npy", data)
        np.save(tmp_path / f"{part}_labels.npy", np.arange(count) * 2)
    return tmp_path, pixels


def test_ddsm_rows_labels_and_pixels(tiles):
    raw, pixels = tiles
    table = ddsm.read_raw(raw)
    assert table["split"].tolist() == ["train"] * 7 + ["test"] * 5
    assert table["abnormal"].tolist() == [0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1]
    assert table["image_id"].is_unique
    for row in range(7):
        assert np.array_equal(read_source(raw, table["file"][row]), pixels[row])
    assert np.array_equal(read_source(raw, table["file"][11]), np.load(raw / "cv10_data.npy")[1])
    assert ddsm.sample(raw)["image_id"].tolist() == table["image_id"][7:].tolist()


def test_ddsm_names_what_is_wrong(tiles):
    raw, _ = tiles
    np.save(raw / "cv10_labels.npy", np.array([0, 9]))
    with pytest.raises(UserError, match=r"cv10_labels.npy: row 1: 9 is not"):
        ddsm.read_raw(raw)
    (raw / "training10_0.tfrecords").write_bytes(b"nonsense" * 10)
    with pytest.raises(UserError, match=r"training10_0.tfrecords: the record at byte 0"):
        ddsm.read_raw(raw)


@pytest.fixture
def patches(tmp_path):
    """400 training, 100 validation and 20 test patches, half of them tumour, with slides."""
    random = np.random.default_rng(0)
    for part, count in (("train", 400), ("valid", 100), ("test", 20)):
        stem = tmp_path / f"camelyonpatch_level_2_split_{part}"
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = random.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        lines = [f"{i},1,2,True,True,slide_{part}_{i % 7}" for i in range(count)]
        header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
        (tmp_path / f"{stem.name}_meta.csv").write_text("\n".join([header, *lines]) + "\n")
    return tmp_path


def test_patchcamelyon_keeps_every_negative_and_one_per_cent_positives(patches):
    table = patchcamelyon.read_raw(patches)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    assert (train["tumor"] == 0).sum() == 250
    assert (train["tumor"] == 1).sum() == 3  # 3 of 253, the least that is 1 %
    assert test["tumor"].tolist() == [0, 1] * 10
    assert train["patient_id"].nunique() == 14
    row = table.iloc[260]
    assert row["image_id"] == "test_7"
    with h5py.File(patches / "camelyonpatch_level_2_split_test_x.h5") as file:
        assert np.array_equal(read_source(patches, row["file"]), file["x"][7])
    assert patchcamelyon.read_raw(patches).equals(table)


def test_patchcamelyon_without_slides_groups_by_patch(patches):
    for path in patches.glob("*_meta.csv"):
        path.unlink()
    table = patchcamelyon.read_raw(patches)
    assert (table["patient_id"] == table["image_id"]).all()


def test_patchcamelyon_names_what_is_missing_or_wrong(patches):
    with h5py.File(patches / "camelyonpatch_level_2_split_valid_y.h5", "w") as file:
        file["y"] = np.array([0, 1, 7]).reshape(-1, 1, 1, 1)
    with pytest.raises(UserError, match=r"valid_y.h5: row 2: 7 is not 0 or 1"):
        patchcamelyon.read_raw(patches)
    (patches / "camelyonpatch_level_2_split_train_x.h5").unlink()
    with pytest.raises(UserError, match=r"train_x.h5.gz there with gunzip"):
        patchcamelyon.read_raw(patches)
