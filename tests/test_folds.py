"""The folds stage from images.csv to folds.csv: leaks, other sources, edge cases, frozen files,
messages."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.config.competition import load_competition
from pipeline.core.config.task import OFFICIAL
from pipeline.core.folds.audit import checked_tables, find_leaks, require_no_leak
from pipeline.core.folds.groups import check_patients
from pipeline.core.folds.split import training_images, validation_rows
from pipeline.core.runtime.errors import UserError
from tests.cases.synthetic_images import (
    TASK,
    audited,
    fold_map,
    images_of,
    load_like,
    made,
    run,
    twelve,
)


def test_other_sources_always_train_and_their_twins_are_dropped():
    own = twelve()
    other = images_of([f"e{i}" for i in range(4)], source="other", start=100)
    test = images_of(["t0", "t1"], split="test", start=200)
    other.loc[0, "phash"] = own["phash"][5]
    other.loc[1, "phash"] = test["phash"][1]
    images = pd.concat([own, other, test], ignore_index=True)
    folds, dropped, _ = made(images, TASK, folds=3)
    assert [fold_map(folds)[f"e{i}"] for i in range(4)] == [-1] * 4
    assert dropped.to_dict("list") == {
        "image_id": ["othertrain100", "othertrain101"],
        "reason": ["twin of a scored image (phash)", "twin of a test image (phash)"],
        "twin": ["owntrain5", "owntest201"],
    }
    for k in range(3):
        trains, validates = (
            rows(images, folds, dropped, k, *extra)
            for rows, extra in ((training_images, ()), (validation_rows, (TASK,)))
        )
        assert {"othertrain102", "othertrain103"} <= set(trains["image_id"])
        assert not {"othertrain100", "othertrain101", "owntest200"} & {
            *trains["image_id"],
            *validates["image_id"],
        }
        assert set(validates["source"]) == {"own"}
        assert len(trains) + len(validates) == 26


def test_an_external_patient_joined_to_a_scored_one_does_not_train_in_its_fold():
    images = pd.concat(
        [twelve(), images_of(["e", "e"], source="other", start=50)], ignore_index=True
    )
    images["lesion_id"] = None
    images.loc[[1, 24], "lesion_id"] = "L"
    folds, dropped, _ = made(images, TASK, folds=3)
    k = fold_map(folds)["p00"]
    assert fold_map(folds)["e"] == k and dropped.empty
    assert not (training_images(images, folds, dropped, k)["source"] == "other").any()
    assert not (validation_rows(images, folds, dropped, k, TASK)["source"] == "other").any()
    assert (training_images(images, folds, dropped, (k + 1) % 3)["source"] == "other").sum() == 2


def test_a_twin_left_in_training_is_a_leak_that_names_the_pair():
    images = pd.concat([twelve(), images_of(["e"], source="other", start=50)], ignore_index=True)
    images.loc[24, "phash"] = images["phash"][5]
    folds, dropped, _ = made(images, TASK, folds=3)
    folds.loc[folds["patient_id"] == "e", "fold"] = -1
    with pytest.raises(UserError, match=r"owntrain5 .*othertrain50|othertrain50 .*owntrain5"):
        require_no_leak("folds.csv", images, folds, dropped[:0], TASK)


@pytest.mark.parametrize("policy, dropped", [("report", []), ("drop", ["owntrain2", "owntrain3"])])
def test_test_patients_in_training_are_reported_or_dropped(policy, dropped):
    images = pd.concat(
        [twelve(), images_of(["p01", "new"], split="test", start=50)], ignore_index=True
    )
    task = replace(TASK, test_patients=policy)
    assert list(made(images, task, folds=3)[1]["image_id"]) == dropped
    found = audited(images, task, folds=3)[1]
    assert found["test"]["patients_in_training"] == (policy == "report")
    assert found["leaks"] == []


def test_official_validation_set_is_fold_0_and_what_reaches_into_it_is_dropped():
    images = pd.concat(
        [twelve(), images_of(["v0", "v1", "p00"], split="valid", start=50)], ignore_index=True
    )
    images.loc[9, "phash"] = images["phash"][25]  # p04 and v1
    folds, dropped, _ = made(images, replace(TASK, folds=OFFICIAL))
    assert {patient for patient, k in fold_map(folds).items() if k == 0} == {"v0", "v1", "p00"}
    assert set(folds["fold"]) == {0, -1}
    assert set(dropped["image_id"]) == {"owntrain0", "owntrain1", "owntrain8", "owntrain9"}
    assert set(validation_rows(images, folds, dropped, 0, TASK)["split"]) == {"valid"}
    assert len(training_images(images, folds, dropped, 0)) == 20
    assert find_leaks("folds.csv", images, folds, dropped, TASK) == []


def test_official_folds_without_a_validation_set_are_an_error():
    with pytest.raises(UserError, match="no row is 'valid'"):
        made(twelve(), replace(TASK, folds=OFFICIAL))


def test_blank_patients_are_an_error_unless_the_task_makes_them_their_own():
    images = twelve()
    images.loc[3, "patient_id"] = None
    with pytest.raises(UserError, match=r"row 5, column patient_id: blank.*owntrain3"):
        check_patients("images.csv", images, TASK)
    fold = fold_map(made(images, replace(TASK, patient_missing="own_group"), folds=3)[0])
    assert fold["image:owntrain3"] in (0, 1, 2)


@pytest.mark.parametrize(
    "folds, message", [(1, "at least 2"), (0, "at least 2"), (13, "13 folds asked of 12 groups")]
)
def test_numbers_of_folds_that_cannot_be(folds, message):
    with pytest.raises(UserError, match=message):
        made(twelve(), folds=folds)


def test_fewer_positive_patients_than_folds_is_said():
    images = twelve()
    images.loc[[0, 1, 8], "melanoma"] = 1
    found = audited(images, TASK, folds=4)[1]
    empty = [str(row["fold"]) for row in found["folds"] if not row["positives"]["melanoma"]]
    assert len(empty) == 2
    said = f"melanoma: 2 patients with a positive for 4 fold(s); no AUC in fold {', '.join(empty)}"
    assert found["warnings"] == [said]


def test_one_giant_patient_is_said():
    images = images_of(["giant"] * 60 + [f"p{i:02d}" for i in range(40)])
    fold, found = audited(images, TASK, folds=4)
    giant = fold["giant"]
    assert any(text.startswith(f"fold {giant} has +") for text in found["warnings"])
    others = [row["images"] for row in found["folds"] if row["fold"] != giant]
    assert max(others) - min(others) <= 1


def test_a_label_with_a_single_positive():
    images = twelve()
    images.loc[4, "melanoma"] = 1
    found = audited(images, TASK, folds=3)[1]
    assert sorted(row["positives"]["melanoma"] for row in found["folds"]) == [0, 0, 1]
    assert [row["images"] for row in found["folds"]] == [8, 8, 8]


def test_optional_columns_may_be_absent_and_an_unknown_source_is_scored():
    images = twelve()[["image_id", "patient_id", "split", "melanoma"]]
    assert set(made(images, folds=3)[0]["fold"]) == {0, 1, 2}
    fold, found = audited(twelve().assign(source="named otherwise", phash=None), folds=3)
    assert set(fold.values()) == {0, 1, 2}
    assert "no image has the source 'own'" in found["warnings"][0]


def test_row_order_and_test_rows_change_nothing():
    random = np.random.RandomState(0)
    images = images_of(
        [f"p{i:03d}" for i in random.randint(0, 60, 300)], melanoma=random.randint(0, 2, 300)
    )
    images = images.assign(lesion_id=None, duplicate_of=None)
    images.loc[[5, 77, 200], "lesion_id"] = "L"
    test = images_of(["p001", "t"], split="test", start=500)
    test = test.assign(lesion_id=["L", None], duplicate_of=["owntrain3", None])
    test.loc[1, "phash"] = images["phash"][9]
    first = made(images, TASK, folds=5)[0]
    for other in (
        images.sample(frac=1, random_state=1),
        pd.concat([test, images]).sample(frac=1, random_state=2),
    ):
        pd.testing.assert_frame_equal(made(other.reset_index(drop=True), TASK, folds=5)[0], first)
    assert not made(images, TASK, folds=5, seed=1)[0].equals(first)


def test_folds_are_frozen_and_audited(tmp_path, monkeypatch):
    images = load_like("melanoma", 90)
    made = run(tmp_path, images, "--folds", "5")
    assert made.returncode == 0, made.stderr
    written = (tmp_path / "melanoma/folds.csv").read_bytes()
    assert run(tmp_path, images.sample(frac=1, random_state=0)).returncode == 0
    for options, said in (
        (("--folds", "4"), "5 folds already"),
        (("--seed", "3"), "made with seed 0"),
    ):
        refused = run(tmp_path, images, *options)
        assert (
            refused.returncode == 2
            and said in refused.stderr
            and len(refused.stderr.splitlines()) == 1
        )
    assert (tmp_path / "melanoma/folds.csv").read_bytes() == written
    audited = json.loads((tmp_path / "melanoma/folds_audit.json").read_text())
    assert audited["made"] == {"by": "search", "folds": 5, "seed": 0}
    assert sum(row["images"] for row in audited["folds"]) == 90
    monkeypatch.setenv("DATA", str(tmp_path))
    assert len(checked_tables(load_competition("melanoma"))[0]) == 90


def test_an_edited_folds_csv_stops_later_stages(tmp_path, monkeypatch):
    images = load_like("melanoma", 90)
    images.loc[0, "phash"] = images["phash"][4]
    assert run(tmp_path, images).returncode == 0
    path = tmp_path / "melanoma/folds.csv"
    folds = pd.read_csv(path)
    assert folds["fold"][0] == folds["fold"][1]
    folds.loc[0, "fold"] = (folds["fold"][0] + 1) % 5
    folds.to_csv(path, index=False)
    monkeypatch.setenv("DATA", str(tmp_path))
    with pytest.raises(UserError, match=f"{images['image_id'][0]} .*{images['image_id'][4]}"):
        checked_tables(load_competition("melanoma"))
    told = run(tmp_path, images, "--audit")
    assert (
        told.returncode == 2 and "leaks: 1" in told.stdout and images["image_id"][4] in told.stderr
    )
    with pytest.raises(UserError, match="leak"):
        checked_tables(load_competition("melanoma"))


def test_new_patients_after_the_freeze_are_an_error(tmp_path):
    assert run(tmp_path, load_like("melanoma", 90)).returncode == 0
    told = run(tmp_path, load_like("melanoma", 93))
    assert told.returncode == 2 and "patient p30" in told.stderr and "clean-folds" in told.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.drop(columns="patient_id"), "the column 'patient_id' is missing"),
        (lambda t: t.drop(columns="target"), "the label column 'target' is missing"),
        (
            lambda t: t.assign(target=["maybe"] + ["0"] * 29),
            "row 2, column target: 'maybe' is not 0, 1, -1 or blank",
        ),
        (lambda t: t.assign(split="training"), "row 2, column split: 'training'"),
        (lambda t: t.assign(patient_id=[None] + ["p"] * 29), "row 2, column patient_id: blank"),
    ],
)
def test_what_is_wrong_with_images_csv_is_told_in_one_line(tmp_path, change, message):
    told = run(tmp_path, change(load_like("melanoma", 30)))
    assert told.returncode == 2 and message in told.stderr and len(told.stderr.splitlines()) == 1


def test_chexpert_takes_the_official_set_unless_asked_otherwise(tmp_path):
    images = load_like("chexpert", 90)
    images.loc[60:, "split"] = "valid"
    assert run(tmp_path / "a", images, name="chexpert").returncode == 0
    assert set(pd.read_csv(tmp_path / "a/chexpert/folds.csv")["fold"]) == {0, -1}
    assert run(tmp_path / "b", images, "--folds", "5", name="chexpert").returncode == 0
    assert sorted(set(pd.read_csv(tmp_path / "b/chexpert/folds.csv")["fold"])) == [0, 1, 2, 3, 4]
