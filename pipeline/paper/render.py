"""All that is in the store, as pipeline/paper/RESULTS.md: the paper's numbers and ours beside each
other.

    python -m pipeline.paper.render

reads pipeline/paper/results/*.jsonl and figures/*.png, writes pipeline/paper/RESULTS.md. A row is
one group of runs that differ only in their seed; the value is the mean of the last epoch's test
AUC, with the standard deviation over seeds.
"""

import argparse
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.config.competition import load
from pipeline.core.metrics import auc
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import levers, plots, table5, table6
from pipeline.paper.benchmark.store import (
    FOLDER,
    as_trial,
    machine_of,
    mean_and_std,
    result,
    stored,
)
from pipeline.paper.benchmark.trial import LOSSES, Trial
from pipeline.paper.published import EPOCHS, LOSS_NAMES, SEEDS, SHORT, TABLE_1_AND_8, TABLE_5
from pipeline.paper.table1 import base_trial

HERE = Path(__file__).parent
FIGURES = {
    "figure1": "Figure 1: toy data",
    "figure2": "Figure 2: histograms of scores",
    "figure3": "Figure 3: batch score normalisation",
    "figure4": "Figure 4: noisy and easy data, and α ≥ 0",
    "figure5": "Figure 5: more noise, more easy data",
    "made": "Closed-form dual and normalisers on made data",
    "appendix_e": "Appendix E: where one step moves a score",
}


def groups(records: list[dict]) -> dict[Trial, list[dict]]:
    """Final runs by trial with seed 0: each group is one row; equal trials count once."""
    found: dict[Trial, dict[int, dict]] = defaultdict(dict)
    for record in records:
        if not record["held_out"]:
            found[replace(as_trial(record), seed=0)].setdefault(record["seed"], record)
    return {trial: [by_seed[seed] for seed in sorted(by_seed)] for trial, by_seed in found.items()}


def differences(trial: Trial, base: Trial) -> str:
    """`margin=0.3, augment=crop`: the fields of `trial` that differ from `base`."""
    ours, theirs = asdict(trial), asdict(base)
    return ", ".join(
        f"{name}={value if not isinstance(value, float) else f'{value:.4g}'}"
        for name, value in ours.items()
        if value != theirs[name] and name != "epochs"
    )


def value(records: list[dict]) -> str:
    mean, std = mean_and_std(map(result, records))
    diverged = sum("diverged" in record for record in records)
    return (
        f"{mean:.3f}"
        + (f" ± {std:.3f}" if len(records) > 1 else "")
        + (f" ({diverged} diverged, counted as 0.5)" if diverged else "")
    )


def published(trial: Trial) -> str:
    """The paper's cell for this data set, network, imratio and loss, or a dash."""
    cells = TABLE_1_AND_8.get(trial.imratio, {}).get((trial.dataset, trial.network))
    if not cells:
        return "–"
    mean, std = cells[LOSSES.index(trial.loss)]
    return f"{mean:.3f} ± {std:.3f}"


def table1_command(trial: Trial, seeds: int) -> str:
    """The command that trained `trial`; values other than the defaults come from tuning."""
    augment = "" if trial.augment == "none" else f" --augment {trial.augment}"
    plain = base_trial(trial.dataset, trial.network, trial.imratio, trial.loss, trial.epochs)
    augment += "" if trial == replace(plain, augment=trial.augment) else " --tune"
    return (
        f"`python -m pipeline.paper.table1 --dataset {trial.dataset} --network {trial.network} "
        f"--imratio {trial.imratio:g} --losses {trial.loss} --epochs {trial.epochs} --seeds "
        f"{seeds}{augment}`"
    )


def table1_section(records: list[dict]) -> list[str]:
    """Tables 1 and 8 with whatever has been run; the paper's 100 epochs and shorter runs in tables
    of their own."""
    lines = []
    for imratio, name in ((0.01, "Table 1"), (0.1, "Table 8")):
        rows = {t: r for t, r in groups(records).items() if t.imratio == imratio}
        for epochs in sorted({trial.epochs for trial in rows}, reverse=True):
            short = (
                "" if epochs == EPOCHS else f", not the paper's {EPOCHS}: not comparable with it"
            )
            lines += [
                "",
                f"### {name}, imratio {imratio:.0%}: {epochs} epochs{short}",
                "",
                "| data (network) | loss | paper, 100 epochs, 5 seeds | ours, last epoch | seeds "
                "| settings | "
                "computed on | command |",
                "|---|---|---|---|---|---|---|---|",
            ]
            at = {t: r for t, r in rows.items() if t.epochs == epochs}
            for trial, found in sorted(at.items(), key=lambda item: order(item[0])):
                base = replace(
                    base_trial(trial.dataset, trial.network, imratio, trial.loss, epochs),
                    margin=1.0,
                )
                cells = (
                    f"{SHORT[trial.dataset]} ({SHORT[trial.network]})",
                    LOSS_NAMES[trial.loss],
                    published(trial),
                    f"**{value(found)}**",
                    len(found),
                    differences(trial, base) or "–",
                    machine_of(found),
                    table1_command(trial, len(found)),
                )
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def order(trial: Trial) -> tuple:
    return trial.dataset, trial.network, LOSSES.index(trial.loss), trial.augment, str(trial)


