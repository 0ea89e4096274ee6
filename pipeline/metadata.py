"""The network on patient columns (paper, section 4.2): 256 and 128 hidden units, stage 2's loss and
schedule.

    python -m pipeline.metadata melanoma             all folds
    python -m pipeline.metadata melanoma/metadata/fold0

reads   data/<comp>/images.csv  folds.csv, and, where `through` names a run, that run's finetuned
        weights and images
writes  models/<comp>/metadata/fold<k>/finetuned.safetensors  predictions.csv  predictions.json
        log.jsonl

Trained on its own, or through 0.5 p + 0.5 q with q a frozen image network (`through`). Missing is a
value of its own.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.core.artifacts.labels import targets, truth
from pipeline.core.artifacts.paths import FINETUNED, PREDICTIONS, fold_folder
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.patient import (
    Blended,
    PatientNetwork,
    PatientRows,
    load_patient_network,
    score_patients,
)
from pipeline.core.networks.patient_columns import encode_columns, fit_encoder, width
from pipeline.core.networks.scoring import score_views, sigmoid
from pipeline.core.runs.bags import bags_of
from pipeline.core.runs.facts import facts_of, require_current
from pipeline.core.runs.job import Job
from pipeline.core.runs.launch import fold_jobs, remove_what_led_to
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.device import is_main, loader_processes, precision
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.batch_order import fold_seed, steps_per_epoch
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import (
    finetune_rate,
    make_loss,
    make_optimizer,
    milestones,
    restart_batches,
    smoothed,
)
from pipeline.core.training.validation import mean_first


def main(arguments: argparse.Namespace) -> None:
    for job in fold_jobs(arguments.targets, PREDICTIONS, metadata=True):
        train_metadata(job)
        if is_main():
            predict_metadata(job)


def train_metadata(job: Job) -> None:
    """Train one fold and write its weights, unless they exist."""
    # A stage killed between training and predicting goes on with the weights that exist.
    weights = job.folder / FINETUNED
    if weights.exists():
        require_current(job, weights)
        remove_what_led_to(weights)
        return

    task = job.competition.task
    config = job.competition.metadata
    recipe = config.finetune
    seed = fold_seed(job.target, "finetuned", config.seed)

    # Columns become numbers by means and categories of the training rows alone, so that nothing of
    # the validation rows gets in. The encoder travels in the weights' header.
    rows = job.training()
    labels = targets(rows, task.labels, task, task.uncertain_finetune, seed)
    encoder = fit_encoder(rows, task)
    inputs = encode_columns(rows, encoder)
    torch.manual_seed(seed)
    patients = PatientNetwork(width(encoder), config.hidden, len(task.labels))
    if is_main():
        print(
            f"{job.target}: {len(rows)} rows train, {len(job.validation())} validate; "
            f"{width(encoder)} columns of {', '.join((*task.numeric, *task.categorical))}"
        )

    # On its own, or as one half of a blend whose other half, a network on images, is frozen: that
    # one scores each training row once, before the first step.
    network = patients
    if config.through:
        inputs = np.hstack([inputs, image_probabilities(job, rows)])
        network = Blended(patients)

    # Stage 2's loss and schedule. The patient network alone is kept, also where a blend around it
    # was trained, since the ensemble blends it with the images' scores.
    loss = make_loss(recipe, len(task.labels), len(rows))
    each = steps_per_epoch(len(rows), recipe.batch_size)
    ends = milestones(recipe, each)
    phase = Phase(
        name="finetuned",
        folder=job.folder,
        network=network,
        loss=loss,
        key={**facts_of(job, FINETUNED), "hidden": config.hidden, "encoder": encoder},
        optimizer=make_optimizer(recipe, patients.parameters(), loss),
        data=PatientRows(inputs),
        targets=torch.from_numpy(smoothed(labels, recipe.smoothing)),
        clip=recipe.clip,
        rate=finetune_rate(recipe, each),
        restarts=frozenset(ends),
        restart_batches=restart_batches(recipe),
        validate=metadata_validator(job, patients, encoder),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=seed,
        positives=recipe.positives,
    )
    fit_epochs(phase)
    keep(phase, patients)


def metadata_validator(
    job: Job, patients: PatientNetwork, encoder: dict
) -> Callable[[nn.Module], dict[str, float]]:
    """A function that returns the AUC of every label on the fold's validation rows, mean first.

    It scores `patients` itself, also where a blend around it is trained.
    """
    task = job.competition.task
    rows = job.validation()
    labels = truth(rows, task.labels, task)

    def validate(_network: nn.Module) -> dict[str, float]:
        scores = score_patients(patients, rows, encoder)
        aucs = [auc_or_nan(*columns) for columns in zip(scores.T, labels.T, strict=True)]
        return mean_first(dict(zip(task.labels, aucs, strict=True)))

    return validate


def image_probabilities(job: Job, rows: pd.DataFrame) -> np.ndarray:
    """float32 (N, K) probabilities that the frozen image network of this fold gives the rows, one
    view each."""
    # The blend is taken label by label, so a run of some labels has no q for the others.
    competition = job.competition
    run = competition.run(competition.metadata.through)
    if competition.labels(run) != competition.task.labels:
        raise UserError(
            f"metadata.through={run.name!r} predicts {', '.join(competition.labels(run))} only; "
            "it must be a run that predicts all labels"
        )

    # The same fold's weights: another fold's network has trained on rows that this one validates.
    path = fold_folder(competition.name, run.name, job.fold) / FINETUNED
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file; `make finetune COMP={competition.name}` makes it"
        )
    require_current(Job(competition, run, job.fold), path)

    # One view, the image itself, as in the validation AUC of the log.
    images = prepared_images(competition.name, run.size, rows["image_id"])
    channels = competition.task.resize.channels
    scores = score_views(
        load_weights(path, run, competition.labels(run)),
        lambda index: read_prepared_image(images[index], channels),
        len(images),
        view_matrices(1, run.size, run.augment),
        precision(run.precision),
        loader_processes(),
        f"{job.target} through {run.name}",
        bags=bags_of(run, rows),
    )
    return sigmoid(scores[:, 0]).astype(np.float32)


def predict_metadata(job: Job) -> None:
    """Score the fold's validation rows and the test rows."""
    network, header = load_patient_network(job.folder / FINETUNED)
    rows = pd.concat([job.validation(), job.test()])
    scores = score_patients(network, rows, header["encoder"])
    table = rows[["image_id", "split"]].reset_index(drop=True).assign(fold=job.fold)
    table[list(job.labels)] = scores
    write_predictions(job.folder / PREDICTIONS, table, **facts_of(job, PREDICTIONS), views=1)


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
