"""What a well-formed submission may still have wrong: constants, ties, hard decisions, inverted or
swapped columns.

A constant column is an error (its AUC is 0.5 whatever the truth); everything else here is a
warning, because a rank metric accepts it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd

SHOWN = 5  # offending rows that a finding names
FEW = 20  # rows below which ties and distributions say nothing
# share of rows with the column's most frequent score; at most 0.004 in six files of a real
# leaderboard
TIED = 0.10
# share of rows with the same score in every column: what a default for unreadable images looks like
SAME_ROW = 0.01
ODDS = 50.0  # mean score's odds against the prevalence's


@dataclass(frozen=True)
class Finding:
    """One thing wrong: an `error` where the organiser would refuse or misread the file, else a
    `warning` to look at.

    rows are the first offenders, count how many there are (0 where it is about the whole file).
    """

    severity: str
    message: str
    rows: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        count = f" ({self.count})" if self.count else ""
        more = ", …" if self.count > len(self.rows) else ""
        return f"{self.severity}: {self.message}{count}" + (
            f": {', '.join(self.rows)}{more}" if self.rows else ""
        )


def listed(rows: Iterable[str]) -> tuple[str, ...]:
    """The first few."""
    return tuple(islice(rows, SHOWN))


def suspicions(
    scores: pd.DataFrame,
    prevalence: pd.Series | None = None,
    reference: pd.DataFrame | None = None,
    probability: bool = False,
) -> list[Finding]:
    """Findings about the numbers of a submission: a column a label, ids as index, NaN for what is
    no number."""
    scores, findings = scores[~scores.index.duplicated()], []
    for column in scores:
        values = scores[column].dropna()
        constant = len(values) > 1 and values.nunique() == 1
        if constant:
            findings.append(
                Finding(
                    "error",
                    f"column {column}: every score is {values.iloc[0]:g}, so its AUC is 0.5",
                )
            )
        if constant or len(values) < FEW:
            continue
        findings += tied(values) + outside(values, probability)
        if reference is None and prevalence is not None and column in prevalence.index:
            findings += unlike_training(values, float(prevalence[column]))
    if reference is not None:
        findings += against(scores, reference)
    return findings + same_rows(scores)


def tied(values: pd.Series) -> list[Finding]:
    """Hard decisions, and one score shared by many rows."""
    counts = values.value_counts()
    if len(counts) == 2:
        only = f"only the scores {counts.index[0]:g} and {counts.index[1]:g}"
        return [
            Finding(
                "warning", f"column {values.name}: {only}; are these decisions rather than scores?"
            )
        ]
    if counts.iloc[0] <= TIED * len(values):
        return []
    rows = listed(f"{identity!r}" for identity in values.index[values == counts.index[0]])
    shared = f"column {values.name}: rows that share the score {counts.index[0]:g}"
    return [Finding("warning", shared, rows, int(counts.iloc[0]))]


def outside(values: pd.Series, probability: bool) -> list[Finding]:
    """Scores outside [0, 1], where the metric takes any: a rank metric scores them, people stumble
    over them."""
    where = (values < 0) | (values > 1)
    rows = listed(f"{identity!r} {value:g}" for identity, value in values[where].items())
    if probability or not where.any():
        return []
    return [
        Finding("warning", f"column {values.name}: scores outside [0, 1]", rows, int(where.sum()))
    ]


def same_rows(scores: pd.DataFrame) -> list[Finding]:
    """Many rows with the same score in each of several columns."""
    if scores.shape[1] < 2 or len(scores) < FEW:
        return []
    counts = scores.dropna().value_counts()
    if (
        not len(counts)
        or counts.iloc[0] <= max(1, SAME_ROW * len(scores))
        or (scores.nunique() == 1).all()
    ):
        return []
    same = (scores == list(counts.index[0])).all(axis=1).to_numpy()
    rows = listed(f"{identity!r}" for identity in scores.index[same])
    told = "rows with the same scores in all columns; were their images unreadable?"
    return [Finding("warning", told, rows, int(same.sum()))]


def unlike_training(values: pd.Series, prevalence: float) -> list[Finding]:
    """Scores in [0, 1] whose mean and skew are those of the complement, or whose mean is far from
    the prevalence."""
    mean = float(values.mean())
    if values.min() < 0 or values.max() > 1 or not 0 < prevalence < 1 or not 0 < mean < 1:
        return []
    told = f"column {values.name}: the mean score is {mean:.3g}, {prevalence:.3g} of the training images are positive"
    complement = abs(mean - (1 - prevalence)) < abs(mean - prevalence)
    skew = float(values.skew()) * (
        1 if prevalence < 0.5 else -1
    )  # rare positives leave a tail on the right
    if complement and skew < 0:
        return [Finding("warning", f"{told}: are the scores inverted?")]
    odds = mean / (1 - mean) / (prevalence / (1 - prevalence))
    return [Finding("warning", told)] if not 1 / ODDS < odds < ODDS else []


def against(scores: pd.DataFrame, reference: pd.DataFrame) -> list[Finding]:
    """Columns that run against the scores made at home, or follow another column of theirs better
    than their own."""
    common = scores.index[scores.index.isin(reference.index) & ~scores.index.duplicated()]
    if len(common) < FEW:
        return []
    names = [column for column in scores if column in reference]
    here, home = scores.loc[common, names].rank(), reference.loc[common, names].rank()
    findings = []
    for column in names:
        own = correlation(here[column], home[column])
        others = {
            other: correlation(here[column], home[other]) for other in names if other != column
        }
        best = max(others, key=others.get, default=None)
        if own < 0 and (best is None or others[best] <= -own):
            told = f"column {column}: rank correlation {own:.2f} with the scores made at home: inverted?"
            findings.append(Finding("warning", told))
        elif best is not None and others[best] > max(own, 0) + 0.1:
            told = f"follows {best} of the scores made at home ({others[best]:.2f}) better than {column} ({own:.2f})"
            findings.append(Finding("warning", f"column {column}: {told}: swapped columns?"))
    return findings


def correlation(first: pd.Series, second: pd.Series) -> float:
    """Pearson's correlation of two columns of ranks; 0 where one is constant or not all are
    numbers."""
    both = np.vstack([first.to_numpy(), second.to_numpy()])
    if np.isnan(both).any() or (both.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(both)[0, 1])
