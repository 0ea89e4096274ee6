"""Hierarchical conditional training on real chest X-rays, beside the same run without a hierarchy
and with the parents as auxiliary columns alone.

    python -m tests.bench.bench_hierarchy FOLDER               both stages, three folds, one seed
    python -m tests.bench.bench_hierarchy FOLDER --seeds 2

reads   FOLDER/data/chexpert/raw     in the form of CheXpert (a link will do)
writes  FOLDER/data, FOLDER/models   as prepare, folds, pretrain, finetune and predict do; what is
                                     there is not made again
prints  a row for each way and stage: mean AUC over the five labels out of fold, in the mean over
        folds and seeds, its paired difference to the flat run [95 %, bootstrap over patients within
        folds]

A ResNet-10t at 64 pixels from random weights, 8 epochs of cross-entropy, 2 of AUC-M on the
classifier alone. A label without both classes in a fold is left out of that fold's mean.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import finetune, folds, predict, prepare, pretrain
from pipeline.competitions import chexpert
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config import Pretrain, Run
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import seeded
from pipeline.core.metrics import group_codes
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.runs.job import Job

FOLDS = 3
REPLICATES = 1000
FLAT = Run(
    network="resnet10t",
    size=64,
    weights="random",
    augment=chexpert.augment,
    views=1,
    pretrain=Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=8, epochs=8, batch_size=32),
    finetune=replace(
        chexpert.finetune, layers="head", lr=1.0, dual="closed_form", epochs=2, milestones=()
    ),
    tag="flat",
)
PARENTS = chexpert.hierarchical.auxiliary
WAYS = {
    "flat": FLAT,
    "parents as auxiliary columns": replace(FLAT, auxiliary=PARENTS, tag="auxiliary"),
    "hierarchy": replace(FLAT, auxiliary=PARENTS, hierarchy=chexpert.PARENTS, tag="hierarchy"),
}
FILES = {"stage 1": "predictions_pretrained.csv", "stage 2": "predictions.csv"}


def fold_table(job: Job, file: str) -> pd.DataFrame:
    """Patients, labels (y_<label>) and scores of a fold's validation rows."""
    rows = job.validation().reset_index(drop=True)
    scores = read_csv(job.folder / file).set_index("image_id").loc[rows["image_id"]]
    table = rows[["patient_id"]].copy()
    labels = truth(rows, job.labels, job.competition.task)
    for column, label in enumerate(job.labels):
        table[f"y_{label}"] = labels[:, column]
        table[label] = scores[label].to_numpy(float)
    return table


def mean_auc(table: pd.DataFrame, rows: np.ndarray) -> float:
    """The mean over the labels that have both classes among these rows."""
    chosen = table.iloc[rows]
    aucs = [auc_or_nan(chosen[name], chosen[f"y_{name}"]) for name in chexpert.DISEASES]
    return float(np.nanmean(aucs))


def compared(tables: dict[str, list[pd.DataFrame]]) -> dict[str, tuple[float, float, float]]:
    """Way -> (mean AUC, low, high of the difference to the first way) over folds and seeds."""
    rng = np.random.default_rng(0)
    names = list(tables)
    whole = {
        name: np.mean([mean_auc(one, np.arange(len(one))) for one in tables[name]])
        for name in names
    }
    differences = []
    for _ in range(REPLICATES):
        values: dict[str, list[float]] = {name: [] for name in names}
        drawn: dict[str, np.ndarray] = {}
        for place, table in enumerate(tables[names[0]]):
            # A fold's patients are drawn once, whatever the seed.
            key = "".join(table["patient_id"])
            if key not in drawn:
                codes = group_codes(table["patient_id"].to_numpy(), len(table))
                groups = codes.max() + 1
                counts = rng.multinomial(groups, np.full(groups, 1 / groups))
                drawn[key] = np.repeat(np.arange(len(table)), counts[codes])
            for name in names:
                values[name].append(mean_auc(tables[name][place], drawn[key]))
        means = np.array([np.mean(values[name]) for name in names])
        differences.append(means - means[0])
    low, high = np.nanpercentile(differences, [2.5, 97.5], axis=0)
    return {name: (whole[name], low[at], high[at]) for at, name in enumerate(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()

    # The competition with these runs in place of its trials: every stage finds them by name.
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    runs = {name: seeded(run, arguments.seeds) for name, run in WAYS.items()}
    chexpert.trials = tuple(run for own in runs.values() for run in own)
    competition = load_competition("chexpert")
    if not (data_folder("chexpert") / "images.csv").exists():
        options = prepare.parser().parse_args([f"chexpert/{FLAT.name}"])
        prepare.main(options)
        folds.main(folds.parser().parse_args(["chexpert", "--folds", str(FOLDS)]))
    for run in chexpert.trials:
        target = argparse.Namespace(targets=[f"chexpert/{run.name}"])
        for stage in (pretrain, finetune, predict):
            stage.main(target)

    print("| | mean AUC | less flat |\n|---|---|---|")
    for stage, file in FILES.items():
        tables = {
            name: [
                fold_table(Job(competition, run, fold), file)
                for run in own
                for fold in range(FOLDS)
            ]
            for name, own in runs.items()
        }
        found = compared(tables)
        for name, (value, low, high) in found.items():
            gain = value - found["flat"][0]
            print(f"| {stage}, {name} | {value:.4f} | {gain:+.4f} [{low:+.4f}, {high:+.4f}] |")


if __name__ == "__main__":
    main()
