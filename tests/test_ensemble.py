"""The ensemble stage, from prediction files on disk to its four artifacts."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline import ensemble as stage
from pipeline.core.artifacts.paths import STAGE_1_PREDICTIONS
from pipeline.core.ensemble.averages import ranks_within
from pipeline.core.ensemble.second_level.candidates import CANDIDATES
from pipeline.core.ensemble.second_level.fitted import COMBINATION, read_combinations
from pipeline.core.metrics import auc, auc_interval
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition, fold_of, noisy, write_run, write_tables

LABELS = ("nevus", "scar")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two runs before and after finetuning, and metadata."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    table = write_tables()
    for seed, run in enumerate(("one", "two")):
        write_run(table, run, noisy(table, LABELS, 1.5 + seed, seed))
        write_run(table, run, noisy(table, LABELS, 1, 10 + seed), STAGE_1_PREDICTIONS)
    write_run(table, "metadata", noisy(table, LABELS, 0.8, 20), views=1)
    return table


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "load_competition", lambda _: competition())
    return tmp_path / "models" / NAME


def read(path):
    return pd.read_csv(path, dtype={"unit_id": "str", "image_id": "str"})


def scores_of(images, run, folds=(0, 1, 2)):
    """Out-of-fold scores by image_id, read independently of the stage."""
    parts = [
        pd.read_csv(stage.fold_folder(NAME, run, k) / "predictions.csv", dtype={"image_id": "str"})
        for k in folds
    ]
    table = pd.concat([part[part["split"] != "test"] for part in parts]).set_index("image_id")
    assert set(table.index) == set(images["image_id"][np.isin(fold_of(images), folds)])
    return table[list(LABELS)]


def test_scores_cover_every_run_and_stage_and_agree_with_the_definition(images, folder):
    stage.ensemble(competition(), (), None)
    table = pd.read_csv(folder / "scores.csv")
    assert list(
        table[["member", "stage"]].drop_duplicates().itertuples(index=False, name=None)
    ) == [
        ("one", "CE"),
        ("two", "CE"),
        ("one", "AUC-M"),
        ("two", "AUC-M"),
        ("metadata", "metadata"),
        ("one", "blend"),
        ("two", "blend"),
        ("ensemble", "ensemble"),
        ("ensemble", "blend"),
    ]
    assert set(table["label"]) == {*LABELS, "mean"}
    indexed = table.set_index(["member", "stage", "label"])
    known = images.set_index("image_id")
    one, two, metadata = (scores_of(images, run) for run in ("one", "two", "metadata"))
    labels = known.loc[one.index, "scar"]
    patients = known.loc[one.index, "patient_id"]
    row = indexed.loc[("one", "AUC-M", "scar")]
    assert row["auc"] == pytest.approx(auc(one["scar"], labels), abs=1e-8)
    assert [row["n"], row["positives"]] == [len(one), labels.sum()]
    low, high = auc_interval(one["scar"], labels, patients)
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.01)
    mean = (one + two) / 2
    assert indexed.loc[("ensemble", "ensemble", "scar"), "auc"] == pytest.approx(
        auc(mean["scar"], labels), abs=1e-8
    )
    blend = 0.5 * mean["scar"] + 0.5 * metadata["scar"]
    assert indexed.loc[("ensemble", "blend", "scar"), "auc"] == pytest.approx(
        auc(blend, labels), abs=1e-8
    )
    parts = indexed["auc"].unstack()
    assert parts["mean"].to_numpy() == pytest.approx(parts[list(LABELS)].mean(axis=1).to_numpy())
    assert indexed.loc[("metadata", "metadata", "scar"), "views"] == 1 and row["views"] == 4
    assert (
        table[["images_sha256", "folds_sha256", "predictions_sha256"]].map(len).eq(64).all().all()
    )


def test_the_ensemble_is_the_blend_of_out_of_fold_and_test_rows(images, folder):
    stage.ensemble(competition(), (), None)
    table = read(folder / "ensemble.csv").set_index("image_id")
    assert list(table.columns) == ["unit_id", "split", "fold", *LABELS]
    fold = fold_of(images)
    assert set(table.index) == set(images["image_id"][fold != -1])
    assert table["unit_id"].is_unique and (table["fold"][table["split"] == "test"] == -1).all()
    one, two, metadata = (scores_of(images, run) for run in ("one", "two", "metadata"))
    expected = 0.25 * one + 0.25 * two + 0.5 * metadata
    assert table.loc[expected.index, list(LABELS)].to_numpy() == pytest.approx(
        expected.to_numpy(), rel=1e-7
    )
    tests = []
    for run in ("one", "two", "metadata"):
        parts = [read(folder / run / f"fold{k}" / "predictions.csv") for k in range(3)]
        tests.append(
            pd.concat(parts)[lambda rows: rows["split"] == "test"]
            .groupby("image_id")[list(LABELS)]
            .mean()
        )
    expected = 0.25 * tests[0] + 0.25 * tests[1] + 0.5 * tests[2]
    assert table.loc[expected.index, list(LABELS)].to_numpy() == pytest.approx(
        expected.to_numpy(), rel=1e-7
    )


def with_stage(stage: str, labels=LABELS, **blend):
    """The competition whose run "two" asks for other members than its stage 2."""
    both = competition(labels=labels, **blend)
    return replace(both, runs=(both.runs[0], replace(both.runs[1], stage=stage)))


def write_stage_1_with_tests(images, labels=LABELS) -> pd.DataFrame:
    """Stage-1 predictions of the run "two" for test rows too; returns the scores by image_id."""
    scores = noisy(images, labels, 1, 77)
    fold = fold_of(images)
    for number in range(3):
        path = stage.fold_folder(NAME, "two", number) / STAGE_1_PREDICTIONS
        kept = (fold == number) | (fold == -2)
        keys = images.loc[kept, ["image_id", "split"]].assign(fold=number)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        facts = {"hashes": sidecar["hashes"], "views": 4, "test_scored": True}
        write_predictions(path, pd.concat([keys, scores[kept]], axis=1), **facts)
    return scores.set_axis(images["image_id"])


def test_both_stages_of_a_run_are_two_members(images, folder):
    first = write_stage_1_with_tests(images)
    stage.ensemble(with_stage("both", metadata=0), (), None)
    facts = json.loads((folder / "ensemble.json").read_text())
    assert facts["members"] == ["one", "two-pretrained", "two"] and facts["runs"] == ["one", "two"]
    assert facts["stages"]["two"]["members"] == ["CE", "AUC-M"]
    table = read(folder / "ensemble.csv").set_index("image_id")
    one, two = scores_of(images, "one"), scores_of(images, "two")
    expected = (one + two + first.loc[one.index]) / 3
    assert table.loc[expected.index, list(LABELS)].to_numpy() == pytest.approx(
        expected.to_numpy(), rel=1e-7
    )
    maps = json.loads((folder / "quantiles.json").read_text())
    assert "two-pretrained" in maps["members"] and set(maps["averages"]) == {"ensemble"}


@pytest.mark.usefixtures("images")
def test_stage_1_as_a_member_must_have_scored_the_test_images(folder):
    with pytest.raises(UserError, match=r"stage 1 has not scored the test images, .*make predict"):
        stage.ensemble(with_stage("pretrained"), (), None)
    assert not (folder / "ensemble.csv").exists()


def test_ranks_are_taken_within_the_fold(images, folder):
    stage.ensemble(competition(method="rank", metadata=0), ("one", "two"), None)
    table = read(folder / "ensemble.csv").set_index("image_id")
    one = scores_of(images, "one")
    two = scores_of(images, "two")
    fold = table.loc[one.index, "fold"].to_numpy()
    expected = (
        ranks_within(one.to_numpy(), fold) + ranks_within(two.loc[one.index].to_numpy(), fold)
    ) / 2
    assert table.loc[one.index, list(LABELS)].to_numpy() == pytest.approx(expected, rel=1e-7)


@pytest.mark.usefixtures("images")
def test_naming_runs_takes_fewer_runs_and_keeps_the_metadata(folder):
    stage.main(stage.parser().parse_args(["lesions/two"]))
    assert json.loads((folder / "ensemble.json").read_text())["members"] == ["two", "metadata"]
    stage.ensemble(competition(metadata=0), (), None)  # not blended in, but scored where it stands
    assert json.loads((folder / "ensemble.json").read_text())["members"] == ["one", "two"]
    table = pd.read_csv(folder / "scores.csv")
    assert "metadata" in set(table["stage"])
    assert set(table["member"][table["stage"] == "blend"]) == {
        "one",
        "two",
    }  # each run's, but not the ensemble's


@pytest.mark.usefixtures("images")
def test_what_made_it_is_kept(folder):
    stage.ensemble(competition(), (), None)
    facts = json.loads((folder / "ensemble.json").read_text())
    assert facts["members"] == ["one", "two", "metadata"] and facts["metadata"] == 0.5
    assert facts["weights"] == {
        "one": {"nevus": 0.5, "scar": 0.5},
        "two": {"nevus": 0.5, "scar": 0.5},
    }
    assert facts["near_duplicates"] == [] and facts["weighting"] == "uniform"
    assert facts["correlations"]["scar"][0][0] == pytest.approx(1)
    named = [(row["first"], row["second"]) for row in facts["differences"]]
    assert named == [
        ("one AUC-M", "one CE"),
        ("two AUC-M", "two CE"),
        ("ensemble ensemble", "two AUC-M"),
        ("ensemble blend", "ensemble ensemble"),
    ]
    assert all(row["low"] <= row["difference"] <= row["high"] for row in facts["differences"])
    maps = json.loads((folder / "quantiles.json").read_text())
    assert set(maps["members"]) == {"one", "two", "metadata"}
    assert set(maps["members"]["one"]) == {"fold0", "fold1", "fold2"}
    assert set(maps["hashes"]) == {"images", "folds"}


def test_a_copy_of_a_run_counts_once_and_is_named(images, folder, capsys):
    write_run(images, "copy", noisy(images, LABELS, 1.5, 0))
    stage.ensemble(
        competition(runs=("one", "copy", "two"), metadata=0), ("one", "copy", "two"), None
    )
    weights = json.loads((folder / "ensemble.json").read_text())["weights"]
    assert [weights[run]["scar"] for run in ("one", "copy", "two")] == [0.5, 0, 0.5]
    assert "near-duplicates on scar: one and copy" in capsys.readouterr().out


def test_selected_weights_are_used_only_when_they_gain(images, folder):
    for run in ("noise1", "noise2", "noise3"):
        write_run(images, run, noisy(images, LABELS, 0, sum(run.encode())))
    runs = ("two", "noise1", "noise2", "noise3")
    stage.ensemble(competition(runs=runs, metadata=0, weights="selected"), runs, None)
    facts = json.loads((folder / "ensemble.json").read_text())
    assert facts["weighting"] == "selected" and facts["selection"]["low"] > 0
    assert facts["weights"]["two"]["scar"] > 0.5
    stage.ensemble(
        competition(runs=("one", "two"), metadata=0, weights="selected"), ("one", "two"), None
    )
    facts = json.loads((folder / "ensemble.json").read_text())
    assert (facts["weighting"] == "selected") == (facts["selection"]["low"] > 0)


def test_one_official_fold_can_select_and_score(images, folder):
    stage.ensemble(competition(metadata=0, weights="selected"), (), [1])
    table = read(folder / "ensemble.csv")
    assert set(table["image_id"][table["split"] != "test"]) == set(
        images["image_id"][fold_of(images) == 1]
    )
    assert json.loads((folder / "ensemble.json").read_text())["folds"] == [1]


def test_one_disease_per_run(images, folder):
    write_run(images, "scars", noisy(images, LABELS[1:], 1, 5))
    both = competition(runs=("one", "scars"), metadata=0)
    runs = (both.runs[0], replace(both.runs[1], labels=("scar",)))
    stage.ensemble(replace(both, runs=runs), ("one", "scars"), None)
    table = pd.read_csv(folder / "scores.csv")
    assert set(table["label"][table["member"] == "scars"]) == {"scar"}
    weights = json.loads((folder / "ensemble.json").read_text())["weights"]
    assert weights == {"one": {"nevus": 1.0, "scar": 0.5}, "scars": {"nevus": 0.0, "scar": 0.5}}
    with pytest.raises(UserError, match="no run of this ensemble predicts nevus"):
        stage.ensemble(replace(both, runs=runs), ("scars",), None)


def test_studies_are_scored_by_their_highest_view(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    images = write_tables(views=2)
    write_run(images, "one", noisy(images, LABELS, 1, 0))
    stage.ensemble(competition(runs=("one",), unit="study", metadata=0), (), None)
    table = read(tmp_path / "models" / NAME / "ensemble.csv").set_index("unit_id")
    assert table.index.is_unique and (table["split"] == "test").sum() == 20
    scores = scores_of(images, "one")
    units = images.set_index("image_id").loc[scores.index, "unit_id"]
    highest = scores.groupby(units.to_numpy()).max()
    assert table.loc[highest.index, list(LABELS)].to_numpy() == pytest.approx(highest.to_numpy())
    row = pd.read_csv(tmp_path / "models" / NAME / "scores.csv").iloc[0]
    assert row["n"] == len(highest)
    known = images.groupby("unit_id")["nevus"].max().loc[highest.index]
    assert row["auc"] == pytest.approx(auc(highest["nevus"], known), abs=1e-8)


def test_a_label_without_positives_is_blank_and_not_in_the_mean(images, folder, tmp_path):
    images["nevus"] = images["nevus"].where(images["split"] == "test", 0.0)
    images.to_csv(tmp_path / "data" / NAME / "images.csv", index=False)
    write_run(images, "metadata", noisy(images, LABELS, 1, 3))
    write_run(images, "three", noisy(images, LABELS, 1, 9))
    stage.ensemble(competition(runs=("three",), metadata=0), ("three",), None)
    table = pd.read_csv(folder / "scores.csv").set_index(["stage", "label"])
    assert (
        np.isnan(table.loc[("AUC-M", "nevus"), "auc"])
        and table.loc[("AUC-M", "nevus"), "positives"] == 0
    )
    assert table.loc[("AUC-M", "mean"), "auc"] == table.loc[("AUC-M", "scar"), "auc"]


@pytest.mark.usefixtures("images")
def test_a_missing_run_says_what_makes_it(tmp_path):
    with pytest.raises(
        UserError, match=r"three/fold0/predictions\.csv: there is no such file; `make predict"
    ):
        stage.ensemble(competition(runs=("one", "three")), (), None)
    (tmp_path / "models" / NAME / "metadata" / "fold2" / "predictions.csv").unlink()
    with pytest.raises(UserError, match="`make metadata COMP=lesions` makes it"):
        stage.ensemble(competition(), (), None)
    with pytest.raises(UserError, match="no run is called 'five'"):
        stage.ensemble(competition(), ("five",), None)
    with pytest.raises(UserError, match="needs a run beside metadata"):
        stage.ensemble(competition(), ("metadata",), None)
    assert not (tmp_path / "models" / NAME / "ensemble.csv").exists()


def test_the_command_names_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "pipeline.ensemble", "melanoma/b5_384/fold0"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": "", "DATA": str(tmp_path)},
        check=False,
    )
    assert (
        done.returncode == 2
        and "leave /fold<k> away" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
    done = subprocess.run(
        [*command[:-1], "melanoma"],
        capture_output=True,
        text=True,
        env={"PATH": "", "DATA": str(tmp_path)},
        check=False,
    )
    assert (
        done.returncode == 2 and "images.csv: there is no such file; `make prepare" in done.stderr
    )


def test_what_has_earned_its_place_is_averaged(tmp_path, monkeypatch):
    """Two members of equal worth: their mean is far better than chance; every candidate is scored,
    and what is submitted is one of them, for the out-of-fold and the test rows."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    images = write_tables(labels=("nevus",))
    for seed, run in enumerate(("one", "two")):
        write_run(images, run, noisy(images, ["nevus"], 2, seed))
    owner = competition(labels=("nevus",), weights="earned", metadata=0.5)
    stage.ensemble(owner, (), None)
    folder = tmp_path / "models" / NAME
    facts = json.loads((folder / "ensemble.json").read_text())
    assert facts["final_stage"] == "earned" and facts["metadata"] == 0
    assert facts["choice"]["nevus"] in CANDIDATES
    table = pd.read_csv(folder / "scores.csv")
    table = table[(table["member"] == "ensemble") & (table["label"] == "nevus")].set_index("stage")
    assert set(CANDIDATES) <= set(table.index)
    assert table.loc["earned", "auc"] == table.loc[facts["choice"]["nevus"], "auc"]
    final = read(folder / "ensemble.csv")
    assert final["nevus"].between(0, 1).all() and final["nevus"].nunique() > 50
    assert (final["split"] == "test").sum() == 40
    with pytest.raises(UserError, match="needs 3 folds"):
        stage.ensemble(owner, (), [0, 1])


