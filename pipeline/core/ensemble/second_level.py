"""The second level (stacking): boosted trees beside logistic regression, on the columns of
`patient_context`.

    model = fit(patients, members, labels, fold, columns)          from out-of-fold scores of the
                                                                   training set
    scores = predict(model, patients, [frozen_members(model, ...)])  of test images, in (0, 1)
    scores = nested(data)                                          out of fold, for the metric
    save(folder, model); model = load(folder)                      text and JSON, no pickle

Reads    folder/second_level.json, folder/trees<seed>.txt          (load)
Writes   the same: names, columns, categories, quantile maps, coefficients, hashes of the trees;
         LightGBM's text (save)

Both learners give logits; these are averaged over seeds, then half and half. Every number of the
recipe is fixed: nothing is tuned here, so that `nested` needs no inner search. A second
level sees out-of-fold scores only: each image was scored by a network that did not train on its
patient. Where test images are scored by all folds' networks, the second level scores each network's
scores and averages its own logits afterwards: a mean over networks is smoother than the scores it
was fitted on.

One label at a time: labels (n,) of 1, 0, NaN = unknown; rows without a label still count as images
of their patient.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import write_json, write_text
from pipeline.core.artifacts.provenance import provenance
from pipeline.core.ensemble.averages import apply_map, quantile_map, ranks_within
from pipeline.core.ensemble.patient_context import Columns, Members, category_levels, context
from pipeline.core.runtime.errors import UserError

# The quantile maps of scores that are no single fold's: the mean of all folds' maps.
POOLED = "pooled"

FILE = "second_level.json"


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
class Line:
    """A logistic regression on standardised columns.

    mean, scale, weights: (F,) float64; intercept: float. An unknown value counts as the training
    set's mean.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float

    def logits(self, table: np.ndarray) -> np.ndarray:
        """(n,) float64 of the columns (n, F)."""
        return standardised(table, self.mean, self.scale) @ self.weights + self.intercept


@dataclass(frozen=True)
class Learners:
    """Both learners, fitted.

    features: (F,) str, the columns in their order; trees: LightGBM's text, one a seed; lines: one a
    seed.
    """

    features: tuple[str, ...]
    trees: tuple[str, ...]
    lines: tuple[Line, ...]
    share: float


@dataclass(frozen=True)
class SecondLevel:
    """All that is needed to score test images.

    names: (M,) str, the members; maps: {member: {fold or "pooled": quantile map}}; levels: {column:
    categories}.
    """

    names: tuple[str, ...]
    columns: Columns
    levels: dict[str, list[str]]
    maps: dict[str, dict[str, list[dict]]]
    learners: Learners
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class Data:
    """Out-of-fold scores of the training set, with what they are learned from.

    table     (n, F) DataFrame, float32: the columns of `patient_context`
    labels    (n,) float64 of 1, 0, NaN
    fold      (n,) int: the fold whose network scored the row, no patient in two
    patients  (n,) str
    members   (M, n) float64: quantiles within fold
    raw       (M, n) float64: scores as given
    alone     names of the columns that know nothing of any score: the patient's own
    """

    table: pd.DataFrame
    labels: np.ndarray
    fold: np.ndarray
    patients: np.ndarray
    members: np.ndarray
    raw: np.ndarray
    alone: tuple[str, ...]


def out_of_fold_members(
    names: Sequence[str],
    scores: np.ndarray,
    fold: np.ndarray,
    passes: Mapping[str, np.ndarray] | None = None,
) -> Members:
    """Members (n, M) whose quantiles are ranks among the rows of the same fold, that is, of the
    same network.
    """
    return Members(tuple(names), scores, ranks_within(scores, fold), passes or {})


def prepare(
    patients: pd.DataFrame, members: Members, labels: np.ndarray, fold: np.ndarray, columns: Columns
) -> Data:
    """The data of `nested`, from rows of the training set. Raises a UserError for a patient in two
    folds.
    """
    check_folds(patients, fold)
    labels = checked_labels(labels)
    table = context(patients, members, columns, category_levels(patients, columns))
    scored = (*members.names, "consensus", "members")
    alone = [
        name
        for name in table
        if name not in scored and not name.startswith(tuple(f"{s}: " for s in scored))
    ]
    return Data(
        table,
        labels,
        np.asarray(fold),
        patients["patient_id"].to_numpy(),
        members.quantiles.T,
        members.scores.T,
        tuple(alone),
    )


