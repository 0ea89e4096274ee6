"""Every way to combine the members of a competition, scored nested, and the one that earned its
place: `Blend(weights="earned")`.

For each label the candidates of `earned` (uniform mean, rank mean, half metadata, fitted share,
hill climbing, second level) score every out-of-fold row without having seen its patient. Going
from simple to involved, a candidate takes the place where its paired gain over the one that has it
lies above 0. The test rows are
scored by that candidate, fitted on all out-of-fold rows, once for each fold's networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth
from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import apply_map, quantile_map
from pipeline.core.ensemble.earned import CANDIDATES, gain_of, last_earned, nested_scores
from pipeline.core.ensemble.members import Member, Rows
from pipeline.core.ensemble.patient_context import Columns, Members, category_levels, context
from pipeline.core.ensemble.second_level import Data, out_of_fold_members, prepare
from pipeline.core.folds.split import patient_keys
from pipeline.core.runtime.errors import UserError

SECOND_LEVEL = "second level"  # its scores are logits; all other candidates' lie in [0, 1]


@dataclass(frozen=True)
class Combination:
    """out_of_fold: {candidate: (n, K)} nested scores; final: (n, K) and test: (t, K) of each
    label's choice; choice: {label: candidate}; gains: a row a label and candidate, against the
    first."""

    out_of_fold: dict[str, np.ndarray]
    final: np.ndarray
    test: np.ndarray
    choice: dict[str, str]
    gains: list[dict]


def combine(task: Task, rows: Rows, members: Sequence[Member]) -> Combination:
    """All candidates for every label. Raises a UserError where a label lacks a member, or folds are
    too few to be nested."""
    if task.unit != "image":
        raise UserError("weights='earned' combines scores of images; this task scores studies")
    if len(rows.folds) < 3:
        raise UserError(
            f"weights='earned' fits on some folds and scores another, nested: it needs 3 folds, "
            f"there are {len(rows.folds)}"
        )
    shape = (len(rows.validated), len(task.labels))
    out_of_fold = {name: np.full(shape, np.nan) for name in CANDIDATES}
    final = np.full(shape, np.nan)
    test = np.full((members[0].test.shape[1], len(task.labels)), np.nan)
    choice = {}
    gains = []
    known = truth(rows.validated, task.labels, task)
    for k, label in enumerate(task.labels):
        chosen = [member for member in members if not np.isnan(member.out_of_fold[:, k]).any()]
        if not chosen:
            raise UserError(f"weights='earned': no member predicts {label}")
        data = data_of(task, rows, chosen, known[:, k], k)

        # Every candidate, nested, and the rule.
        scores = {name: nested_scores(candidate, data) for name, candidate in CANDIDATES.items()}
        name = last_earned(scores, data.labels, data.patients)
        choice[label] = name
        first = next(iter(scores.values()))
        for other, values in scores.items():
            out_of_fold[other][:, k] = in_unit_interval(other, values)
            gain = gain_of(values, first, data.labels, data.patients)
            gains.append({"label": label, "candidate": other, **gain})

        # Its scores: nested for the out-of-fold rows, fitted on all of them for the test rows.
        final[:, k] = out_of_fold[name][:, k]
        if len(test):
            test[:, k] = test_scores(task, rows, chosen, data, name, k)
    return Combination(out_of_fold, final, test, choice, gains)


def data_of(task: Task, rows: Rows, members: Sequence[Member], labels: np.ndarray, k: int) -> Data:
    """The out-of-fold rows of one label, with their patient columns."""
    fold = rows.validated["fold"].to_numpy()
    scores = np.stack([member.out_of_fold[:, k] for member in members], axis=1)
    names = [member.name for member in members]
    patients = patient_table(rows.validated)
    columns = columns_of(task, patients)
    return prepare(patients, out_of_fold_members(names, scores, fold), labels, fold, columns)


def patient_table(images: pd.DataFrame) -> pd.DataFrame:
    """The rows with `patient_id` as folds know it: an image without one is a patient of its own."""
    return images.assign(patient_id=patient_keys(images).to_numpy()).reset_index(drop=True)


def columns_of(task: Task, patients: pd.DataFrame) -> Columns:
    """The task's patient columns; the place is the category that differs most often between images
    of one patient."""
    numeric = tuple(name for name in task.numeric if name in patients)
    categorical = tuple(name for name in task.categorical if name in patients)
    groups = patients.groupby("patient_id")
    varied = {name: int((groups[name].nunique() > 1).sum()) for name in categorical}
    place = max(varied, key=varied.get, default="")
    return Columns(numeric, categorical, place if varied.get(place) else "")


def test_scores(
    task: Task, rows: Rows, members: Sequence[Member], data: Data, name: str, k: int
) -> np.ndarray:
    """(t,) scores in [0, 1] of the test rows by one candidate, the mean over folds."""
    patients = patient_table(rows.validated)
    tests = patient_table(rows.test)
    columns = columns_of(task, patients)
    levels = category_levels(patients, columns)
    fold = rows.validated["fold"].to_numpy()
    parts = []
    for number, each in enumerate(rows.folds):
        # A network's test scores become quantiles by the map of its own out-of-fold scores.
        raw = np.stack([member.test[number, :, k] for member in members], axis=1)
        quantiles = np.empty_like(raw)
        for column, member in enumerate(members):
            frozen = quantile_map(member.out_of_fold[fold == each, k])
            quantiles[:, column] = apply_map(raw[:, column], frozen)
        names = tuple(member.name for member in members)
        table = context(tests, Members(names, raw, quantiles, {}), columns, levels)
        both = with_test_rows(data, table, raw, quantiles, tests["patient_id"].to_numpy())
        training = np.arange(len(both.labels)) < len(data.labels)
        parts.append(in_unit_interval(name, CANDIDATES[name](both, training, ~training)))
    return np.mean(parts, axis=0)


def with_test_rows(
    data: Data, table: pd.DataFrame, raw: np.ndarray, quantiles: np.ndarray, patients: np.ndarray
) -> Data:
    """The training rows followed by test rows, whose labels are unknown and whose fold is -1."""
    return replace(
        data,
        table=pd.concat([data.table, table[list(data.table)]], ignore_index=True),
        labels=np.concatenate([data.labels, np.full(len(table), np.nan)]),
        fold=np.concatenate([data.fold, np.full(len(table), -1)]),
        patients=np.concatenate([data.patients, patients]),
        members=np.concatenate([data.members, quantiles.T], axis=1),
        raw=np.concatenate([data.raw, raw.T], axis=1),
    )


def in_unit_interval(name: str, scores: np.ndarray) -> np.ndarray:
    """A candidate's scores in [0, 1]: the second level's logits through the logistic function."""
    return 1 / (1 + np.exp(-scores)) if name == SECOND_LEVEL else scores
