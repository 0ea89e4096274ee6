"""Beyond Table 1: one change at a time to its AUC-M row, chosen on validation data, then one look
at the test set.

    python -m pipeline.paper.levers                        every variant: trained on 90 %, validated
                                                           on 10 %
    python -m pipeline.paper.levers --final                the variant best on validation: trained
                                                           on all, tested
    python -m pipeline.paper.levers --final "crop"         a named one

reads   $DATA/<dataset>/raw
writes  appends to pipeline/paper/results/levers.jsonl

The same data (253 positives of 25,253 for CIFAR-10 at 1 %), network and number of epochs as the
paper's row; the numbers to beat are its 0.715 (R) and 0.760 (D).
"""

import argparse
from dataclasses import replace

from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.store import (
    as_trial,
    last_epochs,
    machine_of,
    mean_and_std,
    result,
    sweep_all_seeds,
    sweep_options,
)
from pipeline.paper.benchmark.trial import Trial
from pipeline.paper.published import SHORT_NAMES
from pipeline.paper.table1 import base_trial

# What the field would try first. With 13 and 64 positives of 128 the L2-normed means can differ by
# 0.293 and 0.177 at most, so class-aware sampling goes with margins below that, or with a
# normaliser whose scale knows no batch.
VARIANTS: dict[str, dict] = {
    "paper": {},
    "margin 0.3": dict(margin=0.3),
    "closed-form dual": dict(dual="closed_form"),
    "L2 · √B": dict(normalize="l2*sqrt_b"),
    "sigmoid": dict(normalize="sigmoid"),
    "no BSN": dict(normalize="none"),
    "sigmoid, closed form": dict(normalize="sigmoid", dual="closed_form"),
    "L2 · √B, closed form": dict(normalize="l2*sqrt_b", dual="closed_form"),
    "13 positives a batch, margin 0.25": dict(per_batch=13, margin=0.25),
    "13 positives a batch, sigmoid": dict(per_batch=13, normalize="sigmoid"),
    "64 positives a batch, sigmoid": dict(per_batch=64, normalize="sigmoid"),
    "flip": dict(augment="flip"),
    "crop": dict(augment="crop"),
    "γ = 1/100": dict(gamma=1 / 100),
    "γ = 0": dict(gamma=0.0),
    "momentum 0.9": dict(momentum=0.9),
    "λ = 5e-4": dict(weight_decay=5e-4),
    "mean of weights 0.995": dict(average=0.995),
    "crop, 13 positives a batch, sigmoid": dict(augment="crop", per_batch=13, normalize="sigmoid"),
    "crop, 13 positives a batch, sigmoid, closed form": dict(
        augment="crop", per_batch=13, normalize="sigmoid", dual="closed_form"
    ),
    "crop, 13 positives a batch, sigmoid, mean of weights": dict(
        augment="crop", per_batch=13, normalize="sigmoid", average=0.995
    ),
}
CE_FIRST = {"CE for the first half": {}, "crop, CE for the first half": dict(augment="crop")}


