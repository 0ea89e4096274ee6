"""predictions.csv of one fold, and the sidecar that says what made it.

    models/<comp>/<run>/fold<k>/predictions.csv   image_id, split, fold, <labels>: the images that
                                                  fold k validates (split train or valid) and the
                                                  test images (split test), a row each
    models/<comp>/<run>/fold<k>/predictions.json  hashes of images.csv and folds.csv, views, commit,
                                                  versions, ...

`predictions_pretrained.csv`, in the same form, holds the scores of stage 1's weights.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import write_json, write_text
from pipeline.core.artifacts.paths import PREDICTIONS, models_folder
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
    labels = [column for column in table.columns if column not in ROW_COLUMNS]
    check_finite_scores(path, table, labels)
    text = csv_text(table[[*ROW_COLUMNS, *labels]])
    digest = hashlib.sha256(text.encode()).hexdigest()
    facts = {**facts, "hashes": hashes, "labels": labels, "digest": digest}
    write_json(path.with_suffix(".json"), provenance(**facts))
    write_text(path, text)


def read_predictions(path: Path, made_by: str = "") -> tuple[pd.DataFrame, dict]:
    """(table, sidecar) of a fold, checked: ids there and unique, every score a finite number."""
    table = read_csv(path, ROW_COLUMNS, made_by)
    check_id_column(path, table)
    labels = [column for column in table.columns if column not in ROW_COLUMNS]
    check_finite_scores(path, table, labels)
    return table, read_sidecar(path, made_by)


def is_imported(competition: str, name: str) -> bool:
    """True for a member whose predictions `pipeline.member` took from elsewhere."""
    for path in sorted(models_folder(competition).glob(f"{name}/fold*/{PREDICTIONS}")):
        if path.with_suffix(".json").is_file():
            return "imported" in read_sidecar(path)
    return False


def check_finite_scores(path: Path, table: pd.DataFrame, labels: list[str]) -> None:
    """Raise a UserError that names the first score that is not a finite number."""
    if not labels:
        raise UserError(f"{path}: no label column beside {', '.join(ROW_COLUMNS)}")
    for label in labels:
        values = pd.to_numeric(table[label], errors="coerce").to_numpy(np.float64)
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            value = str(table[label].iloc[row])
            image = table["image_id"].iloc[row]
            raise UserError(
                f"{path}: row {row + 2}, column {label}: {value!r} is not a finite number (image "
                f"{image})"
            )
