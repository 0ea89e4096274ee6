"""An ensemble of other members, or a submission of another ensemble, is not current."""

import json

import pytest

from pipeline.core.artifacts.paths import fold_folder, models_folder
from pipeline.core.artifacts.provenance import (
    made_from_ensemble,
    note_ensemble,
    predictions_digest,
    table_hashes,
)
from pipeline.core.config.competition import load
from pipeline.core.runs.current import ensemble_is_current


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    for path in (tmp_path / "data/melanoma/images.csv", tmp_path / "data/melanoma/folds.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n1\n")
    for member in ("b3_256", "b5_384", "metadata"):
        for fold in (0, 1):
            folder = fold_folder("melanoma", member, fold)
            folder.mkdir(parents=True)
            (folder / "predictions.csv").write_text(f"{member} {fold}")
    members = {
        name: predictions_digest("melanoma", name, [0, 1]) for name in ("b3_256", "metadata")
    }
    facts = {"folds": [0, 1], "hashes": table_hashes("melanoma"), "predictions": members}
    (models_folder("melanoma") / "ensemble.json").write_text(json.dumps(facts))
    (models_folder("melanoma") / "ensemble.csv").write_text("unit_id\n")
    return tmp_path


@pytest.mark.usefixtures("home")
def test_the_same_members_are_current():
    assert ensemble_is_current(load("melanoma"), ["b3_256"])


def test_more_members_other_predictions_or_other_folds_are_not(home):
    competition = load("melanoma")
    assert not ensemble_is_current(competition, ["b3_256", "b5_384"])
    path = fold_folder("melanoma", "b3_256", 1) / "predictions.csv"
    path.write_text("other")
    assert not ensemble_is_current(competition, ["b3_256"])
    path.write_text("b3_256 1")
    assert ensemble_is_current(competition, ["b3_256"])
    (home / "data/melanoma/folds.csv").write_text("b\n2\n")
    assert not ensemble_is_current(competition, ["b3_256"])


def test_a_submission_knows_its_ensemble(home):
    path = home / "submission.csv"
    path.write_text("x\n")
    assert not made_from_ensemble(path, "melanoma")
    note_ensemble(path, "melanoma")
    assert made_from_ensemble(path, "melanoma")
    (models_folder("melanoma") / "ensemble.csv").write_text("unit_id\nanother\n")
    assert not made_from_ensemble(path, "melanoma")
