"""Section "Calibration and benefit": whether scores are probabilities, before and after a map
fitted out of fold, and what acting on them would gain."""

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.ensemble.selection import patient_folds
from pipeline.core.metrics.calibration import CALIBRATIONS, brier, calibrated, reliability
from pipeline.core.metrics.roc import classes
from pipeline.core.metrics.score_interval import FEW
from pipeline.core.report.figures.decision_curve import decision_plot
from pipeline.core.report.figures.reliability import axis_end, reliability_plot
from pipeline.core.report.html import (
    figure,
    html_table,
    legend,
    paragraph,
    side_by_side,
    source,
)
from pipeline.core.report.inputs import Evidence


def calibration(evidence: Evidence) -> str:
    """Brier scores, a reliability curve and a decision curve of each label."""
    fold = evidence.units.keys["fold"].to_numpy()
    if len(np.unique(fold)) == 1:
        fold = patient_folds(evidence.patients)
    rows = []
    curves_of = {}
    fitted_of = {}
    for k in np.flatnonzero(classes(evidence.units.truth)):
        label = evidence.labels[k]
        truth = evidence.units.truth[:, k]
        scores = evidence.final[:, k]
        positives = int((truth == 1).sum())
        if positives < FEW:
            continue
        fitted = {method: calibrated(scores, truth, fold, method) for method in CALIBRATIONS}
        rows.append(brier_row(label, scores, fitted, truth))
        if any(np.isnan(values).any() for values in fitted.values()):
            continue
        fitted_of[k] = fitted[CALIBRATIONS[0]]
        curves_of[k] = {
            name: reliability(values, truth, evidence.patients)
            for name, values in {"raw": scores, **fitted}.items()
        }
    if not rows:
        return paragraph(f"No label has {FEW} positives: calibration is not looked at.")

    # a reliability and a decision curve of each label
    top = axis_end(list(curves_of.values()))
    drawings = []
    for k, curves in curves_of.items():
        label = evidence.labels[k]
        drawings.append(figure(reliability_plot(label, curves, top), label, "said against seen"))
        svg = decision_plot(label, fitted_of[k], evidence.units.truth[:, k])
        text = "net benefit of acting on the calibrated score"
        drawings.append(figure(svg, label, text))
    text = (
        "The AUC losses rank; their scores are no probabilities until a map is fitted. Platt's and "
        "the isotonic map are fitted for each fold on the others. Bars are 95 % intervals over "
        "patients. The net benefit counts a true positive as 1 and a false one as t / (1 − t), t "
        "being the probability from which one would act."
    )
    keys = [
        ("c-ce", "scores as they are"),
        ("c-aucm", CALIBRATIONS[0]),
        ("c-final dashed", CALIBRATIONS[1]),
        ("c-soft dashed", "acting on all"),
    ]
    head = ["label", "as they are", *CALIBRATIONS, "always the prevalence", "positives"]
    return (
        paragraph(text)
        + html_table(head, rows, "Brier score, lower is better")
        + legend(keys)
        + side_by_side(drawings, pairs=True)
        + source(f"{models_folder(evidence.name)}/ensemble.csv", evidence.made_by)
    )


def brier_row(
    label: str, scores: np.ndarray, fitted: dict[str, np.ndarray], truth: np.ndarray
) -> list[str]:
    """The Brier scores of one label; a dash where a fold's map could not be fitted."""
    known = truth[~np.isnan(truth)]
    prevalence = known.mean()
    cells = [label, f"{brier(scores, truth):.4f}"]
    for values in fitted.values():
        cells.append("–" if np.isnan(values).any() else f"{brier(values, truth):.4f}")
    return [*cells, f"{prevalence * (1 - prevalence):.4f}", f"{int(known.sum()):,}"]
