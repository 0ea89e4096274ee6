"""AUCs with their intervals as table rows: every label, and the mean over labels, on one resample
of patients."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.metrics.bootstrap import (
    auc_difference,
    bootstrap_aucs,
    bootstrap_metric,
    percentiles,
)
from pipeline.core.metrics.roc import auc, classes, partial_auc

REPLICATES = 1000


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
    there, defined = ~np.isnan(scores).any(axis=0), classes(truth)
    used = np.flatnonzero(there & defined)
    samples = np.full((replicates, len(labels)), np.nan)
    if len(used):
        samples[:, used] = bootstrap_aucs(scores[:, used], truth[:, used], groups, replicates, seed)
    rows = []
    for column, label in enumerate(labels):
        if there[column]:
            known = ~np.isnan(truth[:, column])
            area = auc(scores[:, column], truth[:, column])
            row = row_of(
                label, area, samples[:, column], known.sum(), (truth[:, column] == 1).sum()
            )
            rows.append(
                row
                | (
                    partial_row(scores[:, column], truth[:, column], groups, replicates, seed)
                    if metric == "partial_auc"
                    else {}
                )
            )
    if len(used) and (there | ~defined).all():
        means = [row["auc"] for row in rows if not np.isnan(row["auc"])]
        known = ~np.isnan(truth[:, used]).all(axis=1)
        rows.append(
            row_of(
                "mean",
                float(np.mean(means)),
                samples[:, used].mean(axis=1),
                known.sum(),
                (truth[:, used] == 1).sum(),
            )
        )
    return rows


def row_of(label: str, area: float, samples: np.ndarray, n: int, positives: int) -> dict:
    low, high = percentiles(samples, 0.95)
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
    """The partial AUC of one label with its interval."""
    low, high = percentiles(
        bootstrap_metric(partial_auc, scores, truth, groups, replicates, seed), 0.95
    )
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
    """Paired difference of the mean AUCs over the labels both have and that have both classes; None
    without any."""
    used = (
        classes(truth) & ~np.isnan(first_scores).any(axis=0) & ~np.isnan(second_scores).any(axis=0)
    )
    if not used.any():
        return None
    found = auc_difference(
        first_scores[:, used], second_scores[:, used], truth[:, used], groups, replicates=replicates
    )
    return {
        "first": first,
        "second": second,
        **dict(zip(("difference", "low", "high", "p"), found)),
        "labels": int(used.sum()),
    }


def sentence(row: dict) -> str:
    """A paired difference in words: who is better, by how much, and whether that is more than
    noise."""
    told = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p']:.3f}"
    better = row["first"] if row["difference"] > 0 else row["second"]
    verdict = (
        f"{better} is better" if row["low"] > 0 or row["high"] < 0 else "no difference beyond noise"
    )
    return f"{row['first']} - {row['second']}: {told}: {verdict}"


def printed(rows: Sequence[dict]) -> str:
    """Score rows as a table for the terminal."""
    table = pd.DataFrame(rows)
    if set(table["label"]) - {"mean"} == {table["label"].iloc[0]}:  # one label is its own mean
        table = table[table["label"] != "mean"]
    for name in ("auc", "low", "high", "partial_auc", "partial_low", "partial_high"):
        if name in table:
            table[name] = table[name].map(lambda value: "" if pd.isna(value) else f"{value:.4f}")
    return table.fillna("").to_string(index=False)
