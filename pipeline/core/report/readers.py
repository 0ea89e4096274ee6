"""The section of the report that sets the final test scores against radiologists, where the test
truth is known."""

from pathlib import Path

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.tables import align
from pipeline.core.metrics import auc, auc_interval, readers_below_curve, roc_band, roc_points
from pipeline.core.report.html import figure, legend, panels, paragraph, source, table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.roc_curves import corner, roc_plot
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.truth import Truth, read_readers, read_truth


def against_readers(evidence: Evidence, truth: Path, folder: Path) -> str:
    """ROC curves of the final test scores with a point per radiologist, and how many lie below."""
    known = read_truth(evidence.competition, truth)
    scores = test_scores(evidence, truth, known)
    points = read_readers(evidence.competition, folder, known)
    names = [path.name.split(".csv")[0] for path in sorted(folder.glob("*.csv*")) if path.is_file()]
    drawings, rows = [], []
    for k, label in enumerate(evidence.labels):
        own, labels = scores[:, k], known.labels[:, k]
        curve, band = roc_points(own, labels)[:2], roc_band(own, labels, known.groups)
        low, high = auc_interval(own, labels, known.groups)
        below = readers_below_curve(own, labels, points[label])
        beaten = f"{below} of {len(points[label])}"
        rows.append(
            [
                label,
                f"{auc(own, labels):.4f} [{low:.4f}, {high:.4f}]",
                beaten,
                len(labels),
                int((labels == 1).sum()),
            ]
        )
        reach = (
            max(1 - specificity for specificity, _ in points[label]),
            max(1 - tpr for _, tpr in points[label]),
        )
        for side in (
            1.0,
            max(corner(*curve), next((s for s in (0.2, 0.4, 0.6, 0.8) if s >= max(reach)), 0.8)),
        ):
            named = [(*point, name) for point, name in zip(points[label], names)]
            plot = roc_plot([("c-final", "final scores", curve)], band, "c-final", side, named)
            svg = plot.svg(
                f"ROC curve of {label} with radiologists; {beaten} lie below it",
                clip=f"readers{k}{'z' if side < 1 else ''}",
            )
            drawings.append(
                figure(
                    svg, label, f"{beaten} radiologists below" if side == 1 else "upper left corner"
                )
            )
    text = (
        f"The test scores of ensemble.csv against {truth.name}; points are radiologists, counted "
        "as below by the "
        "organiser's rule."
    )
    return (
        paragraph(text)
        + table(["label", "AUC [95 % interval]", "radiologists below", "n", "positives"], rows)
        + legend([("c-final", "final scores, with their band"), ("c-other", "a radiologist")])
        + panels(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/ensemble.csv, {truth}, {folder}",
            f"python -m pipeline.report {evidence.name} --truth {truth} --readers {folder}",
        )
    )


def test_scores(evidence: Evidence, path: Path, known: Truth) -> np.ndarray:
    """(n, K) final scores of the truth's units; UserError naming those that ensemble.csv lacks."""
    own, wanted = evidence.test["unit_id"].map(plain_id), known.ids
    inside = [ids.str.partition("/")[2] for ids in (own, wanted)]
    if not own.isin(wanted).any() and inside[0].is_unique and inside[1].isin(inside[0]).all():
        own, wanted = (
            inside  # paths begin with the download's folder, CheXpert-v1.0 or CheXpert-v1.0-small
        )
    there = evidence.test.assign(unit_id=own)[own.isin(wanted)]
    at = align(
        models_folder(evidence.name) / "ensemble.csv", there, wanted, f"of {path}", "unit_id"
    )
    return there[list(evidence.labels)].to_numpy(np.float64)[at]
