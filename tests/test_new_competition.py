"""A data set that the project has never seen: one file of about 60 lines takes it from raw to a
checked submission."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
FILE = '''"""Two eyes a patient: is there referable retinopathy, is there macular oedema? (made data)

Raw, at data/fundus/raw:  exams.csv  todo.csv  photos/<exam>_<eye>.png
Expected: nothing yet. Cost: an epoch is 60 photographs.
"""
from pathlib import Path

import pandas as pd

from pipeline.core import raw as source
from pipeline.core.config import (
    Augment, Blend, Finetune, Metadata, Pretrain, Resize, Run, Submission, Task)

task = Task(
    title="Fundus photographs",
    labels=("retinopathy", "oedema"),
    numeric=("age",),
    categorical=("diabetes",),
    blank="ignore",
    resize=Resize(fit="short", channels=3),
    folds=2,
    slug="fundus-2026",
)

pretrain = Pretrain(lr=1e-4, epochs=10, batch_size=32)
finetune = Finetune(loss="aucm", lr=0.05, epochs=10, batch_size=32, milestones=(5,), milestone_unit="epoch")

runs = (Run(network="resnet18.a1_in1k", size=256, pretrain=pretrain, finetune=finetune, augment=Augment(flip=True)),)
metadata = Metadata(finetune=finetune)
blend = Blend(metadata=0.3, method="rank")
submission = Submission(file="answers.csv", id_column="photo",
                        columns={"retinopathy": "p_retinopathy", "oedema": "p_oedema"}, probability=True)


def read_raw(raw: Path) -> pd.DataFrame:
    """One row a photograph; an exam has two, and a patient may have several exams."""
    return pd.concat([read(raw, "exams.csv", "train"), read(raw, "todo.csv", "test")], ignore_index=True)


def sample(raw: Path) -> pd.DataFrame:
    """The organiser gives no sample: a row a photograph of todo.csv."""
    ids = read(raw, "todo.csv", "test")["image_id"]
    return pd.DataFrame({"photo": ids, "p_retinopathy": 0.0, "p_oedema": 0.0})


def read(raw: Path, name: str, split: str) -> pd.DataFrame:
    table = source.read_table(raw, source.need_table(raw, name), ("exam", "eye", "person", "age", "diabetes"))
    ids = table["exam"] + "_" + table["eye"]
    rows = pd.DataFrame({
        "image_id": ids, "file": "photos/" + ids + ".png", "patient_id": source.present(name, table, "person"),
        "unit_id": ids, "split": split, "source": "fundus", "age": source.numbers(name, table, "age"),
        "diabetes": source.categories(table, "diabetes")})
    for label in task.labels:
        rows[label] = source.labels(name, table, label) if split == "train" else float("nan")
    return rows
'''  # noqa: E501  # a competition file as its author wrote it


def make_raw(raw: Path) -> None:
    """45 exams of two photographs, 15 of them to predict."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(45):
        for eye in "LR":
            sick = int(rng.random() < 0.4)
            rows.append(
                {
                    "exam": f"{number:04d}",
                    "eye": eye,
                    "person": f"P{number // 2}",
                    "age": rng.integers(20, 80),
                    "diabetes": rng.choice(["I", "II", ""]),
                    "retinopathy": sick,
                    "oedema": rng.choice(["0", "1", ""]) if number > 5 else number % 2,
                }
            )
            photo = np.clip(rng.normal(90 + 60 * sick, 40, (60, 80, 3)), 0, 255).astype(np.uint8)
            (raw / "photos").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(raw / "photos" / f"{number:04d}_{eye}.png"), photo)
    table = pd.DataFrame(rows)
    table[:60].to_csv(raw / "exams.csv", index=False)
    table[60:].drop(columns=["retinopathy", "oedema"]).to_csv(raw / "todo.csv", index=False)


@pytest.mark.slow
def test_one_new_file_is_all_it_takes(tmp_path):
    assert len(FILE.splitlines()) <= 70
    shutil.copytree(
        ROOT / "pipeline",
        tmp_path / "pipeline",
        ignore=shutil.ignore_patterns("__pycache__", "paper"),
    )
    (tmp_path / "pipeline/competitions/fundus.py").write_text(FILE)
    make_raw(tmp_path / "data/fundus/raw")
    variables = {**os.environ, "SMOKE": "1", "OMP_NUM_THREADS": "1", "WORKERS": "0"}
    for name in ("PYTHONPATH", "DATA", "MODELS", "SUBMISSIONS"):
        variables.pop(name, None)
    for stage in (
        "prepare",
        "folds",
        "pretrain",
        "finetune",
        "metadata",
        "predict",
        "ensemble",
        "submit",
        "submit fundus --check submissions/fundus/answers.csv",
        "deploy.kaggle fundus --owner me --licence other",
    ):
        name, *arguments = stage.split()
        done = subprocess.run(
            [sys.executable, "-m", f"pipeline.{name}", *(arguments or ["fundus"])],
            cwd=tmp_path,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{stage}: {done.stdout}"
    table = pd.read_csv(tmp_path / "submissions/fundus/answers.csv")
    assert table.columns.tolist() == ["photo", "p_retinopathy", "p_oedema"] and len(table) == 30
    scores = pd.read_csv(tmp_path / "models/fundus/scores.csv").set_index(
        ["member", "stage", "label"]
    )
    assert scores.loc[("ensemble", "blend", "retinopathy"), "n"] == 60
    assert (
        scores.loc[("resnet18_256", "AUC-M", "oedema"), "n"] < 60
    )  # blanks are ignored, not negative
