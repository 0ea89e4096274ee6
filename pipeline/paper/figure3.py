"""Figure 3: batch score normalisation (BSN) on and off, and the other normalisers beside it.

    python -m pipeline.paper.figure3 --network densenet121 --datasets cats_dogs cifar10

reads   $DATA/<dataset>/raw
writes  pipeline/paper/figures/figure3.png, and appends to pipeline/paper/results/figure3.jsonl

The paper shows "l2" (BSN) against "none" with DenseNet121 at 1 % and 10 %; --normalizers adds the
others.
"""

import argparse
from dataclasses import replace

import numpy as np

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import plots
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import mean_and_std, result, sweep_options, sweep_seeds
from pipeline.paper.published import DATASET_NAMES, LOSS_NAMES, NETWORK_NAMES
from pipeline.paper.table1 import base_trial

NORMALIZER_NAMES = {
    "none": "no BSN",
    "l2": "BSN (L2)",
    "l2*sqrt_b": "L2 · √B",
    "sigmoid": "sigmoid",
}
SHADES = {"none": "#bbbbbb", "l2": "#0072b2", "l2*sqrt_b": "#56b4e9", "sigmoid": "#009e73"}
NORMALIZED_LOSSES = ("aucs", "aucm")  # those that normalise scores


def bars(
    axis: plots.Axes,
    groups: list[str],
    records: dict[tuple[str, str], list[dict]],
    normalizers: list[str],
) -> None:
    """One group of bars for each data set, one bar for each normaliser, its standard deviation
    where there are two runs or more."""
    # A group is 0.8 of the distance to the next one, centred on its tick.
    width = 0.8 / len(normalizers)
    for place, normalizer in enumerate(normalizers):
        pairs = [mean_and_std(map(result, records[group, normalizer])) for group in groups]
        means, spreads = np.array(pairs).T
        at = np.arange(len(groups)) + (place - (len(normalizers) - 1) / 2) * width
        look = dict(color=SHADES[normalizer], label=NORMALIZER_NAMES[normalizer])
        # One run has no standard deviation, and no bar for it.
        if not np.isnan(spreads).all():
            look |= dict(yerr=spreads)
        axis.bar(at, means, width * 0.92, error_kw=dict(elinewidth=0.8, capsize=2), **look)

    # An AUC below 0.5 is possible, early and by chance: the axis then begins below it.
    names = [DATASET_NAMES[group] for group in groups]
    axis.set_xticks(np.arange(len(groups)), names, fontsize=8)
    aucs = [record["test_auc"][-1] for of_bar in records.values() for record in of_bar]
    axis.set_ylim(min(0.5, min(aucs) - 0.02), None)


def main(options: argparse.Namespace) -> None:
    # A panel for each loss (down) and imratio (across).
    figure, axes = plots.axes_grid(len(options.losses), len(options.imratios), width=3.6)
    for loss, row in zip(options.losses, axes):
        for imratio, axis in zip(options.imratios, row):
            # Table 1's trials but for the normaliser: those with "l2" may be in the store already.
            records = {}
            for dataset in options.datasets:
                for normalizer in options.normalizers:
                    trial = base_trial(dataset, options.network, imratio, loss, options.epochs)
                    trial = replace(trial, normalize=normalizer)
                    records[dataset, normalizer] = sweep_seeds(trial, options)
            bars(axis, options.datasets, records, options.normalizers)
            network = NETWORK_NAMES[options.network]
            title = f"{LOSS_NAMES[loss]}, {network}, {imratio:.0%}, {options.epochs} epochs"
            plots.label(axis, title, "", "test AUC")
    axes[0, -1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    print("wrote", plots.save(figure, "figure3"))


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--datasets", nargs="+", choices=READERS, default=list(READERS))
    options.add_argument("--network", choices=NETWORKS, default="densenet121")
    options.add_argument("--imratios", nargs="+", type=float, default=[0.01, 0.1])
    options.add_argument("--losses", nargs="+", choices=NORMALIZED_LOSSES, default=["aucm"])
    options.add_argument(
        "--normalizers", nargs="+", choices=NORMALIZER_NAMES, default=["none", "l2"]
    )
    sweep_options(options, "figure3.jsonl")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
