"""Packages of tiny networks, rehearsed: cut off from the network, under hidden test sets of every
kind."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.core.config.task import Submission, Task
from pipeline.core.submission.organiser_file import Wanted, check_file, wanted
from pipeline.deploy import notebook
from pipeline.deploy.environments import CODALAB
from pipeline.deploy.kaggle import SCRIPTS
from pipeline.deploy.rehearsal.isolation import clean_variables, cut_off, fresh_environment
from pipeline.deploy.rehearsal.memory import run_measured
from tests.cases import trained as house

pytestmark = pytest.mark.slow
SITE = "anatom_site_general_challenge"
TASK = Task(title="t", labels=("target",), slug="s")
SUBMISSION = Submission(file="submission.csv", id_column="image_name", columns={"target": "target"})


@pytest.fixture(scope="module")
def melanoma(tmp_path_factory):
    """A house with a submission and its Kaggle folder."""
    folder = tmp_path_factory.mktemp("melanoma")
    house.build(folder, "melanoma")
    house.stage(folder, "pipeline.deploy.kaggle", "melanoma", "--owner", "me", "--licence", "other")
    return folder


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory):
    """A house with predictions and its CodaLab bundle."""
    folder = tmp_path_factory.mktemp("chexpert")
    house.build(folder, "chexpert")
    house.stage(folder, "pipeline.deploy.codalab", "chexpert")
    return folder


@pytest.mark.parametrize("layout", ["new", "old"])
def test_the_notebook_makes_the_submission_made_at_home(melanoma, layout):
    said = house.stage(melanoma, "pipeline.deploy.rehearsal.kaggle", "melanoma", "--layout", layout)
    assert "12 rows: the scores made at home within" in said and "6 networks" in said


def hidden(melanoma: Path, folder: Path, rows: int, change=None) -> Path:
    """A competition's mount with another test set of so many rows; `change` may spoil its table or
    images."""
    raw = folder / "raw"
    shutil.copytree(melanoma / "data/melanoma/raw", raw)
    shutil.rmtree(raw / "jpeg/test")
    rng = np.random.default_rng(5)
    names = [f"ISIC_9{number:06d}" for number in range(rows)]
    table = pd.DataFrame(
        {"image_name": names, "patient_id": "IP_7777777", "sex": "male", "age_approx": 40.0}
    )
    table[SITE] = "torso"
    for name in names:
        house.write_image(raw / "jpeg/test" / f"{name}.jpg", rng)
    if change:
        table = change(raw, table)
    table.to_csv(raw / "test.csv", index=False)
    pd.DataFrame({"image_name": names, "target": 0}).to_csv(
        raw / "sample_submission.csv", index=False
    )
    return raw


def on_kaggle(melanoma: Path, raw: Path, out: Path, limit: str = "1h") -> str:
    """Run what the notebook runs, on another mount."""
    package = melanoma / "submissions/melanoma/kaggle/dataset"
    return house.stage(
        melanoma, "pipeline.deploy.away.kaggle", str(package), str(raw), str(out), TIME_LIMIT=limit
    )


def errors(raw: Path, out: Path) -> list[str]:
    sample = pd.read_csv(raw / "sample_submission.csv", dtype={"image_name": "str"})
    return [
        str(one)
        for one in check_file(out, wanted(sample, SUBMISSION, TASK))
        if one.severity == "error"
    ]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_small_hidden_test_set(melanoma, tmp_path, rows):
    raw = hidden(melanoma, tmp_path, rows)
    out = tmp_path / "submission.csv"
    on_kaggle(melanoma, raw, out)
    assert errors(raw, out) == [] and len(pd.read_csv(out)) == rows


def test_images_and_patients_that_nobody_expects(melanoma, tmp_path):
    def change(raw: Path, table: pd.DataFrame) -> pd.DataFrame:
        (raw / f"jpeg/test/{table['image_name'][1]}.jpg").write_bytes(b"\xff\xd8\xff no picture")
        (raw / f"jpeg/test/{table['image_name'][2]}.jpg").unlink()
        cv2.imwrite(
            str(raw / f"jpeg/test/{table['image_name'][3]}.jpg"), np.zeros((1, 7, 3), np.uint8)
        )
        return table.assign(
            **{SITE: "a place unheard of", "sex": [None, "other", *["male"] * 6]}
        ).drop(index=5)

    raw = hidden(melanoma, tmp_path, 8, change)
    out = tmp_path / "submission.csv"
    said = on_kaggle(melanoma, raw, out)
    assert errors(raw, out) == []
    assert "2 images could not be read" in said and "1 ids of the sample have no image" in said


def test_half_a_million_rows_in_a_minute_and_a_half(melanoma, tmp_path):
    """Images are links to eight files; there is time for some thousands, and every row gets a
    score."""
    raw = hidden(melanoma, tmp_path, 8)
    names = [f"ISIC_9{number:06d}" for number in range(500_000)]
    for number, name in enumerate(names[8:]):
        os.link(raw / "jpeg/test" / f"{names[number % 8]}.jpg", raw / "jpeg/test" / f"{name}.jpg")
    table = pd.read_csv(raw / "test.csv").iloc[[0] * len(names)].assign(image_name=names)
    table.to_csv(raw / "test.csv", index=False)
    pd.DataFrame({"image_name": names, "target": 0}).to_csv(
        raw / "sample_submission.csv", index=False
    )
    out = tmp_path / "submission.csv"
    said = on_kaggle(melanoma, raw, out, limit="90s")
    assert errors(raw, out) == [] and "the first network" in said
    shutil.rmtree(raw)  # half a million links that nobody wants to keep


@pytest.fixture(scope="module")
def isic2024(tmp_path_factory):
    """A third competition, in HDF5, with three public test rows; its package has a second level."""
    folder = tmp_path_factory.mktemp("isic2024")
    house.build(folder, "isic2024")
    house.submit_second_level(folder, "isic2024")
    house.stage(folder, "pipeline.deploy.kaggle", "isic2024", "--owner", "me", "--licence", "other")
    return folder


def test_three_public_rows_in_hdf5(isic2024):
    said = house.stage(isic2024, "pipeline.deploy.rehearsal.kaggle", "isic2024")
    assert "3 rows: the scores made at home" in said
    assert "target: second level of folds 0, 1, 2" in said


@pytest.mark.parametrize("rows", [0, 80])
def test_a_hidden_test_set_in_hdf5(isic2024, tmp_path, rows):
    raw = tmp_path / "raw"
    out = tmp_path / "submission.csv"
    shutil.copytree(isic2024 / "data/isic2024/raw", raw)
    shown = pd.read_csv(raw / "test-metadata.csv")
    names = [f"ISIC_9{number:06d}" for number in range(rows)]
    hidden = shown.iloc[[number % 3 for number in range(rows)]].assign(isic_id=names)
    hidden.to_csv(raw / "test-metadata.csv", index=False)
    pd.DataFrame({"isic_id": names, "target": 0.3}).to_csv(
        raw / "sample_submission.csv", index=False
    )
    with (
        h5py.File(raw / "train-image.hdf5") as train,
        h5py.File(raw / "test-image.hdf5", "w") as test,
    ):
        for name, key in zip(names, train):
            test[name] = train[key][()]
    package = isic2024 / "submissions/isic2024/kaggle/dataset"
    house.stage(isic2024, "pipeline.deploy.away.kaggle", str(package), str(raw), str(out))
    asked = pd.Series(names, dtype="str")
    findings = check_file(out, Wanted(asked, ("isic_id", "target"), "isic_id"))
    assert [str(one) for one in findings if one.severity == "error"] == []


def run_bundle(chexpert: Path, work: Path, paths: list[str]) -> tuple[int, float]:
    """Run a copy of the bundle on a list, in a fresh environment without the network; exit status
    and peak memory."""
    shutil.copytree(chexpert / "submissions/chexpert/codalab/src", work / "src")
    with (work / "valid_image_paths.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Path"], *([path] for path in paths)])
    python = fresh_environment(work.parent / "env", CODALAB)
    command = [str(python), "src/predict.py", "valid_image_paths.csv", "predictions.csv"]
    return run_measured(cut_off(command, [(work / "src", work / "src")]), work, clean_variables())


def test_the_bundle_makes_the_predictions_made_at_home(chexpert):
    said = house.stage(chexpert, "pipeline.deploy.rehearsal.codalab", "chexpert")
    assert "9 rows: the scores made at home within" in said and "memory" in said


def test_many_studies_take_no_more_memory(chexpert, tmp_path):
    """Full-resolution views, laterals alone and damaged ones among them; memory stays below 2
    GB."""
    work = tmp_path / "work"
    views = ["view1_frontal.jpg", "view1_lateral.jpg"]
    coarse = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    big = cv2.resize(coarse, (2828, 2320), interpolation=cv2.INTER_CUBIC)
    source = tmp_path / "big.jpg"
    cv2.imwrite(str(source), big)
    paths = [
        f"CheXpert-v1.0/valid/patient{number:05d}/study1/{views[number % 2]}"
        for number in range(700)
    ]
    for number, path in enumerate(paths):
        (work / path).parent.mkdir(parents=True)
        if number == 7:
            (work / path).write_bytes(source.read_bytes()[:2000])
        else:
            os.link(source, work / path)
    status, peak = run_bundle(chexpert, work, paths)
    table = pd.read_csv(work / "predictions.csv")
    assert status == 0 and len(table) == 700 and np.isfinite(table.iloc[:, 1:].to_numpy()).all()
    assert peak < 2000


def test_a_list_whose_images_are_nowhere_is_an_error(chexpert, tmp_path):
    (tmp_path / "work").mkdir()
    status, _ = run_bundle(
        chexpert, tmp_path / "work", ["CheXpert-v1.0/valid/patient1/study1/view1_frontal.jpg"]
    )
    assert status == 2 and not (tmp_path / "work" / "predictions.csv").exists()


def test_training_in_sessions(melanoma, tmp_path):
    """The training notebook stops in time, and the next session goes on from its output."""
    target = "melanoma/b3_256/fold0"
    house.stage(
        melanoma,
        "pipeline.deploy.kaggle",
        "melanoma",
        "--owner",
        "me",
        "--licence",
        "other",
        "--train",
        target,
        "--resume",
        SUBMISSIONS=str(tmp_path / "submissions"),
    )
    folder = tmp_path / "submissions/melanoma/kaggle"
    assert json.loads((folder / "train/kernel-metadata.json").read_text())["kernel_sources"] == [
        "me/melanoma-train"
    ]
    limit = 2.0
    number = 0
    said = ""
    earlier = None
    while "everything is complete" not in said:
        number += 1
        limit *= 2.5
        said = session(melanoma, folder, tmp_path / f"session{number}", target, int(limit), earlier)
        assert ("continues from" in said) == bool(earlier)
        assert "everything is complete" in said or ("status 75" in said and "out of time" in said)
        output = tmp_path / f"session{number}/working/models"
        earlier = output if (output / "melanoma").is_dir() else None
    assert number > 1 and (output / target / "predictions.csv").is_file()
    again = session(melanoma, folder, tmp_path / "again", target, 3600, earlier)
    assert (
        "everything is complete" in again and "after epoch" not in again
    )  # nothing is trained twice


def session(
    melanoma: Path, folder: Path, root: Path, target: str, limit: int, earlier: Path | None
) -> str:
    """Run the training notebook's cells under `root`."""
    shutil.copytree(folder / "dataset", root / "input/melanoma-package")
    shutil.copytree(
        melanoma / "data/melanoma/raw", root / "input/siim-isic-melanoma-classification"
    )
    if earlier:
        shutil.copytree(earlier, root / "input/melanoma-train/models")
    (root / "working").mkdir()
    settings = {
        "SLUG": "siim-isic-melanoma-classification",
        "PACKAGE": "melanoma",
        "HOURS": limit / 3600,
        "TARGET": target,
    }
    book = notebook.notebook(SCRIPTS / "notebook_train.py", settings)
    cells = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]
    script = root / "cells.py"
    script.write_text("\n\n".join(cells))
    variables = clean_variables(KAGGLE_ROOT=str(root), SMOKE="1", OMP_NUM_THREADS="1", WORKERS="0")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
