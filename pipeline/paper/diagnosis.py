"""AUC-M as printed ("faithful") beside the form that works ("working"), and the levers between
them, epoch by epoch; cross-entropy with the same views and batches beside both.

    python -m pipeline.paper.diagnosis --seeds 3                            every setting below
    python -m pipeline.paper.diagnosis --settings faithful working --epochs 20

reads   $DATA/<dataset>/raw
writes  pipeline/paper/figures/diagnosis.png, and appends to pipeline/paper/results/diagnosis.jsonl;
        `render` makes the table

Besides the test AUC each epoch records what its batches did (`benchmark.training.SEEN`).
"""

import argparse
from dataclasses import replace

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.paper import plots
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import (
    as_trial,
    machine_of,
    mean_and_std,
    sweep_all_seeds,
    sweep_options,
)
from pipeline.paper.benchmark.trial import Trial
from pipeline.paper.published import SHORT_NAMES
from pipeline.paper.table1 import base_trial

# What each changes of Table 1's row of its loss. "working" pulls four levers at once; each stands
# alone below it, and cross-entropy takes those that are no matter of the loss.
SETTINGS: dict[str, dict] = {
    "faithful": {},
    "working": dict(augment="crop", per_batch=13, normalize="sigmoid", dual="closed_form"),
    "crop": dict(augment="crop"),
    "13 positives": dict(per_batch=13),
    "sigmoid": dict(normalize="sigmoid"),
    "closed form": dict(dual="closed_form"),
    "CE": dict(loss="ce", margin=1.0),
    "CE, crop": dict(loss="ce", margin=1.0, augment="crop"),
    "CE, crop, 13 positives": dict(loss="ce", margin=1.0, augment="crop", per_batch=13),
}
PANELS = {
    "test_auc": "test AUC",
    "batches_auc": "AUC of the training batches",
    "relative_step": "step: η ‖∂F/∂w‖ / ‖w‖",
    "score_gradient": "‖∂F/∂h‖, scores before BSN",
    "score_norm": "‖h‖ of a batch",
    "alpha": "α",
}
LOGARITHMIC = ("relative_step", "score_gradient", "score_norm")
CURVE_COLOURS = (
    "#0072b2",
    "#009e73",
    "#56b4e9",
    "#cc79a7",
    "#e69f00",
    "#d55e00",
    "#7f7f7f",
    "#000000",
)
EPOCHS_SHOWN = (1, 5, 10, 20, 50, 100)  # epochs of the table


def settings(dataset: str, network: str, imratio: float, epochs: int) -> dict[str, Trial]:
    """Every setting by name, with seed 0."""
    base = base_trial(dataset, network, imratio, "aucm", epochs)
    # Cross-entropy has no margin: 1 is what Table 1's trials of it carry.
    return {name: replace(base, **changes) for name, changes in SETTINGS.items()}


def setting_of(trial: Trial) -> str:
    """The name of the setting that a trial is, "" when it is none."""
    # The store has no names: a setting is known by its values.
    named = settings(trial.dataset, trial.network, trial.imratio, trial.epochs)
    plain = replace(trial, seed=0, compiled=False)
    return next((name for name, setting in named.items() if setting == plain), "")


def main(options: argparse.Namespace) -> None:
    named = settings(options.dataset, options.network, options.imratio, options.epochs)
    for name in options.settings:
        if name not in named:
            raise UserError(f"--settings: none is called {name!r}; there are {'; '.join(named)}")

    # All in one sweep, so that --jobs finds work to the end.
    names = options.settings or list(named)
    records = sweep_all_seeds([named[name] for name in names], options)
    draw(dict(zip(names, records, strict=True)), options)


def draw(records: dict[str, list[dict]], options: argparse.Namespace) -> None:
    """A panel for each measure that was recorded, a line for each setting."""
    every = [record for of_setting in records.values() for record in of_setting]
    measures = [name for name in PANELS if any(name in record for record in every)]
    figure, axes = plots.axes_grid(-(-len(measures) // 3), min(3, len(measures)))
    for axis, measure in zip(axes.flat, measures):
        for (name, of_setting), colour in zip(records.items(), CURVE_COLOURS * 2):
            histories = [record[measure] for record in of_setting if measure in record]
            if histories:
                plots.curve(axis, histories, colour, name)
        plots.label(axis, PANELS[measure], "epoch")
        if measure in LOGARITHMIC:
            axis.set_yscale("log")
    axes[0, 0].legend(frameon=False, fontsize=7)
    figure.suptitle(f"{SHORT_NAMES[options.dataset]}, {plots.scale_of(options)}", fontsize=10)
    print("wrote", plots.save(figure, "diagnosis"))


def diagnosis_section(records: list[dict]) -> list[str]:
    """RESULTS.md's table: of each setting the measures at some epochs, in the mean over seeds."""
    # One row's runs differ in their seed only.
    rows: dict[tuple[str, Trial], list[dict]] = {}
    for record in records:
        trial = as_trial(record)
        rows.setdefault((setting_of(trial), replace(trial, seed=0)), []).append(record)
    if not rows:
        return []

    columns = ("test AUC", "batches' AUC", "step", "‖∂F/∂h‖", "‖h‖", "α", "computed on")
    lines = [
        "",
        "## Faithful and working: what an epoch does",
        "",
        "Made by `python -m pipeline.paper.diagnosis --epochs E --seeds N --settings NAME …`; test "
        "AUC, AUC of the training batches as they were scored, step η‖∂F/∂w‖/‖w‖, ‖∂F/∂h‖ of a "
        "batch's scores before BSN, their norm ‖h‖, and α, each in the mean over the epoch's "
        "batches and over seeds.",
        "",
        f"| data (network), imratio | setting | epoch | seeds | {' | '.join(columns)} |",
        "|---" * 11 + "|",
    ]

    # The last epoch is always among those shown: it is the result.
    for (name, trial), of_setting in rows.items():
        data = f"{SHORT_NAMES[trial.dataset]} ({SHORT_NAMES[trial.network]}), {trial.imratio:.0%}"
        shown = sorted({epoch for epoch in EPOCHS_SHOWN if epoch < trial.epochs} | {trial.epochs})
        for epoch in shown:
            cells = [
                data,
                name,
                f"{epoch} of {trial.epochs}",
                str(len(of_setting)),
                *(mean_at(of_setting, measure, epoch) for measure in PANELS),
                machine_of(of_setting),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_at(records: list[dict], measure: str, epoch: int) -> str:
    """The mean over records of a measure after an epoch, a dash where it was not recorded."""
    values = [record[measure][epoch - 1] for record in records if measure in record]
    return f"{mean_and_std(values)[0]:.3g}" if values else "–"


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--dataset", choices=READERS, default="cats_dogs")
    options.add_argument("--network", choices=NETWORKS, default="resnet20")
    options.add_argument("--imratio", type=float, default=0.01)
    options.add_argument(
        "--settings", nargs="+", default=[], metavar="NAME", help=f"of {'; '.join(SETTINGS)} (all)"
    )
    sweep_options(options, "diagnosis.jsonl", seeds=3)
    return options


if __name__ == "__main__":
    run_stage(main, parser())
