"""What test-time views gain: the AUC of the mean of the first 1, 2, 4, … views, paired with that of one view."""
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.artifacts.tables import fold_folder
from pipeline.core.config.task import Task
from pipeline.core.ensemble.members import Rows, align, to_units
from pipeline.core.ensemble.scores import difference_row, score_rows
from pipeline.core.runs.predictions import FINETUNED, read_predictions
from pipeline.core.runtime.command import UserError

FILE = "predictions_views.npz"


def counts(views: int) -> list[int]:
    """1, 2, 4, … and the last: all of them.

    >>> counts(30)
    [1, 2, 4, 8, 16, 30]
    """
    return sorted({*(2 ** k for k in range(views.bit_length()) if 2 ** k <= views), views})


def read_views(name: str, run: str, rows: Rows, labels: Sequence[str]) -> np.ndarray:
    """(n, V, K) out-of-fold scores of every view, the rows of `rows.validated`; labels that the run lacks are NaN.

    UserError where a file is missing, lacks an image, or its mean is not what predictions.csv says.
    """
    parts = []
    for fold in rows.folds:
        path = fold_folder(name, run, fold) / FILE
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; `make predict COMP={name} RUN={run}` makes it, once "
                            f"{FINETUNED} beside it is deleted")
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
    """Raise where the mean over views is not the score in predictions.csv: the two were made at different times."""
    table = read_predictions(path.with_name(FINETUNED))[0].set_index("image_id")
    said = table.loc[ids, list(labels)].to_numpy(np.float64)
    if len(ids) and not np.allclose(views.mean(axis=1, dtype=np.float64), said, atol=1e-4):
        raise UserError(f"{path}: its mean is not the score in {FINETUNED} beside it; delete both and predict again")


def gains(views: np.ndarray, rows: Rows, truth: np.ndarray, patients: np.ndarray, task: Task) -> list[dict]:
    """Per number of views: views, auc, and, beyond one, difference, low, high, p of the paired gain over one view.

    The AUC is the mean over the labels that can be scored; intervals resample patients.
    """
    units = {count: to_units(rows.validated, views[:, :count].mean(axis=1), task) for count in counts(views.shape[1])}
    found = []
    for count, scores in units.items():
        there = ~np.isnan(scores).any(axis=0)
        means = [row["auc"] for row in score_rows(scores[:, there], truth[:, there], patients,
                                                  [label for label, has in zip(task.labels, there) if has],
                                                  replicates=2) if row["label"] == "mean"]
        row = {"views": count, "auc": means[0] if means else float("nan")}
        if count > 1:
            row |= difference_row(str(count), "1", scores, units[1], truth, patients) or {}
        found.append(row)
    return found