def missing_rows(records: list[dict]) -> list[str]:
    """Which cells of Tables 1 and 8 lack some of the paper's runs: four losses, five training sets,
    100 epochs."""
    have = {
        (t.imratio, t.dataset, t.network, t.loss)
        for t, found in groups(records).items()
        if t.epochs == EPOCHS and t.augment == "none" and len(found) >= SEEDS
    }
    lines = []
    for imratio, cells in TABLE_1_AND_8.items():
        absent = [
            f"{SHORT[d]} ({SHORT[n]})"
            for d, n in cells
            if not all((imratio, d, n, loss) in have for loss in LOSSES)
        ]
        lines.append(
            f"- imratio {imratio:.0%}, {EPOCHS} epochs, {SEEDS} seeds, not or not wholly run: "
            f"{', '.join(absent) or 'none'}."
        )
    return lines


def other_section(
    title: str, intro: str, records: list[dict], base: Trial | None = None
) -> list[str]:
    """Any other file of the store as a table of what was changed and what came out."""
    if not records:
        return []
    lines = [
        "",
        f"## {title}",
        "",
        intro,
        "",
        "| data (network), imratio | loss | epochs | changed | test AUC | seeds | last α | "
        "computed on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for trial, found in sorted(groups(records).items(), key=lambda item: order(item[0])):
        start = base or base_trial(
            trial.dataset, trial.network, trial.imratio, trial.loss, trial.epochs
        )
        start = replace(start, loss=trial.loss)
        alphas = [r["alpha"][-1] for r in found if r.get("alpha")]
        alpha = f"{mean_and_std(alphas)[0]:.3f}" if alphas else "–"
        cells = (
            f"{SHORT[trial.dataset]} ({SHORT[trial.network]}), {trial.imratio:.0%}",
            LOSS_NAMES[trial.loss],
            trial.epochs,
            differences(trial, start) or "–",
            f"**{value(found)}**",
            len(found),
            alpha,
            machine_of(found),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def table5_section() -> list[str]:
    """Table 5: the paper's test AUC, and ours or the command that makes it."""
    lines = [
        "",
        "## Table 5: DDSM+ and PatchCamelyon",
        "",
        "The pipeline's own runs (`python -m pipeline.paper.table5`); test AUC, DenseNet121.",
        "",
        "| data | loss | paper | ours [95 %] |",
        "|---|---|---|---|",
    ]
    for name, printed in TABLE_5.items():
        competition = load(name)
        there = (data_folder(name) / "images.csv").is_file()
        for run in sorted(competition.runs, key=lambda run: LOSSES.index(run.finetune.loss)):
            paper = printed[LOSSES.index(run.finetune.loss)]
            ours = (
                table5.row(competition, run.name, table5.truth_of(competition))
                if there
                else f"not run: the data are not there (`$DATA/{name}/raw`)"
            )
            lines.append(
                f"| {competition.task.title} | {LOSS_NAMES[run.finetune.loss]} | {paper:.4f} | "
                f"{ours} |"
            )
    return lines


def table6_section() -> list[str]:
    """Table 6, computed here and now."""
    lines = [
        "",
        "## Table 6: accuracy against AUC",
        "",
        "`python -m pipeline.paper.table6` (the paper prints .78 for the last: 52/66 cut, not "
        "rounded)",
        "",
        "| | accuracy | AUC, paper | AUC, ours |",
        "|---|---|---|---|",
    ]
    for name, printed in zip(table6.POSITIVES, ("1.00", "0.89", "0.78")):
        scores, labels = table6.example(name)
        lines.append(
            f"| {name} | {table6.accuracy(scores, labels):.2f} | {printed} | "
            f"{auc(scores, labels):.4f} |"
        )
    return lines


def figures_section() -> list[str]:
    lines = ["", "## Figures"]
    for name, title in FIGURES.items():
        path = HERE / "figures" / f"{name}.png"
        if path.is_file():
            lines += [
                "",
                f"### {title}",
                "",
                f"`{plots.drawn_by(path)}`",
                "",
                f"![{title}](figures/{name}.png)",
            ]
    return lines


def main(_: argparse.Namespace) -> None:
    table1, tried, figure3, figure4 = (
        stored(name, FOLDER) for name in ("table1", "levers", "figure3", "figure4")
    )
    head = (HERE / "ABOUT.md").read_text(encoding="utf-8").rstrip().split("\n")
    lines = [
        *head,
        "",
        "## Tables 1 and 8",
        *table1_section(table1),
        "",
        "Not run:",
        "",
        *missing_rows(table1),
        *levers.section(tried),
        *other_section(
            "Figure 3's runs", "BSN (`l2`) against none and the other normalisers.", figure3
        ),
        *other_section(
            "Figures 4 and 5's runs", "Noisy and easy data; α free or held at α ≥ 0.", figure4
        ),
        *table5_section(),
        *table6_section(),
        *figures_section(),
    ]
    write_text(HERE / "RESULTS.md", "\n".join(lines) + "\n")
    print("wrote", HERE / "RESULTS.md")


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__, targets=False))
