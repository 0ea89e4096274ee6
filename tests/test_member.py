"""A member from elsewhere: what is taken, what is refused, and that the ensemble reads it as any
other.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import member as stage
from pipeline.core.artifacts.paths import PREDICTIONS, fold_folder
from pipeline.core.ensemble.members import read_member, read_rows
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition, fold_of, noisy, write_run, write_tables

LABELS = ["nevus", "scar"]


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A competition on disk (3 folds, some patients always train, 40 test images) and its scores
    from elsewhere.
    """
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(stage, "load_competition", lambda _: competition())
    images = write_tables()
    table = pd.concat(
        [
            images[["image_id", "patient_id", "split"]].assign(fold=fold_of(images)),
            noisy(images, LABELS, 1.5, 0),
        ],
        axis=1,
    )
    return Case(
        tmp_path,
        images,
        table[table["fold"] >= 0].reset_index(drop=True),
        table[table["split"] == "test"].reset_index(drop=True),
    )


class Case:
    """Files of a member, and the stage run on them."""

    def __init__(self, folder, images, out_of_fold, test):
        self.folder = folder
        self.images = images
        self.out_of_fold = out_of_fold[["image_id", "fold", *LABELS]]
        self.patient = out_of_fold["patient_id"]
        self.test = test[["image_id", *LABELS]]

    def run(self, out_of_fold=None, test=None, *options, name="theirs", suffix=".csv"):
        """Write the files, run the stage as its command line would."""
        path = self.folder / f"oof{suffix}"
        other = self.folder / f"test{suffix}"
        (self.out_of_fold if out_of_fold is None else out_of_fold).to_csv(path, index=False)
        (self.test if test is None else test).to_csv(other, index=False)
        words = [
            f"{NAME}/{name}",
            "--out-of-fold",
            str(path),
            "--test",
            str(other),
            *map(str, options),
        ]
        stage.main(stage.parser().parse_args(words))

    def refused(self, match, *files, **changes):
        """The stage says so in one line and writes nothing."""
        with pytest.raises(UserError, match=match) as error:
            self.run(*files, **changes)
        assert "\n" not in str(error.value)
        assert not list((self.folder / "models").rglob("*.csv"))

    def sidecar(self, fold=0, name="theirs"):
        path = fold_folder(NAME, name, fold) / PREDICTIONS
        return json.loads(path.with_suffix(".json").read_text())


def changed(table, row, **values):
    """The table with other values in one row."""
    table = table.copy()
    for name, value in values.items():
        table[name] = table[name].astype(object)
        table.loc[row, name] = value
    return table


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_the_ensemble_reads_it_as_any_other_member(case, suffix):
    case.run(suffix=suffix)
    rows = read_rows(competition())
    found = read_member(NAME, "theirs", "imported", PREDICTIONS, rows, LABELS, "")
    expected = case.out_of_fold.set_index("image_id").loc[rows.validated["image_id"], LABELS]
    np.testing.assert_allclose(found.out_of_fold, expected, rtol=1e-8)
    tests = case.test.set_index("image_id").loc[rows.test["image_id"], LABELS].to_numpy()
    for fold in range(3):
        np.testing.assert_allclose(found.test[fold], tests, rtol=1e-8)
    assert found.views == 1
    assert case.sidecar()["own_folds"] == stage.AGREE
    assert set(case.sidecar()["imported"]) == {"out_of_fold", "test"}


def test_rows_of_one_image_are_averaged(case):
    views = pd.concat([case.out_of_fold, case.out_of_fold.assign(nevus=0.0)]).sample(
        frac=1, random_state=0
    )
    case.run(views, pd.concat([case.test, case.test, case.test]))
    table, sidecar = read_predictions(fold_folder(NAME, "theirs", 1) / PREDICTIONS)
    expected = case.out_of_fold.set_index("image_id")
    train = table[table["split"] != "test"]
    np.testing.assert_allclose(
        train["nevus"], expected["nevus"].loc[train["image_id"]] / 2, rtol=1e-8
    )
    np.testing.assert_allclose(train["scar"], expected["scar"].loc[train["image_id"]], rtol=1e-8)
    assert sidecar["views"] == 2


