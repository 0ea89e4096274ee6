"""The Makefile on tiny made data, both competitions, raw download to submission; then what a user
may do to it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
RUNS = {"melanoma": "b3_256", "chexpert": "densenet121_320"}
FILES = {"melanoma": "submission.csv", "chexpert": "predictions.csv"}
DISEASES = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion"]


def environment(home: Path) -> dict[str, str]:
    roots = {name: str(home / name.lower()) for name in ("DATA", "MODELS", "SUBMISSIONS")}
    return os.environ | roots | {"SMOKE": "1", "WORKERS": "0", "OMP_NUM_THREADS": "1"}


def make(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", f"PYTHON={sys.executable}", *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=600,
    )


def stage(home: Path, name: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{name}", *arguments],
        cwd=ROOT,
        env=environment(home) | changes,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Both competitions from made data through `make submit`, with three folds for melanoma."""
    home = tmp_path_factory.mktemp("pipeline")
    assert stage(home, "demo", "--images", "400", "--side", "64").returncode == 0
    for name, run in RUNS.items():
        done = make(
            home, "submit", f"COMP={name}", f"RUN={run}", *(["K=3"] if name == "melanoma" else [])
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return home


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(made, tmp_path / "home", symlinks=True)
    return tmp_path / "home"


def snapshot(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def test_submissions_have_the_organisers_form(made):
    sample = pd.read_csv(made / "data/melanoma/raw/sample_submission.csv", dtype=str)
    submission = pd.read_csv(
        made / "submissions/melanoma/submission.csv", dtype={"image_name": str}
    )
    assert list(submission.columns) == ["image_name", "target"]
    assert submission["image_name"].tolist() == sample["image_name"].tolist()
    assert submission["target"].between(0, 1).all() and submission["target"].nunique() > 50

    paths = pd.read_csv(made / "data/chexpert/raw/CheXpert-v1.0-small/test_image_paths.csv")["Path"]
    submission = pd.read_csv(made / "submissions/chexpert/predictions.csv")
    assert submission["Study"].tolist() == list(
        dict.fromkeys(path.rpartition("/")[0] for path in paths)
    )
    assert set(submission.columns) == {"Study", *DISEASES}


@pytest.mark.parametrize("name", RUNS)
def test_out_of_fold_auc_is_beyond_chance(made, name):
    """The floor is the upper 99.99 % point of random scores: .5 + 3.7 standard errors with these
    few positives."""
    scores = pd.read_csv(made / f"models/{name}/scores.csv")
    best = scores[(scores["member"] == "ensemble") & (scores["stage"] == "ensemble")]
    positives = best.loc[best["label"] != "mean", "positives"].min()
    floor = {"melanoma": 0.5 + 3.7 * (1 / (12 * positives)) ** 0.5, "chexpert": 0.6}[name]
    value = best[best["label"] == "mean"]["auc"] if (best["label"] == "mean").any() else best["auc"]
    assert value.iloc[0] > floor, scores.to_string()


def test_the_truncated_picture_is_listed_and_left_out(made):
    for name in RUNS:
        errors = pd.read_csv(made / f"data/{name}/prepare_errors.csv", dtype=str)
        images = pd.read_csv(made / f"data/{name}/images.csv", dtype=str)
        assert len(errors) == 1 and "truncated" in errors["reason"].iloc[0]
        assert errors["image_id"].iloc[0] not in set(images["image_id"])


def test_the_twin_under_another_patient_is_in_the_same_fold(made):
    images = pd.read_csv(made / "data/melanoma/images.csv", dtype=str)
    folds = pd.read_csv(made / "data/melanoma/folds.csv", dtype=str).set_index("patient_id")["fold"]
    train = images[(images["split"] == "train") & (images["source"] == "siim")]
    original = train.iloc[0]  # the copy was appended, saved anew, under a new patient
    twin = train.iloc[-1]
    assert twin["patient_id"] != original["patient_id"]
    assert folds[twin["patient_id"]] == folds[original["patient_id"]]


def test_a_second_make_runs_nothing(made):
    before = snapshot(made)
    for name, run in RUNS.items():
        done = make(made, "submit", f"COMP={name}", f"RUN={run}")
        assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert snapshot(made) == before


def test_nothing_under_raw_is_touched(made, tmp_path):
    fresh = tmp_path / "fresh"
    assert (
        stage(
            fresh, "demo", "--images", "400", "--side", "64", "--competition", "melanoma"
        ).returncode
        == 0
    )
    expected = snapshot(fresh / "data/melanoma/raw")
    found = snapshot(made / "data/melanoma/raw")
    assert expected == found


@pytest.mark.parametrize("target", ["finetune", "predict", "ensemble"])
def test_changed_folds_are_refused_by_later_stages(copy, target):
    path = copy / "data/melanoma/folds.csv"
    folds = pd.read_csv(path, dtype=str)
    ordinary = folds[folds["fold"].isin(["0", "1"])].index[:2]
    folds.loc[ordinary, "fold"] = folds.loc[ordinary[::-1], "fold"].to_numpy()
    folds.loc[ordinary[0], "fold"] = "2"
    folds.to_csv(path, index=False)
    done = stage(copy, target, "melanoma/b3_256")
    assert done.returncode == 2
    # One error; the table that was changed by hand is warned of before it.
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "folds.csv" in errors[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_killed_in_the_middle_ends_in_the_same_artifacts(copy):
    fold = copy / "models/melanoma/b3_256/fold0"
    expected = load_file(fold / "finetuned.safetensors")
    predicted = (fold / "predictions.csv").read_bytes()
    for name in ("finetuned.safetensors", "predictions.csv"):
        (fold / name).unlink()
    running = subprocess.Popen(
        [sys.executable, "-m", "pipeline.finetune", "melanoma/b3_256/fold0"],
        cwd=ROOT,
        env=environment(copy) | {"CHECKPOINT_SECONDS": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = fold / "finetuned.checkpoint.safetensors"
    while not checkpoint.exists() and running.poll() is None:
        time.sleep(0.02)
    time.sleep(random.Random(0).uniform(0, 0.5))
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert stage(copy, "finetune", "melanoma/b3_256/fold0").returncode == 0
    assert stage(copy, "predict", "melanoma/b3_256/fold0").returncode == 0
    found = load_file(fold / "finetuned.safetensors")
    assert all((expected[key] == found[key]).all() for key in expected)
    assert (fold / "predictions.csv").read_bytes() == predicted


def test_a_time_limit_stops_with_75_and_running_again_goes_on(copy):
    fold = copy / "models/melanoma/b3_256/fold1"
    expected = load_file(fold / "finetuned.safetensors")
    (fold / "finetuned.safetensors").unlink()
    stopped = stage(copy, "finetune", "melanoma/b3_256/fold1", TIME_LIMIT="1s")
    assert stopped.returncode == 75 and "the same command goes on" in stopped.stderr
    assert stage(copy, "finetune", "melanoma/b3_256/fold1").returncode == 0
    found = load_file(fold / "finetuned.safetensors")
    assert all((expected[key] == found[key]).all() for key in expected)


def test_weights_say_what_made_them(made):
    content = (made / "models/chexpert/densenet121_320/fold0/finetuned.safetensors").read_bytes()
    header = json.loads(
        json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][
            "pipeline"
        ]
    )
    assert header["labels"] == DISEASES and header["resize"]["fit"] == "square"
    assert (
        set(header["hashes"]) == {"images", "folds"}
        and header["versions"]["torch"]
        and header["commit"]
    )


BAD = [
    (["prepare", "melanoma"], {}, lambda home: shutil.rmtree(home / "data/melanoma/raw"), "raw"),
    (
        ["prepare", "melanoma"],
        {},
        lambda home: edit(home, "train.csv", "patient_id", None),
        "'patient_id'",
    ),
    (
        ["prepare", "melanoma"],
        {},
        lambda home: edit(home, "train.csv", "target", "maybe"),
        "'maybe'",
    ),
    (
        ["prepare", "melanoma"],
        {},
        lambda home: edit(home, "train.csv", "patient_id", ""),
        "patient_id",
    ),
    (
        ["prepare", "melanoma"],
        {},
        lambda home: edit(home, "train.csv", "image_name", "first"),
        "image_name",
    ),
    (["pretrain", "melanoma/b3_25"], {}, lambda _: None, "no run is called 'b3_25'"),
    (
        ["folds", "melanoma", "--folds", "1"],
        {},
        lambda home: (home / "data/melanoma/folds.csv").unlink(),
        "1",
    ),
]


def edit(home: Path, name: str, column: str, value: str | None) -> None:
    """Spoil row 5 of a raw table (or drop the column); "first" repeats the first row's value."""
    path = home / "data/melanoma/raw" / name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if value is None:
        table = table.drop(columns=column)
    else:
        table.loc[5, column] = table.loc[0, column] if value == "first" else value
    table.to_csv(path, index=False)


@pytest.mark.parametrize(("command", "changes", "spoil", "named"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(copy, command, changes, spoil, named):
    spoil(copy)
    before = snapshot(copy)
    done = stage(copy, *command, **changes)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and named in done.stderr
    ), done.stderr
    assert snapshot(copy) == before


@pytest.mark.parametrize(
    "name",
    [
        "prepare",
        "folds",
        "pretrain",
        "finetune",
        "metadata",
        "predict",
        "ensemble",
        "submit",
        "report",
        "demo",
        "score",
        "summary",
    ],
)
def test_help_says_what_a_stage_reads_and_writes(name, tmp_path):
    done = stage(tmp_path, name, "--help")
    assert done.returncode == 0 and "python -m pipeline." + name in done.stdout
