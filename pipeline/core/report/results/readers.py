"""Section "Against radiologists": the final test scores and the points of radiologists, where the
test truth is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.tables import align
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.metrics import auc, auc_interval, readers_below_curve, roc_band, roc_points
from pipeline.core.report.figures.roc_curves import corner_side, roc_plot
from pipeline.core.report.html import figure, html_table, legend, paragraph, side_by_side, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.truth import Truth, read_readers, read_truth, reader_files

RADIOLOGIST_SIDES = (0.2, 0.4, 0.6, 0.8)  # of the upper left square that holds all radiologists


def against_readers(evidence: Evidence, truth_file: Path, folder: Path) -> str:
    """ROC curves of the final test scores with a point per radiologist, and how many lie below.

    folder: a CSV of 0/1 calls per radiologist.
    """
    truth = read_truth(evidence.competition, truth_file)
    scores = scores_of_truth(evidence, truth_file, truth)
    points = read_readers(evidence.competition, folder, truth)
    names = [path.name.split(".csv")[0] for path in reader_files(folder)]

    drawings = []
    rows = []
    for k, label in enumerate(evidence.labels):
        own = scores[:, k]
        known = truth.labels[:, k]

        # a row of the table
        below = f"{readers_below_curve(own, known, points[label])} of {len(points[label])}"
        area = with_interval(auc(own, known), *auc_interval(own, known, truth.groups))
        rows.append([label, area, below, len(known), int((known == 1).sum())])

        # the whole square, then the corner that holds the curve's best point and all radiologists
        lines = [("c-final", "final scores", roc_points(own, known)[:2])]
        band = roc_band(own, known, truth.groups)
        readers = [(*point, name) for point, name in zip(points[label], names)]
        described = f"ROC curve of {label} with radiologists; {below} lie below it"
        svg = roc_plot(lines, band, "c-final", 1.0, readers).svg(described, clip=f"readers{k}")
        drawings.append(figure(svg, label, f"{below} radiologists below"))
        side = max(corner_side(*lines[0][2]), readers_side(points[label]))
        svg = roc_plot(lines, band, "c-final", side, readers).svg(described, clip=f"readers{k}z")
        drawings.append(figure(svg, label, "upper left corner"))

    text = (
        f"The test scores of ensemble.csv against {truth_file.name}; points are radiologists, "
        "counted as below by the organiser's rule."
    )
    head = ["label", "AUC [95 % interval]", "radiologists below", "n", "positives"]
    return (
        paragraph(text)
        + html_table(head, rows)
        + legend([("c-final", "final scores, with their band"), ("c-other", "a radiologist")])
        + side_by_side(drawings, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/ensemble.csv, {truth_file}, {folder}",
            f"python -m pipeline.report {evidence.name} --truth {truth_file} --readers {folder}",
        )
    )


def readers_side(points: Sequence[tuple[float, float]]) -> float:
    """The side of the upper left square that holds all points (specificity, sensitivity), 0.8 at
    most."""
    reach = max(max(1 - specificity, 1 - sensitivity) for specificity, sensitivity in points)
    for side in RADIOLOGIST_SIDES:
        if side >= reach:
            return side
    return RADIOLOGIST_SIDES[-1]


def scores_of_truth(evidence: Evidence, path: Path, truth: Truth) -> np.ndarray:
    """(n, K) final scores of the truth's units; UserError naming those that ensemble.csv lacks.

    path: the truth's file, for the error's text.
    """
    own = evidence.test["unit_id"].map(plain_id)
    wanted = truth.ids

    # paths begin with the download's folder, CheXpert-v1.0 or CheXpert-v1.0-small: where they have
    # nothing in common, what follows the folder is compared
    own_inside = own.str.partition("/")[2]
    wanted_inside = wanted.str.partition("/")[2]
    same_inside = own_inside.is_unique and wanted_inside.isin(own_inside).all()
    if not own.isin(wanted).any() and same_inside:
        own = own_inside
        wanted = wanted_inside

    kept = evidence.test.assign(unit_id=own)[own.isin(wanted)]
    file = models_folder(evidence.name) / "ensemble.csv"
    places = align(file, kept, wanted, f"of {path}", "unit_id")
    return kept[list(evidence.labels)].to_numpy(np.float64)[places]
