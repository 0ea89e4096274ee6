"""Write RESULTS.md from the store: the paper's numbers and ours beside each other.

    python -m pipeline.paper.render

reads   pipeline/paper/ABOUT.md, results/*.jsonl and figures/*.png; of Table 5 also
        data/<comp>/images.csv and the runs' predictions
writes  pipeline/paper/RESULTS.md

A row is one group of runs that differ only in their seed; the value is the mean of the last epoch's
test AUC, with the standard deviation over seeds.
"""

import argparse
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.config.competition import load_competition
from pipeline.core.metrics import auc
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import diagnosis, levers, plots, table5, table6
from pipeline.paper.benchmark.store import (
    FOLDER,
    as_trial,
    machine_of,
    mean_and_std,
    result,
    stored,
)
from pipeline.paper.benchmark.trial import LOSSES, Trial
from pipeline.paper.published import EPOCHS, LOSS_NAMES, SEEDS, SHORT_NAMES, TABLE_1_AND_8, TABLE_5
from pipeline.paper.table1 import base_trial

HERE = Path(__file__).parent
FIGURES = {
    "figure1": "Figure 1: toy data",
    "figure2": "Figure 2: histograms of scores",
    "figure3": "Figure 3: batch score normalisation",
    "figure4": "Figure 4: noisy and easy data, and α ≥ 0",
    "figure5": "Figure 5: more noise, more easy data",
    "diagnosis": "AUC-M as printed, and the form that works",
    "synthetic": "Closed-form dual and normalisers on synthetic data",
    "appendix_e": "Appendix E: where one step moves a score",
}


def groups(records: list[dict]) -> dict[Trial, list[dict]]:
    """Final runs by trial with seed 0: each group is one row; equal trials count once."""
    # A run held out for tuning is no result; one that several machines made counts once.
    by_trial: dict[Trial, dict[int, dict]] = defaultdict(dict)
    for record in records:
        if not record["held_out"]:
            by_trial[replace(as_trial(record), seed=0)].setdefault(record["seed"], record)
    return {trial: [of[seed] for seed in sorted(of)] for trial, of in by_trial.items()}


def changed_fields(trial: Trial, base: Trial) -> str:
    """The fields of `trial` that differ from `base` as text: `margin=0.3, augment=crop`."""
    # The epochs have a column or a table of their own.
    theirs = asdict(base)
    changed = []
    for name, value in asdict(trial).items():
        if value != theirs[name] and name != "epochs":
            shown = f"{value:.4g}" if isinstance(value, float) else value
            changed.append(f"{name}={shown}")
    return ", ".join(changed)


def value(records: list[dict]) -> str:
    """The mean AUC of runs as text, `0.573 ± 0.010`, and how many of them diverged."""
    # A run that diverged stays in the mean: left out, a loss that fails would look better.
    mean, std = mean_and_std(map(result, records))
    spread = f" ± {std:.3f}" if len(records) > 1 else ""
    diverged = sum("diverged" in record for record in records)
    note = f" ({diverged} diverged, counted as 0.5)" if diverged else ""
    return f"{mean:.3f}{spread}{note}"


def table_row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def published_row(trial: Trial) -> str:
    """The paper's cell for this data set, network, imratio and loss, or a dash."""
    cells = TABLE_1_AND_8.get(trial.imratio, {}).get((trial.dataset, trial.network))
    if not cells:
        return "–"
    mean, std = cells[LOSSES.index(trial.loss)]
    return f"{mean:.3f} ± {std:.3f}"


def table1_command(trial: Trial, seeds: int) -> str:
    """The command that trained `trial`; values other than the defaults come from tuning."""
    data = f"--dataset {trial.dataset} --network {trial.network} --imratio {trial.imratio:g}"
    runs = f"--losses {trial.loss} --epochs {trial.epochs} --seeds {seeds}"
    command = f"python -m pipeline.paper.table1 {data} {runs}"
    if trial.augment != "none":
        command += f" --augment {trial.augment}"

    # Table 1's program has no option for margin or gamma: other values can only come from tuning.
    plain = base_trial(trial.dataset, trial.network, trial.imratio, trial.loss, trial.epochs)
    if trial != replace(plain, augment=trial.augment):
        command += " --tune"
    return f"`{command}`"


def table1_section(records: list[dict]) -> list[str]:
    """Tables 1 and 8 with whatever has been run; the paper's 100 epochs and shorter runs in tables
    of their own."""
    lines = []
    for imratio, name in ((0.01, "Table 1"), (0.1, "Table 8")):
        rows = {trial: of for trial, of in groups(records).items() if trial.imratio == imratio}
        # The longest runs first. A short run beside the paper's numbers asks to be compared: the
        # heading says that it cannot be.
        for epochs in sorted({trial.epochs for trial in rows}, reverse=True):
            short = f", not the paper's {EPOCHS}: not comparable with it"
            note = "" if epochs == EPOCHS else short
            lines += [
                "",
                f"### {name}, imratio {imratio:.0%}: {epochs} epochs{note}",
                "",
                "| data (network) | loss | paper, 100 epochs, 5 seeds | ours, last epoch | seeds "
                "| settings | computed on | command |",
                "|---|---|---|---|---|---|---|---|",
            ]
            at = [trial for trial in rows if trial.epochs == epochs]
            lines += [table1_row(trial, rows[trial]) for trial in sorted(at, key=order)]
    return lines


