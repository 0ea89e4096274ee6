"""Section "Test-time views": the AUC of the mean of the first 1, 2, 4, ... views, and its paired
gain over one view."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.paths import PREDICTIONS, fold_folder, models_folder
from pipeline.core.artifacts.tables import align
from pipeline.core.config.task import Task
from pipeline.core.ensemble.members import Rows
from pipeline.core.ensemble.scores import difference_row, difference_text
from pipeline.core.ensemble.units import to_units
from pipeline.core.metrics.roc import classes, mean_auc
from pipeline.core.report.figures.svg import difference_bar, limits_of
from pipeline.core.report.html import drawn, html_table, paragraph, scale, side_by_side, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.errors import UserError

VIEWS_FILE = "predictions_views.npz"
# how far the mean of the views may be from predictions.csv, which is rounded
TOLERANCE = 1e-4


def view_counts(views: int) -> list[int]:
    """1, 2, 4, ... and the last: all of them.

    >>> view_counts(30)
    [1, 2, 4, 8, 16, 30]
    """
    powers = [2**k for k in range(views.bit_length()) if 2**k <= views]
    return sorted({*powers, views})


def read_views(name: str, run: str, rows: Rows, labels: Sequence[str]) -> np.ndarray:
    """(n, V, K) out-of-fold scores of every view, the rows of `rows.validated`; labels that the run
    lacks are NaN. V: the fewest views of a fold.

    UserError where a file is missing, lacks an image, or its mean is not what predictions.csv says.
    """
    parts = []
    for fold in rows.folds:
        path = fold_folder(name, run, fold) / VIEWS_FILE
        if not path.is_file():
            raise UserError(
                f"{path}: there is no such file; `make predict COMP={name} RUN={run}` makes it, "
                f"once {PREDICTIONS} beside it is deleted"
            )
        ids, own_labels, views = load_views(path)

        # rows and labels in the order of all runs
        wanted = rows.validated["image_id"][rows.validated["fold"] == fold]
        table = pd.DataFrame({"image_id": ids})
        places = align(path, table, wanted, f"that fold {fold} validates")
        require_same_mean(path, ids, own_labels, views)
        part = np.full((len(wanted), views.shape[1], len(labels)), np.nan)
        part[:, :, [labels.index(label) for label in own_labels]] = views[places]
        parts.append(part)
    # folds may have been predicted with different numbers of views
    fewest = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :fewest] for part in parts])


def load_views(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image ids (n,), labels (K,), scores (n, V, K)) of one file; UserError for a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["image_id"], stored["labels"], stored["views"]
    # An archive's checksums find every changed byte, and numpy and zipfile tell it in many ways.
    except (ValueError, KeyError, EOFError, OSError, NotImplementedError, BadZipFile) as error:
        raise UserError(
            f"{path}: damaged ({error}); delete it and {PREDICTIONS} beside it and predict again"
        ) from None


def require_same_mean(path: Path, ids: np.ndarray, labels: np.ndarray, views: np.ndarray) -> None:
    """Raise where the mean over views (n, V, K) is not the score in predictions.csv: the two were
    made at different times."""
    table = read_predictions(path.with_name(PREDICTIONS))[0].set_index("image_id")
    scores = table.loc[ids, list(labels)].to_numpy(np.float64)
    means = views.mean(axis=1, dtype=np.float64)
    if len(ids) and not np.allclose(means, scores, atol=TOLERANCE):
        raise UserError(
            f"{path}: its mean is not the score in {PREDICTIONS} beside it; delete both and "
            "predict again"
        )


def view_gains(
    views: np.ndarray, rows: Rows, truth: np.ndarray, patients: np.ndarray, task: Task
) -> list[dict]:
    """Per number of views: views, auc, and, beyond one, difference, low, high, p of the paired gain
    over one view.

    views: (n, V, K) of images; truth: (U, K), patients: (U,) of units. The AUC is the mean over the
    labels that can be scored; intervals are over patients.
    """
    # gains are over one view, the first
    one_view = to_units(rows.validated, views[:, :1].mean(axis=1), task)
    gains = []
    for count in view_counts(views.shape[1]):
        scores = to_units(rows.validated, views[:, :count].mean(axis=1), task)
        row = {"views": count, "auc": mean_auc_of(scores, truth)}
        if count > 1:
            row |= difference_row(str(count), "1", scores, one_view, truth, patients) or {}
        gains.append(row)
    return gains


def mean_auc_of(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean AUC over the labels that can be scored, NaN where there is none."""
    scored = ~np.isnan(scores).any(axis=0) & classes(truth)
    return mean_auc(scores[:, scored], truth[:, scored]) if scored.any() else float("nan")


def views(evidence: Evidence, trained: Sequence[str]) -> str:
    """What 2, 4, ... views gain over one, per run."""
    task = evidence.competition.task
    gains = {}
    for run in tqdm(trained, desc="gain of views", unit="run", leave=False):
        scores = read_views(evidence.name, run, evidence.rows, task.labels)
        gains[run] = view_gains(
            scores, evidence.rows, evidence.units.truth, evidence.patients, task
        )

    # one scale for all runs
    ends = [0.0]
    for rows in gains.values():
        for row in rows:
            if "difference" in row:
                ends += [row["low"], row["high"]]
    limits = limits_of(ends, 0.01)

    tables = []
    for run, rows in gains.items():
        lines = []
        for row in rows:
            gain = ["", ""]
            if "difference" in row:
                gain = [difference_text(row), drawn(difference_bar(row, limits))]
            lines.append([row["views"], f"{row['auc']:.4f}", *gain])
        head = ["views", "AUC", "gain over 1 [95 %]", scale(limits)]
        tables.append(html_table(head, lines, f"{run}, {evidence.stage_2}"))
    text = (
        "The first view is the image itself; the others are its mirror images and turns, then "
        "small changes of angle, size and place. Scores of the first v views are averaged; gains "
        "are paired, over patients. Green where the interval excludes 0."
    )
    return (
        paragraph(text)
        + side_by_side(tables, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/{VIEWS_FILE}",
            f"make predict COMP={evidence.name}",
        )
    )