def test_the_organisers_id_column_and_other_score_columns(case):
    theirs = case.out_of_fold.rename(columns={"image_id": "unit_id", "nevus": "score"})
    case.run(
        theirs,
        case.test.rename(columns={"image_id": "unit_id", "nevus": "score"}),
        "--scores",
        "nevus=score",
    )
    table, _ = read_predictions(fold_folder(NAME, "theirs", 0) / PREDICTIONS)
    assert list(table.columns) == ["image_id", "split", "fold", *LABELS]


def test_rows_that_no_fold_validates_may_be_there(case):
    always = case.images[fold_of(case.images) == -1]
    more = pd.DataFrame({"image_id": always["image_id"], "fold": 0, "nevus": 0.5, "scar": 0.5})
    case.run(pd.concat([case.out_of_fold, more]))
    table, _ = read_predictions(fold_folder(NAME, "theirs", 0) / PREDICTIONS)
    assert not set(table["image_id"]) & set(always["image_id"])


def test_ids(case):
    table = case.out_of_fold
    case.refused(
        "row 6, column image_id: 'nobody' is not in images.csv",
        changed(table, 4, image_id="nobody"),
    )
    case.refused("row 6, column image_id: blank", changed(table, 4, image_id=None))
    case.refused(
        "1 of the .* images that folds.csv validates are missing: " + table["image_id"][3],
        table.drop(index=3),
    )
    case.refused("1 of the 40 images of the test set are missing", None, case.test.iloc[1:])
    case.refused(
        f"{table['image_id'][2]!r} has 2 rows, most images have 1",
        pd.concat([table, table.iloc[[2]]]),
    )
    case.refused("no column image_id or unit_id", table.rename(columns={"image_id": "picture"}))
    case.refused("no row is of the test set", None, table)


def test_unknown_ids_may_be_ignored(case):
    unknown = pd.DataFrame({"image_id": ["ISIC19"], "fold": 0, "nevus": 0.1, "scar": np.nan})
    case.run(pd.concat([case.out_of_fold, unknown]), None, "--ignore-unknown")
    assert case.sidecar()["ignore_unknown"] is True


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.1, "high", np.inf])
def test_scores_are_numbers_from_0_to_1(case, value):
    case.refused(
        "row 9, column scar: .* is not a score in", changed(case.out_of_fold, 7, scar=value)
    )
    case.refused("test.csv: row 2, column scar", None, changed(case.test, 0, scar=value))


def test_a_missing_label_and_the_truth_are_refused(case):
    case.refused("the column 'scar' is missing", case.out_of_fold.drop(columns="scar"))
    known = case.images.set_index("image_id")["nevus"]
    truth = case.out_of_fold.assign(nevus=case.out_of_fold["image_id"].map(known))
    case.refused("column nevus is the truth, not a score", truth)


def test_folds_of_other_numbers_agree(case):
    case.run(case.out_of_fold.assign(fold=(case.out_of_fold["fold"] + 1) % 3 + 10))
    assert case.sidecar()["own_folds"] == stage.AGREE


def test_other_folds_that_keep_patients_apart_are_taken_and_told(case, capsys):
    code = np.unique(case.patient, return_inverse=True)[1]
    case.run(case.out_of_fold.assign(fold=code % 4))
    assert case.sidecar()["own_folds"] == stage.DIFFER
    assert "mix" in capsys.readouterr().out


def test_a_patient_in_two_folds_is_refused_by_name(case):
    count = case.patient.value_counts()
    patient = count.index[count > 1][0]
    row = case.patient.index[case.patient == patient][0]
    table = changed(case.out_of_fold, row, fold=(case.out_of_fold["fold"][row] + 1) % 3)
    case.refused(f"patient {patient} has images in folds .*training saw", table)


def test_twins_in_two_folds_are_refused(case):
    images = case.images.copy()
    table = case.out_of_fold
    code = np.unique(case.patient, return_inverse=True)[1]
    fold = code % 4
    first = 0
    second = int(
        np.flatnonzero((fold != fold[first]) & (table["fold"] == table["fold"][first]).to_numpy())[
            0
        ]
    )
    images["duplicate_of"] = None
    images.loc[images["image_id"] == table["image_id"][second], "duplicate_of"] = table["image_id"][
        first
    ]
    images.to_csv(case.folder / "data" / NAME / "images.csv", index=False)
    case.run()  # in one of our folds
    for path in (case.folder / "models").rglob("*.csv"):
        path.unlink()
    case.refused("belong together by duplicate_of", table.assign(fold=fold))


