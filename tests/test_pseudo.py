"""Pseudo-labels: the scores of a fold's own networks, as probabilities that no label of that fold
decides."""

import numpy as np
import pandas as pd
import pytest

from pipeline import pseudo
from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import read_csv, write_csv
from pipeline.core.metrics.calibration import calibrated
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition, fold_of, noisy, write_run, write_tables

LABELS = ("nevus", "scar")


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))


def made(names=("one", "two"), weight=0.5) -> pd.DataFrame:
    pseudo.write_pseudo_labels(competition(), list(names), weight)
    return read_csv(data_folder(NAME) / "pseudo.csv")


def test_a_row_for_every_fold_and_test_image_by_that_folds_networks(capsys):
    images = write_tables()
    scores = [noisy(images, LABELS, 3, seed) for seed in (1, 2)]
    for run, own in zip(("one", "two"), scores):
        write_run(images, run, own)
    table = made()
    out = capsys.readouterr().out
    assert "40 test images by one, two, 3 folds" in out and "WARNING" in out
    assert len(table) == 3 * 40 and set(table["weight"]) == {0.5}
    assert not table.duplicated(["image_id", "fold"]).any()

    # By hand: Platt's map of the other folds' rows on the mean of the two runs.
    mean = (scores[0] + scores[1]) / 2
    fold = fold_of(images)
    for label in LABELS:
        for number in range(3):
            inside = (fold >= 0) | (fold == -2)
            folds = np.where(fold == -2, number, fold)[inside]
            values = calibrated(mean[label][inside], images[label][inside], folds)
            expected = values[fold[inside] == -2]
            ours = table.loc[table["fold"] == number, label]
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    assert set(read_json(data_folder(NAME) / "pseudo.json")["predictions"]) == {"one", "two"}


def test_no_label_of_a_fold_decides_its_rows():
    images = write_tables()
    write_run(images, "one", noisy(images, LABELS, 3, 1))
    before = made(["one"])
    changed = images.copy()
    own = fold_of(images) == 0
    changed.loc[own, "nevus"] = 1 - changed.loc[own, "nevus"]
    write_csv(data_folder(NAME) / "images.csv", changed)
    write_run(changed, "one", noisy(images, LABELS, 3, 1))
    after = made(["one"])
    same = (before["nevus"] - after["nevus"]).abs() < 1e-9
    assert same[before["fold"] == 0].all() and not same[before["fold"] > 0].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["melanoma/b5_384/fold0"], "of whole runs"),
        (["melanoma", "--weight", "0"], "--weight 0.0"),
        (["melanoma", "--weight", "2"], "--weight 2.0"),
    ],
)
def test_what_cannot_be_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        pseudo.main(pseudo.parser().parse_args(arguments))
