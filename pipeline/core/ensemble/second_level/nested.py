"""The second level (stacking): boosted trees beside logistic regression, fitted on the columns of
`patient_context`.

    rows = stacking_rows(patients, members, labels, fold, columns)   out-of-fold scores and columns
    learners = fit_learners(table, labels, patients, recipe)         on any of them
    logits = nested_logits(rows)                                     out of fold, for the metric

Reads    arrays and a table in memory
Writes   nothing; `fitted` keeps what travels

Both learners give logits; these are averaged over seeds, then half and half. Every number of the
recipe is fixed: nothing is tuned here, so that `nested_logits` needs no inner search. A second
level sees out-of-fold scores only: each image was scored by a network that did not train on its
patient. Where test images are scored by all folds' networks, the second level scores each fold's
scores, and its own are averaged afterwards: a mean over networks is smoother than the scores it was
fitted on.

One label at a time: labels (n,) of 1, 0, NaN = unknown; rows without a label still count as images
of their patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.ensemble.averages import ranks_within
from pipeline.core.ensemble.second_level.learners import (
    Learners,
    Line,
    learner_logits,
    standardised,
)
from pipeline.core.ensemble.second_level.patient_context import (
    CONSENSUS,
    Columns,
    Members,
    category_levels,
    context_columns,
)
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the two learners are fitted.

    seeds      one fit of each learner a seed
    leaves, rate, rounds, least_rows, l2, bins   of the trees: few leaves, many rows in each
    part_columns, part_rows                      of the trees: drawn anew for every tree
    strength   of the logistic regression, C: smaller is stiffer
    part_patients   of the logistic regression: the patients that a seed draws
    most_rows  of both: beyond it a seed draws among the negatives, and weighs them so that they
               stand for all
    share      weight of the trees, the rest is the logistic regression's
    threads    of the trees; the result does not depend on it
    """

    seeds: tuple[int, ...] = (0, 1, 2)

    leaves: int = 7
    rate: float = 0.03
    rounds: int = 300
    least_rows: int = 200
    l2: float = 10.0
    bins: int = 63
    part_columns: float = 0.3
    part_rows: float = 0.7

    strength: float = 0.01
    part_patients: float = 0.8

    most_rows: int = 40_000
    share: float = 0.5
    threads: int = 1


STANDARD = Recipe()


@dataclass(frozen=True)
class StackingRows:
    """Out-of-fold scores of the training set, with what a second level is learned from.

    table      (n, F) DataFrame, float32: the columns of `patient_context`
    labels     (n,) float64 of 1, 0, NaN
    fold       (n,) int: the fold whose network scored the row, no patient in two
    patients   (n,) str
    quantiles  (M, n) float64 in (0, 1): ranks within fold
    scores     (M, n) float64: scores as given
    alone      names of the columns that know nothing of any score: the patient's own
    metric     what is made as large as it can be: "auc" or "partial_auc"
    """

    table: pd.DataFrame
    labels: np.ndarray
    fold: np.ndarray
    patients: np.ndarray
    quantiles: np.ndarray
    scores: np.ndarray
    alone: tuple[str, ...]
    metric: str = "auc"


def out_of_fold_members(
    names: Sequence[str],
    scores: np.ndarray,
    fold: np.ndarray,
    passes: dict[str, np.ndarray] | None = None,
) -> Members:
    """Members (n, M) whose quantiles are ranks among the rows of the same fold, that is, of the
    same network."""
    return Members(tuple(names), scores, ranks_within(scores, fold), passes or {})


def stacking_rows(
    patients: pd.DataFrame,
    members: Members,
    labels: np.ndarray,
    fold: np.ndarray,
    columns: Columns,
    metric: str = "auc",
) -> StackingRows:
    """The rows of the training set with their columns. Raises a UserError for a patient in two
    folds.

    patients: n rows with patient_id and the patient columns; labels: (n,) of 1, 0, NaN; fold: (n,)
    int.
    """
    require_whole_folds(patients, fold)
    labels = checked_labels(labels)
    table = context_columns(patients, members, columns, category_levels(patients, columns))
    scored = (*members.names, CONSENSUS, "members")
    alone = [
        name
        for name in table
        if name not in scored and not name.startswith(tuple(f"{one}: " for one in scored))
    ]
    return StackingRows(
        table,
        labels,
        np.asarray(fold),
        patients["patient_id"].to_numpy(),
        members.quantiles.T,
        members.scores.T,
        tuple(alone),
        metric,
    )


def nested_logits(
    data: StackingRows,
    recipe: Recipe = STANDARD,
    rows: np.ndarray | None = None,
    columns: Sequence[str] | None = None,
) -> np.ndarray:
    """Logits (n,) float64 out of fold: each fold's rows by learners that saw the other folds only.

    rows: (n,) bool, those that take part (all when None), NaN elsewhere; columns: only these
    columns.
    """
    rows = np.ones(len(data.labels), bool) if rows is None else rows
    result = np.full(len(data.labels), np.nan)
    for number in np.unique(data.fold[rows]):
        held = rows & (data.fold == number)
        learners = fit_rows(data, rows & ~held, recipe, columns)
        result[held] = learner_logits(learners, data.table[held])
    return result


