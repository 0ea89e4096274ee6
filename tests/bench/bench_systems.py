"""The systems beside the paper on real images: stage 2 by each loss and optimizer, from the same
stage-1 weights, on the same folds, with the same steps.

    python -m tests.bench.bench_systems FOLDER             every system, one of three folds, 3 seeds
    python -m tests.bench.bench_systems FOLDER --systems "AUC-M" "SOTA-s" --folds 0 1
    torchrun --nproc-per-node 2 -m tests.bench.bench_systems FOLDER --systems "AUC-M" \
        "CODA, two sites, I = 8"

reads   FOLDER/data/melanoma/raw     in the form of SIIM-ISIC 2020 (a link will do)
writes  FOLDER/data as prepare and folds do; FOLDER/models: stage 1 of each fold and seed, once, and
        FOLDER/systems/<system>.fold<k>.seed<s>.csv, the scores; what is there is not made again
prints  a row for each system: AUC and partial AUC above 80 % sensitivity out of fold, in the mean
        over folds and seeds, each with its paired difference to AUC-M [95 %, bootstrap over
        patients within folds and over seeds], and seconds of training, a fold and seed

A ResNet-10t at 48 pixels from random weights, 4 epochs of stage 1, 2 of stage 2, batches of 64 with
at least 4 positives. Each system has one rate, set beforehand and not tuned: an order between
systems, and a noisy one. The two sites are the patients up to 50 years old, and all others: with
half as many steps, since both take one at a time.
"""

import argparse
import os
import time
from collections.abc import Callable
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
from pipeline.core.config.run import seeded
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics import auc, group_codes, partial_auc
from pipeline.core.networks.image import load_weights, restart_classifier
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.job import Job
from pipeline.core.runtime.device import is_main, precision, start_processes
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
from pipeline.core.training.sites import site_rows, train_sites
from pipeline.pretrain import pretrain

