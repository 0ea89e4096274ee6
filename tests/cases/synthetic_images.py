"""Tables of images for the tests of folds: every image differs from all others unless a test says
so."""

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline import folds as stage
from pipeline.core.config.competition import load_competition
from pipeline.core.config.task import Task
from pipeline.core.folds.audit import audit
from pipeline.core.folds.make import split
from pipeline.core.images.phash import DIGITS
from pipeline.core.runtime.command import run_stage

TASK = Task(
    title="made", labels=("melanoma",), numeric=("age",), categorical=("sex",), scored_source="own"
)
HASHES = [
    "".join(np.random.RandomState(i).choice(list("0123456789abcdef"), DIGITS)) for i in range(2000)
]


def images_of(
    patients: list, split: str = "train", source: str = "own", start: int = 0, **columns: object
) -> pd.DataFrame:
    """images.csv with one row per entry of `patients`."""
    count = len(patients)
    table = pd.DataFrame(
        {
            "image_id": [f"{source}{split}{start + i}" for i in range(count)],
            "patient_id": patients,
            "split": split,
            "source": source,
            "phash": HASHES[start : start + count],
            "melanoma": 0.0,
        }
    )
    return table.assign(**columns)


def twelve() -> pd.DataFrame:
    """Twelve patients of two images: p00 has owntrain0 and owntrain1, and so on."""
    return images_of([f"p{i // 2:02d}" for i in range(24)])


def made(
    images: pd.DataFrame, task: Task = TASK, **options: object
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """(folds.csv, folds_dropped.csv, how they were made) without files."""
    return split(Path("data/made"), images, task, **options)


def audited(images: pd.DataFrame, task: Task = TASK, **options: object) -> tuple[dict, dict]:
    """(patient -> fold, the audit)."""
    folds, dropped, how = made(images, task, **options)
    return fold_map(folds), audit("folds.csv", images, folds, dropped, task, how)


def load_like(name: str, count: int) -> pd.DataFrame:
    """images.csv with the label columns of a real competition; a patient has three images."""
    task = load_competition(name).task
    random = np.random.RandomState(0)
    patients = [f"p{i // 3:02d}" for i in range(count)]
    images = images_of(patients, source=task.scored_source or "own").drop(columns="melanoma")
    return images.assign(**{label: random.randint(0, 2, count) for label in task.labels})


@dataclass
class Told:
    """What a command said."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, images: pd.DataFrame, *options: str, name: str = "melanoma") -> Told:
    """Run the stage's command in this process, on a table written for a real competition."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    images.to_csv(folder / name / "images.csv", index=False)
    out = io.StringIO()
    err = io.StringIO()
    status = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("DATA", str(folder))
        patch.setattr(sys, "argv", ["folds", name, *options])
        try:
            run_stage(stage.main, stage.parser())
        except SystemExit as stop:
            status = stop.code
    return Told(status, out.getvalue(), err.getvalue())


def fold_map(table: pd.DataFrame) -> dict:
    """patient -> fold."""
    return dict(zip(table["patient_id"], table["fold"]))
