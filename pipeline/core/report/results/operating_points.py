"""Section "Operating points": what a threshold does, with intervals, predictive values, counts, and
the precision-recall curve."""

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.ensemble.scores import TOO_FEW
from pipeline.core.metrics import (
    OperatingPoint,
    confusion_counts,
    points_at_sensitivities,
    points_at_specificities,
    predictive_values,
)
from pipeline.core.metrics.precision_recall import average_precision
from pipeline.core.metrics.roc import classes
from pipeline.core.report.figures.precision_recall import precision_recall_plot
from pipeline.core.report.html import (
    figure,
    html_table,
    paragraph,
    side_by_side,
    source,
)
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.origins.first_screen import ASKED

RATES = (0.8, 0.9, 0.95)  # specificities, and sensitivities, that are looked at


def points_of_labels(evidence: Evidence) -> dict[str, list[OperatingPoint]]:
    """label -> its points at the specificities RATES, then at the sensitivities RATES, of the final
    scores; labels of one class are left out."""
    points = {}
    for k in np.flatnonzero(classes(evidence.units.truth)):
        own = (evidence.final[:, k], evidence.units.truth[:, k])
        points[evidence.labels[k]] = [
            *points_at_specificities(*own, RATES, evidence.patients),
            *points_at_sensitivities(*own, RATES, evidence.patients),
        ]
    return points


def asked_points(points: dict[str, list[OperatingPoint]]) -> dict[str, OperatingPoint]:
    """label -> the point at the specificity of the first screen."""
    return {label: own[RATES.index(ASKED)] for label, own in points.items()}


def operating_points(
    evidence: Evidence, points: dict[str, list[OperatingPoint]], prevalence: float
) -> str:
    """A table, a curve and the counts of each label; prevalence: the stated one."""
    tables = []
    curves = []
    for label, own in points.items():
        k = evidence.labels.index(label)
        truth = evidence.units.truth[:, k]
        scores = evidence.final[:, k]
        tables.append(point_table(label, own, data_prevalence(truth), prevalence))
        area = average_precision(scores, truth)
        text = f"average precision {area:.3f}, prevalence {data_prevalence(truth):.3f}"
        curves.append(figure(precision_recall_plot(label, scores, truth), label, text))
    text = (
        "A case is called positive where its final score is at least the threshold. Thresholds "
        "were read off these very out-of-fold scores; intervals, over patients, are of the rate "
        "that was not fixed, the threshold's own error included. PPV and NPV are what the rates "
        "mean where "
        f"the prevalence is that of these data, and where it is {100 * prevalence:g} % "
        "(--prevalence changes that)."
    )
    return (
        paragraph(text)
        + "".join(tables)
        + count_table(evidence, points)
        + paragraph("Precision and recall; the dotted line is the prevalence, which chance has.")
        + side_by_side(curves, pairs=True)
        + source(f"{models_folder(evidence.name)}/ensemble.csv", evidence.made_by)
    )


def percent(share: float) -> str:
    """`62.1 %`, `95.0 %`, `0.500 %`: three digits, so that a column's values line up."""
    return f"{100 * share:#.3g}".rstrip(".") + " %"


def data_prevalence(truth: np.ndarray) -> float:
    """The share of positives among the labelled."""
    return float((truth == 1).sum() / (~np.isnan(truth)).sum())


def point_table(label: str, points: list[OperatingPoint], here: float, stated: float) -> str:
    """Sensitivities at given specificities and the reverse."""
    rows = []
    for point in points:
        sensitivity = percent(point.sensitivity)
        specificity = percent(point.specificity)
        if point.fixed == "specificity":
            sensitivity = found_text(point)
        else:
            specificity = found_text(point)
        rows.append(
            [
                f"{point.fixed} {100 * point.at:g}\N{NO-BREAK SPACE}%",
                sensitivity,
                specificity,
                f"{point.threshold:.4g}",
                *predictive_texts(point, here),
                *predictive_texts(point, stated),
            ]
        )
    head = ["at", "sensitivity", "specificity", "threshold"]
    for prevalence in (here, stated):
        head += [f"PPV, {100 * prevalence:.3g} % positive", "NPV"]
    return html_table(head, rows, f"{label}: operating points of the final scores")


def found_text(point: OperatingPoint) -> str:
    """`62.1 % [48.0, 74.9]` of the rate that was not fixed."""
    if np.isnan(point.low):
        return TOO_FEW
    return f"{percent(point.found)} [{100 * point.low:.1f}, {100 * point.high:.1f}]"


def predictive_texts(point: OperatingPoint, prevalence: float) -> list[str]:
    """PPV and NPV, dashes where there are too few to tell."""
    if np.isnan(point.low):
        return ["–", "–"]
    values = predictive_values(point.sensitivity, point.specificity, prevalence)
    return ["–" if np.isnan(value) else percent(value) for value in values]


def count_table(evidence: Evidence, points: dict[str, list[OperatingPoint]]) -> str:
    """Confusion counts of each label at the first screen's point."""
    rows = []
    for label, point in asked_points(points).items():
        k = evidence.labels.index(label)
        counts = confusion_counts(evidence.final[:, k], evidence.units.truth[:, k], point.threshold)
        rows.append([label, f"{point.threshold:.4g}", *(f"{n:,}" for n in counts.values())])
    head = [
        "label",
        "threshold",
        "true positives",
        "false positives",
        "false negatives",
        "true negatives",
    ]
    return html_table(head, rows, f"Confusion counts at {100 * ASKED:g} % specificity")