def fit_rows(
    data: StackingRows,
    training: np.ndarray,
    recipe: Recipe = STANDARD,
    columns: Sequence[str] | None = None,
) -> Learners:
    """Both learners on the rows `training` (n,) bool; columns: only these columns."""
    table = data.table[list(columns)] if columns is not None else data.table
    return fit_learners(table[training], data.labels[training], data.patients[training], recipe)


def fit_learners(
    table: pd.DataFrame, labels: np.ndarray, patients: np.ndarray, recipe: Recipe
) -> Learners:
    """Both learners on the labelled rows. Raises a UserError where these are of one class."""
    known = ~np.isnan(labels)
    values = table.to_numpy(np.float32)[known]
    truth = labels[known]
    patients = patients[known]
    if len(np.unique(truth)) < 2:
        raise UserError(f"second level: {len(truth)} labelled rows of one class; both are needed")
    trees = fit_trees(values, truth, recipe) if recipe.share > 0 else ()
    lines = [
        fit_line(values, truth, patients, recipe, seed) for seed in recipe.seeds if recipe.share < 1
    ]
    return Learners(tuple(table.columns), tuple(trees), tuple(lines), recipe.share)


def fit_trees(values: np.ndarray, truth: np.ndarray, recipe: Recipe) -> list[str]:
    """Boosted trees as LightGBM's text, one a seed, from columns (n, F) float32 and labels (n,) of
    1 and 0.
    """
    import lightgbm

    settings = {
        "objective": "binary",
        "num_leaves": recipe.leaves,
        "learning_rate": recipe.rate,
        "min_data_in_leaf": min(recipe.least_rows, max(1, len(truth) // 20)),
        "lambda_l2": recipe.l2,
        "feature_fraction": recipe.part_columns,
        "bagging_fraction": recipe.part_rows,
        "bagging_freq": 1,
        "max_bin": recipe.bins,
        "num_threads": recipe.threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
        "feature_pre_filter": False,
    }
    texts = []
    for seed in recipe.seeds:
        generator = np.random.default_rng(seed)
        every = np.arange(len(truth))
        rows, weights = fewer_negatives(every, truth, recipe.most_rows, generator)
        binned = lightgbm.Dataset(values[rows], truth[rows], weight=weights, params=settings)
        trees = lightgbm.train(settings | {"seed": seed}, binned, recipe.rounds)
        texts.append(trees.model_to_string())
    return texts


def fit_line(
    values: np.ndarray, truth: np.ndarray, patients: np.ndarray, recipe: Recipe, seed: int
) -> Line:
    """A logistic regression on a seed's part of the patients, from columns (n, F) float32."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(seed)
    rows = drawn_rows(truth, patients, recipe.part_patients, generator)
    rows, weights = fewer_negatives(rows, truth, recipe.most_rows, generator)

    known = values[rows].astype(np.float64)
    mean, scale = column_moments(known)
    line = LogisticRegression(C=recipe.strength, solver="newton-cholesky", max_iter=100)
    line.fit(standardised(known, mean, scale), truth[rows], sample_weight=weights)
    return Line(mean, scale, line.coef_[0].astype(np.float64), float(line.intercept_[0]))


def fewer_negatives(
    rows: np.ndarray, truth: np.ndarray, most: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, weights): where there are more than `most`, all positives and enough negatives, which
    then count for those that were left out; weights None where all rows stay.

    rows: (r,) int64, positions in truth (n,) of 1 and 0.
    """
    if len(rows) <= most:
        return rows, None
    positive = rows[truth[rows] == 1]
    negative = rows[truth[rows] == 0]
    room = max(most - len(positive), len(positive))
    if room >= len(negative):
        return rows, None
    kept = generator.permutation(negative)[:room]
    rows = np.sort(np.concatenate([positive, kept]))
    return rows, np.where(truth[rows] == 1, 1.0, len(negative) / len(kept))


def drawn_rows(
    truth: np.ndarray, patients: np.ndarray, part: float, generator: np.random.Generator
) -> np.ndarray:
    """The rows of a random part of the patients; all rows where that part would hold one class
    only.
    """
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    chosen = np.zeros(len(names), bool)
    chosen[generator.permutation(len(names))[: max(1, round(part * len(names)))]] = True
    rows = np.flatnonzero(chosen[codes])
    return rows if len(np.unique(truth[rows])) == 2 else np.arange(len(truth))


def column_moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) of each column, (F,) float64, of its known values; a constant or unknown column
    has scale 1.
    """
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean, np.where(spread > 1e-9, spread, 1.0)


def checked_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (n,) as float64; a UserError names the first row that is not 1, 0 or NaN."""
    labels = np.asarray(labels, np.float64)
    good = np.isnan(labels) | (labels == 0) | (labels == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(f"second level: row {row}, the label {labels[row]} is not 1, 0 or blank")
    return labels


def require_whole_folds(patients: pd.DataFrame, fold: np.ndarray) -> None:
    """Raise a UserError that names the first patient whose images lie in two folds."""
    each = pd.Series(np.asarray(fold)).groupby(patients["patient_id"].to_numpy(), sort=False)
    torn = each.min() != each.max()
    if torn.any():
        patient = torn.index[torn.to_numpy().argmax()]
        found = sorted(each.get_group(patient).unique().tolist())
        raise UserError(
            f"second level: patient {patient} has images in the folds "
            f"{', '.join(map(str, found))}: the "
            "network of one saw the patient that the other validates"
        )