def fit(
    patients: pd.DataFrame,
    members: Members,
    labels: np.ndarray,
    fold: np.ndarray,
    columns: Columns,
    recipe: Recipe = STANDARD,
) -> SecondLevel:
    """The second level for test images, fitted on all out-of-fold rows.

    patients: n rows with patient_id and the patient columns; labels: (n,) of 1, 0, NaN; fold: (n,)
    int.
    """
    data = prepare(patients, members, labels, fold, columns)
    learners = learn(data.table, data.labels, data.patients, recipe)
    maps = {name: frozen_maps(scores, data.fold) for name, scores in zip(members.names, data.raw)}
    return SecondLevel(
        members.names, columns, category_levels(patients, columns), maps, learners, recipe
    )


def frozen_maps(scores: np.ndarray, fold: np.ndarray) -> dict[str, list[dict]]:
    """{fold: [its map], "pooled": every fold's map}: from one member's scores (n,) to quantiles."""
    each = {str(number): quantile_map(scores[fold == number]) for number in np.unique(fold)}
    return {number: [found] for number, found in each.items()} | {POOLED: list(each.values())}


def frozen_members(
    model: SecondLevel,
    scores: np.ndarray,
    fold: int | str = POOLED,
    passes: Mapping[str, np.ndarray] | None = None,
) -> Members:
    """Test scores (t, M) of one fold's networks (or "pooled") with quantiles by frozen maps: a test
    set of one row
    gives what the whole would."""
    wanted = f"{len(model.names)} members ({', '.join(model.names)})"
    if np.ndim(scores) != 2 or np.shape(scores)[1] != len(model.names):
        raise UserError(
            f"second level: test scores of shape {np.shape(scores)}, where it was fitted on "
            f"{wanted}"
        )
    quantiles = np.empty(np.shape(scores))
    for column, name in enumerate(model.names):
        if str(fold) not in model.maps[name]:
            raise UserError(
                f"second level: member {name} has no fold {fold}; there are "
                f"{', '.join(model.maps[name])}"
            )
        found = [apply_map(scores[:, column], frozen) for frozen in model.maps[name][str(fold)]]
        quantiles[:, column] = np.mean(found, axis=0)
    return Members(model.names, np.asarray(scores, np.float64), quantiles, passes or {})


def predict(model: SecondLevel, patients: pd.DataFrame, networks: Sequence[Members]) -> np.ndarray:
    """Scores (t,) float64 in (0, 1) of test images, the mean (of logits) over the networks'
    members.

    patients: t rows, whole patients of the test set and nobody else's; networks: from
    `frozen_members`, one a fold.
    """
    tables = [context(patients, members, model.columns, model.levels) for members in networks]
    return 1 / (1 + np.exp(-np.mean([logits(model.learners, table) for table in tables], axis=0)))