FOLDS = 3
REPLICATES = 1000
BASE = "AUC-M"
AUC_M = replace(melanoma.finetune, lr=1.0, epochs=2, batch_size=64, milestones=(1,), positives=4)
# Scores without a normaliser want a smaller rate than AUC-M's behind a sigmoid.
PLAIN = replace(AUC_M, lr=0.1, normalize="none", margin=1.0)
# Over pairs a smaller one still, and the logistic loss, whose slope is bounded: the squared hinge
# diverges within ten steps, at 0.1 over all pairs, at 0.02 over the hardest.
PAIRS = replace(PLAIN, lr=0.05, surrogate="logistic")
SITES = "CODA, two sites, I = 8"  # under torchrun alone
SYSTEMS = {
    "cross-entropy": replace(PLAIN, loss="ce"),
    BASE: AUC_M,
    "AUC-M, closed-form dual": replace(AUC_M, dual="closed_form"),
    "AUC-M, PPD-SG": replace(AUC_M, milestones=(), milestone_unit="step", first_stage=9),
    "AUC-M, PDSCA": replace(AUC_M, inner_lr=0.1),
    "pairs": replace(PLAIN, lr=0.02, loss="pairwise"),
    "pairs, hardest 20 % of positives": replace(PAIRS, loss="pairwise", hardest_positives=0.2),
    "SOPA, TPR >= .8": replace(PAIRS, loss="sopa", hardest_positives=0.2),
    "SOPA-s, positives": replace(PAIRS, loss="sopa_s", temperature_positives=0.5),
    SITES: replace(AUC_M, site_column="site", site_steps=8),
    "SOTA-s": replace(PAIRS, loss="sota_s", temperature_negatives=0.5, temperature_positives=0.5),
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
    if recipe.site_column:
        young = rows["age_approx"].to_numpy(float) <= 50
        rows = site_rows(rows.assign(site=np.where(young, "young", "others")), "site")
    labels = targets(rows, job.labels, task, task.uncertain_finetune, seed)
    network = load_weights(job.folder / PRETRAINED, job.run, job.labels)
    restart_classifier(network, seed)
    loss = make_loss(recipe, len(job.labels), len(rows))
    ends = milestones(recipe, steps_per_epoch(len(rows), recipe.batch_size))
    name = "".join(letter if letter.isalnum() else "_" for letter in system)
    # Of sites stage 1 may have no epochs; here it is the one of all rows, as for the others.
    stage_1 = replace(job.run.pretrain, epochs=0) if recipe.site_column else job.run.pretrain
    changed = replace(job.run, pretrain=stage_1, finetune=recipe, tag=name)
    own = Job(job.competition, changed, job.fold)
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
    if recipe.site_column:
        train_sites(phase)
    else:
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
    path = folder / "systems" / f"{system}.fold{job.fold}.seed{job.run.seed}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scores, seconds = trained_scores(job, system)
        table = job.validation()[["image_id"]].assign(score=scores, seconds=seconds)
        if is_main():
            table.to_csv(path, index=False)
        return table
    return pd.read_csv(path)


def compared(
    runs: dict[tuple[int, int], pd.DataFrame],
    systems: list[str],
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each system the metric's mean over (fold, seed) -> table, and the 95 % interval of its
    difference to the first one's. A replicate draws seeds, and within each fold patients, the same
    for all its seeds and systems."""

    def values(table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
        labels = table["label"].to_numpy()[rows]
        return np.array([metric(table[name].to_numpy()[rows], labels) for name in systems])

    rng = np.random.default_rng(0)
    folds = sorted({fold for fold, _ in runs})
    seeds = sorted({seed for _, seed in runs})
    whole = np.mean([values(table, np.arange(len(table))) for table in runs.values()], axis=0)
    differences = []
    for _ in range(REPLICATES):
        drawn = rng.choice(seeds, len(seeds))
        parts = []
        for fold in folds:
            table = runs[fold, seeds[0]]
            codes = group_codes(table["patient_id"].to_numpy(), len(table))
            groups = codes.max() + 1
            counts = rng.multinomial(groups, np.full(groups, 1 / groups))
            rows = np.repeat(np.arange(len(table)), counts[codes])
            parts += [values(runs[fold, seed], rows) for seed in drawn]
        means = np.mean(parts, axis=0)
        differences.append(means - means[0])
    low, high = np.nanpercentile(differences, [2.5, 97.5], axis=0)
    return whole, low, high


def table_rows(
    systems: list[str], found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> list[list[str]]:
    """A row for each system: its name, and of each metric, as `compared` gives it, the mean and the
    difference to the first system's."""
    rows = []
    for place, system in enumerate(systems):
        cells = [system]
        for means, low, high in found:
            gain = means[place] - means[0]
            cells += [f"{means[place]:.4f}", f"{gain:+.4f} [{low[place]:+.4f}, {high[place]:+.4f}]"]
        rows.append(cells)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=None)
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    start_processes()
    alone = [name for name in SYSTEMS if name != SITES]

    # The competition with this run in place of its trials: every stage finds it by name.
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    melanoma.trials = seeded(RUN, arguments.seeds)
    competition = load_competition("melanoma")
    if not (data_folder("melanoma") / "images.csv").exists():
        prepare_stage.main(prepare_stage.parser().parse_args([f"melanoma/{RUN.name}"]))
    if not (data_folder("melanoma") / "folds.csv").exists():
        folds_stage.main(folds_stage.parser().parse_args(["melanoma", "--folds", str(FOLDS)]))

    systems = sorted(arguments.systems or alone, key=lambda name: name != BASE)
    runs = {}
    seconds = dict.fromkeys(systems, 0.0)
    for run in melanoma.trials:
        for fold in arguments.folds:
            job = Job(competition, run, fold)
            if not (job.folder / PRETRAINED).exists():
                pretrain(job)
            rows = job.validation()
            table = rows[["patient_id"]].reset_index(drop=True)
            table["label"] = truth(rows, ("target",), competition.task)[:, 0]
            for system in systems:
                own = fold_scores(arguments.folder, job, system)
                table[system] = own["score"]
                seconds[system] += own["seconds"].iloc[0]
            runs[fold, run.seed] = table

    if not is_main():
        return
    print("| stage 2 | AUC | over AUC-M | partial AUC | over AUC-M | seconds |")
    print("|---|---|---|---|---|---|")
    found = [compared(runs, systems, metric) for metric in (auc, partial_auc)]
    for system, *cells in table_rows(systems, found):
        print("|", " | ".join([system, *cells, f"{seconds[system] / len(runs):.0f}"]), "|")


if __name__ == "__main__":
    main()
