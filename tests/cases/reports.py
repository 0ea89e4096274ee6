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
import torch

from pipeline import ensemble as ensemble_stage
from pipeline import folds as folds_stage
from pipeline.core.artifacts.paths import (
    FINETUNED,
    PREDICTIONS,
    STAGE_1_PREDICTIONS,
    data_folder,
    fold_folder,
    image_path,
)
from pipeline.core.artifacts.tables import read_folds, write_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA, Finetune, Metadata, Pretrain, Run, as_json
from pipeline.core.config.task import Blend, Submission, Task
from pipeline.core.networks.image import build, save_weights
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.core.runs.predictions import write_predictions

NAME = "lesions"
SIZE = 64  # pixels of the prepared images
VIEWS = 6
FOLDS = (0, 1, 2)
STEPS = 60  # of each stage in the log


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
        "network": "test_resnet.r160_in1k",
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
    """images.csv and a prepared image for each row; the last tenth are test rows."""
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

    # patient columns; one site has text that must be escaped, every ninth row knows little
    images["age"] = pd.Series(generator.integers(20, 90, rows // 3))[patient].to_numpy(float)
    images["sex"] = np.where(patient % 2, "female", "male")
    images["site"] = generator.choice(["head", "torso", "<leg> & foot"], rows)
    images.loc[::9, ["age", "site"]] = [np.nan, None]

    for label in labels:
        positive = pd.Series(generator.random(rows) < 0.25)
        images[label] = positive.groupby(images["unit_id"]).transform("max").astype(float)
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
    is_test = (images["split"] == "test").to_numpy()
    known = images[list(labels)].fillna(0.5).to_numpy()
    for number in FOLDS:
        folder = fold_folder(NAME, run, number)
        validated = (fold == number).to_numpy() & ~is_test

        # every view is the network's logit and some noise of its own
        logit = strength * (known - 0.5) + generator.normal(size=known.shape)
        noise = generator.normal(size=(len(images), VIEWS, len(labels))) / 2
        views = 1 / (1 + np.exp(-logit[:, None] - noise))

        # stage 1 leaves the test rows out
        keys = images[["image_id", "split"]].assign(fold=number)
        for file, scores, kept in (
            (STAGE_1_PREDICTIONS, views.mean(1) / 4, validated),
            (PREDICTIONS, views.mean(1), validated | is_test),
        ):
            table = pd.concat([keys, pd.DataFrame(scores, columns=list(labels))], axis=1)
            owner = competition(tuple(labels))
            kind = owner.metadata if run == METADATA else owner.run(run)
            facts = facts_of(Job(owner, kind, number), PREDICTIONS)
            write_predictions(folder / file, table[kept], **facts, views=VIEWS)
        np.savez(
            folder / "predictions_views.npz",
            image_id=images["image_id"][validated].to_numpy(str),
            labels=np.array(labels),
            views=views[validated].astype(np.float32),
        )
        lines = [json.dumps(line) for line in log_lines(len(labels))]
        (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


def log_lines(labels: int) -> list[dict]:
    """What a run of STEPS steps in each stage writes; an epoch has 20 steps."""
    lines = []
    for phase in ("pretrained", "finetuned"):
        for step in range(1, STEPS + 1):
            lines.append({"phase": phase, "step": step, "loss": 1 / step, "lr": 0.1})
            if step % 20:
                continue
            window = {"window": True, "train_auc": [0.5 + step / 150] * labels}
            if phase == "finetuned":
                window["alpha"] = [0.5 - step / 200] * labels
                window["gap"] = [step / 100] * labels
                window["reach"] = [1.0] * labels
            lines.append({"phase": phase, "step": step, **window})
            epoch = {"epoch": step // 20, "valid_auc": {"mean": 0.5 + step / 200}}
            lines.append({"phase": phase, "step": step, **epoch})
    return lines


def write_weights(case: Competition, run: str) -> None:
    """Weights of stage 2 as they are drawn, in every fold."""
    for fold in FOLDS:
        job = Job(case, case.run(run), fold)
        torch.manual_seed(fold)
        network = build(job.run, len(job.labels), weights="random")
        torch.nn.init.normal_(network.classifier.weight)
        save_weights(job.folder / FINETUNED, network, {"run": as_json(job.run)})


def write_all(case: Competition, rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Every artifact up to ensemble.csv, by the stages themselves where they need no network;
    returns the images."""
    labels = case.task.labels
    images = write_images(labels, case.task.unit, rows, seed)
    options = argparse.Namespace(folds=None, seed=None, map=None, audit=False, why=False)
    folds_stage.make_folds(case, options)
    for number, run in enumerate(("one", "two", "metadata")):
        write_run(images, run, labels, 1.5 + number / 2, seed + number)
    ensemble_stage.ensemble(case, (), None)
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
    write_weights(case, "two")
    write_text(submissions_folder(NAME) / "report.html", report.report(read_evidence(case)))
