"""Every way to combine the members of a competition, scored nested, and the one that earned its
place: `Blend(second_level=True)` scores them, `Blend(weights="earned")` submits by them.

For each label the candidates of `earned` (uniform mean, rank mean, half metadata, fitted share,
hill climbing, second level) score every out-of-fold row without having seen its patient, and the
rule of `earned` chooses. The chosen one, fitted on all out-of-fold rows, is kept in
combination.json and scores the test rows, once for each fold's networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth
from pipeline.core.config.stages import SECOND_LEVEL
from pipeline.core.config.task import Task
from pipeline.core.ensemble.earned import (
    CANDIDATES,
    Candidate,
    last_earned,
    score_candidates,
)
from pipeline.core.ensemble.fitted import (
    FittedCandidate,
    FittedCombination,
    combined_scores,
    patient_table,
)
from pipeline.core.ensemble.importance import learning_curve, what_mattered
from pipeline.core.ensemble.members import Member, Rows, frozen_maps
from pipeline.core.ensemble.patient_context import Columns, category_levels
from pipeline.core.ensemble.second_level import (
    StackingRows,
    out_of_fold_members,
    stacking_rows,
)
from pipeline.core.ensemble.suspects import suspicious_columns

FEWEST_FOLDS = 3  # to fit on some, within them nested, and to score another


@dataclass(frozen=True)
class Combination:
    """All labels' candidates and choices.

    out_of_fold   {candidate: (n, K)} nested scores
    final, test   (n, K) nested and (t, K) of each label's choice
    choice        {label: candidate}
    fitted        {label: the choice fitted on all out-of-fold rows}
    told          {label: what ensemble.json and the report say of it}
    """

    out_of_fold: dict[str, np.ndarray]
    final: np.ndarray
    test: np.ndarray
    choice: dict[str, str]
    fitted: dict[str, FittedCombination]
    told: dict[str, dict]


def cannot_be_nested(task: Task, rows: Rows) -> str:
    """Why candidates cannot be scored nested here, "" where they can."""
    if task.unit != "image":
        return "it combines scores of images; this task scores studies"
    if len(rows.folds) < FEWEST_FOLDS:
        return (
            f"it fits on some folds and scores another, nested: it needs {FEWEST_FOLDS} folds, "
            f"there are {len(rows.folds)}"
        )
    known = truth(rows.validated, task.labels, task)
    fold = rows.validated["fold"].to_numpy()
    for label, values in zip(task.labels, known.T):
        for value, name in ((1, "positive"), (0, "negative")):
            folds = len(np.unique(fold[values == value]))
            if folds < FEWEST_FOLDS:
                return (
                    f"it fits on some folds and scores another, nested: {label} has a {name} image "
                    f"in {folds} folds, it needs one in {FEWEST_FOLDS}"
                )
    return ""


def combine_nested(
    task: Task,
    rows: Rows,
    members: Sequence[Member],
    candidates: Mapping[str, Candidate] = CANDIDATES,
) -> Combination:
    """All candidates for every label; `cannot_be_nested` must have said nothing. A label takes the
    members that predict it."""
    shape = (len(rows.validated), len(task.labels))
    out_of_fold = {name: np.full(shape, np.nan) for name in candidates}
    final = np.full(shape, np.nan)
    test = np.full((members[0].test.shape[1], len(task.labels)), np.nan)
    choice = {}
    fitted = {}
    told = {}
    known = truth(rows.validated, task.labels, task)
    for k, label in enumerate(task.labels):
        chosen = [member for member in members if not np.isnan(member.out_of_fold[:, k]).any()]
        data = label_rows(task, rows, chosen, known[:, k], k)

        # Every candidate, nested, and the rule.
        table, scores, fits = score_candidates(data, candidates)
        name = last_earned(scores, data.labels, data.patients, task.metric)
        for other, values in scores.items():
            out_of_fold[other][:, k] = values
        choice[label] = name
        final[:, k] = scores[name]

        # The choice, fitted on all out-of-fold rows, for the test rows.
        everything = np.ones(len(data.labels), bool)
        one = candidates[name](data, everything)
        fitted[label] = fitted_combination(task, rows, chosen, name, one)
        if len(test):
            test[:, k] = test_scores(rows, chosen, fitted[label], k)
        told[label] = {
            "candidates": table.to_dict("records"),
            **told_of(data, fits),
            "suspects": suspicious_columns(
                rows.validated,
                data.labels,
                data.patients,
                (*fitted[label].columns.numeric, *fitted[label].columns.categorical),
            ),
        }
    return Combination(out_of_fold, final, test, choice, fitted, told)


def told_of(data: StackingRows, fits: dict) -> dict:
    """Which columns mattered to the second level, and how it learned; nothing where no candidate
    has learners."""
    learners = {fold: one.second_level for fold, one in fits.get(SECOND_LEVEL, {}).items()}
    if not learners:
        return {}
    return {
        "columns": what_mattered(data, learners),
        "curve": learning_curve(data, learners),
    }


def label_rows(
    task: Task, rows: Rows, members: Sequence[Member], labels: np.ndarray, k: int
) -> StackingRows:
    """The out-of-fold rows of one label, with their patient columns."""
    fold = rows.validated["fold"].to_numpy()
    scores = np.stack([member.out_of_fold[:, k] for member in members], axis=1)
    patients = patient_table(rows.validated)
    columns = columns_of(task, patients)
    of_members = out_of_fold_members([member.name for member in members], scores, fold)
    return stacking_rows(patients, of_members, labels, fold, columns, task.metric)


def columns_of(task: Task, patients: pd.DataFrame) -> Columns:
    """The task's patient columns; the place is the category that differs most often between images
    of one patient."""
    numeric = tuple(name for name in task.numeric if name in patients)
    categorical = tuple(name for name in task.categorical if name in patients)
    groups = patients.groupby("patient_id")
    varied = {name: int((groups[name].nunique() > 1).sum()) for name in categorical}
    place = max(varied, key=varied.get, default="")
    return Columns(numeric, categorical, place if varied.get(place) else "")


def fitted_combination(
    task: Task, rows: Rows, members: Sequence[Member], name: str, fitted: FittedCandidate
) -> FittedCombination:
    """One label's choice with all that scores a test image."""
    patients = patient_table(rows.validated)
    columns = columns_of(task, patients)
    levels = category_levels(patients, columns)
    names = tuple(member.name for member in members)
    return FittedCombination(name, names, columns, levels, fitted)


def test_scores(
    rows: Rows, members: Sequence[Member], combination: FittedCombination, k: int
) -> np.ndarray:
    """(t,) scores in [0, 1] of the test rows: the mean over folds of what the combination makes of
    each fold's networks."""
    patients = patient_table(rows.test)
    fold_of_row = rows.validated["fold"].to_numpy()
    parts = []
    for position, fold in enumerate(rows.folds):
        inside = fold_of_row == fold
        scores = np.stack([member.test[position, :, k] for member in members], axis=1)
        maps = frozen_maps(np.stack([m.out_of_fold[inside, k] for m in members], axis=1))
        parts.append(combined_scores(combination, patients, scores, maps))
    return np.mean(parts, axis=0)
