"""What a split by image reports: much where patients can be recognised, nothing where each has one
image."""

import zlib
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.folds import image_split
from pipeline.core.folds.image_split import leakage, likeness
from tests.cases.synthetic_images import TASK, images_of

NOTHING = pd.DataFrame({"image_id": [], "reason": [], "twin": []}, dtype="str")
LABELS_OF_PATIENTS = replace(TASK, numeric=("age",), categorical=())


@pytest.fixture(autouse=True)
def fewer_splits(monkeypatch):
    monkeypatch.setattr(image_split, "REPEATS", 3)
    monkeypatch.setattr(image_split, "TREES", 20)


def made_images(patients: int, each: int) -> pd.DataFrame:
    """Labels are a coin per patient; age is a number of the patient's own that says nothing of the
    label."""
    random = np.random.RandomState(0)
    patient = np.repeat(np.arange(patients), each)
    return images_of(
        [f"p{number:03d}" for number in patient],
        phash=None,
        melanoma=(random.rand(patients) < 0.3)[patient].astype(float),
        age=random.permutation(patients)[patient] + 0.1 * random.rand(len(patient)),
    )


def write_images(root, images: pd.DataFrame, number: pd.Series) -> None:
    """A prepared image for each row: the noise of its patient, and a little of its own."""
    folder = root / "made/images/32"
    folder.mkdir(parents=True)
    for image, patient in zip(images["image_id"], number):
        own = np.random.RandomState(patient)
        other = np.random.RandomState(zlib.crc32(image.encode()))
        noise = own.randint(40, 216, (16, 16)) + other.randint(-10, 11, (16, 16))
        cv2.imwrite(str(folder / f"{image}.jpg"), cv2.resize(noise.astype(np.uint8), (32, 32)))


def test_patients_that_can_be_recognised_leak_through_columns_and_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    images = made_images(60, 6)
    write_images(tmp_path, images, pd.Series(pd.factorize(images["patient_id"])[0]))
    found = {row["model"]: row for row in leakage("made", images, NOTHING, LABELS_OF_PATIENTS)}
    assert set(found) == {"patient columns", "pixels"}
    for row in found.values():
        assert row["by_image"] > 0.9 and 0.25 < row["by_group"] < 0.75
        assert row["difference"] == pytest.approx(row["by_image"] - row["by_group"])


def test_one_image_per_patient_leaks_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    (row,) = leakage("made", made_images(300, 1), NOTHING, LABELS_OF_PATIENTS)
    assert row["model"] == "patient columns"
    assert abs(row["difference"]) < 0.1


def test_labels_with_few_positives_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    images = made_images(20, 2).assign(melanoma=0.0)
    images.loc[:3, "melanoma"] = 1
    assert leakage("made", images, NOTHING, LABELS_OF_PATIENTS) == []


def test_likeness_is_one_for_a_brighter_copy(tmp_path):
    image = np.random.RandomState(0).randint(0, 120, (32, 32)).astype(np.uint8)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, pixels in zip(paths, (image, image * 2, 255 - image)):
        cv2.imwrite(str(path), pixels)
    alike = likeness(list(map(PreparedImage, paths)))
    assert alike[0, 1] == pytest.approx(1, abs=0.05)
    assert alike[0, 2] < 1e-6
    assert np.allclose(np.diag(alike), 1)
