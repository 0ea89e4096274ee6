"""Which of today's recipes help on real images: out-of-fold AUC of a small network, several seeds,
with the paired difference to the recipe that each is a change of.

    python -m tests.bench.bench_recipes FOLDER                    every recipe for skin, 2 seeds
    python -m tests.bench.bench_recipes FOLDER --set chest        for chest X-rays by patient
    python -m tests.bench.bench_recipes FOLDER --recipes plain mixup --seeds 0 1 2 --folds 0

reads   FOLDER/data/<competition>/raw   in the form of SIIM-ISIC 2020 or CheXpert (a link will do)
writes  FOLDER/data, FOLDER/models      as the stages do; what is there is not made again
prints  a row for each recipe and stage: AUC of the seeds' mean score, of each seed, and the
        difference [95 %, over patients] to the recipe in the last column but one, with the minutes
        of processor that this call spent

A ResNet-10t at 48 pixels from random weights (rows `lite0*`: an EfficientNet-lite0 at 96 from
ImageNet's), folds of 3, one view: orders between recipes on a few thousand images, not what they
give at full size. A chest X-ray's unit is its patient here, since the public set has one image a
study: the AUC is that of patients, the mean over labels.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from pipeline import folds as folds_stage
from pipeline import prepare as prepare_stage
from pipeline.competitions import chexpert, melanoma
from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED, data_folder
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.config import Auxiliary, Pretrain, Run
from pipeline.core.config.competition import load_competition
from pipeline.core.ensemble.scores import difference_row, difference_text
from pipeline.core.ensemble.units import aggregate, to_units, units_of
from pipeline.core.metrics import mean_auc
from pipeline.core.networks.image import load_weights, save_weights
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.finetune import finetune
from pipeline.predict import scores_of_views
from pipeline.pretrain import pretrain

FOLDS = 3
SKIN = Run(
    network="resnet10t",
    size=48,
    weights="random",
    augment=melanoma.augment,
    views=1,
    pretrain=Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=4, epochs=4, batch_size=64),
    finetune=replace(
        melanoma.finetune, lr=1.0, epochs=2, batch_size=64, milestones=(1,), positives=4
    ),
)
CHEST = replace(
    SKIN,
    augment=chexpert.augment,
    pretrain=Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=8, epochs=8, batch_size=32),
    finetune=replace(chexpert.finetune, lr=1.0, epochs=4, milestones=(2,), milestone_unit="epoch"),
)
COSINE = dict(lr_max=None, cycle_epochs=None, schedule="cosine", warmup_epochs=0.5)
ADAMW = dict(**COSINE, lr=2e-3, optimizer="adamw", weight_decay=0.05)
STAGE_2_ADAMW = dict(optimizer="adamw", lr=1e-3, dual="closed_form", schedule="cosine")
DIAGNOSIS = Auxiliary(
    column="diagnosis", classes=("melanoma", "nevus", "seborrheic keratosis", "unknown")
)
LITE0 = dict(network="tf_efficientnet_lite0.in1k", size=96, weights="imagenet")
# Three negatives a positive: an epoch has 1,224 images.
LITE0_ADAM = dict(lr=1e-4, lr_max=1e-3, negatives=3.0, cycle_epochs=4, epochs=4)
LITE0_ADAMW = dict(**ADAMW | dict(lr=1e-3), negatives=3.0, epochs=4)
MODERN = dict(**LITE0_ADAMW, layer_decay=0.8, clip=1.0)


@dataclass(frozen=True)
class Recipe:
    """What differs from the plain run of a set.

    change               fields of the Run; of its stages, `pretrain` and `finetune`
    beside               the recipe that it is compared with
    stage_1              the recipe whose stage-1 weights its stage 2 begins with, "" = its own
    stages               how many are trained
    """

    change: dict
    pretrain: dict
    finetune: dict
    beside: str = "plain"
    stage_1: str = ""
    stages: int = 1

    def run(self, plain: Run) -> Run:
        """The set's plain run with the changes."""
        return replace(
            plain,
            **self.change,
            pretrain=replace(plain.pretrain, **self.pretrain),
            finetune=replace(plain.finetune, **self.finetune),
        )


