"""Section "ROC curves": a curve for each stage and label, with a band, and the corner beside it."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.config.stages import STAGE_1
from pipeline.core.metrics import auc, roc_band, roc_points
from pipeline.core.metrics.roc import classes
from pipeline.core.report.figures.svg import Plot, thinned_curve
from pipeline.core.report.html import figure, legend, side_by_side, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.names import STAGE_2_STYLE, style_of

ZOOMED_SIDES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # of the upper left square that is drawn larger
AIR = 1.5  # the square's side over the distance of the curve's best point from the corner


def curves_compared(evidence: Evidence) -> list[tuple[str, str, np.ndarray]]:
    """(style, name, scores (U, K)) of what the curves compare: stage 1, stage 2, the final
    scores."""
    count = len(evidence.after)
    runs = "" if count == 1 else f", mean of {count} runs"
    curves = []
    before = evidence.mean_before()
    if before is not None:
        curves.append((style_of(STAGE_1), STAGE_1 + runs, before))
    curves.append((STAGE_2_STYLE, evidence.stage_2 + runs, evidence.mean_after()))
    if not evidence.final_is_mean_after:
        name = "with metadata (final)" if evidence.facts["metadata"] else "final"
        curves.append((style_of(evidence.final_stage), name, evidence.final))
    return curves


def roc(evidence: Evidence) -> str:
    """A curve for each stage and label, the last with its band, and the corner beside it."""
    truth = evidence.units.truth
    compared = curves_compared(evidence)
    final_style, final_name, final_scores = compared[-1]
    drawings = []
    scored = np.flatnonzero(classes(truth))
    # labels are compared, so all corners are of one size
    side = common_side(evidence, compared)
    for k in tqdm(scored, desc="ROC bands", unit="label", leave=False):
        label = evidence.labels[k]
        lines = []
        for style, name, scores in compared:
            if not np.isnan(scores[:, k]).any():
                lines.append((style, name, roc_points(scores[:, k], truth[:, k])[:2]))
        # one band only: several would cover each other
        band = roc_band(final_scores[:, k], truth[:, k], evidence.patients)
        areas = ", ".join(
            f"{name} {auc(scores[:, k], truth[:, k]):.3f}" for _, name, scores in compared
        )

        # the whole square, then the corner
        plot = roc_plot(lines, band, final_style, 1.0)
        svg = plot.svg(f"ROC curve of {label}. AUC: {areas}", clip=f"roc{k}")
        drawings.append(figure(svg, label, areas))
        plot = roc_plot(lines, band, final_style, side)
        described = f"ROC curve of {label}, upper left corner. AUC: {areas}"
        svg = plot.svg(described, clip=f"roc{k}z")
        drawings.append(figure(svg, label, "the corner where one would work"))

    keys = [(style, name) for style, name, _ in compared]
    keys.append((f"{final_style} band", f"95 % band of “{final_name}”, pointwise, over patients"))
    return (
        legend(keys)
        + side_by_side(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/predictions*.csv, ensemble.csv",
            f"make predict COMP={evidence.name}",
        )
    )


def common_side(evidence: Evidence, compared: Sequence) -> float:
    """The side of the corner that shows every label's curves; compared: of `curves_compared`."""
    truth = evidence.units.truth
    sides = [ZOOMED_SIDES[0]]
    for k in np.flatnonzero(classes(truth)):
        for _, _, scores in compared:
            if not np.isnan(scores[:, k]).any():
                sides.append(corner_side(*roc_points(scores[:, k], truth[:, k])[:2]))
    return max(sides)


def roc_plot(lines: Sequence, band: tuple, style: str, side: float, points: Sequence = ()) -> Plot:
    """Axes over the upper left square of that side.

    lines   (style, name, (false positive rates, true positive rates)) of each curve
    band    (false positive rates, low, high), drawn in `style`
    points  (specificity, sensitivity, name) of readers
    """
    plot = Plot((0, side), (1 - side, 1), "false positive rate (1 − specificity)", "sensitivity")
    # the diagonal is chance
    if side == 1:
        plot.line([0, 1], [0, 1], "c-soft thin dotted")
    plot.area(*band, style)
    for colour, name, (x, y) in lines:
        plot.line(*thinned_curve(x, y), colour, name)
    for specificity, sensitivity, name in points:
        plot.dot(1 - specificity, sensitivity, "c-other", name)
    return plot


def corner_side(x: np.ndarray, y: np.ndarray) -> float:
    """The side of the upper left square to draw larger: as small as the curve's best point
    allows."""
    distance = float(np.min(np.maximum(x, 1 - y)))
    for side in ZOOMED_SIDES:
        if side >= AIR * distance:
            return side
    return ZOOMED_SIDES[-1]
