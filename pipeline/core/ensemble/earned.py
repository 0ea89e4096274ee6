"""Which way to combine members has earned its place: candidates from simple to involved, all scored
nested.

    table, scores = measure(data)                 the AUC of each candidate, its gain over the
                                                  simplest, the interval
    name = simplest_earned(scores, labels, ...)   the rule
    honest = nested_choice(data)                  scores of "whatever the rule would have chosen",
                                                  for the metric

    uniform mean     the members' scores as they are
    rank mean        the members' quantiles within fold
    half metadata    the rank mean and a model on the patient columns, half and half (the paper's
                     blend)
    fitted share     the same, the share fitted
    hill climbing    Caruana's selection among the members and that model
    second level     `second_level`

Reads    `second_level.Data` in memory
Writes   nothing

A candidate is a function of (data, rows to fit on, rows to score), so that no row is ever scored by
a weight, a share or a learner that saw its patient. A share or a weight of the patient columns'
model is fitted on that model's own nested scores within the rows to fit on. `nested_choice` makes
the choice too inside the rows to fit on.

The rule: the simplest candidate whose gain over the simplest of all has a paired 95 % interval
above 0; without any, the simplest of all. It stops at the first that has earned its place, even
where a later one is far better; `last_earned` goes on from there: each candidate must beat the one
that stands.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from pipeline.core.ensemble.averages import normalised_ranks
from pipeline.core.ensemble.second_level import STANDARD, Data, Recipe, nested, score
from pipeline.core.ensemble.selection import select
from pipeline.core.metrics import auc, auc_difference

Candidate = Callable[[Data, np.ndarray, np.ndarray], np.ndarray]

SHARES = np.linspace(0, 1, 21)

# The model on patient columns: one logistic regression.
PLAIN = Recipe(share=0.0, seeds=(0,), part_patients=1.0)


def uniform_mean(data: Data, _training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) the mean of the raw scores of the rows held."""
    return data.raw[:, held].mean(axis=0)


def rank_mean(data: Data, _training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) the mean of the quantiles within fold."""
    return data.members[:, held].mean(axis=0)


def half_metadata(data: Data, training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) half the rank mean, half the ranks of the model on patient columns."""
    return (rank_mean(data, training, held) + of_patients(data, training, held)) / 2


def fitted_share(data: Data, training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) the same with the share that is best on the rows to fit on, the smallest of equals."""
    known = training & ~np.isnan(data.labels)
    images, truth = rank_mean(data, training, known), data.labels[known]
    patients = nested_of_patients(data, training)[known]
    areas = [auc((1 - share) * images + share * patients, truth) for share in SHARES]
    share = SHARES[int(np.argmax(areas))]
    return (1 - share) * rank_mean(data, training, held) + share * of_patients(data, training, held)


def hill_climbing(data: Data, training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) members and the model on patient columns with the weights of ensemble selection."""
    members = np.vstack([data.members, nested_of_patients(data, training)])
    weights = select(members[:, training], data.labels[training])
    return weights @ np.vstack([data.members[:, held], of_patients(data, training, held)])


def second(
    data: Data, training: np.ndarray, held: np.ndarray, recipe: Recipe = STANDARD
) -> np.ndarray:
    """(h,) logits of the second level."""
    return score(data, training, held, recipe)


CANDIDATES: Mapping[str, Candidate] = {
    "uniform mean": uniform_mean,
    "rank mean": rank_mean,
    "half metadata": half_metadata,
    "fitted share": fitted_share,
    "hill climbing": hill_climbing,
    "second level": second,
}


def of_patients(data: Data, training: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(h,) ranks, within the rows held, of a logistic regression on the patient columns alone."""
    return normalised_ranks(score(data, training, held, PLAIN, data.alone))


def nested_of_patients(data: Data, rows: np.ndarray) -> np.ndarray:
    """(n,) the same out of fold within `rows` (n,) bool, ranks within each fold; NaN elsewhere."""
    result = nested(data, PLAIN, rows, data.alone)
    for number in np.unique(data.fold[rows]):
        inside = rows & (data.fold == number)
        result[inside] = normalised_ranks(result[inside])
    return result


def nested_scores(candidate: Candidate, data: Data, rows: np.ndarray | None = None) -> np.ndarray:
    """(n,) float64: each fold's rows by the candidate fitted on the other folds of `rows`; NaN
    outside `rows`.
    """
    rows = np.ones(len(data.labels), bool) if rows is None else rows
    result = np.full(len(data.labels), np.nan)
    for number in np.unique(data.fold[rows]):
        held = rows & (data.fold == number)
        result[held] = candidate(data, rows & ~held, held)
    return result


def measure(
    data: Data, candidates: Mapping[str, Candidate] = CANDIDATES
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """(a row for each candidate: auc, gain over the first, low, high, p; {name: nested scores
    (n,)}).
    """
    scores = {name: nested_scores(candidate, data) for name, candidate in candidates.items()}
    simplest = next(iter(scores.values()))
    found = []
    for name, values in scores.items():
        gain = gain_of(values, simplest, data.labels, data.patients)
        found.append({"candidate": name, "auc": auc(values, data.labels), **gain})
    return pd.DataFrame(found), scores


def gain_of(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, patients: np.ndarray
) -> dict[str, float]:
    """The paired difference of two score columns (n,) over patients: gain, low, high, p."""
    return dict(zip(("gain", "low", "high", "p"), auc_difference(first, second, labels, patients)))


def simplest_earned(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, patients: np.ndarray
) -> str:
    """The first whose gain over the very first has an interval above 0; else the very first."""
    names = list(scores)
    for name in names[1:]:
        if gain_of(scores[name], scores[names[0]], labels, patients)["low"] > 0:
            return name
    return names[0]


def last_earned(scores: Mapping[str, np.ndarray], labels: np.ndarray, patients: np.ndarray) -> str:
    """From simple to involved: a candidate takes the place where its gain over the one that stands
    is above 0.
    """
    names = list(scores)
    stands = names[0]
    for name in names[1:]:
        if gain_of(scores[name], scores[stands], labels, patients)["low"] > 0:
            stands = name
    return stands


def nested_choice(
    data: Data,
    candidates: Mapping[str, Candidate] = CANDIDATES,
    rule: Callable[..., str] = last_earned,
) -> tuple[np.ndarray, dict[int, str]]:
    """(ranks within fold (n,) of what the rule chose without seeing the fold, {fold: its choice}).

    Ranks, since two folds may choose candidates of different scales.
    """
    everything = np.ones(len(data.labels), bool)
    result, choice = np.full(len(data.labels), np.nan), {}
    for number in np.unique(data.fold):
        held = data.fold == number
        training = everything & ~held

        # The rule, within the other folds alone.
        inner = {
            name: nested_scores(candidate, data, training)[training]
            for name, candidate in candidates.items()
        }
        chosen = rule(inner, data.labels[training], data.patients[training])

        # Its choice, fitted on all of them.
        choice[int(number)] = chosen
        result[held] = normalised_ranks(candidates[chosen](data, training, held))
    return result, choice


def with_recipe(recipe: Recipe) -> dict[str, Candidate]:
    """The candidates with another recipe of the second level."""
    return {**CANDIDATES, "second level": partial(second, recipe=recipe)}
