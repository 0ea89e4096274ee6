"""Which of today's recipes help on real images: out-of-fold AUC of a small network, several seeds,
with the paired difference to the plain recipe.

    python -m tests.bench.bench_recipes FOLDER                 every recipe, 2 seeds
    python -m tests.bench.bench_recipes FOLDER --recipes plain mixup --seeds 0 1 2

reads   FOLDER/data/melanoma/raw     in the form of SIIM-ISIC 2020 (a link will do)
writes  FOLDER/data, FOLDER/models   as the stages do; what is there is not made again
prints  a row for each recipe and stage: AUC of the seeds' mean score, of each seed, and the
        difference to the plain recipe [95 %, over patients], with CPU minutes

A ResNet-10t at 48 pixels from random weights, folds of 3, 4 epochs, one view: orders between
recipes on a few thousand images, not what they give with ImageNet weights.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import folds as folds_stage
from pipeline import prepare as prepare_stage
from pipeline.competitions import melanoma
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED, data_folder
from pipeline.core.config import Auxiliary, Pretrain, Run
from pipeline.core.config.competition import load_competition
from pipeline.core.ensemble.scores import difference_row, difference_text
from pipeline.core.metrics.roc import auc
from pipeline.core.runs.job import Job
from pipeline.finetune import finetune
from pipeline.predict import scores_of_views
from pipeline.pretrain import pretrain

FOLDS = 3
PRETRAIN = Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=4, epochs=4, batch_size=64)
FINETUNE = replace(melanoma.finetune, lr=1.0, epochs=2, batch_size=64, milestones=(1,), positives=4)
PLAIN = Run(
    network="resnet10t",
    size=48,
    weights="random",
    augment=melanoma.augment,
    views=1,
    pretrain=PRETRAIN,
    finetune=FINETUNE,
    tag="plain",
)
ADAMW = dict(
    lr=2e-3,
    lr_max=None,
    cycle_epochs=None,
    optimizer="adamw",
    weight_decay=0.05,
    schedule="cosine",
    warmup_epochs=0.5,
)
# Recipe -> what differs from the plain one.
RECIPES = {
    "plain": PLAIN,
    "adamw": replace(
        PLAIN,
        pretrain=replace(PRETRAIN, **ADAMW),
        finetune=replace(
            FINETUNE, optimizer="adamw", lr=1e-3, dual="closed_form", schedule="cosine"
        ),
    ),
    "mixup": replace(PLAIN, pretrain=replace(PRETRAIN, mixup=0.4)),
    "cutmix": replace(PLAIN, pretrain=replace(PRETRAIN, cutmix=1.0)),
    # As many steps as the plain one: an epoch has about a third of the images.
    "negatives": replace(
        PLAIN, pretrain=replace(PRETRAIN, negatives=3.0, epochs=11, cycle_epochs=11)
    ),
    "auxiliary": replace(
        PLAIN,
        auxiliary=(
            Auxiliary(
                column="diagnosis",
                classes=("melanoma", "nevus", "seborrheic keratosis", "unknown"),
            ),
        ),
    ),
    "modern": replace(
        PLAIN,
        pretrain=replace(PRETRAIN, **ADAMW, clip=1.0, smoothing=0.05, mixup=0.2, cutmix=1.0),
        drop_path=0.1,
        ema=0.99,
    ),
}
WITH_STAGE_2 = ("plain", "adamw")


def runs_of(name: str, seeds: list[int]) -> list[Run]:
    """A recipe's runs, one a seed."""
    return [replace(RECIPES[name], seed=seed, tag=f"{name}{seed}") for seed in seeds]


def made(job: Job, weights: str) -> float:
    """Train a fold unless its weights exist; returns its CPU seconds."""
    began = time.process_time()
    if not (job.folder / weights).exists():
        (pretrain if weights == PRETRAINED else finetune)(job)
    return time.process_time() - began


def validated(
    competition, run: Run, weights: str, folds: list[int]
) -> tuple[np.ndarray, pd.DataFrame, float]:
    """Out-of-fold scores (n,) of a run, its rows, and the CPU seconds of training."""
    scores, rows, seconds = [], [], 0.0
    for fold in folds:
        job = Job(competition, run, fold)
        seconds += made(job, weights)
        rows.append(job.validation())
        scores.append(scores_of_views(job, weights, rows[-1])[:, 0, 0])
    return np.concatenate(scores), pd.concat(rows), seconds


def table(competition, names: list[str], seeds: list[int], folds: list[int]) -> Iterator[str]:
    """The printed rows."""
    plain = {}
    for weights in (PRETRAINED, FINETUNED):
        for name in names:
            if weights == FINETUNED and name not in WITH_STAGE_2:
                continue
            runs = runs_of(name, seeds)
            results = [validated(competition, run, weights, folds) for run in runs]
            each = np.stack([scores for scores, _, _ in results])
            rows = results[0][1]
            labels = truth(rows, ("target",), competition.task)
            mean = each.mean(axis=0)
            if name == "plain":
                plain[weights] = mean
            gain = ""
            if name != "plain" and weights in plain:
                pair = (mean[:, None], plain[weights][:, None])
                row = difference_row(name, "plain", *pair, labels, rows["patient_id"].to_numpy())
                gain = difference_text(row)
            own = " ".join(f"{auc(one, labels[:, 0] > 0.5):.4f}" for one in each)
            area = auc(mean, labels[:, 0] > 0.5)
            minutes = sum(seconds for _, _, seconds in results) / 60
            stage = weights.split(".")[0]
            yield f"| {name} | {stage} | {area:.4f} | {own} | {gain} | {minutes:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    arguments = parser.parse_args()

    # The competition with these runs in place of its trials: every stage finds them by name.
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    melanoma.trials = tuple(
        run for name in arguments.recipes for run in runs_of(name, arguments.seeds)
    )
    competition = load_competition("melanoma")
    target = f"melanoma/{melanoma.trials[0].name}"
    if not (data_folder("melanoma") / "images.csv").exists():
        prepare_stage.main(prepare_stage.parser().parse_args([target]))
    if not (data_folder("melanoma") / "folds.csv").exists():
        folds_stage.main(folds_stage.parser().parse_args(["melanoma", "--folds", str(FOLDS)]))
    print(
        "| recipe | stage | AUC | each seed | over plain | CPU minutes |\n|---|---|---|---|---|---|"
    )
    for line in table(competition, arguments.recipes, arguments.seeds, arguments.folds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
