"""Which way to combine members has earned its place: candidates from simple to involved, all scored
nested.

    table, scores, fits = score_candidates(data)  each one's AUC, its gain over the simplest with
                                                  its interval; its nested scores
    name = last_earned(scores, labels, ...)       the rule
    honest = nested_choice(data)                  scores of "whatever the rule would have chosen",
                                                  for the metric

    uniform mean     the members' scores as they are
    rank mean        the members' quantiles within fold
    half metadata    the rank mean and a model on the patient columns, half and half (the paper's
                     blend)
    fitted share     the same, the share fitted
    hill climbing    Caruana's selection among the members and that model
    second level     trees and logistic regression on all columns (`second_level`)

Reads    `second_level.StackingRows` in memory
Writes   nothing

A candidate is a function of (data, rows to fit on) that returns what it fitted
(`fitted.FittedCandidate`): the same numbers then score held-out patients, test images, and images
elsewhere. No row is ever scored by a weight, a share or a learner that saw its patient. A share or
a weight of the patient columns' model is fitted on that model's own nested scores within the rows
to fit on. `nested_choice` makes the choice too inside the rows to fit on.

The rule, and its one home: going from simple to involved, a candidate takes the place where its
gain over the one that stands has a paired 95 % interval above 0. "The simplest whose gain over the
simplest holds" was tried first and dropped: it stops at the first candidate that passes, however
far a later one is ahead. On two real models of SIIM-ISIC (tests/bench/RESULTS.md) it stops at the
rank mean, .9031, where the second level has .9209, and the better model alone .9085.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from pipeline.core.config.stages import SECOND_LEVEL
from pipeline.core.ensemble.averages import apply_map, normalised_ranks, quantile_map
from pipeline.core.ensemble.second_level.fitted import FittedCandidate, candidate_scores
from pipeline.core.ensemble.second_level.nested import (
    STANDARD,
    Recipe,
    StackingRows,
    fewer_negatives,
    fit_rows,
    nested_logits,
)
from pipeline.core.ensemble.selection import select
from pipeline.core.metrics.bootstrap import partial_auc_difference
from pipeline.core.metrics.exchange_test import auc_difference
from pipeline.core.metrics.roc import auc, partial_auc

Candidate = Callable[[StackingRows, np.ndarray], FittedCandidate]

# The organisers' metrics, by their names in `Task.metric`.
METRICS = {"auc": auc, "partial_auc": partial_auc}
DIFFERENCES = {"auc": auc_difference, "partial_auc": partial_auc_difference}

SHARES = np.linspace(0, 1, 21)

# The model on patient columns: one logistic regression.
PLAIN = Recipe(share=0.0, seeds=(0,), part_patients=1.0)

# Hill climbing looks at so many rows: all positives, negatives drawn.
CLIMBED_ROWS = 40_000


def uniform_mean(data: StackingRows, _training: np.ndarray) -> FittedCandidate:
    """The mean of the scores as they are."""
    return FittedCandidate(equal_weights(data), "scores")


def rank_mean(data: StackingRows, _training: np.ndarray) -> FittedCandidate:
    """The mean of the quantiles within fold."""
    return FittedCandidate(equal_weights(data))


def half_metadata(data: StackingRows, training: np.ndarray) -> FittedCandidate:
    """Half the rank mean, half the model on patient columns."""
    return with_patient_share(data, training, nested_on_patients(data, training), 0.5)


def fitted_share(data: StackingRows, training: np.ndarray) -> FittedCandidate:
    """The same with the share that is best on the rows to fit on, the smallest of equals."""
    logits = nested_on_patients(data, training)
    known = training & ~np.isnan(data.labels)
    images = data.quantiles[:, known].mean(axis=0)
    patients = apply_map(logits[known], quantile_map(logits[training]))
    truth = data.labels[known]
    areas = [METRICS[data.metric]((1 - one) * images + one * patients, truth) for one in SHARES]
    return with_patient_share(data, training, logits, float(SHARES[int(np.argmax(areas))]))


def hill_climbing(data: StackingRows, training: np.ndarray) -> FittedCandidate:
    """Members and the model on patient columns, with the weights of ensemble selection."""
    logits = nested_on_patients(data, training)
    frozen = quantile_map(logits[training])

    # Beyond some ten thousand rows a climb learns nothing from more negatives.
    rows = np.flatnonzero(training & ~np.isnan(data.labels))
    generator = np.random.default_rng(0)
    rows, _ = fewer_negatives(rows, data.labels, CLIMBED_ROWS, generator)
    candidates = np.vstack([data.quantiles[:, rows], apply_map(logits[rows], frozen)])
    *weights, share = map(float, select(candidates, data.labels[rows], metric=data.metric))
    if not share:
        return FittedCandidate(tuple(weights))
    model = fit_rows(data, training, PLAIN, data.alone)
    return FittedCandidate(tuple(weights), "quantiles", share, model, frozen)


def second_level(
    data: StackingRows, training: np.ndarray, recipe: Recipe = STANDARD
) -> FittedCandidate:
    """Trees and logistic regression on all columns."""
    return FittedCandidate(second_level=fit_rows(data, training, recipe))


CANDIDATES: Mapping[str, Candidate] = {
    "uniform mean": uniform_mean,
    "rank mean": rank_mean,
    "half metadata": half_metadata,
    "fitted share": fitted_share,
    "hill climbing": hill_climbing,
    SECOND_LEVEL: second_level,
}


def with_recipe(recipe: Recipe) -> dict[str, Candidate]:
    """The candidates with another recipe of the second level."""
    return {**CANDIDATES, SECOND_LEVEL: partial(second_level, recipe=recipe)}


def equal_weights(data: StackingRows, total: float = 1.0) -> tuple[float, ...]:
    """Weights (M,) that sum to `total`."""
    members = len(data.quantiles)
    return (total / members,) * members


def with_patient_share(
    data: StackingRows, training: np.ndarray, logits: np.ndarray, share: float
) -> FittedCandidate:
    """The rank mean, and a share of the model on patient columns, whose frozen map is that of its
    nested logits (n,) on the rows to fit on."""
    if not share:
        return FittedCandidate(equal_weights(data))
    model = fit_rows(data, training, PLAIN, data.alone)
    frozen = quantile_map(logits[training])
    return FittedCandidate(equal_weights(data, 1 - share), "quantiles", share, model, frozen)


def nested_on_patients(data: StackingRows, rows: np.ndarray) -> np.ndarray:
    """(n,) logits of a logistic regression on the patient columns alone, out of fold within `rows`
    (n,) bool; NaN elsewhere."""
    return nested_logits(data, PLAIN, rows, data.alone)


def held_scores(fitted: FittedCandidate, data: StackingRows, held: np.ndarray) -> np.ndarray:
    """(h,) in [0, 1]: what a fitted candidate gives the rows `held` (n,) bool."""
    return candidate_scores(fitted, data.table[held], data.scores[:, held], data.quantiles[:, held])


def nested_scores(
    candidate: Candidate,
    data: StackingRows,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[int, FittedCandidate]]:
    """((n,) float64: each fold's rows by the candidate fitted on the other folds of `rows`, NaN
    outside `rows`; {fold: what was fitted on the others})."""
    rows = np.ones(len(data.labels), bool) if rows is None else rows
    result = np.full(len(data.labels), np.nan)
    fits = {}
    for number in np.unique(data.fold[rows]):
        held = rows & (data.fold == number)
        fits[int(number)] = candidate(data, rows & ~held)
        result[held] = held_scores(fits[int(number)], data, held)
    return result, fits


def score_candidates(
    data: StackingRows, candidates: Mapping[str, Candidate] = CANDIDATES
) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, dict[int, FittedCandidate]]]:
    """(a row for each candidate: its metric, gain over the first, low, high, p; {name: nested
    scores (n,)}; {name: {fold: what was fitted on the others}})."""
    scores = {}
    fits = {}
    for name, candidate in candidates.items():
        scores[name], fits[name] = nested_scores(candidate, data)
    simplest = next(iter(scores.values()))
    found = []
    for name, values in scores.items():
        gain = gain_of(values, simplest, data.labels, data.patients, data.metric)
        area = METRICS[data.metric](values, data.labels)
        found.append({"candidate": name, data.metric: area, **gain})
    return pd.DataFrame(found), scores, fits


def gain_of(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray,
    metric: str = "auc",
) -> dict[str, float]:
    """The paired difference of two score columns (n,) over patients: gain, low, high, p."""
    difference = DIFFERENCES[metric](first, second, labels, patients)
    return dict(zip(("gain", "low", "high", "p"), difference))


def last_earned(
    scores: Mapping[str, np.ndarray], labels: np.ndarray, patients: np.ndarray, metric: str = "auc"
) -> str:
    """From simple to involved: a candidate takes the place where its gain over the one that stands
    has an interval above 0."""
    names = list(scores)
    stands = names[0]
    for name in names[1:]:
        if gain_of(scores[name], scores[stands], labels, patients, metric)["low"] > 0:
            stands = name
    return stands


def nested_choice(
    data: StackingRows, candidates: Mapping[str, Candidate] = CANDIDATES
) -> tuple[np.ndarray, dict[int, str]]:
    """(ranks within fold (n,) of what the rule chose without seeing the fold, {fold: its choice}).

    Ranks, since two folds may choose candidates of different scales.
    """
    result = np.full(len(data.labels), np.nan)
    choice = {}
    for number in np.unique(data.fold):
        held = data.fold == number
        training = ~held

        # The rule, within the other folds alone.
        inner = {
            name: nested_scores(candidate, data, training)[0][training]
            for name, candidate in candidates.items()
        }
        chosen = last_earned(inner, data.labels[training], data.patients[training], data.metric)

        # Its choice, fitted on all of them.
        choice[int(number)] = chosen
        fitted = candidates[chosen](data, training)
        result[held] = normalised_ranks(held_scores(fitted, data, held))
    return result, choice
