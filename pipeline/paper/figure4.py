"""Figures 4 and 5: AUC-M against AUC-S with noisy and with easy data added, and AUC-M with and
without alpha >= 0.

    python -m pipeline.paper.figure4            Figure 4: 1 % noisy, 10 % easy, and the constraint
    python -m pipeline.paper.figure4 --noisy 0.05 --easy 0.2 --name figure5
                                                Figure 5

reads   $DATA/<dataset>/raw
writes  pipeline/paper/figures/<name>.png, and appends to pipeline/paper/results/figure4.jsonl

§5.2: Cat&Dog at 1 %, margin 0.3; for the constraint margin 0.1 with 40 % easy and 1 % noisy data
added.
"""

import argparse
from dataclasses import replace

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import plots
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import last_epochs, sweep_options, sweep_seeds
from pipeline.paper.benchmark.trial import AUGMENTS, Trial
from pipeline.paper.published import DATASET_NAMES, LOSS_NAMES
from pipeline.paper.table1 import base_trial

CURVE_MARGIN = 0.3
# So small that the means can pass it, which makes a free alpha negative.
CONSTRAINT_MARGIN = 0.1
LINE_STYLES = {"α ≥ 0": "-", "α free": ":"}  # the two often coincide


def curves(
    axis: plots.Axes, variants: dict[str, tuple[Trial, str]], options: argparse.Namespace
) -> list[list[dict]]:
    """Draw each variant's test AUC by epoch, mean over the seeds, and return the records."""
    # Dotted and solid where two variants may lie on one another.
    of_variants = []
    for name, (trial, colour) in variants.items():
        records = sweep_seeds(trial, options)
        histories = [record["test_auc"] for record in records]
        plots.curve(axis, histories, colour, name, style=LINE_STYLES.get(name, "-"))
        data = f"noisy {trial.noisy:.0%}, easy {trial.easy:.0%}"
        print(f"{name}, {data}: test AUC {last_epochs(records)}")
        of_variants.append(records)
    axis.legend(frameon=False, fontsize=8, loc="best")
    return of_variants


def compared(trial: Trial) -> dict[str, tuple[Trial, str]]:
    """AUC-M with §5.2's margin and AUC-S, both on the trial's data."""
    margin = replace(trial, loss="aucm", margin=CURVE_MARGIN)
    square = replace(trial, loss="aucs", margin=1.0)  # AUC-S is AUC-M's form with m = 1
    return {
        LOSS_NAMES["aucm"]: (margin, plots.COLOURS["aucm"]),
        LOSS_NAMES["aucs"]: (square, plots.COLOURS["aucs"]),
    }


def constraint(
    top: plots.Axes, bottom: plots.Axes, trial: Trial, options: argparse.Namespace
) -> None:
    """AUC-M with and without alpha >= 0: test AUC, and alpha by epoch."""
    trial = replace(trial, margin=CONSTRAINT_MARGIN, easy=0.4, noisy=0.01)
    variants = {
        "α ≥ 0": (trial, plots.COLOURS["aucm"]),
        "α free": (replace(trial, constrained=False), plots.COLOURS["aucs"]),
    }
    plots.label(top, "40 % easy, 1 % noisy, m = 0.1", "epoch", "test AUC")
    of_variants = curves(top, variants, options)

    # Whether the constraint acts is seen in alpha itself: it does where the free one is below 0.
    for (name, (_, colour)), records in zip(variants.items(), of_variants):
        alphas = [record["alpha"] for record in records]
        plots.curve(bottom, alphas, colour, name, style=LINE_STYLES[name])
    bottom.axhline(0, color="black", linewidth=0.6)
    plots.label(bottom, "40 % easy, 1 % noisy, m = 0.1", "epoch", "α at the end of the epoch")


def main(options: argparse.Namespace) -> None:
    figure, axes = plots.axes_grid(1, 2 if options.without_constraint else 4)
    figure.suptitle(plots.scale_of(options), fontsize=10)
    trial = base_trial(options.dataset, options.network, options.imratio, "aucm", options.epochs)
    trial = replace(trial, augment=options.augment)

    # AUC-M against AUC-S, with noisy and with easy data.
    for axis, kind in zip(axes[0], ("noisy", "easy")):
        part = getattr(options, kind)
        title = f"{DATASET_NAMES[trial.dataset]} {trial.imratio:.0%}, {part:.0%} {kind}"
        plots.label(axis, title, "epoch", "test AUC")
        curves(axis, compared(replace(trial, **{kind: part})), options)

    # AUC-M with and without alpha >= 0.
    if not options.without_constraint:
        constraint(axes[0, 2], axes[0, 3], trial, options)
    print("wrote", plots.save(figure, options.name))


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--dataset", choices=READERS, default="cats_dogs")
    options.add_argument("--network", choices=NETWORKS, default="densenet121")
    options.add_argument("--imratio", type=float, default=0.01)
    options.add_argument(
        "--noisy",
        type=float,
        default=0.01,
        help="part of the negatives whose label is flipped (0.01)",
    )
    options.add_argument(
        "--easy",
        type=float,
        default=0.1,
        help="part of the removed positives that comes back (0.1)",
    )
    options.add_argument(
        "--without-constraint", action="store_true", help="leave out the two panels on alpha >= 0"
    )
    options.add_argument("--augment", choices=AUGMENTS, default="none")
    options.add_argument("--name", default="figure4", help="of the image file (figure4)")
    sweep_options(options, "figure4.jsonl")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