def recipe(change: dict | None = None, pretrain: dict | None = None, **others) -> Recipe:
    """A recipe by what differs."""
    return Recipe(change or {}, pretrain or {}, others.pop("finetune", {}), **others)


UNITS = {f"unit_{bag}": recipe(dict(bag=bag)) for bag in ("max", "attention")}
POOLINGS = {pool: recipe(dict(pool=pool)) for pool in ("max", "lse", "gem", "pcam", "csra")}
RECIPES = {
    "plain": recipe(stages=2),
    "adamw": recipe(pretrain=ADAMW, finetune=STAGE_2_ADAMW, stages=2),
    "stage2_adamw": recipe(finetune=STAGE_2_ADAMW, stage_1="plain", stages=2),
    "mixup": recipe(pretrain=dict(mixup=0.4)),
    "cutmix": recipe(pretrain=dict(cutmix=1.0)),
    # As many steps as the plain one: an epoch has about a third of the images.
    "negatives": recipe(pretrain=dict(negatives=3.0, epochs=11, cycle_epochs=11)),
    "auxiliary": recipe(dict(auxiliary=(DIAGNOSIS,))),
    "modern": recipe(
        dict(drop_path=0.1, ema=0.99),
        dict(**ADAMW, clip=1.0, smoothing=0.05, mixup=0.2, cutmix=1.0),
    ),
    **POOLINGS,
    **UNITS,
    "lite0": recipe(LITE0, LITE0_ADAM, beside="lite0"),
    "lite0_adamw": recipe(LITE0, LITE0_ADAMW, beside="lite0"),
    "lite0_layers": recipe(LITE0, LITE0_ADAMW | dict(layer_decay=0.8), beside="lite0_adamw"),
    # The `modern` runs of the competition's file, but for network, size, negatives and epochs.
    "lite0_modern": recipe(
        LITE0 | dict(auxiliary=(DIAGNOSIS,), drop_path=0.1, ema=0.99), MODERN, beside="lite0"
    ),
}


@dataclass(frozen=True)
class Images:
    """A set of images: its competition's file, its plain run, what changes in the task and in the
    table of the raw download, and its recipes."""

    module: ModuleType
    plain: Run
    task: dict
    table: Callable[[pd.DataFrame], pd.DataFrame]
    recipes: tuple[str, ...]


def by_patient(table: pd.DataFrame) -> pd.DataFrame:
    """The table with patients as units."""
    return table.assign(unit_id=table["patient_id"])


SETS = {
    "skin": Images(
        melanoma,
        SKIN,
        {},
        lambda table: table,
        tuple(name for name in RECIPES if name not in UNITS),
    ),
    "chest": Images(
        chexpert, CHEST, dict(folds=FOLDS), by_patient, ("plain", "adamw", *POOLINGS, *UNITS)
    ),
}


def runs_of(name: str, plain: Run, seeds: list[int]) -> list[Run]:
    """A recipe's runs, one a seed."""
    run = RECIPES[name].run(plain)
    return [replace(run, seed=seed, named=f"{name}{seed}") for seed in seeds]


def make(job: Job, weights: str, stage_1: Job) -> float:
    """Train a fold unless its weights exist; returns the processor seconds it took."""
    began = time.process_time()
    path = job.folder / weights
    if path.exists():
        return 0.0
    if weights == FINETUNED:
        finetune(job)
    elif stage_1 != job:
        copy_stage_1(stage_1, job)
    else:
        pretrain(job)
    return time.process_time() - began


def copy_stage_1(source: Job, job: Job) -> None:
    """The stage-1 weights of another run under this one's name."""
    header = read_weights_header(source.folder / PRETRAINED)
    network = load_weights(source.folder / PRETRAINED, source.run, source.labels)
    job.folder.mkdir(parents=True, exist_ok=True)
    save_weights(job.folder / PRETRAINED, network, {**header, **facts_of(job, PRETRAINED)})


