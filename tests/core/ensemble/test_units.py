"""Images to studies: scores and truth."""

import numpy as np
import pytest

from pipeline.core.ensemble.units import aggregate, to_units, units_of
from tests.cases.ensembles import competition, write_tables


@pytest.fixture
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))


@pytest.mark.parametrize(
    ("how", "expected"), [("max", [3, 9, 4]), ("mean", [2, 7, 4]), ("frontal_first", [1, 7, 4])]
)
def test_images_to_units(how, expected):
    """Study b comes first in the rows that are kept, so units stand in order of first appearance; c
    is lateral only."""
    scores = np.array([[1.0], [5.0], [3.0], [9.0], [4.0]])
    frontal = np.array([True, True, False, True, False])
    assert (
        aggregate(scores, np.array(list("abab") + ["c"]), how, frontal)[:, 0].tolist() == expected
    )


@pytest.mark.usefixtures("roots")
def test_study_truth_is_that_of_its_images():
    images = write_tables(views=2)
    images.loc[0, "nevus"] = np.nan
    task = competition(unit="study").task
    train = images[images["split"] == "train"]
    units = units_of(train, task)
    assert len(units.keys) == 150 and units.keys["unit_id"].is_unique
    assert units.keys["image_id"].tolist() == train["image_id"].iloc[::2].tolist()
    assert units.truth[0, 0] == images["nevus"][1]
    scores = np.arange(len(train) * 2, dtype=float).reshape(-1, 2)
    assert np.array_equal(to_units(train, scores, task), scores[1::2])
