"""Section "Training": AUC over the steps of both stages, and α beside the gap of the class means,
per run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.artifacts.paths import fold_folder, models_folder
from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.run import METADATA
from pipeline.core.report.figures.svg import Plot
from pipeline.core.report.figures.training_curves import Curves, curves_of
from pipeline.core.report.html import figure, legend, paragraph, side_by_side, source
from pipeline.core.report.inputs import Evidence

AXIS_MARGIN = 0.03  # of a curve's range, kept free above and below
MIN_RANGE = 0.02  # so that noise of a flat curve is not drawn as large
STEP_MARGIN = 1.02  # the step axis ends a little after the last step


def training(evidence: Evidence, trained: Sequence[str]) -> str:
    """Per run: AUC over the steps of both stages, and α beside the gap of the class means."""
    runs = list(trained)
    if evidence.metadata is not None:
        runs.append(METADATA)
    drawings = []
    for run in runs:
        made_by = f"make finetune COMP={evidence.name} RUN={run}"
        logs = [curves_of(read_log(path, made_by)) for path in log_files(evidence, run)]
        text = "AUC; the dotted line is where stage 2 begins" if logs[0].border else "AUC"
        drawings.append(figure(auc_plot(run, logs), run, text))
        # only the AUC losses have an α
        if any(len(log.alpha[0]) > 1 for log in logs):
            text = "stage 2: α and the gap of class means it acts on"
            drawings.append(figure(alpha_plot(run, logs), run, text))

    text = (
        "Thin lines are single folds. In stage 2, α grows as long as the gap between the mean "
        "scores of the classes is below the margin, and falls to 0 when it is beyond it. The gap "
        "is that of one batch, so it jumps; with normalised scores it cannot exceed its bound."
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
        + side_by_side(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/log.jsonl",
            f"make finetune COMP={evidence.name}",
        )
    )


def log_files(evidence: Evidence, run: str) -> list[Path]:
    """The log of each fold."""
    return [fold_folder(evidence.name, run, fold) / "log.jsonl" for fold in evidence.rows.folds]


def axis_range(values: list[float]) -> tuple[float, float]:
    """A range that holds the values with a margin; [0, 1] and a margin without values."""
    low = min(values, default=0.0)
    high = max(values, default=1.0)
    free = max((high - low) * AXIS_MARGIN, MIN_RANGE / 2)
    return low - free, high + free


def auc_plot(run: str, logs: list[Curves]) -> str:
    """Validation and training AUC of all folds."""
    values = []
    for log in logs:
        values += log.valid[1] + log.train[1]
    low, high = axis_range(values)
    last_step = max(log.last for log in logs)
    plot = Plot((0, STEP_MARGIN * last_step), (max(low, 0), min(high, 1)), "step", "AUC")

    # the border of the stages below the curves, training below validation
    border = max(log.border for log in logs)
    if border:
        plot.line([border, border], [low, high], "c-soft dotted")
    for log in logs:
        plot.line(*log.train, "c-ce thin dashed")
    for log in logs:
        plot.line(*log.valid, "c-aucm" if len(logs) == 1 else "c-aucm thin")
        for x, y in zip(*log.valid):
            plot.dot(x, y, "c-aucm small", f"step {x}: {y:.4f}")

    ends = [log.valid[1][-1] for log in logs if log.valid[1]]
    ended = f"{np.mean(ends):.3f} on average over {len(ends)} folds" if ends else "unknown"
    described = f"Training curves of {run}. Validation AUC at the end: {ended}"
    return plot.svg(described, clip=f"auc-{run}")


def alpha_plot(run: str, logs: list[Curves]) -> str:
    """α of all folds, the gap between class means, and the gap's bound."""
    values = [0.0]
    for log in logs:
        values += log.alpha[1] + log.gap[1] + log.reach[1]
    first_alpha = min(log.alpha[0][0] for log in logs if log.alpha[0])
    start = min(first_alpha, *(log.border for log in logs))
    end = STEP_MARGIN * max(log.last for log in logs)
    plot = Plot((start, end), axis_range(values), "step", "α, gap of means")

    # α above the others
    for log in logs:
        plot.line(*log.reach, "c-soft thin dashed")
        plot.line(*log.gap, "c-other thin")
    for log in logs:
        plot.line(*log.alpha, "c-final" if len(logs) == 1 else "c-final thin strong")

    ends = [log.alpha[1][-1] for log in logs if log.alpha[1]]
    described = (
        f"α of {run} over the steps of stage 2; at the end {np.mean(ends):.3f} on average over "
        "folds"
    )
    return plot.svg(described, clip=f"alpha-{run}")
