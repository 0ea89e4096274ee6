"""The search for shortcuts: planted ones are found and named, none are found where there are none,
and no patient is scored by trees that saw it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.core.config.task import Task
from pipeline.core.folds import shortcuts as module
from pipeline.core.folds.shortcuts import (
    TOGETHER,
    shortcut_lines,
    shortcut_text,
    shortcut_warnings,
    shortcuts,
)
from tests.cases.synthetic_images import TASK

ROWS = 600
NOTHING_DROPPED = pd.DataFrame({"image_id": [], "reason": [], "twin": []}, dtype="str")


def table(seed: int = 0, folds: int = 3, **columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(images.csv with random facts that know nothing of the label, folds.csv)."""
    rng = np.random.default_rng(seed)
    images = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(ROWS)],
            "patient_id": [f"p{i // 2}" for i in range(ROWS)],
            "split": "train",
            "source": "own",
            "width": rng.choice([640, 1024, 6000], ROWS),
            "height": rng.choice([480, 768, 4000], ROWS),
            "brightness": rng.normal(120, 20, ROWS),
            "file_bytes": rng.normal(50_000, 9_000, ROWS).round(),
            "melanoma": (rng.random(ROWS) < 0.3).astype(float),
        }
    ).assign(**columns)
    patients = images["patient_id"].unique()
    return images, pd.DataFrame({"patient_id": patients, "fold": np.arange(len(patients)) % folds})


def by_fact(found: dict) -> dict[str, dict]:
    return {row["fact"]: row for row in found["found"]}


def test_nothing_is_found_where_there_is_nothing():
    images, folds = table()
    found = shortcuts(images, folds, NOTHING_DROPPED, TASK)
    assert found["images"] == ROWS and not found["unknown"] and not found["few"]
    rows = by_fact(found)
    assert set(rows) == {"size", "aspect ratio", "brightness", "bytes of the file", TOGETHER}
    assert all(row["low"] < 0.55 < 0.6 and row["auc"] < 0.6 for row in rows.values())
    assert shortcut_warnings(found) == []


@pytest.mark.parametrize(
    ("fact", "column"), [("brightness", "brightness"), ("bytes of the file", "file_bytes")]
)
def test_a_planted_shortcut_is_found_and_named(fact, column):
    images, folds = table()
    images[column] += images["melanoma"] * 1.5 * images[column].std()
    found = shortcuts(images, folds, NOTHING_DROPPED, TASK)
    rows = by_fact(found)
    assert rows[fact]["low"] > 0.7 and rows["size"]["high"] < 0.65
    assert rows[TOGETHER]["low"] > 0.65

    # Two normal distributions: no function of the column is better than the column itself.
    best = roc_auc_score(images["melanoma"], images[column])
    assert best - 0.06 < rows[fact]["auc"] < best + 0.02
    (warning,) = shortcut_warnings(found)
    assert warning.startswith("melanoma: a shortcut: ") and "above 0.6" in warning
    text = shortcut_text(found)
    assert f"{rows[fact]['auc']:.3f} [{rows[fact]['low']:.3f}" in text


def test_a_size_that_only_one_class_has():
    images, folds = table()
    odd = (images["melanoma"] == 1) & (np.arange(ROWS) % 2 == 0)
    images.loc[odd, ["width", "height"]] = [1023, 767]
    rows = by_fact(shortcuts(images, folds, NOTHING_DROPPED, TASK))
    # half the positives are known for certain, the others are ranked by chance: 1/2 + 1/2 * 1/2,
    # or a little less, since what is learnt of chance is wrong out of fold
    assert 0.65 < rows["size"]["auc"] < 0.77 and rows["size"]["low"] > 0.6
    assert rows["brightness"]["auc"] < 0.6


def test_patients_are_not_remembered():
    """Brightness names the patient exactly, and patients have one label: learnt by image it would
    predict everything, by patient nothing."""
    images, folds = table()
    patient = np.arange(ROWS) // 2
    images["brightness"] = np.random.default_rng(1).permutation(ROWS // 2)[patient]
    images["melanoma"] = (np.random.default_rng(2).random(ROWS // 2) < 0.3)[patient].astype(float)
    official = folds["fold"].where(np.arange(len(folds)) < 40, -1).clip(upper=0)
    # folds.csv's own; one fold of few patients, all others always train: folds by patient are made
    for number in (folds["fold"], official):
        found = shortcuts(images, folds.assign(fold=number), NOTHING_DROPPED, TASK)
        assert found["images"] == ROWS and by_fact(found)["brightness"]["auc"] < 0.6


def test_what_is_not_known_is_said():
    images, folds = table()
    older = images.drop(columns=["brightness", "file_bytes"])
    found = shortcuts(older, folds, NOTHING_DROPPED, TASK)
    assert found["unknown"] == ["brightness", "bytes of the file"]
    assert "images.csv does not say brightness, bytes of the file" in shortcut_lines(found)[0]
    found = shortcuts(older.drop(columns=["width"]), folds, NOTHING_DROPPED, TASK)
    assert found["found"] == [] and len(found["unknown"]) == 4

    few = images.assign(melanoma=(np.arange(ROWS) < 9).astype(float))
    found = shortcuts(few, folds, NOTHING_DROPPED, TASK)
    assert found["few"] == ["melanoma"] and found["found"] == []
    assert "fewer than 10 positives" in shortcut_lines(found)[0]


def test_uncertain_test_and_dropped_images_take_no_part(monkeypatch):
    images, folds = table()
    images.loc[0:9, "melanoma"] = -1
    images.loc[10:19, "split"] = "test"
    dropped = pd.DataFrame({"image_id": ["i20", "i21"], "reason": "x", "twin": "y"})
    found = shortcuts(images, folds, dropped, TASK)
    assert found["images"] == ROWS - 12
    assert by_fact(found)["size"]["n"] == ROWS - 22
    monkeypatch.setattr(module, "IMAGES_LOOKED_AT", 100)
    assert shortcuts(images, folds, dropped, TASK)["images"] in (99, 100)


def test_each_label_has_its_own_row():
    images, folds = table()
    images["second"] = (images["brightness"] > 120).astype(float)
    task = Task(title="t", labels=("melanoma", "second"))
    found = shortcuts(images, folds, NOTHING_DROPPED, task)
    (warning,) = shortcut_warnings(found)
    assert warning.startswith("second: a shortcut: the image's brightness alone predicts it")