def variants(base: Trial) -> dict[str, Trial]:
    """Every lever pulled on `base`, by name."""
    trials = {name: replace(base, **changes) for name, changes in VARIANTS.items()}

    # These depend on the number of epochs: half of them by cross-entropy, as the two stages.
    half = replace(base, first_ce=base.epochs // 2)
    for name, changes in CE_FIRST.items():
        trials[name] = replace(half, **changes)
    return trials


def chosen(options: argparse.Namespace, trials: dict[str, Trial]) -> dict[str, Trial]:
    """The variants asked for by name, or all."""
    for name in options.variants:
        if name not in trials:
            known = "; ".join(trials)
            raise UserError(f"--variants: no variant is called {name!r}; there are {known}")
    return {name: trials[name] for name in options.variants or trials}


def best_on_validation(trials: dict[str, Trial], options: argparse.Namespace) -> str:
    """The variant whose mean last-epoch validation AUC is highest."""
    # The last epoch's, not the best one's: the best of many epochs is too good by chance.
    records = runs(trials, options, options.part)
    return max(records, key=lambda name: mean_and_std(map(result, records[name]))[0])


def runs(
    trials: dict[str, Trial], options: argparse.Namespace, held_out: float
) -> dict[str, list[dict]]:
    """The records of each variant, one for each training set."""
    held = [replace(trial, held_out=held_out) for trial in trials.values()]
    return dict(zip(trials, sweep_all_seeds(held, options)))


def main(options: argparse.Namespace) -> None:
    base = base_trial(options.dataset, options.network, options.imratio, "aucm", options.epochs)
    every = variants(base)
    trials = chosen(options, every)

    # Without --final: validation AUCs only, on which a lever may be chosen.
    if options.final is None:
        for name, records in runs(trials, options, options.part).items():
            print(f"{name}: validation AUC {last_epochs(records)}")
        return

    # With it: one variant, trained on everything, and one look at the test set.
    name = options.final or best_on_validation(trials, options)
    if name not in every:
        known = "; ".join(every)
        raise UserError(f"--final: no variant is called {name!r}; there are {known}")
    records = runs({name: every[name]}, options, held_out=0.0)[name]
    print(f"{name}: test AUC {last_epochs(records)}")


def name_of(trial: Trial) -> str:
    """The name of the variant that a trial is, "" when it is none of this file's."""
    # The store has no names: a variant is known by its settings.
    plain = replace(trial, seed=0, held_out=0.0)
    base = base_trial(trial.dataset, trial.network, trial.imratio, "aucm", trial.epochs)
    return next((name for name, variant in variants(base).items() if variant == plain), "")


def levers_section(records: list[dict]) -> list[str]:
    """RESULTS.md's table of every lever: validation AUC, and test AUC where it was looked at."""
    if not records:
        return []

    # (data set, network, imratio, epochs, lever) -> kind of AUC -> seed -> the first record. A run
    # may be in several machines' files, and counts once.
    rows: dict[tuple, dict[str, dict[int, dict]]] = {}
    for record in records:
        trial = as_trial(record)
        row = (trial.dataset, trial.network, trial.imratio, trial.epochs, name_of(trial))
        kind = f"{record['held_out']:.0%} held out" if record["held_out"] else "test"
        rows.setdefault(row, {}).setdefault(kind, {}).setdefault(trial.seed, record)

    # The head: a column for each part that was ever held out, and one for the test set.
    kinds = sorted({kind for by_kind in rows.values() for kind in by_kind})
    of_kinds = " | ".join(f"AUC, {kind}" for kind in kinds)
    lines = [
        "",
        "## Levers",
        "",
        "AUC-M with the paper's settings but for what is named: the last epoch's AUC on the part "
        "of the training set held out, on which levers are chosen, and on the test set. Made by "
        "`python -m pipeline.paper.levers --epochs E --part P --seeds N --variants NAME`, and with "
        "`--final NAME` the test column.",
        "",
        f"| data (network), imratio | epochs | lever | {of_kinds} | computed on |",
        "|---" * (4 + len(kinds)) + "|",
    ]

    # The rows.
    for (dataset, network, imratio, epochs, name), by_kind in rows.items():
        data = f"{SHORT_NAMES[dataset]} ({SHORT_NAMES[network]}), {imratio:.0%}"
        cells = [data, str(epochs), name]
        of_row = []
        for kind in kinds:
            of_kind = list(by_kind.get(kind, {}).values())
            cells.append(last_epochs(of_kind) if of_kind else "–")
            of_row += of_kind
        cells.append(machine_of(of_row))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--dataset", choices=READERS, default="cifar10")
    options.add_argument("--network", choices=NETWORKS, default="resnet20")
    options.add_argument("--imratio", type=float, default=0.01)
    options.add_argument(
        "--variants", nargs="+", default=[], metavar="NAME", help="only these (all)"
    )
    options.add_argument(
        "--part", type=float, default=0.1, help="of the training set that validates (0.1)"
    )
    options.add_argument(
        "--final", nargs="?", const="", metavar="NAME", help="train on all and test, once"
    )
    sweep_options(options, "levers.jsonl")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
