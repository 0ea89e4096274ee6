"""Tables 1 and 8: four losses on an imbalanced benchmark, several training sets, the last epoch's
test AUC.

    python -m pipeline.paper.table1 --dataset cifar10 --network resnet20 --imratio 0.01
    python -m pipeline.paper.table1 --dataset cifar10 --imratio 0.1 --tune --jobs 10

reads   $DATA/<dataset>/raw
writes  appends to pipeline/paper/results/table1.jsonl, and prints a row; `render` makes the tables

Without --tune the margin is the mean of those the paper chose (Appendix I), gamma 1/500, and the
focal loss's values are 0.25 and 2. With --tune each point of the paper's grids is trained on 90 %
of training set 0 and the best validation AUC at the last epoch decides; the test set plays no part
in it. Runs already in the store are not run again.
"""

import argparse
from dataclasses import replace
from itertools import product

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import (
    last_epochs,
    result,
    sweep,
    sweep_all_seeds,
    sweep_options,
)
from pipeline.paper.benchmark.trial import AUGMENTS, BATCH_SIZE, LOSSES, Trial

PAPER_MARGIN = {"cats_dogs": 0.7, "cifar10": 0.8, "stl10": 0.7, "cifar100": 0.5}  # Appendix I
# The grids the paper tuned over: 1, 9, 5 and 25 points a loss.
GAMMAS = (1 / 100, 1 / 300, 1 / 500, 1 / 700, 1 / 1000)
MARGINS = (0.1, 0.3, 0.5, 0.7, 1.0)
GRIDS: dict[str, list[dict]] = {
    "ce": [{}],
    "focal": [
        dict(focal_alpha=alpha, focal_gamma=gamma)
        for alpha, gamma in product((0.25, 0.5, 0.75), (1.0, 2.0, 5.0))
    ],
    "aucs": [dict(gamma=gamma) for gamma in GAMMAS],
    "aucm": [dict(gamma=gamma, margin=margin) for gamma, margin in product(GAMMAS, MARGINS)],
}


def base_trial(dataset: str, network: str, imratio: float, loss: str, epochs: int) -> Trial:
    """The paper's settings with its own mean choice of margin."""
    margin = PAPER_MARGIN[dataset] if loss == "aucm" else 1.0
    return Trial(
        dataset=dataset,
        network=network,
        imratio=imratio,
        loss=loss,
        epochs=epochs,
        margin=margin,
        batch_size=BATCH_SIZE[dataset],
    )


def hyperparameter_grid(trial: Trial) -> list[Trial]:
    """The points of its loss's grid, to be trained on a 9:1 split; none where there is nothing to
    choose."""
    points = [replace(trial, held_out=0.1, **values) for values in GRIDS[trial.loss]]
    return points if len(points) > 1 else []


def tuned(trials: list[Trial], options: argparse.Namespace) -> list[Trial]:
    """Each trial with the point of its grid that has the best last validation AUC."""
    # All points in one sweep, so that --jobs finds work to the end.
    points = [point for trial in trials for point in hyperparameter_grid(trial)]
    records = sweep(points, options.out, options.device, options.jobs)
    aucs = dict(zip(points, map(result, records)))

    # Then on the whole training set, with the values that were best.
    best = [
        max(hyperparameter_grid(trial) or [trial], key=lambda point: aucs.get(point, 0.0))
        for trial in trials
    ]
    return [replace(trial, held_out=0.0) for trial in best]


def main(options: argparse.Namespace) -> None:
    # One trial a loss, with the paper's settings or the tuned ones.
    trials = []
    for loss in options.losses:
        trial = base_trial(options.dataset, options.network, options.imratio, loss, options.epochs)
        trials.append(replace(trial, augment=options.augment))
    if options.tune:
        trials = tuned(trials, options)

    # Each on several training sets.
    for trial, records in zip(trials, sweep_all_seeds(trials, options)):
        cell = f"{trial.dataset} {trial.network} {trial.imratio:.0%} {trial.loss}"
        print(f"{cell}: test AUC after {trial.epochs} epochs {last_epochs(records)}")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--dataset", choices=READERS, default="cifar10")
    options.add_argument("--network", choices=NETWORKS, default="resnet20")
    options.add_argument(
        "--imratio",
        type=float,
        default=0.01,
        help="positives / all: 0.01 (Table 1) or 0.1 (Table 8)",
    )
    options.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    options.add_argument("--augment", choices=AUGMENTS, default="none", help="the paper names none")
    options.add_argument(
        "--tune",
        action="store_true",
        help="choose hyper-parameters on a 9:1 validation split first",
    )
    sweep_options(options, "table1.jsonl")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