def test_both_stages_of_a_run_earn_their_place_together(tmp_path, monkeypatch):
    """The candidates weigh three members, whose mean is what they are by hand; the combination that
    travels names all three."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    images = write_tables(labels=("nevus",))
    for seed, run in enumerate(("one", "two")):
        write_run(images, run, noisy(images, ["nevus"], 2, seed))
    write_run(images, "two", noisy(images, ["nevus"], 1, 77), STAGE_1_PREDICTIONS)
    write_stage_1_with_tests(images, ("nevus",))
    stage.ensemble(with_stage("both", ("nevus",), weights="earned", metadata=0.5), (), None)
    folder = tmp_path / "models" / NAME

    # The simplest candidate is the mean of the three members' out-of-fold scores.
    fold = fold_of(images)
    members = [noisy(images, ["nevus"], *how)["nevus"] for how in ((2, 0), (1, 77), (2, 1))]
    validated = fold >= 0
    mean = np.mean(members, axis=0)[validated]
    table = pd.read_csv(folder / "scores.csv")
    table = table[(table["member"] == "ensemble") & (table["label"] == "nevus")].set_index("stage")
    truth = images["nevus"].to_numpy()[validated]
    assert table.loc["uniform mean", "auc"] == pytest.approx(auc(mean, truth), abs=1e-6)

    # What travels knows each of them.
    combination = read_combinations(folder / COMBINATION)["nevus"]
    assert tuple(combination.members) == ("one", "two-pretrained", "two")
    facts = json.loads((folder / "ensemble.json").read_text())
    assert facts["members"] == ["one", "two-pretrained", "two"]
    final = read(folder / "ensemble.csv")
    assert (final["split"] == "test").sum() == 40 and final["nevus"].between(0, 1).all()
