"""What test-time views gain: the AUC of the mean of the first 1, 2, 4, … views, paired with that of
one view."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.paths import PREDICTIONS, fold_folder, models_folder
from pipeline.core.artifacts.tables import align
from pipeline.core.config.task import Task
from pipeline.core.ensemble.members import Rows
from pipeline.core.ensemble.scores import difference_row, score_rows
from pipeline.core.ensemble.units import to_units
from pipeline.core.report.html import drawn, panels, paragraph, scale, source, table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import interval_bar, limits_of
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.errors import UserError

FILE = "predictions_views.npz"


def counts(views: int) -> list[int]:
    """1, 2, 4, … and the last: all of them.

    >>> counts(30)
    [1, 2, 4, 8, 16, 30]
    """
    return sorted({*(2**k for k in range(views.bit_length()) if 2**k <= views), views})


def read_views(name: str, run: str, rows: Rows, labels: Sequence[str]) -> np.ndarray:
    """(n, V, K) out-of-fold scores of every view, the rows of `rows.validated`; labels that the run
    lacks are NaN.

    UserError where a file is missing, lacks an image, or its mean is not what predictions.csv says.
    """
    parts = []
    for fold in rows.folds:
        path = fold_folder(name, run, fold) / FILE
        if not path.is_file():
            raise UserError(
                f"{path}: there is no such file; `make predict COMP={name} RUN={run}` makes it, "
                "once "
                f"{PREDICTIONS} beside it is deleted"
            )
        with np.load(path, allow_pickle=False) as stored:
            ids, own, views = (stored[key] for key in ("image_id", "labels", "views"))
        wanted = rows.validated["image_id"][rows.validated["fold"] == fold]
        at = align(path, pd.DataFrame({"image_id": ids}), wanted, f"that fold {fold} validates")
        require_same_mean(path, ids, own, views)
        full = np.full((len(wanted), views.shape[1], len(labels)), np.nan)
        full[:, :, [labels.index(label) for label in own]] = views[at]
        parts.append(full)
    fewest = min(part.shape[1] for part in parts)
    return np.concatenate([part[:, :fewest] for part in parts])


def require_same_mean(path, ids: np.ndarray, labels: np.ndarray, views: np.ndarray) -> None:
    """Raise where the mean over views is not the score in predictions.csv: the two were made at
    different times."""
    table = read_predictions(path.with_name(PREDICTIONS))[0].set_index("image_id")
    said = table.loc[ids, list(labels)].to_numpy(np.float64)
    if len(ids) and not np.allclose(views.mean(axis=1, dtype=np.float64), said, atol=1e-4):
        raise UserError(
            f"{path}: its mean is not the score in {PREDICTIONS} beside it; delete both and "
            "predict again"
        )


def gains(
    views: np.ndarray, rows: Rows, truth: np.ndarray, patients: np.ndarray, task: Task
) -> list[dict]:
    """Per number of views: views, auc, and, beyond one, difference, low, high, p of the paired gain
    over one view.

    The AUC is the mean over the labels that can be scored; intervals resample patients.
    """
    units = {
        count: to_units(rows.validated, views[:, :count].mean(axis=1), task)
        for count in counts(views.shape[1])
    }
    found = []
    for count, scores in units.items():
        there = ~np.isnan(scores).any(axis=0)
        means = [
            row["auc"]
            for row in score_rows(
                scores[:, there],
                truth[:, there],
                patients,
                [label for label, has in zip(task.labels, there) if has],
                replicates=2,
            )
            if row["label"] == "mean"
        ]
        row = {"views": count, "auc": means[0] if means else float("nan")}
        if count > 1:
            row |= difference_row(str(count), "1", scores, units[1], truth, patients) or {}
        found.append(row)
    return found


def views(evidence: Evidence) -> str:
    """What 2, 4, … views gain over one, per run."""
    task, tables = evidence.competition.task, []
    found = {
        run: gains(
            read_views(evidence.name, run, evidence.rows, task.labels),
            evidence.rows,
            evidence.units.truth,
            evidence.patients,
            task,
        )
        for run in tqdm(evidence.after, desc="gain of views", unit="run", leave=False)
    }
    limits = limits_of(
        [
            0,
            *(
                row[key]
                for rows in found.values()
                for row in rows
                for key in ("low", "high")
                if key in row
            ),
        ],
        0.01,
    )
    for run, rows in found.items():
        lines = [
            [
                row["views"],
                f"{row['auc']:.4f}",
                *(
                    [
                        f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
                        drawn(
                            interval_bar(
                                row["difference"],
                                row["low"],
                                row["high"],
                                limits,
                                "c-final" if row["low"] > 0 or row["high"] < 0 else "c-soft",
                                zero=0,
                            )
                        ),
                    ]
                    if "difference" in row
                    else ["", ""]
                ),
            ]
            for row in rows
        ]
        tables.append(
            table(
                ["views", "AUC", "gain over 1 [95 %]", scale(limits)],
                lines,
                f"{run}, {evidence.stage_2}",
            )
        )
    text = (
        "The first view is the picture itself; the others are its mirror images and turns, then "
        "small changes of "
        "angle, size and place. Scores of the first v views are averaged; gains are paired, over "
        "patients. Green "
        "where the interval excludes 0."
    )
    return (
        paragraph(text)
        + panels(tables, pairs=True)
        + source(
            f"{models_folder(evidence.name)}/<run>/fold*/predictions_views.npz",
            f"make predict COMP={evidence.name}",
        )
    )
