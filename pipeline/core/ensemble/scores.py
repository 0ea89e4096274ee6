"""AUCs with their intervals as table rows, paired differences, and both as text.

Intervals are over patients (`metrics.score_interval`, `metrics.exchange_test`). NaN limits mean
that there are too few positives, negatives or patients to tell, and are written so.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.config.stages import MEAN_LABEL
from pipeline.core.metrics.bootstrap import bootstrap_partial_aucs, percentiles
from pipeline.core.metrics.exchange_test import auc_difference
from pipeline.core.metrics.roc import auc, classes, mean_auc, partial_auc
from pipeline.core.metrics.score_interval import auc_interval, mean_auc_interval

REPLICATES = 1000  # resamples of a partial AUC, which has no formula
LEVEL = 0.95  # of every interval
DIFFERENCE = "+.4f"  # format of a difference of AUCs
TOO_FEW = "too few to tell"


def score_rows(
    scores: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    labels: Sequence[str],
    metric: str = "auc",
) -> list[dict]:
    """Rows label, auc, low, high, n, positives for each label that the scores have, then one called
    "mean".

    scores, truth: (n, K); groups: (n,) patients. The AUC is NaN where a label has one class only,
    and such a label is not in the mean; the interval is NaN where there are too few to tell. The
    mean is given where all the others are there. With metric "partial_auc" the columns
    partial_auc, partial_low, partial_high follow (sensitivity above 0.8).
    """
    has_scores = ~np.isnan(scores).any(axis=0)
    defined = classes(truth)
    used = np.flatnonzero(has_scores & defined)

    # a row for each label
    rows = []
    for k in np.flatnonzero(has_scores):
        own = (scores[:, k], truth[:, k])
        limits = auc_interval(*own, groups)
        n = np.count_nonzero(~np.isnan(truth[:, k]))
        positives = np.count_nonzero(truth[:, k] == 1)
        row = score_row(labels[k], auc(*own), limits, n, positives)
        if metric == "partial_auc":
            row |= partial_row(*own, groups)
        rows.append(row)

    # the mean over labels: n counts rows that have at least one label
    if len(used) and (has_scores | ~defined).all():
        mean = mean_auc(scores[:, used], truth[:, used])
        limits = mean_auc_interval(scores[:, used], truth[:, used], groups)
        n = np.count_nonzero(~np.isnan(truth[:, used]).all(axis=1))
        positives = np.count_nonzero(truth[:, used] == 1)
        rows.append(score_row(MEAN_LABEL, mean, limits, n, positives))
    return rows


def score_row(label: str, area: float, limits: tuple[float, float], n: int, positives: int) -> dict:
    """One row of scores.csv."""
    return {
        "label": label,
        "auc": area,
        "low": limits[0],
        "high": limits[1],
        "n": int(n),
        "positives": int(positives),
    }


def partial_row(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> dict:
    """The partial AUC of one label with its interval, of resamples; NaN where the AUC has none.

    scores, truth, groups: (n,).
    """
    low = high = float("nan")
    if not np.isnan(auc_interval(scores, truth, groups)).any():
        samples = bootstrap_partial_aucs(scores, truth, groups, REPLICATES)
        low, high = percentiles(samples, LEVEL)
    return {"partial_auc": partial_auc(scores, truth), "partial_low": low, "partial_high": high}


def difference_row(
    first: str,
    second: str,
    first_scores: np.ndarray,
    second_scores: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
) -> dict | None:
    """Paired difference of the mean AUCs over the labels that both have and that have both classes;
    None where there is no such label.

    scores, truth: (n, K); groups: (n,) patients. Keys: first, second (the names as given),
    difference, low, high, p (NaN = too few to tell), labels (how many).
    """
    # the means are over the same labels, else their difference would mean nothing
    both_scored = ~np.isnan(first_scores).any(axis=0) & ~np.isnan(second_scores).any(axis=0)
    used = classes(truth) & both_scored
    if not used.any():
        return None
    difference, low, high, p = auc_difference(
        first_scores[:, used], second_scores[:, used], truth[:, used], groups
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
    >>> with_interval(0.91234, float("nan"), float("nan"))
    'too few to tell'
    """
    if np.isnan(low):
        return TOO_FEW
    ends = ends or form
    return f"{value:{form}} [{low:{ends}}, {high:{ends}}]"


def difference_text(row: dict) -> str:
    """`+0.0123 [-0.0020, +0.0266]`, of a row of `difference_row`."""
    return with_interval(row["difference"], row["low"], row["high"], DIFFERENCE)


def gain_text(row: dict) -> str:
    """The same of a gain: a row with gain, low, high."""
    return with_interval(row["gain"], row["low"], row["high"], DIFFERENCE)


def sentence(row: dict) -> str:
    """A paired difference in words: which is better, by how much, and whether that is more than
    noise."""
    if np.isnan(row["low"]):
        return f"{row['first']} - {row['second']}: {TOO_FEW}"
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
    few = table["auc"].notna() & table["low"].isna()
    for name in ("auc", "low", "high", "partial_auc", "partial_low", "partial_high"):
        if name in table:
            table[name] = table[name].map(lambda value: "" if pd.isna(value) else f"{value:.4f}")
    table.loc[few, ["auc", "low", "high"]] = ["", *TOO_FEW.split(" to ", 1)]
    return table.fillna("").to_string(index=False)
