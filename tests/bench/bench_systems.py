"""The systems beside the paper on real images: stage 2 by each loss and optimizer, from the same
stage-1 weights, on the same folds, with the same steps.

    python -m tests.bench.bench_systems FOLDER             every system, two of three folds
    python -m tests.bench.bench_systems FOLDER --systems "AUC-M" "SOPA-s" --folds 0

reads   FOLDER/data/melanoma/raw     in the form of SIIM-ISIC 2020 (a link will do)
writes  FOLDER/data as prepare and folds do; FOLDER/models: stage 1 of each fold, once, and
        FOLDER/systems/<system>.fold<k>.csv, the scores; what is there is not made again
prints  a row for each system: AUC and partial AUC above 80 % sensitivity out of fold, each with its
        paired difference to AUC-M [95 %, over patients], and seconds of training

A ResNet-10t at 48 pixels from random weights, 4 epochs of stage 1, 2 of stage 2, batches of 64 with
at least 4 positives. Each system has one rate, set beforehand and not tuned: an order between
systems, and a noisy one.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import folds as folds_stage
from pipeline import prepare as prepare_stage
from pipeline.competitions import melanoma
from pipeline.core.artifacts.labels import targets, truth
from pipeline.core.artifacts.paths import PRETRAINED, data_folder
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.config import Pretrain, Run
from pipeline.core.config.competition import load_competition
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics import auc, auc_difference, partial_auc, partial_auc_difference
from pipeline.core.networks.image import load_weights, restart_classifier
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.job import Job
from pipeline.core.runtime.device import precision
from pipeline.core.training.batch_order import fold_seed, steps_per_epoch
from pipeline.core.training.loop import fit_epochs
from pipeline.core.training.phase import image_phase
from pipeline.core.training.recipe import (
    make_loss,
    make_optimizer,
    milestones,
    restart_batches,
    stepwise,
)
from pipeline.pretrain import pretrain

FOLDS = 3
BASE = "AUC-M"
AUC_M = replace(melanoma.finetune, lr=1.0, epochs=2, batch_size=64, milestones=(1,), positives=4)
# Scores without a normaliser want a smaller rate than AUC-M's behind a sigmoid.
PLAIN = replace(AUC_M, lr=0.1, normalize="none", margin=1.0)
# exp of a squared hinge has no bound on its slope: the soft forms take the logistic loss.
SOFT = replace(PLAIN, surrogate="logistic")
SYSTEMS = {
    "cross-entropy": replace(PLAIN, loss="ce"),
    BASE: AUC_M,
    "AUC-M, closed-form dual": replace(AUC_M, dual="closed_form"),
    "AUC-M, PPD-SG": replace(AUC_M, milestones=(), milestone_unit="step", first_stage=9),
    "AUC-M, PDSCA": replace(AUC_M, inner_lr=0.1),
    "pairs": replace(PLAIN, loss="pairwise"),
    "pairs, hardest 20 % of positives": replace(PLAIN, loss="pairwise", hardest_positives=0.2),
    "SOPA, TPR >= .8": replace(PLAIN, loss="sopa", hardest_positives=0.2),
    "SOPA-s, positives": replace(SOFT, loss="sopa_s", temperature_positives=0.5),
    "SOTA-s": replace(SOFT, loss="sota_s", temperature_negatives=0.5, temperature_positives=0.5),
}
RUN = Run(
    network="resnet10t",
    size=48,
    weights="random",
    augment=melanoma.augment,
    views=1,
    pretrain=Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=4, epochs=4, batch_size=64),
    finetune=AUC_M,
    tag="systems",
)


def trained_scores(job: Job, system: str) -> tuple[np.ndarray, float]:
    """Scores (n,) of the fold's validation rows after stage 2 by this system, and its seconds."""
    recipe = SYSTEMS[system]
    task = job.competition.task
    rows = job.training()
    # One seed for all systems: the same batches, views and first classifier.
    seed = fold_seed(job.target, "finetuned", job.run.seed)
    labels = targets(rows, job.labels, task, task.uncertain_finetune, seed)
    network = load_weights(job.folder / PRETRAINED, job.run, job.labels)
    restart_classifier(network, seed)
    loss = make_loss(recipe, len(job.labels), len(rows))
    ends = milestones(recipe, steps_per_epoch(len(rows), recipe.batch_size))
    name = "".join(letter if letter.isalnum() else "_" for letter in system)
    own = Job(job.competition, replace(job.run, finetune=recipe, tag=name), job.fold)
    phase = image_phase(
        own,
        "finetuned",
        recipe,
        rows=rows,
        targets=labels,
        network=network,
        loss=loss,
        optimizer=make_optimizer(recipe, network.parameters(), loss),
        rate=stepwise(recipe.lr, recipe.divide, ends),
        seed=seed,
        epochs=recipe.epochs,
        restarts=frozenset(ends),
        restart_batches=restart_batches(recipe),
        positives=recipe.positives,
    )
    began = time.process_time()
    network = fit_epochs(phase)
    seconds = time.process_time() - began

    images = prepared_images("melanoma", RUN.size, job.validation()["image_id"])
    scores = score_views(
        network,
        lambda index: read_prepared_image(images[index], 3),
        len(images),
        view_matrices(1, RUN.size, RUN.augment),
        precision(RUN.precision),
        0,
    )
    return scores[:, 0, 0], seconds


def fold_scores(folder: Path, job: Job, system: str) -> pd.DataFrame:
    """The fold's table of scores: image_id, score, seconds."""
    path = folder / "systems" / f"{system}.fold{job.fold}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scores, seconds = trained_scores(job, system)
        table = job.validation()[["image_id"]].assign(score=scores, seconds=seconds)
        table.to_csv(path, index=False)
    return pd.read_csv(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1])
    arguments = parser.parse_args()

    # The competition with this run in place of its trials: every stage finds it by name.
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    melanoma.trials = (RUN,)
    competition = load_competition("melanoma")
    if not (data_folder("melanoma") / "images.csv").exists():
        prepare_stage.main(prepare_stage.parser().parse_args([f"melanoma/{RUN.name}"]))
    if not (data_folder("melanoma") / "folds.csv").exists():
        folds_stage.main(folds_stage.parser().parse_args(["melanoma", "--folds", str(FOLDS)]))

    jobs = [Job(competition, RUN, fold) for fold in arguments.folds]
    for job in jobs:
        if not (job.folder / PRETRAINED).exists():
            pretrain(job)
    rows = pd.concat([job.validation() for job in jobs])
    labels = truth(rows, ("target",), competition.task)[:, 0]
    patients = rows["patient_id"].to_numpy()

    print("| stage 2 | AUC | over AUC-M | partial AUC | over AUC-M | seconds |")
    print("|---|---|---|---|---|---|")
    base = None
    for system in sorted(arguments.systems, key=lambda name: name != BASE):
        tables = [fold_scores(arguments.folder, job, system) for job in jobs]
        scores = np.concatenate([table["score"].to_numpy() for table in tables])
        base = scores if base is None else base
        cells = []
        for metric, difference in (
            (auc, auc_difference),
            (partial_auc, partial_auc_difference),
        ):
            gain, low, high, _ = difference(scores, base, labels, patients)
            cells += [f"{metric(scores, labels):.4f}", f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"]
        seconds = sum(table["seconds"].iloc[0] for table in tables)
        print("|", " | ".join([system, *cells, f"{seconds:.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
