"""Report section: ROC curves with bands, histograms of scores by class."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.metrics import auc, roc_band, roc_points
from pipeline.core.metrics.roc import classes
from pipeline.core.report.html import figure, legend, panels, paragraph, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import Plot, nice_ticks, steps, thinned

BINS = (10, 40)  # fewest and most; the square root of the rarer class, doubled, between them
ROOT_TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)  # of a square-root axis of shares


def stages(evidence: Evidence) -> list[tuple[str, str, np.ndarray]]:
    """(style, name, scores) of what the curves compare: stage 1, stage 2, the final scores."""
    runs = "" if len(evidence.after) == 1 else f", mean of {len(evidence.after)} runs"
    before, made = evidence.mean_before(), []
    if before is not None:
        made.append(("c-ce", "CE" + runs, before))
    made.append(("c-aucm", evidence.stage_2 + runs, evidence.mean_after()))
    if evidence.facts["metadata"]:
        made.append(("c-final", "with metadata (final)", evidence.final))
    return made


def roc(evidence: Evidence) -> str:
    """A curve for each stage and label, the last with its band, and the corner beside it."""
    drawings, truth = [], evidence.units.truth
    scored = [k for k, both in enumerate(classes(truth)) if both]
    for k in tqdm(scored, desc="ROC bands, 1,000 resamples each", unit="label", leave=False):
        lines = [
            (style, name, roc_points(scores[:, k], truth[:, k])[:2])
            for style, name, scores in stages(evidence)
            if not np.isnan(scores[:, k]).any()
        ]
        band = roc_band(stages(evidence)[-1][2][:, k], truth[:, k], evidence.patients)
        areas = ", ".join(
            f"{name} {auc(scores[:, k], truth[:, k]):.3f}" for _, name, scores in stages(evidence)
        )
        side = max(corner(*curve) for _, _, curve in lines)
        for limit in (1.0, side):
            plot = roc_plot(lines, band, stages(evidence)[-1][0], limit)
            described = f"ROC curve of {evidence.labels[k]}" + (
                ", upper left corner" if limit < 1 else ""
            )
            svg = plot.svg(f"{described}. AUC: {areas}", clip=f"roc{k}{'z' if limit < 1 else ''}")
            drawings.append(
                figure(
                    svg,
                    evidence.labels[k],
                    areas if limit == 1 else "the corner where one would work",
                )
            )
    keys = [(style, name) for style, name, _ in stages(evidence)]
    final = stages(evidence)[-1]
    return (
        legend(
            [*keys, (f"{final[0]} band", f"95 % band of “{final[1]}”, pointwise, over patients")]
        )
        + panels(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/predictions*.csv, ensemble.csv",
            f"make predict COMP={evidence.name}",
        )
    )


def roc_plot(lines: Sequence, band: tuple, style: str, side: float, points: Sequence = ()) -> Plot:
    """Axes over the upper left square of that side; points: (specificity, sensitivity, name) of
    readers."""
    plot = Plot((0, side), (1 - side, 1), "false positive rate (1 − specificity)", "sensitivity")
    if side == 1:
        plot.line([0, 1], [0, 1], "c-soft thin dotted")
    plot.area(*band, style)
    for colour, name, (x, y) in lines:
        plot.line(*thinned(x, y), colour, name)
    for specificity, sensitivity, name in points:
        plot.dot(1 - specificity, sensitivity, "c-other", name)
    return plot


def corner(x: np.ndarray, y: np.ndarray) -> float:
    """The side of the upper left square to zoom into: as small as the curve's best point allows."""
    distance = float(np.min(np.maximum(x, 1 - y)))
    return next((side for side in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6) if side >= 1.5 * distance), 0.6)


def histograms(evidence: Evidence) -> str:
    """Scores of positives and negatives after each stage, of the run that is best after stage 2
    (paper, figure 2)."""
    run, truth, drawings = best_run(evidence), evidence.units.truth, []
    shown = [
        ("CE", evidence.before.get(run)),
        (evidence.stage_2, evidence.after[run]),
        ("final", evidence.final),
    ]
    shown = [
        (name, scores)
        for name, scores in shown[: 2 if alone(evidence) else 3]
        if scores is not None
    ]
    for k in np.flatnonzero(classes(truth)):
        for name, scores in shown:
            if not np.isnan(scores[:, k]).any():
                drawings.append(
                    histogram(
                        f"{evidence.labels[k]}, {name}" if len(evidence.labels) > 1 else name,
                        scores[:, k],
                        truth[:, k],
                    )
                )
    text = (
        f"Out-of-fold scores of {run} after each stage, and the final ones. Each class is shown "
        "as shares of its "
        "own, so that the rare one can be seen; a square-root scale keeps small bars visible."
    )
    return (
        paragraph(text)
        + legend([("c-aucm", "positives"), ("c-ce", "negatives")])
        + panels(drawings, pairs=len(shown) == 2)
        + source(
            f"{models_folder(evidence.name)}/{run}/fold*/predictions*.csv",
            f"make predict COMP={evidence.name} RUN={run}",
        )
    )


def alone(evidence: Evidence) -> bool:
    """True where the final scores are those of the only run."""
    return len(evidence.after) == 1 and not evidence.facts["metadata"]


def best_run(evidence: Evidence) -> str:
    """The run with the highest mean AUC after stage 2; the first where none has a mean."""
    means = evidence.scores[
        (evidence.scores["label"] == "mean") & (evidence.scores["stage"] == evidence.stage_2)
    ]
    return means.loc[means["auc"].idxmax(), "member"] if len(means) else next(iter(evidence.after))


def histogram(name: str, scores: np.ndarray, truth: np.ndarray) -> str:
    """One panel: over [0, 1] where the scores fill half of it, else over their own range."""
    known = scores[~np.isnan(truth)]
    low, high = (
        (0.0, 1.0)
        if np.ptp(known) >= 0.5 and known.min() >= 0 and known.max() <= 1
        else (float(known.min()), float(known.max()))
    )
    high = high if high > low else low + 1e-6
    rarer = min((truth == value).sum() for value in (0, 1))
    edges = np.linspace(low, high, int(np.clip(2 * np.sqrt(rarer), *BINS)) + 1)
    shares = [
        np.histogram(scores[truth == value], edges)[0] / max((truth == value).sum(), 1)
        for value in (0, 1)
    ]
    top = float(max(share.max() for share in shares)) * 1.05
    plot = Plot(
        (low, high),
        (0, top),
        "score" if high - low > 0.9 else "score (its own range)",
        "share of the class",
        root=True,
    )
    for share, style in zip(shares, ("c-ce", "c-aucm")):
        x, y = steps(edges, share)
        plot.area(x, np.zeros(len(x)), y, style)
        plot.line(x, y, style)
    area = auc(scores, truth)
    means = [scores[truth == value].mean() for value in (1, 0)]
    described = f"{name}: AUC {area:.3f}; mean score of positives {means[0]:.3g}, of negatives {means[1]:.3g}"
    svg = plot.svg(
        f"Histogram of scores. {described}",
        nice_ticks(low, high, 5),
        [tick for tick in ROOT_TICKS if tick <= top],
    )
    return figure(svg, name, f"AUC {area:.3f}; means {means[0]:.3g} and {means[1]:.3g}")
