"""Section "Scores of positives and negatives": histograms by class, after each stage."""

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.config.stages import FINAL, MEAN_LABEL, STAGE_1
from pipeline.core.metrics import auc
from pipeline.core.metrics.roc import classes
from pipeline.core.report.figures.svg import Plot, nice_ticks, step_outline
from pipeline.core.report.html import figure, legend, paragraph, side_by_side, source
from pipeline.core.report.inputs import Evidence

BINS = (10, 40)  # fewest and most; the square root of the rarer class, doubled, between them
ROOT_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # of a square-root axis of shares

# colours of the classes
NEGATIVE = "c-ce"
POSITIVE = "c-aucm"


def histograms(evidence: Evidence) -> str:
    """Scores of positives and negatives after each stage, of the run that is best after stage 2
    (paper, figure 2)."""
    run = best_run(evidence)
    truth = evidence.units.truth
    # the final scores are those of stage 2 where there is nothing to average or blend
    stages = {}
    if run in evidence.before:
        stages[STAGE_1] = evidence.before[run]
    stages[evidence.stage_2] = evidence.after[run]
    if len(evidence.after) > 1 or not evidence.final_is_mean_after:
        stages[FINAL] = evidence.final

    # labels are compared, so a stage has one range and one height
    drawings = []
    ranges = {name: histogram_range(scores[~np.isnan(scores)]) for name, scores in stages.items()}
    tops = dict.fromkeys(stages, 0.0)
    scored = np.flatnonzero(classes(truth))
    for k in scored:
        for name, scores in stages.items():
            if not np.isnan(scores[:, k]).any():
                shares = class_shares(scores[:, k], truth[:, k], ranges[name])[1]
                tops[name] = max(tops[name], 1.05 * float(np.max(shares)))
    for k in scored:
        for name, scores in stages.items():
            if not np.isnan(scores[:, k]).any():
                title = f"{evidence.labels[k]}, {name}" if len(evidence.labels) > 1 else name
                box = (ranges[name], (0.0, tops[name]))
                drawings.append(histogram(title, scores[:, k], truth[:, k], *box))
    text = (
        f"Out-of-fold scores of {run} after each stage, and the final ones. Each class is shown "
        "as shares of its own, so that the rare one can be seen; a square-root scale keeps small "
        "bars visible."
    )
    return (
        paragraph(text)
        + legend([(POSITIVE, "positives"), (NEGATIVE, "negatives")])
        + side_by_side(drawings, pairs=len(stages) == 2)
        + source(
            f"{models_folder(evidence.name)}/{run}/fold*/predictions*.csv",
            f"make predict COMP={evidence.name} RUN={run}",
        )
    )


def best_run(evidence: Evidence) -> str:
    """The run with the highest mean AUC after stage 2; the first where none has a mean."""
    scores = evidence.scores
    means = scores[(scores["label"] == MEAN_LABEL) & (scores["stage"] == evidence.stage_2)]
    if not len(means):
        return next(iter(evidence.after))
    return means.loc[means["auc"].idxmax(), "member"]


def class_shares(
    scores: np.ndarray, truth: np.ndarray, limits: tuple[float, float]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(edges of the bins, shares of the negatives and of the positives in each)."""
    positives = scores[truth == 1]
    negatives = scores[truth == 0]
    # more bins where the rarer class can fill them
    bins = int(np.clip(2 * np.sqrt(min(len(positives), len(negatives))), *BINS))
    edges = np.linspace(*limits, bins + 1)
    shares = []
    for values in (negatives, positives):
        shares.append(np.histogram(values, edges)[0] / max(len(values), 1))
    return edges, shares


def histogram(
    name: str,
    scores: np.ndarray,
    truth: np.ndarray,
    limits: tuple[float, float],
    height: tuple[float, float],
) -> str:
    """One panel over these limits of the score and this height of the shares.

    scores, truth: (U,) of one label; NaN truth is left out.
    """
    low, high = limits
    top = height[1]
    positives = scores[truth == 1]
    negatives = scores[truth == 0]
    edges, shares = class_shares(scores, truth, limits)

    x_label = "score" if high - low > 0.9 else "score (its own range)"
    plot = Plot(limits, height, x_label, "share of the class", root=True)
    for share, style in zip(shares, (NEGATIVE, POSITIVE)):
        x, y = step_outline(edges, share)
        plot.area(x, np.zeros(len(x)), y, style)
        plot.line(x, y, style)

    area = auc(scores, truth)
    mean_positive = positives.mean()
    mean_negative = negatives.mean()
    described = (
        f"Histogram of scores, {name}. AUC {area:.3f}; mean score of positives "
        f"{mean_positive:.3g}, of negatives {mean_negative:.3g}"
    )
    y_ticks = [tick for tick in ROOT_TICKS if tick <= top]
    svg = plot.svg(described, nice_ticks(low, high, 5), y_ticks)
    return figure(svg, name, f"AUC {area:.3f}; means {mean_positive:.3g} and {mean_negative:.3g}")


def histogram_range(scores: np.ndarray) -> tuple[float, float]:
    """[0, 1] where the scores fill half of it, else their own range."""
    low = float(scores.min())
    high = float(scores.max())
    if np.ptp(scores) >= 0.5 and low >= 0 and high <= 1:
        return 0.0, 1.0
    # a constant still needs a width
    return low, (high if high > low else low + 1e-6)
