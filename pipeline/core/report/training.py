"""Sections of the report about how the networks came to be: training curves, test-time views,
folds."""

from pathlib import Path

import numpy as np

from pipeline.core.artifacts.paths import fold_folder, models_folder
from pipeline.core.config.run import METADATA
from pipeline.core.report.html import figure, legend, panels, paragraph, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import Plot
from pipeline.core.report.training_curves import Curves, curves_of, read_log


def training(evidence: Evidence) -> str:
    """Per run: AUC over the steps of both stages, and α beside the gap of the class means."""
    drawings = []
    runs = [*evidence.after, *([METADATA] if evidence.metadata is not None else [])]
    for run in runs:
        logs = [
            curves_of(read_log(path, f"make finetune COMP={evidence.name} RUN={run}"))
            for path in logs_of(evidence, run)
        ]
        told = "AUC; the dotted line is where stage 2 begins" if logs[0].border else "AUC"
        drawings.append(figure(auc_plot(run, logs), run, told))
        if any(len(log.alpha[0]) > 1 for log in logs):
            drawings.append(
                figure(
                    alpha_plot(run, logs), run, "stage 2: α and the gap of class means it acts on"
                )
            )
    text = (
        "Thin lines are single folds. In stage 2, α grows as long as the gap between the mean "
        "scores of the "
        "classes is below the margin, and falls to 0 when it is beyond it. The gap is that of one "
        "batch, so it "
        "jumps; with normalised scores it cannot exceed its bound."
    )
    keys = [
        ("c-aucm", "validation AUC"),
        ("c-ce dashed", "training AUC, last scores"),
        ("c-final", "α"),
        ("c-other thin", "gap of class means"),
        ("c-soft dashed", "bound of the gap"),
    ]
    return (
        paragraph(text)
        + legend(keys)
        + panels(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/log.jsonl",
            f"make finetune COMP={evidence.name}",
        )
    )


def logs_of(evidence: Evidence, run: str) -> list[Path]:
    return [fold_folder(evidence.name, run, fold) / "log.jsonl" for fold in evidence.rows.folds]


def span(values: list[float], least: float = 0.02) -> tuple[float, float]:
    """A range that holds the values with a margin."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    free = max((high - low) * MARGIN, least / 2)
    return low - free, high + free


def auc_plot(run: str, logs: list[Curves]) -> str:
    """Validation and training AUC of all folds."""
    values = [value for log in logs for curve in (log.valid, log.train) for value in curve[1]]
    last, best = max(log.last for log in logs), [log.valid[1][-1] for log in logs if log.valid[1]]
    low, high = span(values)
    plot = Plot((0, 1.02 * last), (max(low, 0), min(high, 1)), "step", "AUC")
    border = max(log.border for log in logs)
    if border:
        plot.line([border, border], [low, high], "c-soft dotted")
    for log in logs:
        plot.line(*log.train, "c-ce thin dashed")
    for log in logs:
        plot.line(*log.valid, "c-aucm" if len(logs) == 1 else "c-aucm thin")
        for x, y in zip(*log.valid):
            plot.dot(x, y, "c-aucm small", f"step {x}: {y:.4f}")
    ended = f"{np.mean(best):.3f} on average over {len(best)} folds" if best else "unknown"
    return plot.svg(
        f"Training curves of {run}. Validation AUC at the end: {ended}", clip=f"auc-{run}"
    )


def alpha_plot(run: str, logs: list[Curves]) -> str:
    """α of all folds, the gap between class means, and the gap's bound."""
    curves = [curve for log in logs for curve in (log.alpha, log.gap, log.reach)]
    start = min(log.alpha[0][0] for log in logs if log.alpha[0])
    low, high = span([0.0, *(value for curve in curves for value in curve[1])])
    plot = Plot(
        (min(start, *(log.border for log in logs)), 1.02 * max(log.last for log in logs)),
        (low, high),
        "step",
        "α, gap of means",
    )
    for log in logs:
        plot.line(*log.reach, "c-soft thin dashed")
        plot.line(*log.gap, "c-other thin")
    for log in logs:
        plot.line(*log.alpha, "c-final" if len(logs) == 1 else "c-final thin strong")
    ends = [log.alpha[1][-1] for log in logs if log.alpha[1]]
    return plot.svg(
        f"α of {run} over the steps of stage 2; at the end {np.mean(ends):.3f} on average over "
        "folds",
        clip=f"alpha-{run}",
    )


MARGIN = 0.03  # of a curve's range, kept free above and below