def table1_row(trial: Trial, records: list[dict]) -> str:
    """The runs of a trial beside the paper's; settings are given where they differ from the loss's
    own defaults."""
    # Beside margin 1 rather than the paper's mean choice, so that AUC-M's row names its margin.
    base = base_trial(trial.dataset, trial.network, trial.imratio, trial.loss, trial.epochs)
    plain = replace(base, margin=1.0)
    return table_row(
        f"{SHORT_NAMES[trial.dataset]} ({SHORT_NAMES[trial.network]})",
        LOSS_NAMES[trial.loss],
        published_row(trial),
        f"**{value(records)}**",
        len(records),
        changed_fields(trial, plain) or "–",
        machine_of(records),
        table1_command(trial, len(records)),
    )


def order(trial: Trial) -> tuple:
    """Sorting key of the rows."""
    # The text of the whole trial comes last: two rows never change places between renderings.
    return trial.dataset, trial.network, LOSSES.index(trial.loss), trial.augment, str(trial)


def missing_rows(records: list[dict]) -> list[str]:
    """Which cells of Tables 1 and 8 lack some of the paper's runs: four losses, five training sets,
    100 epochs."""
    # The cells that are whole, whatever margin tuning chose; with augmentation it is another cell.
    complete = set()
    for trial, of in groups(records).items():
        if trial.epochs == EPOCHS and trial.augment == "none" and len(of) >= SEEDS:
            complete.add((trial.imratio, trial.dataset, trial.network, trial.loss))

    # A line for each table; a row of it counts only with all four losses.
    lines = []
    for imratio, cells in TABLE_1_AND_8.items():
        absent = []
        for dataset, network in cells:
            if not all((imratio, dataset, network, loss) in complete for loss in LOSSES):
                absent.append(f"{SHORT_NAMES[dataset]} ({SHORT_NAMES[network]})")
        wanted = f"imratio {imratio:.0%}, {EPOCHS} epochs, {SEEDS} seeds"
        lines.append(f"- {wanted}, not or not wholly run: {', '.join(absent) or 'none'}.")
    return lines


def other_section(title: str, intro: str, records: list[dict]) -> list[str]:
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
    rows = groups(records)
    return lines + [other_row(trial, rows[trial]) for trial in sorted(rows, key=order)]


def other_row(trial: Trial, records: list[dict]) -> str:
    """The runs of a trial, and what differs from Table 1's settings."""
    base = base_trial(trial.dataset, trial.network, trial.imratio, trial.loss, trial.epochs)
    alphas = [record["alpha"][-1] for record in records if record.get("alpha")]  # AUC losses only
    return table_row(
        f"{SHORT_NAMES[trial.dataset]} ({SHORT_NAMES[trial.network]}), {trial.imratio:.0%}",
        LOSS_NAMES[trial.loss],
        trial.epochs,
        changed_fields(trial, base) or "–",
        f"**{value(records)}**",
        len(records),
        f"{mean_and_std(alphas)[0]:.3f}" if alphas else "–",
        machine_of(records),
    )


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

    # Without the data the row stands all the same: what was not run must be seen.
    for name, printed in TABLE_5.items():
        competition = load_competition(name)
        has_data = (data_folder(name) / "images.csv").is_file()
        for run in sorted(competition.runs, key=lambda run: LOSSES.index(run.finetune.loss)):
            loss = run.finetune.loss
            ours = f"not run: the data are not there (`$DATA/{name}/raw`)"
            if has_data:
                ours = table5.row(competition, run.name, table5.truth_of(competition))
            paper = f"{printed[LOSSES.index(loss)]:.4f}"
            lines.append(table_row(competition.task.title, LOSS_NAMES[loss], paper, ours))
    return lines


def table6_section() -> list[str]:
    """Table 6, which takes no time to compute."""
    lines = [
        "",
        "## Table 6: accuracy against AUC",
        "",
        "`python -m pipeline.paper.table6` (the paper prints .78 for the last: 52/66 truncated, "
        "not rounded)",
        "",
        "| | accuracy | AUC, paper | AUC, ours |",
        "|---|---|---|---|",
    ]
    for name, printed in zip(table6.POSITIVES, ("1.00", "0.89", "0.78")):
        scores, labels = table6.table6_scores(name)
        accuracy = f"{table6.accuracy(scores, labels):.2f}"
        lines.append(table_row(name, accuracy, printed, f"{auc(scores, labels):.4f}"))
    return lines


def figures_section() -> list[str]:
    """The figures there are, each below the command that drew it."""
    lines = ["", "## Figures"]
    for name, title in FIGURES.items():
        path = HERE / "figures" / f"{name}.png"
        if path.is_file():
            lines += ["", f"### {title}", "", f"`{plots.drawn_by(path)}`", ""]
            lines.append(f"![{title}](figures/{name}.png)")
    return lines


def main(_: argparse.Namespace) -> None:
    # ABOUT.md is the part that people write; everything below is made from the records.
    table1 = stored("table1", FOLDER)
    head = (HERE / "ABOUT.md").read_text(encoding="utf-8").rstrip().split("\n")
    of_figure3 = "BSN (`l2`) against none and the other normalisers."
    of_figure4 = "Noisy and easy data; α free or held at α ≥ 0."
    lines = [
        *head,
        "",
        "## Tables 1 and 8",
        *table1_section(table1),
        "",
        "Not run:",
        "",
        *missing_rows(table1),
        *diagnosis.diagnosis_section(stored("diagnosis", FOLDER)),
        *levers.levers_section(stored("levers", FOLDER)),
        *other_section("Figure 3's runs", of_figure3, stored("figure3", FOLDER)),
        *other_section("Figures 4 and 5's runs", of_figure4, stored("figure4", FOLDER)),
        *table5_section(),
        *table6_section(),
        *figures_section(),
    ]
    write_text(HERE / "RESULTS.md", "\n".join(lines) + "\n")
    print("wrote", HERE / "RESULTS.md")


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__, targets=False))
