"""AUCs with their intervals as table rows, paired differences, and both as text.

All labels, and their mean, are scored on one resample of patients.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.stages import MEAN_LABEL
from pipeline.core.metrics.bootstrap import (
    auc_difference,
    bootstrap_aucs,
    bootstrap_metric,
    percentiles,
)
from pipeline.core.metrics.roc import auc, classes, partial_auc

REPLICATES = 1000
LEVEL = 0.95  # of every interval
DIFFERENCE = "+.4f"  # format of a difference of AUCs


def score_rows(
    scores: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    metric: str = "auc",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[dict]:
    """Rows label, auc, low, high, n, positives for each label that the scores have, then one called
    "mean".

    scores, truth: (n, K); groups: (n,) patients. AUC and interval are NaN where a label has one
    class only, and such a label is not in the mean. The mean is given where all the others are
    there. With metric "partial_auc" the columns partial_auc, partial_low, partial_high follow
    (sensitivity above 0.8).
    """
    # one resample for all labels, so that the interval of their mean knows their correlation
    has_scores = ~np.isnan(scores).any(axis=0)
    defined = classes(truth)
    used = np.flatnonzero(has_scores & defined)
    samples = np.full((replicates, len(labels)), np.nan)
    if len(used):
        samples[:, used] = bootstrap_aucs(scores[:, used], truth[:, used], groups, replicates, seed)

    # a row for each label
    rows = []
    for k in np.flatnonzero(has_scores):
        n = np.count_nonzero(~np.isnan(truth[:, k]))
        positives = np.count_nonzero(truth[:, k] == 1)
        row = score_row(labels[k], auc(scores[:, k], truth[:, k]), samples[:, k], n, positives)
        if metric == "partial_auc":
            row |= partial_row(scores[:, k], truth[:, k], groups, replicates, seed)
        rows.append(row)

    # the mean over labels: n counts rows that have at least one label
    if len(used) and (has_scores | ~defined).all():
        mean = float(np.mean([row["auc"] for row in rows if not np.isnan(row["auc"])]))
        n = np.count_nonzero(~np.isnan(truth[:, used]).all(axis=1))
        positives = np.count_nonzero(truth[:, used] == 1)
        rows.append(score_row(MEAN_LABEL, mean, samples[:, used].mean(axis=1), n, positives))
    return rows


def score_row(label: str, area: float, samples: np.ndarray, n: int, positives: int) -> dict:
    """One row of scores.csv; samples: (replicates,) of the same area."""
    low, high = percentiles(samples, LEVEL)
    return {
        "label": label,
        "auc": area,
        "low": low,
        "high": high,
        "n": int(n),
        "positives": int(positives),
    }


def partial_row(
    scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, replicates: int, seed: int
) -> dict:
    """The partial AUC of one label with its interval; scores, truth, groups: (n,)."""
    # drawing the rows is some hundred times slower than the counts of `bootstrap_aucs`
    samples = bootstrap_metric(partial_auc, scores, truth, groups, replicates, seed)
    low, high = percentiles(samples, LEVEL)
    return {"partial_auc": partial_auc(scores, truth), "partial_low": low, "partial_high": high}


def difference_row(
    first: str,
    second: str,
    first_scores: np.ndarray,
    second_scores: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    replicates: int = REPLICATES,
) -> dict | None:
    """Paired difference of the mean AUCs over the labels that both have and that have both classes;
    None where there is no such label.

    scores, truth: (n, K); groups: (n,) patients. Keys: first, second (the names as given),
    difference, low, high, p, labels (how many).
    """
    # the means are over the same labels, else their difference would mean nothing
    both_scored = ~np.isnan(first_scores).any(axis=0) & ~np.isnan(second_scores).any(axis=0)
    used = classes(truth) & both_scored
    if not used.any():
        return None
    difference, low, high, p = auc_difference(
        first_scores[:, used], second_scores[:, used], truth[:, used], groups, replicates=replicates
    )
    return {
        "first": first,
        "second": second,
        "difference": difference,
        "low": low,
        "high": high,
        "p": p,
        "labels": int(used.sum()),
    }


def excludes_zero(row: dict) -> bool:
    """True where the interval of a paired difference excludes 0: it is more than noise."""
    return row["low"] > 0 or row["high"] < 0


def with_interval(value: float, low: float, high: float, form: str = ".4f", ends: str = "") -> str:
    """A value with its interval, as it is written everywhere; `ends`: another format of the ends.

    >>> with_interval(0.81234, 0.78, 0.84)
    '0.8123 [0.7800, 0.8400]'
    >>> with_interval(0.0123, -0.002, 0.03, DIFFERENCE)
    '+0.0123 [-0.0020, +0.0300]'
    """
    ends = ends or form
    return f"{value:{form}} [{low:{ends}}, {high:{ends}}]"


def difference_text(row: dict) -> str:
    """`+0.0123 [-0.0020, +0.0266]`, of a row of `difference_row`."""
    return with_interval(row["difference"], row["low"], row["high"], DIFFERENCE)


def sentence(row: dict) -> str:
    """A paired difference in words: which is better, by how much, and whether that is more than
    noise."""
    better = row["first"] if row["difference"] > 0 else row["second"]
    verdict = f"{better} is better" if excludes_zero(row) else "no difference beyond noise"
    figures = f"{difference_text(row)}, p = {row['p']:.3f}"
    return f"{row['first']} - {row['second']}: {figures}: {verdict}"


def score_lines(rows: Sequence[dict]) -> str:
    """Score rows as a table for the terminal."""
    table = pd.DataFrame(rows)
    # one label is its own mean
    if set(table["label"]) - {MEAN_LABEL} == {table["label"].iloc[0]}:
        table = table[table["label"] != MEAN_LABEL]
    for name in ("auc", "low", "high", "partial_auc", "partial_low", "partial_high"):
        if name in table:
            table[name] = table[name].map(lambda value: "" if pd.isna(value) else f"{value:.4f}")
    return table.fillna("").to_string(index=False)