def validated(
    competition, run: Run, first: Run, weights: str, folds: list[int]
) -> tuple[np.ndarray, pd.DataFrame, float]:
    """Out-of-fold scores (n, K) of a run's images, their rows, and the processor seconds of
    training; first: the run whose stage 1 it takes."""
    scores, rows, seconds = [], [], 0.0
    for fold in folds:
        job = Job(competition, run, fold)
        seconds += make(job, weights, Job(competition, first, fold))
        rows.append(job.validation())
        scores.append(scores_of_views(job, weights, rows[-1])[:, 0])
    return np.concatenate(scores), pd.concat(rows), seconds


def table(images: Images, names: list[str], seeds: list[int], folds: list[int]) -> Iterator[str]:
    """The printed rows."""
    competition = load_competition(images.module.__name__.split(".")[-1])
    task = competition.task
    means: dict[tuple[str, str], np.ndarray] = {}
    for weights in (PRETRAINED, FINETUNED):
        for name in names:
            own = RECIPES[name]
            if weights == FINETUNED and own.stages < 2:
                continue
            runs = runs_of(name, images.plain, seeds)
            first = runs_of(own.stage_1 or name, images.plain, seeds)
            results = [
                validated(competition, run, one, weights, folds) for run, one in zip(runs, first)
            ]
            seconds = sum(seconds for _, _, seconds in results)
            if weights == PRETRAINED and own.stage_1:
                continue
            rows = results[0][1]
            units = units_of(rows, task)
            each = np.stack([to_units(rows, scores, task) for scores, _, _ in results])
            forms = {name: each}
            # Beside the largest of a patient's image scores their mean.
            if name == "plain" and task.unit == "study":
                unit = rows["unit_id"].to_numpy()
                forms["plain, mean"] = np.stack(
                    [aggregate(scores, unit, "mean") for scores, _, _ in results]
                )
            for form, scores in forms.items():
                means[form, weights] = scores.mean(axis=0)
                cells = [form, weights.split(".")[0]]
                cells.append(f"{mean_auc(means[form, weights], units.truth):.4f}")
                cells.append(" ".join(f"{mean_auc(one, units.truth):.4f}" for one in scores))
                cells += ["", ""]
                base = means.get((own.beside, weights))
                if form != own.beside and base is not None:
                    patients = units.keys["patient_id"].to_numpy()
                    pair = (means[form, weights], base, units.truth, patients)
                    cells[-2] = own.beside
                    cells[-1] = difference_text(difference_row(form, own.beside, *pair))
                yield f"| {' | '.join(cells)} | {seconds / 60:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=list(SETS), default="skin")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    arguments = parser.parse_args()
    images = SETS[arguments.set]
    names = arguments.recipes or list(images.recipes)

    # The competition with these runs in place of its trials: every stage finds them by name.
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    module = images.module
    read = module.read_raw
    module.read_raw = lambda raw: images.table(read(raw))
    module.task = replace(module.task, **images.task)
    # All of them, so that every image is decoded once for all sizes.
    known = dict.fromkeys((*images.recipes, *names))
    module.trials = tuple(
        run for name in known for run in runs_of(name, images.plain, arguments.seeds)
    )
    competition = module.__name__.split(".")[-1]
    targets = [f"{competition}/{run.name}" for run in module.trials]
    if not (data_folder(competition) / "images.csv").exists():
        prepare_stage.main(prepare_stage.parser().parse_args(targets))
    if not (data_folder(competition) / "folds.csv").exists():
        folds_stage.main(folds_stage.parser().parse_args([competition, "--folds", str(FOLDS)]))
    print("| recipe | stage | AUC | each seed | beside | difference | minutes |")
    print("|---|---|---|---|---|---|---|")
    for line in table(images, names, arguments.seeds, arguments.folds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
