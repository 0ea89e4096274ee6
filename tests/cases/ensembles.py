"""A small competition on disk: images.csv, folds.csv, and every run's predictions, as the stages
before leave them."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import PREDICTIONS, STAGE_1_PREDICTIONS, data_folder, fold_folder
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA, Finetune, Metadata, Pretrain, Run
from pipeline.core.config.task import Blend, Submission, Task
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.core.runs.predictions import write_predictions

NAME = "lesions"


def competition(
    labels=("nevus", "scar"), runs=("one", "two"), unit="image", **blend
) -> Competition:
    """A competition of that name which is nowhere on the import path."""
    aggregate = "max" if unit == "study" else "mean"
    task = Task(title="Lesions", labels=labels, unit=unit, aggregate=aggregate, blank="ignore")
    recipe = {"network": "none", "size": 32, "pretrain": Pretrain(lr=1e-3), "finetune": Finetune()}
    recipes = tuple(Run(named=run, **recipe) for run in runs)
    submission = Submission(
        file="submission.csv", id_column="unit_id", columns={label: label for label in labels}
    )
    return Competition(NAME, task, recipes, Metadata(), Blend(**blend), submission, None)


def write_tables(
    rows=300, labels=("nevus", "scar"), folds=3, test=40, seed=0, views=1
) -> pd.DataFrame:
    """images.csv and folds.csv; the last fold number is left to patients who always train. Returns
    the images."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, rows // 3, rows + test)
    images = pd.DataFrame(
        {
            "image_id": [f"{i:05d}" for i in range(rows + test)],
            "file": "x.jpg",
            "patient_id": [
                f"p{number:03d}" if i < rows else f"t{number:03d}"
                for i, number in enumerate(patient)
            ],
            "unit_id": [f"u{i // views:05d}" for i in range(rows + test)],
            "split": ["train"] * rows + ["test"] * test,
            "source": "here",
        }
    )
    if views > 1:  # a study is of one patient
        images["patient_id"] = images.groupby("unit_id")["patient_id"].transform("first")
    for label in labels:
        positive = pd.Series(generator.random(rows + test) < 0.3)
        images[label] = positive.groupby(images["unit_id"]).transform("max").astype(float)
        images.loc[images["split"] == "test", label] = np.nan
    patients = images["patient_id"][images["split"] == "train"].drop_duplicates().sort_values()
    table = pd.DataFrame({"patient_id": patients, "fold": np.arange(len(patients)) % (folds + 1)})
    table["fold"] = table["fold"].where(table["fold"] < folds, -1)
    write_csv(data_folder(NAME) / "images.csv", images)
    write_csv(data_folder(NAME) / "folds.csv", table)
    return images


def fold_of(images: pd.DataFrame) -> np.ndarray:
    """The fold of every image, -2 for test images."""
    table = pd.read_csv(data_folder(NAME) / "folds.csv").set_index("patient_id")["fold"]
    return images["patient_id"].map(table).fillna(-2).astype(int).to_numpy()


def write_run(
    images: pd.DataFrame,
    run: str,
    scores: pd.DataFrame,
    file: str = PREDICTIONS,
    folds=3,
    views: int = 4,
) -> list[Path]:
    """Predictions of a run in every fold: the fold's images and, except for stage 1, the test
    images."""
    fold = fold_of(images)
    paths = []
    for number in range(folds):
        kept = (fold == number) | ((fold == -2) & (file != STAGE_1_PREDICTIONS))
        keys = images.loc[kept, ["image_id", "split"]].assign(fold=number)
        table = pd.concat([keys, scores[kept]], axis=1)
        paths.append(fold_folder(NAME, run, number) / file)
        owner = competition(labels=tuple(scores.columns), runs=(run,))
        kind = owner.metadata if run == METADATA else owner.run(run)
        facts = facts_of(Job(owner, kind, number), PREDICTIONS)
        write_predictions(paths[-1], table, **facts, views=views)
    return paths


def noisy(images: pd.DataFrame, labels, strength: float, seed: int) -> pd.DataFrame:
    """Scores in (0, 1) that know something of the labels."""
    generator = np.random.default_rng(seed)
    columns = {}
    for label in labels:
        logit = strength * (images[label].fillna(0.5) - 0.5) + generator.normal(size=len(images))
        columns[label] = 1 / (1 + np.exp(-logit))
    return pd.DataFrame(columns)


def members_of(strengths, n=600, seed=0):
    """(members (M, n, 1), truth (n, 1)); independent noise, so that averaging helps."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.3).astype(float)
    members = [generator.normal(size=n) + strength * labels for strength in strengths]
    return np.stack(members)[:, :, None], labels[:, None]
