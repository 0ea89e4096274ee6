"""Patient columns as numbers: standardised values, one column per category, and "missing" as a
value of its own."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.task import Task
from pipeline.core.runtime.errors import UserError

# {"numeric": {name: [mean, deviation]}, "categorical": {name: [value, ...]}}, as JSON.
Encoder = Mapping[str, Mapping]


def fit_encoder(rows: pd.DataFrame, task: Task) -> dict:
    """Means, deviations and categories of the training rows alone."""
    # A misspelt column would otherwise be "missing" in every row, and its network learn nothing.
    for column in (*task.numeric, *task.categorical):
        if column not in rows.columns:
            known = ", ".join(rows.columns)
            raise UserError(
                f"images.csv: the patient column {column!r} is missing; there are {known}"
            )

    # Each number by its own mean and deviation; each category by its sorted values, so that the
    # order of rows changes nothing.
    numeric = {}
    for name in task.numeric:
        values = rows[name].astype(float)
        mean = float(values.mean()) if values.notna().any() else 0.0
        numeric[name] = [mean, deviation_or_one(values)]
    categorical = {}
    for name in task.categorical:
        categorical[name] = sorted(rows[name].dropna().astype(str).unique())
    return {"numeric": numeric, "categorical": categorical}


def deviation_or_one(values: pd.Series) -> float:
    """The standard deviation, or 1 for a constant column, whose rounding errors would else be blown
    up to noise."""
    # Far coarser than float64's rounding (2e-16), so that no rounding error passes for spread.
    deviation = float(values.std(ddof=0))
    size = float(values.abs().max())
    return deviation if deviation > 1e-6 * size else 1.0


def encode_columns(rows: pd.DataFrame, encoder: Encoder) -> np.ndarray:
    """float32 (N, width): value and "missing" for each number; "missing" and each known category
    for the others.

    A column that is not there is missing in every row; a category that training never saw is all
    zeros.
    """
    blank = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    parts = []
    # Two columns for each number: a missing value is given as the mean, and the network is told.
    for name, (mean, deviation) in encoder["numeric"].items():
        x = pd.to_numeric(rows.get(name, blank), errors="coerce").to_numpy(np.float64)
        # The deviation of a column that training had no value of is NaN.
        if deviation != deviation:
            deviation = 1.0
        # A missing value becomes 0, the mean.
        parts += [np.nan_to_num((x - mean) / deviation), np.isnan(x)]

    # One column for missing and one for each category that training has seen.
    for name, known in encoder["categorical"].items():
        values = rows.get(name, blank)
        parts += [values.isna().to_numpy(), *one_hot(values, known).T]
    if not parts:
        return np.zeros((len(rows), 0), np.float32)
    return np.stack(parts, axis=1).astype(np.float32)


def one_hot(values: pd.Series, known: Sequence[str]) -> np.ndarray:
    """bool (N, len(known)): which of the known categories each value is."""
    # As text, since a category may be a number in one table and text in another (site 3, "3").
    texts = values.astype(str).to_numpy(object)
    return texts[:, None] == np.array(list(known), object)[None, :]


def width(encoder: Encoder) -> int:
    """The number of columns that `encode_columns` makes."""
    categories = encoder["categorical"].values()
    return 2 * len(encoder["numeric"]) + sum(1 + len(known) for known in categories)
