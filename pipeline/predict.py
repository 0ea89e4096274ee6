"""Scores of the out-of-fold and the test images under test-time views, each image decoded once.

    python -m pipeline.predict melanoma/b5_384/fold0         a fold; melanoma/b5_384 or melanoma:
                                                             all below it

reads   data/<comp>/images.csv  folds.csv  images/<size>/
        models/<comp>/<run>/fold<k>/{pretrained,finetuned}.safetensors
writes  models/<comp>/<run>/fold<k>/
            predictions.csv             image_id | split fold <labels>: stage 2, mean of all views
            predictions_pretrained.csv  the same for stage 1, out-of-fold rows only
            predictions_views.npz       out-of-fold scores of every view
            *.json                      what made them

Scores are the sigmoid of the network's outputs. Images that no network validates (fold -1) are not
predicted.
"""

import argparse

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import atomic
from pipeline.core.artifacts.paths import (
    FINETUNED,
    PREDICTIONS,
    PRETRAINED,
    STAGE_1_PREDICTIONS,
)
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.scoring import score_views, sigmoid
from pipeline.core.runs.facts import facts_of, require_current
from pipeline.core.runs.job import Job
from pipeline.core.runs.launch import fold_jobs
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.device import is_main, loader_processes, precision
from pipeline.core.runtime.errors import UserError


def main(arguments: argparse.Namespace) -> None:
    for job in fold_jobs(arguments.targets, PREDICTIONS):
        predict_fold(job)


def predict_fold(job: Job) -> None:
    """Score one fold with its stage-1 and stage-2 weights; the artifact that says "done" is written
    last."""
    # Stage 1 is scored to be compared with stage 2, and truth is known out-of-fold only: melanoma's
    # 10,982 test images would cost 30 views each for nothing.
    validated = job.validation()
    both = pd.concat([validated, job.test()])
    stage_1 = scores_of_views(job, PRETRAINED, validated)
    stage_2 = scores_of_views(job, FINETUNED, both)

    # Every process has all scores by now; one of them writes.
    if not is_main():
        return
    facts = {**facts_of(job, PREDICTIONS), "views": job.run.views}
    table = as_table(job, validated, stage_1.mean(axis=1))
    write_predictions(job.folder / STAGE_1_PREDICTIONS, table, **facts)

    # Every view by itself, from which the report draws what more views gain.
    with atomic(job.folder / "predictions_views.npz") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            image_id=validated["image_id"].to_numpy(str),
            labels=np.array(job.labels),
            views=stage_2[: len(validated)].astype(np.float32),
        )

    # Last, since a fold counts as predicted where this table exists.
    table = as_table(job, both, stage_2.mean(axis=1))
    write_predictions(job.folder / PREDICTIONS, table, **facts)


def scores_of_views(job: Job, weights: str, rows: pd.DataFrame) -> np.ndarray:
    """float64 scores (rows, views, labels) in [0, 1] of the fold's network with these weights."""
    run = job.run
    path = job.folder / weights
    if not path.exists():
        stage = {PRETRAINED: "pretrain", FINETUNED: "finetune"}[weights]
        raise UserError(
            f"{path}: there is no such file; `make {stage} COMP={job.competition.name}` makes it"
        )
    require_current(job, path)

    # The sigmoid is taken view by view, so that views are averaged as probabilities.
    network = load_weights(path, run, job.labels)
    images = prepared_images(job.competition.name, run.size, rows["image_id"])
    channels = job.competition.task.resize.channels
    scores = score_views(
        network,
        lambda index: read_prepared_image(images[index], channels),
        len(images),
        view_matrices(run.views, run.size, run.augment),
        precision(run.precision),
        loader_processes(),
        f"{job.target} {weights.split('.')[0]}",
    )
    return sigmoid(scores)


def as_table(job: Job, rows: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    """The rows' ids and splits, the fold whose network scored them, and a column per label."""
    keys = rows[["image_id", "split"]].reset_index(drop=True).assign(fold=job.fold)
    return pd.concat([keys, pd.DataFrame(scores, columns=list(job.labels))], axis=1)


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