def test_an_image_of_two_networks_or_of_none_is_refused(case):
    table = case.out_of_fold
    case.refused(
        "is scored by the networks of folds",
        pd.concat([table, table.assign(fold=(table["fold"] + 1) % 3)]),
    )
    case.refused("row 3, column fold: '-1' is not a fold", changed(table, 1, fold=-1))


def test_without_folds_they_must_be_given_or_vouched_for(case):
    table = case.out_of_fold.drop(columns="fold")
    case.refused("--trust-folds", table)
    case.run(table, None, "--trust-folds")
    assert case.sidecar()["own_folds"] == stage.TRUSTED
    assert case.sidecar()["trust_folds"] is True


def test_a_fold_map_of_patients_or_images(case):
    table = case.out_of_fold.drop(columns="fold")
    path = case.folder / "map.csv"
    by_patient = pd.DataFrame(
        {"patient_id": case.patient, "fold": case.out_of_fold["fold"]}
    ).drop_duplicates()
    by_patient.to_csv(path, index=False)
    case.run(table, None, "--fold-map", path)
    assert case.sidecar()["own_folds"] == stage.AGREE
    assert "fold_map" in case.sidecar()["imported"]
    case.out_of_fold[["image_id", "fold"]].to_csv(path, index=False)
    case.run(table, None, "--fold-map", path)
    assert case.sidecar()["own_folds"] == stage.AGREE


def test_a_fold_map_that_tears_a_patient_or_lacks_one_is_refused(case):
    table = case.out_of_fold.drop(columns="fold")
    path = case.folder / "map.csv"
    count = case.patient.value_counts()
    row = case.patient.index[case.patient == count.index[count > 1][0]][0]
    torn = changed(case.out_of_fold, row, fold=(case.out_of_fold["fold"][row] + 1) % 3)
    torn[["image_id", "fold"]].to_csv(path, index=False)
    case.refused(
        f"patient {case.patient[row]} has images in folds", table, None, "--fold-map", path
    )
    twice = pd.DataFrame({"patient_id": ["a", "a"], "fold": [0, 1]})
    twice.to_csv(path, index=False)
    case.refused("patient a is in folds 0, 1", table, None, "--fold-map", path)
    case.out_of_fold[["image_id", "fold"]].iloc[1:].to_csv(path, index=False)
    case.refused("was validated in no fold", table, None, "--fold-map", path)
    case.refused("has a column fold of its own", None, None, "--fold-map", path)


def refused_options(case, match, *words):
    with pytest.raises(UserError, match=match):
        stage.main(
            stage.parser().parse_args([*words, "--out-of-fold", str(case.folder / "absent.csv")])
        )


def test_names(case):
    case.refused("a run of the competition file has that name", name="one")
    case.refused("a run of the competition file has that name", name="metadata")
    refused_options(case, "needs a name", NAME)
    refused_options(case, "needs a name", f"{NAME}/theirs/fold0")
    refused_options(case, "no such file", f"{NAME}/theirs")


def test_what_was_trained_is_never_overwritten_what_was_imported_is(case):
    case.run()
    case.run()
    write_run(case.images, "theirs", noisy(case.images, LABELS, 1, 5))
    with pytest.raises(UserError, match="was made by training"):
        case.run()


def test_without_test_scores_none_are_written(case):
    path = case.folder / "oof.csv"
    case.out_of_fold.to_csv(path, index=False)
    stage.main(stage.parser().parse_args([f"{NAME}/theirs", "--out-of-fold", str(path)]))
    table, _ = read_predictions(fold_folder(NAME, "theirs", 0) / PREDICTIONS)
    assert set(table["split"]) == {"train"}


def test_the_command_line_fails_in_one_line(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            stage.__file__,
            "melanoma/theirs",
            "--out-of-fold",
            str(tmp_path / "x.csv"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={
            "PYTHONPATH": str(Path(sys.modules["pipeline"].__path__[0]).parent),
            "PATH": "/usr/bin",
            "DATA": str(tmp_path),
        },
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error:")
    assert len(done.stderr.splitlines()) == 1
