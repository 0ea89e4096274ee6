"""A synthetic competition on disk with all that a report reads; `python -m tests.cases.reports OUT`
writes its page."""

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline import ensemble as ensemble_stage
from pipeline import folds as folds_stage
from pipeline.core.artifacts.paths import (
    PREDICTIONS,
    STAGE_1_PREDICTIONS,
    data_folder,
    fold_folder,
    image_path,
)
from pipeline.core.artifacts.tables import read_folds, write_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA, Finetune, Metadata, Pretrain, Run
from pipeline.core.config.task import Blend, Submission, Task
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.core.runs.predictions import write_predictions

NAME, SIZE, VIEWS = "lesions", 64, 6


def competition(labels=("nevus", "scar"), unit="image", metadata=0.5) -> Competition:
    """A competition of that name which is nowhere on the import path."""
    task = Task(
        title="Lesions & scars",
        labels=labels,
        numeric=("age",),
        categorical=("sex", "site"),
        unit=unit,
        aggregate="max" if unit == "study" else "mean",
        folds=3,
    )
    recipe = {
        "network": "none",
        "size": SIZE,
        "pretrain": Pretrain(lr=1e-3),
        "finetune": Finetune(),
    }
    submission = Submission(
        file="submission.csv", id_column="unit_id", columns={label: label for label in labels}
    )
    runs = tuple(Run(named=run, **recipe) for run in ("one", "two"))
    return Competition(NAME, task, runs, Metadata(), Blend(metadata=metadata), submission, None)


def write_images(labels, unit: str, rows: int, seed: int) -> pd.DataFrame:
    """images.csv and a picture an image; the last tenth are test rows."""
    generator = np.random.default_rng(seed)
    patient = np.sort(generator.integers(0, rows // 3, rows))
    split = np.where(patient > patient[int(rows * 0.9)], "test", "train")
    images = pd.DataFrame(
        {
            "image_id": [f"{i:05d}" for i in range(rows)],
            "file": "x.jpg",
            "patient_id": [f"p{number:04d}" for number in patient],
            "split": split,
            "source": "here",
        }
    )
    images["unit_id"] = images["patient_id"] + "/study1" if unit == "study" else images["image_id"]
    images["age"] = pd.Series(generator.integers(20, 90, rows // 3))[patient].to_numpy(float)
    images["sex"] = np.where(patient % 2, "female", "male")
    images["site"] = generator.choice(["head", "torso", "<leg> & foot"], rows)
    images.loc[::9, ["age", "site"]] = [np.nan, None]
    for label in labels:
        positive = generator.random(rows) < 0.25
        images[label] = (
            pd.Series(positive).groupby(images["unit_id"]).transform("max").astype(float)
        )
        images.loc[images["split"] == "test", label] = np.nan
    write_csv(data_folder(NAME) / "images.csv", images)
    for image in images["image_id"]:
        path = image_path(NAME, SIZE, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), generator.integers(0, 255, (SIZE, SIZE, 3), np.uint8))
    return images


def write_run(images: pd.DataFrame, run: str, labels, strength: float, seed: int) -> None:
    """Predictions of both stages, the scores of every view, and a log, in every fold."""
    generator = np.random.default_rng(seed)
    fold = images["patient_id"].map(read_folds(NAME).set_index("patient_id")["fold"])
    known = images[list(labels)].fillna(0.5).to_numpy()
    for number in (0, 1, 2):
        folder = fold_folder(NAME, run, number)
        logit = strength * (known - 0.5) + generator.normal(size=known.shape)
        views = 1 / (
            1
            + np.exp(-logit[:, None] - generator.normal(size=(len(images), VIEWS, len(labels))) / 2)
        )
        for file, scores in (
            (STAGE_1_PREDICTIONS, views.mean(1) / 4),
            (PREDICTIONS, views.mean(1)),
        ):
            kept = ((fold == number) & (images["split"] != "test")).to_numpy()
            kept = kept | (images["split"] == "test").to_numpy() if file == PREDICTIONS else kept
            table = pd.concat(
                [
                    images[["image_id", "split"]].assign(fold=number),
                    pd.DataFrame(scores, columns=list(labels)),
                ],
                axis=1,
            )[kept]
            owner = competition(tuple(labels))
            kind = owner.metadata if run == METADATA else owner.run(run)
            facts = facts_of(Job(owner, kind, number), PREDICTIONS)
            write_predictions(folder / file, table, **facts, views=VIEWS)
        own = ((fold == number) & (images["split"] != "test")).to_numpy()
        np.savez(
            folder / "predictions_views.npz",
            image_id=images["image_id"][own].to_numpy(str),
            labels=np.array(labels),
            views=views[own].astype(np.float32),
        )
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log_lines(len(labels)))) + "\n")


def log_lines(labels: int) -> list[dict]:
    """What a run of 60 steps in each phase writes."""
    lines = []
    for phase in ("pretrained", "finetuned"):
        for step in range(1, 61):
            lines.append({"phase": phase, "step": step, "loss": 1 / step, "lr": 0.1})
            if step % 20 == 0:
                duals = {
                    name: [value] * labels
                    for name, value in (
                        ("alpha", 0.5 - step / 200),
                        ("gap", step / 100),
                        ("reach", 1.0),
                    )
                }
                lines.append(
                    {
                        "phase": phase,
                        "step": step,
                        "window": True,
                        "train_auc": [0.5 + step / 150] * labels,
                        **(duals if phase == "finetuned" else {}),
                    }
                )
                lines.append(
                    {
                        "phase": phase,
                        "step": step,
                        "epoch": step // 20,
                        "valid_auc": {"mean": 0.5 + step / 200},
                    }
                )
    return lines


def write_all(made: Competition, rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Every artifact up to ensemble.csv, by the stages themselves where they need no network;
    returns the images."""
    labels = made.task.labels
    images = write_images(labels, made.task.unit, rows, seed)
    folds_stage.folds_of(
        made, argparse.Namespace(folds=None, seed=None, map=None, audit=False, why=False)
    )
    for number, run in enumerate(("one", "two", "metadata")):
        write_run(images, run, labels, 1.5 + number / 2, seed + number)
    ensemble_stage.ensemble(made, (), None)
    return images


if __name__ == "__main__":
    out = Path(sys.argv[1])
    os.environ |= {
        "DATA": str(out / "data"),
        "MODELS": str(out / "models"),
        "SUBMISSIONS": str(out / "submissions"),
    }
    from pipeline import report
    from pipeline.core.artifacts.files import write_text
    from pipeline.core.artifacts.paths import submissions_folder
    from pipeline.core.report.inputs import read_evidence

    case = competition(labels=("nevus",)) if len(sys.argv) < 3 else competition(unit="study")
    write_all(case, 1500)
    write_text(submissions_folder(NAME) / "report.html", report.report(read_evidence(case)))
