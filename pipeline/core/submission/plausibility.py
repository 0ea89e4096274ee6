"""Checks of well-formed scores: constants, ties, hard decisions, inverted or swapped columns.

A constant column is an error (its AUC is 0.5 whatever the truth); everything else here is a
warning, because a rank metric accepts it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

SHOWN_ROWS = 5  # offending rows that a finding names
MIN_ROWS = 20  # with fewer, ties and distributions mean nothing
# Share of rows with the column's most frequent score that is worth a warning; at most 0.004 in six
# files of a real leaderboard.
TIED = 0.10
# Share of rows with the same score in every column: what a default for unreadable images looks like
SAME_ROW = 0.01
# The mean score's odds against the prevalence's: a network's scores need not be calibrated.
ODDS = 50.0
# By how much the correlation with another column must be larger to call two columns swapped.
SWAP_MARGIN = 0.1


@dataclass(frozen=True)
class Finding:
    """One thing wrong: an `error` where the organiser would refuse or misread the file, else a
    `warning` to look at.

    rows   the first rows that have it
    count  how many there are (0 where it is about the whole file)
    """

    severity: str
    message: str
    rows: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        text = f"{self.severity}: {self.message}"
        if self.count:
            text += f" ({self.count})"
        if self.rows:
            more = ", …" if self.count > len(self.rows) else ""
            text += f": {', '.join(self.rows)}{more}"
        return text


def first_rows(texts: Iterable[str]) -> tuple[str, ...]:
    """The first few of the rows that have a finding."""
    return tuple(islice(texts, SHOWN_ROWS))


def plausibility_findings(
    scores: pd.DataFrame,
    prevalence: pd.Series | None = None,
    reference: pd.DataFrame | None = None,
    probability: bool = False,
) -> list[Finding]:
    """Findings about the numbers of a submission: a column a label, ids as index, NaN where a cell
    is not a number.

    prevalence   column -> share of positives in training
    reference    the ensemble's scores of the same ids, the same columns
    probability  True where the organiser wants probabilities, which is checked cell by cell before
    """
    # A repeated id has been reported as such; its second row must not count twice here.
    scores = scores[~scores.index.duplicated()]

    findings = []
    for column in scores:
        values = scores[column].dropna()
        # One row alone is no constant: a code competition's public test set may have three.
        constant = len(values) > 1 and values.nunique() == 1
        if constant:
            message = f"column {column}: every score is {values.iloc[0]:g}, so its AUC is 0.5"
            findings.append(Finding("error", message))
        if constant or len(values) < MIN_ROWS:
            continue
        findings += tied(values)
        if not probability:
            findings += outside_unit_interval(values)
        # Scores of the same rows are stronger evidence than the share of positives.
        if reference is None and prevalence is not None and column in prevalence.index:
            findings += unlike_training(values, float(prevalence[column]))
    if reference is not None:
        findings += unlike_reference(scores, reference)
    return findings + same_rows(scores)


def tied(values: pd.Series) -> list[Finding]:
    """Hard decisions, and one score shared by many rows."""
    counts = values.value_counts()
    most_frequent = counts.index[0]
    # Decisions have one threshold: their ROC curve is a single corner, and loses much of the AUC.
    if len(counts) == 2:
        only = f"only the scores {most_frequent:g} and {counts.index[1]:g}"
        message = f"column {values.name}: {only}; are these decisions rather than scores?"
        return [Finding("warning", message)]
    if counts.iloc[0] <= TIED * len(values):
        return []
    rows = first_rows(f"{identity!r}" for identity in values.index[values == most_frequent])
    message = f"column {values.name}: rows that share the score {most_frequent:g}"
    return [Finding("warning", message, rows, int(counts.iloc[0]))]


def outside_unit_interval(values: pd.Series) -> list[Finding]:
    """Scores outside [0, 1], where the metric takes any: a rank metric scores them, but a reader
    may take them for a mistake."""
    outside = values[(values < 0) | (values > 1)]
    if not len(outside):
        return []
    rows = first_rows(f"{identity!r} {value:g}" for identity, value in outside.items())
    message = f"column {values.name}: scores outside [0, 1]"
    return [Finding("warning", message, rows, len(outside))]


def same_rows(scores: pd.DataFrame) -> list[Finding]:
    """Many rows with the same score in each of several columns."""
    if scores.shape[1] < 2 or len(scores) < MIN_ROWS:
        return []
    # value_counts puts the most frequent combination first
    counts = scores.dropna().value_counts()
    few = not len(counts) or counts.iloc[0] <= max(1, SAME_ROW * len(scores))
    # Constant columns are an error of their own.
    if few or (scores.nunique() == 1).all():
        return []
    same = (scores == list(counts.index[0])).all(axis=1).to_numpy()
    rows = first_rows(f"{identity!r}" for identity in scores.index[same])
    message = "rows with the same scores in all columns; were their images unreadable?"
    return [Finding("warning", message, rows, int(same.sum()))]


def unlike_training(values: pd.Series, prevalence: float) -> list[Finding]:
    """Scores in [0, 1] whose mean and skew are those of the complement, or whose mean is far from
    the prevalence."""
    # Ranks or logits say nothing about a share: only what may be probabilities is judged.
    mean = float(values.mean())
    if values.min() < 0 or values.max() > 1 or not 0 < prevalence < 1 or not 0 < mean < 1:
        return []
    share = f"{prevalence:.3g} of the training images are positive"
    message = f"column {values.name}: the mean score is {mean:.3g}, {share}"

    # Rare positives leave a tail on the right, so inverted scores have it on the left.
    near_complement = abs(mean - (1 - prevalence)) < abs(mean - prevalence)
    skew = float(values.skew())
    if prevalence >= 0.5:
        skew = -skew
    if near_complement and skew < 0:
        return [Finding("warning", f"{message}: are the scores inverted?")]

    # Odds rather than the difference: 0.5 against 1.8 % (SIIM) is a factor of 55, 1 % one of 1.8.
    odds = mean / (1 - mean) / (prevalence / (1 - prevalence))
    if 1 / ODDS < odds < ODDS:
        return []
    return [Finding("warning", message)]


def unlike_reference(scores: pd.DataFrame, reference: pd.DataFrame) -> list[Finding]:
    """Columns that run against the reference's, or follow another column of it better than their
    own."""
    # The rows of both; a file for another split has none, which the ids report.
    common = scores.index[scores.index.isin(reference.index) & ~scores.index.duplicated()]
    if len(common) < MIN_ROWS:
        return []

    # Ranks, since the two may be on different scales.
    names = [column for column in scores if column in reference]
    own_ranks = scores.loc[common, names].rank()
    reference_ranks = reference.loc[common, names].rank()

    findings = []
    for column in names:
        own = correlation(own_ranks[column], reference_ranks[column])
        others = {
            other: correlation(own_ranks[column], reference_ranks[other])
            for other in names
            if other != column
        }
        # An inverted column may look like a swapped one, since diseases go together: the stronger
        # correlation decides.
        best = max(others, key=others.get, default=None)
        if own < 0 and (best is None or others[best] <= -own):
            message = f"rank correlation {own:.2f} with the ensemble's scores: inverted?"
            findings.append(Finding("warning", f"column {column}: {message}"))
        elif best is not None and others[best] > max(own, 0) + SWAP_MARGIN:
            other = f"{best} of the ensemble's scores ({others[best]:.2f})"
            message = f"follows {other} better than {column} ({own:.2f}): swapped columns?"
            findings.append(Finding("warning", f"column {column}: {message}"))
    return findings


def correlation(first: pd.Series, second: pd.Series) -> float:
    """Pearson's correlation of two columns of ranks; 0 where one is constant or not all are
    numbers."""
    # NumPy would warn of a division by zero, and answer NaN.
    both = np.vstack([first.to_numpy(), second.to_numpy()])
    if np.isnan(both).any() or (both.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(both)[0, 1])
