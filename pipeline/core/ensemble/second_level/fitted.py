"""A combination of members, fitted: all that scores a test image, at home and where a submission is
made, with the same values.

    combined_scores(combination, patients, scores, quantiles)    (n,) in [0, 1], of one fold's
                                                                 networks
    write_combinations(path, combinations)                       combination.json
    read_combinations(path)                                      {label: FittedCombination}

Reads    models/<comp>/combination.json, or the one in a package
Writes   the same: for each label its members, patient columns, weights, coefficients, and
         LightGBM's text; no pickle

Test scores become quantiles by the maps of quantiles.json, frozen from the fold's own out-of-fold
scores, and patients come whole. So a hidden test set of one image gives what it would give within
half a million. Rows are taken in blocks of whole patients, so memory does not grow with their
number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import read_json, write_sealed
from pipeline.core.ensemble.averages import FrozenMap, apply_map
from pipeline.core.ensemble.second_level.learners import (
    Learners,
    learner_logits,
    learners_from_json,
    learners_json,
)
from pipeline.core.ensemble.second_level.patient_context import (
    Columns,
    Members,
    codes_of,
    context_columns,
)
from pipeline.core.folds.split import patient_keys
from pipeline.core.runtime.errors import UserError

COMBINATION = "combination.json"
BLOCK = 50_000  # rows scored at once; 205 columns of them are 80 MB


@dataclass(frozen=True)
class FittedCandidate:
    """What a candidate of `earned` fitted: a weighted mean of members and of a model on patient
    columns, or the learners of the second level.

    weights       (M,) float64, of the members' scores or quantiles
    on            "scores" or "quantiles"
    share         weight of the model on patient columns, as quantiles by `patient_map`
    patients      that model, None where its share is 0
    second_level  the learners that give the score alone, None for a weighted mean
    """

    weights: tuple[float, ...] = ()
    on: str = "quantiles"
    share: float = 0.0
    patients: Learners | None = None
    patient_map: FrozenMap | None = None
    second_level: Learners | None = None


@dataclass(frozen=True)
class FittedCombination:
    """One label's combination, fitted on all out-of-fold rows.

    candidate  its name in `earned.CANDIDATES`
    members    (M,) names, in the order of weights and columns
    columns    the patient columns; levels: their categories
    fitted     its numbers
    """

    candidate: str
    members: tuple[str, ...]
    columns: Columns
    levels: dict[str, list[str]]
    fitted: FittedCandidate


def candidate_scores(
    fitted: FittedCandidate, table: pd.DataFrame, scores: np.ndarray, quantiles: np.ndarray
) -> np.ndarray:
    """(n,) float64 in [0, 1].

    table: the columns of `patient_context` (n, F); scores, quantiles: (M, n) of the members.
    """
    if fitted.second_level is not None:
        return 1 / (1 + np.exp(-learner_logits(fitted.second_level, table)))
    members = scores if fitted.on == "scores" else quantiles
    mean = np.asarray(fitted.weights) @ members
    if fitted.patients is None:
        return mean
    return mean + fitted.share * patient_quantiles(fitted, table)


def patient_quantiles(fitted: FittedCandidate, table: pd.DataFrame) -> np.ndarray:
    """(n,) float64 in (0, 1): the model on patient columns, by its frozen map."""
    return apply_map(learner_logits(fitted.patients, table), fitted.patient_map)


def frozen_quantiles(maps: Sequence[FrozenMap], scores: np.ndarray) -> np.ndarray:
    """(n, M) float64 in (0, 1) of one fold's networks' scores (n, M), by each member's frozen
    map."""
    columns = [apply_map(column, frozen) for column, frozen in zip(scores.T, maps, strict=True)]
    return np.stack(columns, axis=1)


def combined_scores(
    combination: FittedCombination,
    patients: pd.DataFrame,
    scores: np.ndarray,
    maps: Sequence[FrozenMap],
    block: int = BLOCK,
) -> np.ndarray:
    """(n,) float64 in [0, 1]: the combination of one fold's networks.

    patients  n rows of the test set with patient_id and the patient columns: whole patients
    scores    (n, M) float64, what the networks of that fold gave
    maps      their M frozen maps, of that fold
    """
    if scores.shape[1:] != (len(combination.members),):
        names = ", ".join(combination.members)
        raise UserError(
            f"second level: test scores of shape {scores.shape}, where it was fitted on "
            f"{len(combination.members)} members ({names})"
        )
    quantiles = frozen_quantiles(maps, scores)
    columns = combination.columns
    levels = combination.levels
    result = np.empty(len(patients))
    for rows in whole_patients(patients["patient_id"], block):
        members = Members(combination.members, scores[rows], quantiles[rows], {})
        table = context_columns(patients.iloc[rows], members, columns, levels)
        result[rows] = candidate_scores(
            combination.fitted, table, scores[rows].T, quantiles[rows].T
        )
    return result


def patient_table(images: pd.DataFrame) -> pd.DataFrame:
    """The rows with `patient_id` as folds know it: an image without one is a patient of its own."""
    return images.assign(patient_id=patient_keys(images).to_numpy()).reset_index(drop=True)


def whole_patients(patients: pd.Series, block: int) -> Iterator[np.ndarray]:
    """Positions of the rows, some `block` at a time, no patient in two; more at once only where one
    patient has more."""
    if not len(patients):
        return
    codes = codes_of(patients)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes))  # a patient's rows end there, in that order
    start = 0
    while start < len(order):
        last = np.searchsorted(ends, start + block, "right") - 1
        stop = max(ends[max(last, 0)], ends[np.searchsorted(ends, start, "right")])
        yield order[start:stop]
        start = stop


def write_combinations(path: Path, combinations: Mapping[str, FittedCombination]) -> None:
    """{label: combination} as JSON."""
    write_sealed(path, {label: combination_json(one) for label, one in combinations.items()})


def read_combinations(path: Path) -> dict[str, FittedCombination]:
    """What `write_combinations` wrote; a UserError names a file that is missing or cut short."""
    return {label: combination_from_json(values) for label, values in read_json(path).items()}


def combination_json(combination: FittedCombination) -> dict:
    """Plain JSON values."""
    fitted = combination.fitted
    return {
        "candidate": combination.candidate,
        "members": list(combination.members),
        "columns": asdict(combination.columns),
        "levels": combination.levels,
        "weights": list(fitted.weights),
        "on": fitted.on,
        "share": fitted.share,
        "patients": fitted.patients and learners_json(fitted.patients),
        "patient_map": fitted.patient_map,
        "second_level": fitted.second_level and learners_json(fitted.second_level),
    }


def combination_from_json(values: Mapping) -> FittedCombination:
    """What `combination_json` gave."""
    columns = values["columns"]
    return FittedCombination(
        values["candidate"],
        tuple(values["members"]),
        Columns(tuple(columns["numeric"]), tuple(columns["categorical"]), columns["place"]),
        values["levels"],
        FittedCandidate(
            tuple(values["weights"]),
            values["on"],
            values["share"],
            values["patients"] and learners_from_json(values["patients"]),
            values["patient_map"],
            values["second_level"] and learners_from_json(values["second_level"]),
        ),
    )