def nested(
    data: Data,
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
        result[held] = score(data, rows & ~held, held, recipe, columns)
    return result


def score(
    data: Data,
    training: np.ndarray,
    held: np.ndarray,
    recipe: Recipe = STANDARD,
    columns: Sequence[str] | None = None,
) -> np.ndarray:
    """Logits of the rows `held` (n,) bool, by learners fitted on the rows `training` (n,) bool."""
    table = data.table[list(columns)] if columns is not None else data.table
    learners = learn(table[training], data.labels[training], data.patients[training], recipe)
    return logits(learners, table[held])


def learn(
    table: pd.DataFrame, labels: np.ndarray, patients: np.ndarray, recipe: Recipe
) -> Learners:
    """Both learners on the labelled rows. Raises a UserError where these are of one class."""
    known = ~np.isnan(labels)
    values, truth, patients = table.to_numpy(np.float32)[known], labels[known], patients[known]
    if len(np.unique(truth)) < 2:
        raise UserError(f"second level: {len(truth)} labelled rows of one class; both are needed")
    trees = grow(values, truth, recipe) if recipe.share > 0 else ()
    lines = [
        draw_line(values, truth, patients, recipe, seed)
        for seed in recipe.seeds
        if recipe.share < 1
    ]
    return Learners(tuple(table.columns), tuple(trees), tuple(lines), recipe.share)


def grow(values: np.ndarray, truth: np.ndarray, recipe: Recipe) -> list[str]:
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
        rows, weights = fewer(
            np.arange(len(truth)), truth, recipe.most_rows, np.random.default_rng(seed)
        )
        binned = lightgbm.Dataset(values[rows], truth[rows], weight=weights, params=settings)
        texts.append(
            lightgbm.train(settings | {"seed": seed}, binned, recipe.rounds).model_to_string()
        )
    return texts


def draw_line(
    values: np.ndarray, truth: np.ndarray, patients: np.ndarray, recipe: Recipe, seed: int
) -> Line:
    """A logistic regression on a seed's part of the patients, from columns (n, F) float32."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(seed)
    rows = drawn_rows(truth, patients, recipe.part_patients, generator)

    rows, weights = fewer(rows, truth, recipe.most_rows, generator)

    known = values[rows].astype(np.float64)
    mean, scale = moments(known)
    line = LogisticRegression(C=recipe.strength, solver="newton-cholesky", max_iter=100)
    line.fit(standardised(known, mean, scale), truth[rows], sample_weight=weights)
    return Line(mean, scale, line.coef_[0].astype(np.float64), float(line.intercept_[0]))


def fewer(
    rows: np.ndarray, truth: np.ndarray, most: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """(rows, weights): where there are more than `most`, all positives and enough negatives, which
    then count for those that were left out; weights None where all rows stay.

    rows: (r,) int64, positions in truth (n,) of 1 and 0.
    """
    if len(rows) <= most:
        return rows, None
    positive, negative = rows[truth[rows] == 1], rows[truth[rows] == 0]
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


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, scale) of each column, (F,) float64, of its known values; a constant or unknown column
    has scale 1.
    """
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean, np.where(spread > 1e-9, spread, 1.0)


def standardised(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, F) float64, unknown values 0."""
    return np.nan_to_num((np.asarray(values, np.float64) - mean) / scale)


def logits(learners: Learners, table: pd.DataFrame) -> np.ndarray:
    """(n,) float64: the mean over the seeds of each learner, then of the two."""
    if tuple(table.columns) != learners.features:
        lost = [name for name in learners.features if name not in table] or list(
            set(table) - set(learners.features)
        )
        raise UserError(
            f"second level: the columns differ from those it was fitted on, first {lost[:1]}"
        )
    values = table.to_numpy(np.float32)
    result = np.zeros(len(values))
    if learners.trees:
        result += learners.share * np.mean(
            [tree_logits(text, values) for text in learners.trees], axis=0
        )
    if learners.lines:
        result += (1 - learners.share) * np.mean(
            [line.logits(values) for line in learners.lines], axis=0
        )
    return result


def tree_logits(text: str, values: np.ndarray) -> np.ndarray:
    """(n,) float64: what the trees of one text say of the columns (n, F)."""
    import lightgbm

    trees = lightgbm.Booster(model_str=text)
    return trees.predict(values, raw_score=True, num_threads=1)


def save(folder: Path, model: SecondLevel, **facts: object) -> None:
    """Write the trees and then second_level.json, which says that all stand."""
    names = [f"trees{seed}.txt" for seed, _ in zip(model.recipe.seeds, model.learners.trees)]
    for name, text in zip(names, model.learners.trees):
        write_text(folder / name, text)
    lines = [
        {
            "mean": line.mean.tolist(),
            "scale": line.scale.tolist(),
            "weights": line.weights.tolist(),
            "intercept": line.intercept,
        }
        for line in model.learners.lines
    ]
    write_json(
        folder / FILE,
        provenance(
            names=list(model.names),
            columns=asdict(model.columns),
            levels=model.levels,
            maps=model.maps,
            recipe=asdict(model.recipe),
            features=list(model.learners.features),
            lines=lines,
            trees={name: text_hash(text) for name, text in zip(names, model.learners.trees)},
            **facts,
        ),
    )


def load(folder: Path) -> SecondLevel:
    """What `save` wrote; a UserError names a file that is missing or changed."""
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    told = json.loads(path.read_text(encoding="utf-8"))
    trees = []
    for name, digest in told["trees"].items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: there is no such file, and {path.name} names it")
        trees.append(file.read_text(encoding="utf-8"))
        if text_hash(trees[-1]) != digest:
            raise UserError(f"{file}: these are not the trees that {path.name} was saved with")
    lines = [
        Line(
            *(np.array(line[key], np.float64) for key in ("mean", "scale", "weights")),
            line["intercept"],
        )
        for line in told["lines"]
    ]
    recipe = Recipe(**told["recipe"] | {"seeds": tuple(told["recipe"]["seeds"])})
    columns = Columns(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in told["columns"].items()
        }
    )
    learners = Learners(tuple(told["features"]), tuple(trees), tuple(lines), recipe.share)
    return SecondLevel(
        tuple(told["names"]), columns, told["levels"], told["maps"], learners, recipe
    )


def text_hash(text: str) -> str:
    """The sha256 of a text, in hexadecimal."""
    return sha256(text.encode("utf-8")).hexdigest()


def checked_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (n,) as float64; a UserError names the first row that is not 1, 0 or NaN."""
    labels = np.asarray(labels, np.float64)
    good = np.isnan(labels) | (labels == 0) | (labels == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise UserError(f"second level: row {row}, the label {labels[row]} is not 1, 0 or blank")
    return labels


def check_folds(patients: pd.DataFrame, fold: np.ndarray) -> None:
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
