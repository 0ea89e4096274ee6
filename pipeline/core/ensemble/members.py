"""Members of an ensemble: read from every fold, aligned by id, made comparable, brought to what the
organiser scores.

A member is one run's (or the metadata network's) scores. Its out-of-fold rows are pooled over the
folds: each image is scored by the network that did not train on its patient. Its test rows are
scored by every fold's network.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import STAGE_1_PREDICTIONS, fold_folder
from pipeline.core.artifacts.provenance import require_hashes, table_hashes
from pipeline.core.artifacts.tables import align, fold_numbers
from pipeline.core.config.competition import Competition
from pipeline.core.ensemble.averages import apply_map, quantile_map, ranks_within
from pipeline.core.folds.audit import checked_tables
from pipeline.core.folds.split import validation_rows
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Rows:
    """The images to be aligned to, and today's tables: `validated` and `test` are rows of
    images.csv, the first with the column `fold` of the fold that validates them."""

    validated: pd.DataFrame
    test: pd.DataFrame
    folds: tuple[int, ...]
    hashes: dict[str, str]


@dataclass(frozen=True)
class Member:
    """Scores aligned to Rows; columns of labels that the member does not predict are NaN.

    out_of_fold: (n, K); test: (folds, t, K), or (folds, 0, K) where the test images were not
    scored; views: test-time views per image; digest: the sha256 of its prediction files.
    """

    name: str
    stage: str
    out_of_fold: np.ndarray
    test: np.ndarray
    views: int
    digest: str


def read_rows(competition: Competition, folds: Sequence[int] | None = None) -> Rows:
    """The rows that the given folds (all of folds.csv when None) validate, and the test rows; a
    leak stops here too."""
    name, (images, table, dropped) = competition.name, checked_tables(competition)
    known = fold_numbers(table)
    for fold in folds or ():
        if fold not in known:
            raise UserError(
                f"fold {fold}: folds.csv of {name} has the folds {', '.join(map(str, known))}"
            )
    chosen = tuple(known if folds is None else sorted(set(folds)))
    parts = [
        validation_rows(images, table, dropped, fold, competition.task).assign(fold=fold)
        for fold in chosen
    ]
    if not parts:
        raise UserError(f"folds.csv of {name} validates no patient: every fold is -1")
    return Rows(
        pd.concat(parts, ignore_index=True),
        images[images["split"] == "test"].reset_index(drop=True),
        chosen,
        table_hashes(name),
    )


def read_member(
    competition: str,
    name: str,
    stage: str,
    file: str,
    rows: Rows,
    labels: Sequence[str],
    made_by: str,
) -> Member:
    """One member's predictions of every fold. UserError for a fold that is missing, was made from
    other tables, or has other rows than folds.csv says. `predictions_pretrained.csv` may leave the
    test rows out."""
    parts, tests, digest, views = [], [], hashlib.sha256(), set()
    for fold in rows.folds:
        path = fold_folder(competition, name, fold) / file
        table, sidecar = read_predictions(path, made_by)
        require_hashes(path, sidecar.get("hashes", {}), rows.hashes)
        validated, test = table[table["split"] != "test"], table[table["split"] == "test"]
        check_fold(path, validated, fold)
        ids = rows.validated["image_id"][rows.validated["fold"] == fold]
        parts.append(
            columns(validated, align(path, validated, ids, f"that fold {fold} validates"), labels)
        )
        left_out = file == STAGE_1_PREDICTIONS and not len(test)
        wanted = rows.test["image_id"][:0] if left_out else rows.test["image_id"]
        tests.append(columns(test, align(path, test, wanted, "of the test set"), labels))
        digest.update(file_hash(path).encode())
        views.add(int(sidecar.get("views", 1)))
    if len({len(test) for test in tests}) > 1:
        raise UserError(
            f"{path.parent.parent}: some folds scored the test images and some did not; delete "
            f"{path.name} "
            "of those that did not and predict again"
        )
    return Member(
        name, stage, np.concatenate(parts), np.stack(tests), min(views), digest.hexdigest()
    )


def check_fold(path: Path, table: pd.DataFrame, fold: int) -> None:
    """Raise where a row says another fold than that of its folder."""
    wrong = (table["fold"] != fold).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{path}: row {table.index[row] + 2}, column fold: {table['fold'].iloc[row]}, not "
            f"{fold}"
        )


def columns(table: pd.DataFrame, positions: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Scores (n, K) by name; NaN columns for labels that the table does not have."""
    return table.reindex(columns=list(labels)).to_numpy(np.float64)[positions]


def comparable(member: Member, method: str, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(out-of-fold (n, K), test (t, K)) on the scale of `method`, the test scores averaged over the
    folds' networks."""
    if method == "mean":
        return member.out_of_fold, member.test.mean(axis=0)
    fold = rows.validated["fold"].to_numpy()
    if method == "rank":
        return ranks_within(member.out_of_fold, fold), np.mean(
            [ranks_within(test, np.zeros(len(test))) for test in member.test], axis=0
        )
    quantiles, tests = np.full(member.out_of_fold.shape, np.nan), np.full(member.test.shape, np.nan)
    for position, number in enumerate(rows.folds):
        inside = fold == number
        for column, frozen in enumerate(frozen_maps(member.out_of_fold[inside])):
            if frozen:
                quantiles[inside, column] = apply_map(member.out_of_fold[inside, column], frozen)
                tests[position, :, column] = apply_map(member.test[position, :, column], frozen)
    return quantiles, tests.mean(axis=0)


def frozen_maps(scores: np.ndarray) -> list[dict | None]:
    """A quantile map for each column of (n, K), None for a column of NaN."""
    return [
        None if np.isnan(column).any() or not len(column) else quantile_map(column)
        for column in scores.T
    ]


def member_maps(member: Member, rows: Rows, labels: Sequence[str]) -> dict[str, dict]:
    """{"fold0": {label: map}}: what `comparable` applies for "quantile", to be kept for inference
    elsewhere."""
    fold = rows.validated["fold"].to_numpy()
    return {
        f"fold{number}": {
            label: frozen
            for label, frozen in zip(labels, frozen_maps(member.out_of_fold[fold == number]))
            if frozen
        }
        for number in rows.folds
    }
