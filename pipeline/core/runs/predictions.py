"""predictions.csv of one fold, and the sidecar that says what made it.

    models/<comp>/<run>/fold<k>/predictions.csv   image_id, split, fold, <labels>: the images that
                                                  fold k validates (split train or valid) and the
                                                  test images (split test), a row each
    models/<comp>/<run>/fold<k>/predictions.json  hashes of images.csv and folds.csv, views, commit,
                                                  versions, ...

`predictions_pretrained.csv`, in the same form, holds the scores of stage 1's weights.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash, write_sealed, write_text
from pipeline.core.artifacts.paths import PREDICTIONS, fold_folder, models_folder
from pipeline.core.artifacts.provenance import provenance, read_sidecar
from pipeline.core.artifacts.tables import check_id_column, csv_text, read_csv
from pipeline.core.runtime.errors import UserError

ROW_COLUMNS = ("image_id", "split", "fold")


def write_predictions(
    path: Path, table: pd.DataFrame, hashes: dict[str, str], **facts: object
) -> None:
    """Write a fold's predictions and, before them, the sidecar: where the table exists, its
    provenance exists too.

    table: image_id, split, fold, then a float column for each label. hashes: `table_hashes`.
    facts: what else made the numbers (`runs.facts`); "labels" are the table's own.
    """
    # A network that diverged is named here, by its fold, rather than by the organiser's checks.
    labels = [column for column in table.columns if column not in ROW_COLUMNS]
    check_finite_scores(path, table, labels)

    # The digest is of the bytes to be written, so that a later edit by hand is seen.
    text = csv_text(table[[*ROW_COLUMNS, *labels]])
    digest = hashlib.sha256(text.encode()).hexdigest()
    facts = {**facts, "hashes": hashes, "labels": labels, "digest": digest}
    write_sealed(path.with_suffix(".json"), provenance(**facts))
    write_text(path, text)


def read_predictions(path: Path, made_by: str = "") -> tuple[pd.DataFrame, dict]:
    """(table, sidecar) of a fold, checked: ids there and unique, every score a finite number."""
    table = read_csv(path, ROW_COLUMNS, made_by)
    check_id_column(path, table)
    labels = [column for column in table.columns if column not in ROW_COLUMNS]
    check_finite_scores(path, table, labels)
    return table, read_sidecar(path, made_by)


def require_as_written(path: Path, sidecar: dict) -> None:
    """Raise a UserError where a table of predictions is not the one that its sidecar is about."""
    if sidecar.get("digest", file_hash(path)) != file_hash(path):
        raise UserError(
            f"{path}: differs from what was written (damaged, or changed by hand); delete it and "
            "predict again"
        )


def predictions_digest(
    competition: str, member: str, folds: Sequence[int], file: str = PREDICTIONS
) -> str | None:
    """One digest for the prediction tables of a member's folds; None while one is missing."""
    paths = [fold_folder(competition, member, fold) / file for fold in folds]
    if not all(path.is_file() for path in paths):
        return None
    return hashlib.sha256("".join(map(file_hash, paths)).encode()).hexdigest()


def is_imported(competition: str, name: str) -> bool:
    """True for a member whose predictions `pipeline.member` took from elsewhere."""
    # One fold tells for all: `member` writes every fold of a member.
    for path in sorted(models_folder(competition).glob(f"{name}/fold*/{PREDICTIONS}")):
        if path.with_suffix(".json").is_file():
            return "imported" in read_sidecar(path)
    return False


def check_finite_scores(path: Path, table: pd.DataFrame, labels: list[str]) -> None:
    """Raise a UserError that names the first score that is not a finite number."""
    if not labels:
        raise UserError(f"{path}: no label column beside {', '.join(ROW_COLUMNS)}")
    for label in labels:
        # Text becomes NaN, so one look finds every kind of wrong cell.
        values = pd.to_numeric(table[label], errors="coerce").to_numpy(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            # Rows count as an editor shows them: the header is row 1.
            row = int(np.argmin(finite))
            value = str(table[label].iloc[row])
            image = table["image_id"].iloc[row]
            place = f"{path}: row {row + 2}, column {label}"
            raise UserError(f"{place}: {value!r} is not a finite number (image {image})")
