"""The two learners of the second level, fitted: what they say of columns, and how they are kept.

    learner_logits(learners, table)     (n,) float64
    learners_json(learners)             plain JSON: coefficients, and LightGBM's own text of each
                                        model; no pickle
    learners_from_json(values)          the same back

Boosted trees and logistic regressions, one of each a seed. Fitting them is `second_level`'s, which
needs scikit-learn; this is all that scoring needs, at home and where a submission is made.

Reads    columns (n, F) float32 of `patient_context`, in memory
Writes   nothing
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.runtime.errors import UserError


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

    features  (F,) str, the columns in their order
    trees     LightGBM's text, one a seed
    lines     one a seed
    share     weight of the trees; the rest is the logistic regressions'
    """

    features: tuple[str, ...]
    trees: tuple[str, ...]
    lines: tuple[Line, ...]
    share: float


def learner_logits(
    learners: Learners, table: pd.DataFrame, rounds: int | None = None
) -> np.ndarray:
    """(n,) float64: the mean over the seeds of each learner, then of the two.

    table: n rows of these learners' columns, others may be there too; rounds: only the first trees.
    """
    missing = [name for name in learners.features if name not in table]
    if missing:
        raise UserError(
            f"second level: {len(missing)} of the columns that it was fitted on are missing, first "
            f"{missing[0]!r}"
        )
    values = table[list(learners.features)].to_numpy(np.float32)
    result = np.zeros(len(values))
    if learners.trees:
        trees = [tree_logits(text, values, rounds) for text in learners.trees]
        result += learners.share * np.mean(trees, axis=0)
    if learners.lines:
        lines = [line.logits(values) for line in learners.lines]
        result += (1 - learners.share) * np.mean(lines, axis=0)
    return result


def tree_logits(text: str, values: np.ndarray, rounds: int | None = None) -> np.ndarray:
    """(n,) float64: what the trees of one text say of the columns (n, F); rounds: only the first
    ones."""
    import lightgbm

    if not len(values):
        return np.zeros(0)
    trees = lightgbm.Booster(model_str=text)
    return trees.predict(values, raw_score=True, num_threads=1, num_iteration=rounds)


def standardised(values: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n, F) float64, unknown values 0."""
    return np.nan_to_num((np.asarray(values, np.float64) - mean) / scale)


def learners_json(learners: Learners) -> dict:
    """Plain JSON values; floats keep all their digits."""
    lines = [
        {
            "mean": line.mean.tolist(),
            "scale": line.scale.tolist(),
            "weights": line.weights.tolist(),
            "intercept": line.intercept,
        }
        for line in learners.lines
    ]
    return {
        "features": list(learners.features),
        "trees": list(learners.trees),
        "lines": lines,
        "share": learners.share,
    }


def learners_from_json(values: Mapping) -> Learners:
    """What `learners_json` gave."""
    lines = [
        Line(
            np.array(line["mean"], np.float64),
            np.array(line["scale"], np.float64),
            np.array(line["weights"], np.float64),
            float(line["intercept"]),
        )
        for line in values["lines"]
    ]
    return Learners(
        tuple(values["features"]), tuple(values["trees"]), tuple(lines), float(values["share"])
    )
