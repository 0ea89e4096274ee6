"""Scores of the out-of-fold and the test images under test-time views, each image decoded once.

    python -m pipeline.predict melanoma/b5_384/fold0         a fold; melanoma/b5_384 or melanoma:
                                                             all below it

reads   data/<comp>/images.csv  folds.csv  images/<size>/
        models/<comp>/<run>/fold<k>/{pretrained,finetuned}.safetensors
writes  models/<comp>/<run>/fold<k>/
            predictions_pretrained.csv  image_id | split fold <labels>: stage 1, mean of all views;
                                        test rows only where `Run.stage` may need them
            predictions.csv             the same for stage 2, out-of-fold and test rows
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
from pipeline.core.runs.bags import bags_of
from pipeline.core.runs.facts import facts_of, require_current
from pipeline.core.runs.job import Job
from pipeline.core.runs.launch import fold_jobs
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.device import is_main, loader_processes, precision
from pipeline.core.runtime.errors import UserError


def main(arguments: argparse.Namespace) -> None:
    for job in fold_jobs(arguments.targets, STAGE_1_PREDICTIONS):
        predict_pretrained(job)
    for job in fold_jobs(arguments.targets, PREDICTIONS):
        predict_finetuned(job)


def predict_pretrained(job: Job) -> None:
    """Score one fold with its stage-1 weights: the images that it validates, and the test images
    where stage 1 may be a member of the ensemble."""
    # Elsewhere stage 1 is scored to be compared with stage 2, and truth is known out-of-fold only:
    # melanoma's 10,982 test images would cost 30 views each for nothing.
    rows = job.validation()
    test_scored = job.run.stage != "finetuned"
    if test_scored:
        rows = pd.concat([rows, job.test()])
    scores = scores_of_views(job, PRETRAINED, rows).mean(axis=1)
    if is_main():
        path = job.folder / STAGE_1_PREDICTIONS
        facts = {**facts_of(job, path.name), "views": job.run.views, "test_scored": test_scored}
        write_predictions(path, as_table(job, rows, scores), **facts)


def predict_finetuned(job: Job) -> None:
    """Score one fold with its stage-2 weights; the table is written last."""
    validated = job.validation()
    rows = pd.concat([validated, job.test()])
    scores = scores_of_views(job, FINETUNED, rows)

    # Every process has all scores by now; one of them writes.
    if not is_main():
        return

    # Every view by itself, from which the report draws what more views gain.
    with atomic(job.folder / "predictions_views.npz") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            image_id=validated["image_id"].to_numpy(str),
            labels=np.array(job.labels),
            views=scores[: len(validated)].astype(np.float32),
        )

    # Last, since a fold counts as predicted where this table exists.
    facts = {**facts_of(job, PREDICTIONS), "views": job.run.views}
    table = as_table(job, rows, scores.mean(axis=1))
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
        bags=bags_of(run, rows),
    )
    return sigmoid(scores)


def as_table(job: Job, rows: pd.DataFrame, scores: np.ndarray) -> pd.DataFrame:
    """The rows' ids and splits, the fold whose network scored them, and a column per label."""
    keys = rows[["image_id", "split"]].reset_index(drop=True).assign(fold=job.fold)
    return pd.concat([keys, pd.DataFrame(scores, columns=list(job.labels))], axis=1)


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
