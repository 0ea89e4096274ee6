"""New images through a trained ensemble: the scores are those that `predict` and `ensemble` give to
the same images in the test set, and what gives no image is listed.

One competition in SIIM-ISIC's layout and one in CheXpert's, with tiny networks that nobody trained.
"""

import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline import ensemble as ensemble_stage
from pipeline import folds as folds_stage
from pipeline import metadata as metadata_stage
from pipeline import predict as predict_stage
from pipeline import prepare as prepare_stage
from pipeline.competitions import melanoma as melanoma_file
from pipeline.core.config import Blend
from pipeline.core.ensemble.second_level import combination
from pipeline.core.runs.job import jobs_of
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.deploy import score_images as stage
from tests.cases import bad_files, trained

RUNS = {"melanoma": ("b3_256",), "chexpert": ("densenet121_320",)}


def make_house(folder: Path, name: str, folds: str = "2") -> None:
    """Raw files to an ensemble, in this process."""
    raw = folder / "data" / name / "raw"
    raw.mkdir(parents=True)
    {"melanoma": trained.melanoma, "chexpert": trained.chexpert}[name](raw)
    targets = [f"{name}/{run}" for run in RUNS[name]]
    options = prepare_stage.parser().parse_args([*targets, "--workers", "1"])
    prepare_stage.main(options)
    number = ["--folds", folds] if name == "melanoma" else []
    folds_stage.main(folds_stage.parser().parse_args([name, *number]))
    trained.write_untrained(name, RUNS[name])
    for job in jobs_of(targets):
        predict_stage.predict_pretrained(job)
        predict_stage.predict_finetuned(job)
    if name == "melanoma" and melanoma_file.metadata:
        for job in jobs_of([name], metadata=True):
            metadata_stage.train_metadata(job)
            metadata_stage.predict_metadata(job)
    ensemble_stage.main(ensemble_stage.parser().parse_args(targets))


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """name -> the folder of a finished competition; the environment leads there."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOKE", "1")
        patch.setenv("WORKERS", "0")
        for name in RUNS:
            folder = tmp_path_factory.mktemp(name)
            lead_to(patch, folder)
            make_house(folder, name)
            made[name] = folder
    return made


def lead_to(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for root in ("DATA", "MODELS", "SUBMISSIONS"):
        patch.setenv(root, str(folder / root.lower()))


@pytest.fixture
def melanoma(houses, monkeypatch) -> Path:
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("WORKERS", "0")
    lead_to(monkeypatch, houses["melanoma"])
    return houses["melanoma"]


@pytest.fixture
def chexpert(houses, monkeypatch) -> Path:
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("WORKERS", "0")
    lead_to(monkeypatch, houses["chexpert"])
    return houses["chexpert"]


def score(name: str, images: Path, out: Path, *more: str) -> pd.DataFrame:
    """OUT of the command."""
    arguments = [name, "--images", str(images), "--out", str(out), *more]
    stage.main(stage.parser().parse_args(arguments))
    return pd.read_csv(out, dtype={"id": "str", "unit_id": "str"}, keep_default_na=False)


def test_rows(house: Path, name: str) -> pd.DataFrame:
    """The test rows of images.csv."""
    images = pd.read_csv(house / "data" / name / "images.csv", dtype={"image_id": "str"})
    return images[images["split"] == "test"].set_index("image_id")


test_rows.__test__ = False


def average(house: Path, name: str) -> pd.DataFrame:
    """The test rows of ensemble.csv by unit."""
    table = pd.read_csv(house / "models" / name / "ensemble.csv", dtype={"unit_id": "str"})
    return table[table["split"] == "test"].set_index("unit_id")


def patient_file(house: Path, path: Path, images: Path) -> Path:
    """METADATA of the test images, by their paths below `images`."""
    rows = test_rows(house, "melanoma")
    files = [(house / "data/melanoma/raw" / file) for file in rows["file"]]
    rows.assign(id=[file.relative_to(images).as_posix() for file in files]).to_csv(
        path, index=False
    )
    return path


def test_the_scores_are_those_of_predict_and_ensemble(melanoma, tmp_path):
    images = melanoma / "data/melanoma/raw/jpeg"
    patients = patient_file(melanoma, tmp_path / "patients.csv", images)
    table = score("melanoma", images, tmp_path / "out.csv", "--metadata", str(patients))
    table = table.set_index("id")
    expected = average(melanoma, "melanoma")["target"]
    found = table.loc[[f"test/{name}.jpg" for name in expected.index], "target"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert len(table) == 52  # the training images lie there too

    # Each is at its place among the out-of-fold scores, and of the training images' kind.
    whole = pd.read_csv(melanoma / "models/melanoma/ensemble.csv")
    known = np.sort(whole[whole["split"] != "test"]["target"])
    places = np.searchsorted(known, table["target"], "left") / len(known) * 100
    np.testing.assert_allclose(table["target_percentile"], places, atol=100 / len(known) + 0.01)
    assert (table["notice"] == "SMOKE RUN, research only, not a medical device").all()
    sizes = pd.read_csv(melanoma / "data/melanoma/images.csv").set_index("image_id")
    for name in expected.index:
        assert table.loc[f"test/{name}.jpg", "width"] == sizes.loc[name, "width"]
        assert table.loc[f"test/{name}.jpg", "brightness"] == pytest.approx(
            sizes.loc[name, "brightness"]
        )

    facts = json.loads((tmp_path / "out.json").read_text())
    assert facts["score_images"] == "research only, not a medical device"
    assert facts["metadata_share"] == 0.5 and facts["readable"] == 52
    assert {one["member"] for one in facts["networks"]} == {"b3_256", "metadata"}
    assert all(len(one["sha256"]) == 64 for one in facts["networks"])
    assert not list(tmp_path.glob(".*"))


def test_without_patient_columns_the_images_alone_are_scored(melanoma, tmp_path, capsys):
    images = melanoma / "data/melanoma/raw/jpeg/test"
    table = score("melanoma", images, tmp_path / "out.csv").set_index("id")
    assert "metadata network is left out" in capsys.readouterr().out
    parts = []
    for fold in (0, 1):
        path = melanoma / f"models/melanoma/b3_256/fold{fold}/predictions.csv"
        rows = pd.read_csv(path)
        parts.append(rows[rows["split"] == "test"].set_index("image_id")["target"])
    mean = sum(parts) / 2
    found = table.loc[[f"{name}.jpg" for name in mean.index], "target"]
    np.testing.assert_allclose(found, mean, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "out.json").read_text())["metadata_share"] == 0

    # A table that lacks a column of the network leaves it out as well, and says which.
    ids = pd.DataFrame({"id": table.index, "sex": "male"})
    ids.to_csv(tmp_path / "patients.csv", index=False)
    again = score(
        "melanoma", images, tmp_path / "b.csv", "--metadata", str(tmp_path / "patients.csv")
    )
    assert "has no column age_approx, log_images" in capsys.readouterr().out
    assert list(again["target"]) == list(table["target"])


def test_a_combination_that_earned_its_place_scores_where_the_patients_are_known(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    house = tmp_path_factory.mktemp("earned")
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("WORKERS", "0")
    lead_to(monkeypatch, house)
    monkeypatch.setattr(melanoma_file, "blend", Blend(weights="earned"))
    monkeypatch.setattr(melanoma_file, "metadata", None)
    # Networks that nobody trained earn nothing.
    monkeypatch.setattr(combination, "last_earned", lambda *_: "second level")
    make_house(house, "melanoma", folds="3")
    images = house / "data/melanoma/raw/jpeg/test"
    patients = patient_file(house, tmp_path / "patients.csv", images)
    monkeypatch.setattr(stage, "IMAGES_A_PART", 3)
    table = score("melanoma", images, tmp_path / "out.csv", "--metadata", str(patients))
    expected = average(house, "melanoma")["target"]
    found = table.set_index("id").loc[[f"{name}.jpg" for name in expected.index], "target"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "out.json").read_text())["percentile_among"].endswith("earned")

    # Without whole patients the members' mean, and why.
    capsys.readouterr()
    pd.read_csv(patients).drop(columns="patient_id").to_csv(tmp_path / "few.csv", index=False)
    mean = score("melanoma", images, tmp_path / "b.csv", "--metadata", str(tmp_path / "few.csv"))
    said = capsys.readouterr().out
    assert "the mean stands in for the combination that earned its place" in said
    assert "has no column patient_id" in said
    parts = [
        pd.read_csv(house / f"models/melanoma/b3_256/fold{fold}/predictions.csv")
        for fold in range(3)
    ]
    own = [part[part["split"] == "test"].set_index("image_id")["target"] for part in parts]
    expected = sum(own) / 3
    found = mean.set_index("id").loc[[f"{name}.jpg" for name in expected.index], "target"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_studies_and_views(chexpert, tmp_path):
    images = chexpert / "data/chexpert/raw"
    rows = test_rows(chexpert, "chexpert")
    patients = pd.DataFrame({"id": rows["file"], "unit_id": rows["unit_id"]})
    patients.to_csv(tmp_path / "studies.csv", index=False)
    table = score(
        "chexpert", images, tmp_path / "out.csv", "--metadata", str(tmp_path / "studies.csv")
    ).set_index("id")
    expected = average(chexpert, "chexpert")
    labels = [name for name in expected if name in table]
    assert len(labels) == 5
    for file, unit in zip(rows["file"], rows["unit_id"]):
        assert table.loc[file, "unit_id"] == unit
        np.testing.assert_allclose(
            table.loc[file, labels].astype(float), expected.loc[unit, labels], atol=1e-6
        )

    # Without them every image is a unit.
    alone = score("chexpert", images, tmp_path / "alone.csv")
    assert (alone["unit_id"] == alone["id"]).all()


@pytest.mark.usefixtures("melanoma")
def test_what_gives_no_image_is_listed_with_its_reason(tmp_path):
    images = tmp_path / "new photos"
    (images / "ward 1").mkdir(parents=True)
    (images / "ward 2").mkdir()
    (images / ".thumbnails").mkdir()
    (images / ".thumbnails" / "x.jpg").write_bytes(bad_files.encoded(0))
    for seed, name in enumerate(("ward 1/a.jpg", "ward 2/a.jpg", "ward 2/no suffix")):
        (images / name).write_bytes(bad_files.encoded(seed))
    (images / "b.png").write_bytes(bad_files.encoded(5, "PNG"))
    reasons = {}
    for kind in ("empty", "text", "cut jpeg", "png bomb", "pipe"):
        reasons[bad_files.make(images, kind, 3)] = bad_files.REASONS[kind]
    (images / "broken.zip").write_bytes(b"PK no zip")
    (images / "odd::name.jpg").write_bytes(bad_files.encoded(0))
    reasons |= {"broken.zip": "damaged", "odd::name.jpg": "refused"}
    with zipfile.ZipFile(images / "more.zip", "w") as archive:
        archive.writestr("deep/c.jpg", bad_files.encoded(6))
        archive.writestr("../../d.jpg", bad_files.encoded(7))
        archive.writestr("__MACOSX/deep/._c.jpg", b"x")
        archive.writestr("deep/twice.jpg", bad_files.encoded(8))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("deep/twice.jpg", bad_files.encoded(9))
    reasons["more.zip::deep/twice.jpg"] = "refused: the archive has 2"

    before = sorted(path.name for path in tmp_path.rglob("*"))
    table = score("melanoma", images, tmp_path / "a folder" / "my scores.csv")
    assert set(table["id"]) == {
        "b.png",
        "more.zip::../../d.jpg",
        "more.zip::deep/c.jpg",
        "ward 1/a.jpg",
        "ward 2/a.jpg",
        "ward 2/no suffix",
    }
    by_id = table.set_index("id")["target"]
    assert by_id["ward 1/a.jpg"] != by_id["ward 2/a.jpg"]
    unreadable = pd.read_csv(tmp_path / "a folder" / "my scores_unreadable.csv")
    found = dict(zip(unreadable["id"], unreadable["reason"]))
    assert set(found) == set(reasons)
    for name, reason in reasons.items():
        assert found[name].startswith(reason), (name, found[name])
    facts = json.loads((tmp_path / "a folder" / "my scores.json").read_text())
    assert (facts["readable"], facts["unreadable"], facts["hidden"]) == (6, len(reasons), 2)
    after = sorted(path.name for path in tmp_path.rglob("*"))
    written = ["a folder", "my scores.csv", "my scores.json", "my scores_unreadable.csv"]
    assert after == sorted([*before, *written])


@pytest.mark.usefixtures("melanoma")
def test_a_zip_and_a_folder_inside_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("ward 1/a.jpg", bad_files.encoded(1))
        archive.writestr("ward 10/a.jpg", bad_files.encoded(2))
    both = score("melanoma", tmp_path / "photos.zip", tmp_path / "both.csv")
    assert list(both["id"]) == ["photos.zip::ward 1/a.jpg", "photos.zip::ward 10/a.jpg"]
    one = score("melanoma", Path(f"{tmp_path}/photos.zip::ward 1"), tmp_path / "one.csv")
    assert one["target"].tolist() == both["target"].tolist()[:1]


def test_parts_do_not_change_scores_and_a_stopped_run_goes_on(melanoma, tmp_path, monkeypatch):
    images = melanoma / "data/melanoma/raw/jpeg/test"
    whole = score("melanoma", images, tmp_path / "whole.csv")

    # Parts of 5, of which the first is made before time is up.
    monkeypatch.setattr(stage, "IMAGES_A_PART", 5)
    left = iter([1.0, -1.0])
    monkeypatch.setattr(stage, "time_left", lambda: next(left))
    with pytest.raises(TimeLimitReached, match="5 of 12 images"):
        score("melanoma", images, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    monkeypatch.setattr(stage, "time_left", lambda: 1.0)
    scored = []
    original = stage.score_part
    monkeypatch.setattr(
        stage, "score_part", lambda *given: (scored.append(len(given[2])), original(*given))[1]
    )
    parts = score("melanoma", images, tmp_path / "out.csv")
    assert scored == [5, 2]
    # a batch of other images may round the last digits differently
    pd.testing.assert_frame_equal(parts, whole, rtol=0, atol=1e-6)

    # Nothing of another folder's parts is taken.
    assert not (tmp_path / ".out.csv.parts").exists()
    left = iter([1.0, -1.0])
    monkeypatch.setattr(stage, "time_left", lambda: next(left))
    with pytest.raises(TimeLimitReached):
        score("melanoma", images, tmp_path / "out.csv")
    other = tmp_path / "other"
    shutil.copytree(images, other)
    scored.clear()
    monkeypatch.setattr(stage, "time_left", lambda: 1.0)
    score("melanoma", other, tmp_path / "out.csv")
    assert scored == [5, 5, 2]


@pytest.mark.parametrize("name", ["000000.csv", "000000_unreadable.csv", "000000.json"])
def test_a_finished_part_that_has_changed_is_scored_again(
    melanoma, tmp_path, monkeypatch, capsys, name
):
    images = melanoma / "data/melanoma/raw/jpeg/test"
    monkeypatch.setattr(stage, "IMAGES_A_PART", 5)
    whole = score("melanoma", images, tmp_path / "whole.csv")
    left = iter([1.0, -1.0])
    monkeypatch.setattr(stage, "time_left", lambda: next(left))
    with pytest.raises(TimeLimitReached):
        score("melanoma", images, tmp_path / "out.csv")
    path = tmp_path / ".out.csv.parts" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(stage, "time_left", lambda: 1.0)
    assert score("melanoma", images, tmp_path / "out.csv").equals(whole)
    assert f"{name}: " in capsys.readouterr().err


def test_images_of_another_kind_are_far(melanoma, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("ISIC_0000040", "ISIC_0000041"):
        source = melanoma / f"data/melanoma/raw/jpeg/test/{name}.jpg"
        shutil.copy(source, images / f"{name}.jpg")
    black = np.zeros((900, 900, 3), np.uint8)
    cv2.imwrite(str(images / "black.png"), black)
    table = score("melanoma", images, tmp_path / "out.csv").set_index("id")
    assert table.loc["black.png", "far"].split()[:2] == ["size", "brightness"]
    ranges = json.loads((tmp_path / "out.json").read_text())["training_ranges"]
    for name in ("ISIC_0000040.jpg", "ISIC_0000041.jpg"):
        inside = all(ranges[k][0] <= table.loc[name, k] <= ranges[k][1] for k in ranges)
        assert ("size" in table.loc[name, "far"] or "bright" in table.loc[name, "far"]) != inside


def test_damaged_weights_and_a_stale_average_are_refused(melanoma, tmp_path):
    images = melanoma / "data/melanoma/raw/jpeg/test"
    path = melanoma / "models/melanoma/b3_256/fold1/finetuned.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"fold1/finetuned\.safetensors: its data differ"):
        score("melanoma", images, tmp_path / "out.csv")
    path.write_bytes(content)
    path = melanoma / "models/melanoma/quantiles.json"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    with pytest.raises(UserError, match=r"quantiles\.json: differs from what was written"):
        score("melanoma", images, tmp_path / "out.csv")
    path.write_bytes(content)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("melanoma")
@pytest.mark.parametrize(
    ("images", "out", "more", "message"),
    [
        ("empty", "out.csv", [], "there are no files to score in it"),
        ("nowhere", "out.csv", [], "there is no such folder"),
        ("full/a.txt", "out.csv", [], "is not a zip file"),
        ("full", "out.txt", [], "a name that ends with .csv"),
        ("full", "full/out.csv", [], "inside IMAGES"),
        ("full", "taken.csv", [], "was not written by score-images"),
        ("full", "out.csv", ["--run", "b5_384"], "made of b3_256; `make ensemble COMP=melanoma"),
        ("full", "out.csv", [], "none of the 1 files gave an image; a.txt: not an image"),
        ("full", "out.csv", ["--metadata", "none.csv"], "there is no such file"),
        ("full", "out.csv", ["--metadata", "ids.csv"], "none is a file below IMAGES"),
        ("full", "out.csv", ["--metadata", "twice.csv"], "row 3, column id: 'a.txt' occurs twice"),
        ("full", "out.csv", ["--metadata", "age.csv"], "age_approx: 'old' is not a number"),
    ],
)
def test_mistakes_are_named(tmp_path, images, out, more, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("hello")
    (tmp_path / "taken.csv").write_text("mine\n")
    (tmp_path / "ids.csv").write_text("id,sex\nb.jpg,male\n")
    (tmp_path / "twice.csv").write_text("id,sex\na.txt,male\na.txt,male\n")
    (tmp_path / "age.csv").write_text("id,age_approx\na.txt,old\n")
    if more[:1] == ["--metadata"]:
        more = ["--metadata", str(tmp_path / more[1])]
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        score("melanoma", tmp_path / images, tmp_path / out, *more)
    assert (tmp_path / "taken.csv").read_text() == "mine\n"
