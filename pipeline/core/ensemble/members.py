"""Members of an ensemble: their predictions of every fold, aligned by id, on one scale.

A member is one run's (or the metadata network's) scores. Its out-of-fold rows are pooled over the
folds: each image is scored by the network that did not train on its patient. Its test rows are
scored by every fold's network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import STAGE_1_PREDICTIONS, fold_folder
from pipeline.core.artifacts.provenance import require_hashes, table_hashes
from pipeline.core.artifacts.tables import align, fold_numbers
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import ALL, fold_name
from pipeline.core.ensemble.averages import on_scale, quantile_map
from pipeline.core.folds.audit import checked_tables
from pipeline.core.folds.split import validation_rows
from pipeline.core.runs.predictions import (
    predictions_digest,
    read_predictions,
    require_as_written,
)
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Rows:
    """The images to be aligned to, and the hashes of today's tables.

    validated, test  rows of images.csv; `validated` has the column `fold` of the fold that
                     validates them
    folds            the folds that validate them, ascending
    hashes           sha256 of images.csv and folds.csv, as `artifacts.provenance.table_hashes`
    """

    validated: pd.DataFrame
    test: pd.DataFrame
    folds: tuple[int, ...]
    hashes: dict[str, str]


@dataclass(frozen=True)
class Member:
    """Scores aligned to Rows; columns of labels that the member does not predict are NaN.

    out_of_fold  (n, K)
    test         (folds, t, K), or (folds, 0, K) where the test images were not scored
    views        test-time views per image
    digest       sha256 of its prediction files
    whole        the test images were scored by the network of all rows alone: it stands in the
                 place of every fold's
    """

    name: str
    stage: str
    out_of_fold: np.ndarray
    test: np.ndarray
    views: int
    digest: str
    whole: bool = False


def read_rows(competition: Competition, folds: Sequence[int] | None = None) -> Rows:
    """The rows that the given folds (all of folds.csv when None) validate, and the test rows.

    UserError for a fold that folds.csv does not have, and for a leak between folds.
    """
    name = competition.name
    images, table, dropped = checked_tables(competition)
    known = fold_numbers(table)
    for fold in folds or ():
        if fold not in known:
            raise UserError(
                f"fold {fold}: folds.csv of {name} has the folds {', '.join(map(str, known))}"
            )
    # a fold named twice counts once
    chosen = tuple(known if folds is None else sorted(set(folds)))
    if not chosen:
        raise UserError(f"folds.csv of {name} validates no patient: every fold is -1")
    parts = []
    for fold in chosen:
        rows = validation_rows(images, table, dropped, fold, competition.task)
        parts.append(rows.assign(fold=fold))
    test = images[images["split"] == "test"].reset_index(drop=True)
    return Rows(pd.concat(parts, ignore_index=True), test, chosen, table_hashes(name))


def read_member(
    competition: str,
    name: str,
    stage: str,
    file: str,
    rows: Rows,
    labels: Sequence[str],
    made_by: str,
    folds: Sequence[int | str] | None = None,
) -> Member:
    """One member's predictions of every fold. UserError for a fold that is missing, was made from
    other tables, or has other rows than folds.csv says. `predictions_pretrained.csv` may leave the
    test rows out.

    made_by: the command that makes the predictions, for the error's text. folds: those of
    `runs.whole.averaged_folds`; None: those of the rows.
    """
    folds = rows.folds if folds is None else folds
    validated_parts = []
    test_parts = []
    views = set()
    for fold in folds:
        path = fold_folder(competition, name, fold) / file
        table, sidecar = read_predictions(path, made_by)
        require_hashes(path, sidecar.get("hashes", {}), rows.hashes)

        # the rows that this fold validates
        validated = table[table["split"] != "test"]
        require_fold(path, validated, fold)
        ids = rows.validated["image_id"][rows.validated["fold"] == fold]
        places = align(path, validated, ids, f"that fold {fold} validates")
        validated_parts.append(label_columns(validated, places, labels))

        # the test rows: all of them, or, after stage 1 only, none
        test = table[table["split"] == "test"]
        ids = rows.test["image_id"]
        if file == STAGE_1_PREDICTIONS and not len(test):
            ids = ids[:0]
        places = align(path, test, ids, "of the test set")
        test_parts.append(label_columns(test, places, labels))

        # Last, since a row that does not fit is better named.
        require_as_written(path, sidecar)

        # the folds may have been scored with different numbers of views: the fewest are reported
        views.add(int(sidecar.get("views", 1)))
    if len({len(test) for test in test_parts}) > 1:
        raise UserError(
            f"{path.parent.parent}: some folds scored the test images and some did not; delete "
            f"{path.name} of those that did not and predict again"
        )
    # the parts are in the order of rows.validated, fold after fold
    out_of_fold = np.concatenate(validated_parts)
    digest = predictions_digest(competition, name, folds, file)
    whole = ALL in folds
    if whole:
        test_parts = [test_parts[-1]] * len(rows.folds)
    return Member(name, stage, out_of_fold, np.stack(test_parts), min(views), digest, whole)


def require_fold(path: Path, table: pd.DataFrame, fold: int) -> None:
    """Raise for the first row whose column `fold` is not the fold of its folder."""
    wrong = (table["fold"] != fold).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        line = table.index[row] + 2  # the header is row 1
        raise UserError(f"{path}: row {line}, column fold: {table['fold'].iloc[row]}, not {fold}")


def label_columns(table: pd.DataFrame, positions: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Scores float64 (n, K) of the rows at these positions; NaN columns for labels that the table
    does not have."""
    return table.reindex(columns=list(labels)).to_numpy(np.float64)[positions]


def comparable(member: Member, method: str, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """(out-of-fold (n, K), test (t, K)) on the scale of `method` ("mean", "rank", "quantile"), the
    test scores averaged over the folds' networks."""
    # fold by fold, since each fold has its own network
    fold_of_row = rows.validated["fold"].to_numpy()
    out_of_fold = np.full(member.out_of_fold.shape, np.nan)
    tests = np.full(member.test.shape, np.nan)
    for position, fold in enumerate(rows.folds):
        inside = fold_of_row == fold
        own = member.out_of_fold[inside]
        # the test rows go through the maps of the fold's out-of-fold scores
        maps = frozen_maps(own) if method == "quantile" else ()
        out_of_fold[inside] = on_scale(own, method, maps=maps)
        # No row of one network of all rows is out of fold: those of all folds stand for it.
        if member.whole and maps:
            maps = frozen_maps(member.out_of_fold)
        tests[position] = on_scale(member.test[position], method, maps=maps)
    return out_of_fold, tests.mean(axis=0)


def frozen_maps(scores: np.ndarray) -> list[dict | None]:
    """A quantile map for each column of (n, K), None for a column of NaN."""
    maps = []
    for column in scores.T:
        missing = np.isnan(column).any() or not len(column)
        maps.append(None if missing else quantile_map(column))
    return maps


def member_maps(member: Member, rows: Rows, labels: Sequence[str]) -> dict[str, dict]:
    """{"fold0": {label: map}}: what `comparable` applies for "quantile", to be kept for inference
    elsewhere."""
    fold_of_row = rows.validated["fold"].to_numpy()
    by_fold = {}
    for fold in rows.folds:
        maps = frozen_maps(member.out_of_fold[fold_of_row == fold])
        by_fold[fold_name(fold)] = {label: one for label, one in zip(labels, maps) if one}
    if member.whole:
        maps = frozen_maps(member.out_of_fold)
        by_fold[ALL] = {label: one for label, one in zip(labels, maps) if one}
    return by_fold
