"""Figure 3: batch score normalisation (BSN) on and off, and the other normalisers beside it.

    python -m pipeline.paper.figure3 --network densenet121 --datasets cats_dogs cifar10 stl10
    cifar100

reads $DATA/<dataset>/raw, appends to pipeline/paper/results/figure3.jsonl, draws
pipeline/paper/figures/figure3.png. The paper shows "l2" (BSN) against "none" with DenseNet121 at 1
% and 10 %; --normalizers adds the others.
"""

import argparse
from dataclasses import replace

import numpy as np

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import plots
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import mean_and_std, result, sweep, sweep_options
from pipeline.paper.published import DATASET_NAMES, NETWORK_NAMES
from pipeline.paper.table1 import base_trial

NORMALIZERS = {"none": "no BSN", "l2": "BSN (L2)", "l2*sqrt_b": "L2 · √B", "sigmoid": "sigmoid"}
SHADES = ("#bbbbbb", "#0072b2", "#56b4e9", "#009e73")


def bars(
    axis: plots.Axes,
    groups: list[str],
    records: dict[tuple[str, str], list[dict]],
    normalizers: list[str],
) -> None:
    """One group of bars a data set, one bar a normaliser, its standard deviation where there are
    two runs or more."""
    width = 0.8 / len(normalizers)
    for place, normalizer in enumerate(normalizers):
        pairs = [mean_and_std(map(result, records[group, normalizer])) for group in groups]
        means, spreads = np.array(pairs).T
        at = np.arange(len(groups)) + (place - (len(normalizers) - 1) / 2) * width
        axis.bar(
            at,
            means,
            width * 0.92,
            color=SHADES[list(NORMALIZERS).index(normalizer)],
            label=NORMALIZERS[normalizer],
            yerr=None if np.isnan(spreads).all() else spreads,
            error_kw=dict(elinewidth=0.8, capsize=2),
        )
    axis.set_xticks(np.arange(len(groups)), [DATASET_NAMES[group] for group in groups], fontsize=8)
    lowest = min(
        np.nanmin(record["test_auc"][-1]) for found in records.values() for record in found
    )
    axis.set_ylim(min(0.5, lowest - 0.02), None)


def main(options: argparse.Namespace) -> None:
    figure, axes = plots.panels(len(options.losses), len(options.imratios), width=3.6)
    for loss, row in zip(options.losses, axes):
        for imratio, axis in zip(options.imratios, row):
            records = {}
            for dataset in options.datasets:
                for normalizer in options.normalizers:
                    trial = base_trial(dataset, options.network, imratio, loss, options.epochs)
                    trials = [
                        replace(trial, normalize=normalizer, seed=seed)
                        for seed in range(options.seeds)
                    ]
                    records[dataset, normalizer] = sweep(
                        trials, options.out, options.device, options.jobs
                    )
            bars(axis, options.datasets, records, options.normalizers)
            name = {"aucs": "AUC-S", "aucm": "AUC-M"}[loss]
            plots.label(
                axis,
                f"{name}, {NETWORK_NAMES[options.network]}, {imratio:.0%}, {options.epochs} epochs",
                "",
                "test AUC",
            )
    axes[0, -1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    print("wrote", plots.save(figure, "figure3"))


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("--datasets", nargs="+", choices=READERS, default=list(READERS))
    made.add_argument("--network", choices=NETWORKS, default="densenet121")
    made.add_argument("--imratios", nargs="+", type=float, default=[0.01, 0.1])
    made.add_argument("--losses", nargs="+", choices=("aucs", "aucm"), default=["aucm"])
    made.add_argument("--normalizers", nargs="+", choices=NORMALIZERS, default=["none", "l2"])
    sweep_options(made, "figure3.jsonl")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
