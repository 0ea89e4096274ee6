"""Section "Subgroups": AUCs by every patient column of a task, ages in bands, with intervals over
patients."""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder, models_folder
from pipeline.core.config.task import Task
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.ensemble.units import unit_of_image
from pipeline.core.metrics import auc, auc_interval
from pipeline.core.metrics.roc import classes
from pipeline.core.metrics.score_interval import FEW
from pipeline.core.report.figures.svg import interval_bar, limits_of
from pipeline.core.report.html import (
    Html,
    drawn,
    html_table,
    paragraph,
    scale,
    side_by_side,
    source,
)
from pipeline.core.report.inputs import Evidence

AGE_BANDS = (
    (0, 40, "under 40"),
    (40, 55, "40 to 54"),
    (55, 70, "55 to 69"),
    (70, np.inf, "70 and over"),
)
MISSING = "missing"
OTHERS = "others"
MOST_VALUES = 12  # values of one column that are told apart; the rarer ones are "others"


def unit_values(images: pd.DataFrame, column: str) -> pd.Series:
    """The value of a column for every unit, in order of first appearance: text, "missing" where no
    image has one.

    Where the images of a unit differ, as views of one study do, the values are joined: `Frontal +
    Lateral`.
    """
    unit = unit_of_image(images)
    known = images[column].notna()
    # sorted, so that the order of the images does not matter
    text = images[column][known].astype(str)
    joined = text.groupby(unit[known]).agg(lambda values: " + ".join(sorted(set(values))))
    return pd.Series(pd.unique(unit)).map(joined).fillna(MISSING)


def unit_numbers(images: pd.DataFrame, column: str) -> pd.Series:
    """The mean of a number over every unit's images, in order of first appearance; NaN where none
    has one."""
    unit = unit_of_image(images)
    values = pd.to_numeric(images[column], errors="coerce")
    return values.groupby(unit, sort=False).mean().reindex(pd.unique(unit)).reset_index(drop=True)


def is_age(column: str) -> bool:
    """True for a column of ages in years; "age" inside a word, as in "stage", does not count.

    >>> is_age("age_approx"), is_age("Age"), is_age("stage_of_disease")
    (True, True, False)
    """
    return "age" in column.lower().replace("/", "_").split("_")


def number_bands(values: pd.Series, column: str) -> pd.Series:
    """The band of each number, an ordered category: AGE_BANDS for a column of ages, otherwise
    thirds; "missing", the last, for NaN."""
    if is_age(column):
        bands = AGE_BANDS
    else:
        # thirds of the units that have a number
        thirds = np.nanquantile(values, [1 / 3, 2 / 3]) if values.notna().any() else (0, 0)
        low, high = thirds
        bands = (
            (-np.inf, low, f"under {low:.3g}"),
            (low, high, f"{low:.3g} to {high:.3g}"),
            (high, np.inf, f"{high:.3g} and over"),
        )
    names = pd.Series(MISSING, index=values.index)
    for start, end, name in bands:
        names[(values >= start) & (values < end)] = name
    order = [*dict.fromkeys(name for _, _, name in bands), MISSING]
    return pd.Series(pd.Categorical(names, order, ordered=True), index=values.index)


def subgroups_of(images: pd.DataFrame, task: Task) -> dict[str, pd.Series]:
    """column -> the subgroup of every unit, for the patient columns (and the source) that have at
    least two."""
    columns = {}
    for column in task.numeric:
        if column in images:
            columns[column] = number_bands(unit_numbers(images, column), column)
    for column in (*task.categorical, "source"):
        if column in images:
            values = unit_values(images, column)
            # the rarest values are one subgroup: each alone has too few cases to score
            common = values.value_counts().index[:MOST_VALUES]
            columns[column] = values.where(values.isin(common), OTHERS)
    return {column: values for column, values in columns.items() if values.nunique() > 1}


def display_order(values: pd.Series) -> list[str]:
    """The subgroups as they are shown: bands from low to high, other values by name; the others and
    what is missing come last."""
    there = set(values)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [name for name in values.cat.categories if name in there]
    return sorted(there, key=lambda name: (name == MISSING, name == OTHERS, name))


def subgroup_rows(
    scores: np.ndarray, truth: np.ndarray, patients: Sequence, values: pd.Series
) -> list[dict]:
    """Per subgroup: group, n, positives, auc, low, high; NaN where it holds too few to tell.

    scores, truth, patients, values: (U,) of one label; NaN truth is left out. Intervals are over
    patients.
    """
    patients = np.asarray(patients)
    subgroup = values.to_numpy()
    rows = []
    for name in display_order(values):
        inside = (subgroup == name) & ~np.isnan(truth)
        n = int(inside.sum())
        positives = int((truth[inside] == 1).sum())
        if not n:
            continue
        row = {
            "group": name,
            "n": n,
            "positives": positives,
            "auc": float("nan"),
            "low": float("nan"),
            "high": float("nan"),
        }
        # an AUC without an interval would only mislead
        own = (scores[inside], truth[inside])
        row["low"], row["high"] = auc_interval(*own, patients[inside])
        if not np.isnan(row["low"]):
            row["auc"] = auc(*own)
        rows.append(row)
    return rows


def subgroups(evidence: Evidence) -> str:
    """AUC by sex, age, site, view, ... of the final scores, label by label."""
    columns = subgroups_of(evidence.rows.validated, evidence.competition.task)
    if not columns:
        return paragraph("images.csv has no column by which patients could be told apart.")
    scored = np.flatnonzero(classes(evidence.units.truth))
    tables = [subgroup_table(evidence, k, columns) for k in scored]
    text = (
        "Subgroups that are wide apart may still differ by chance, or by how hard their cases "
        "are; intervals are not adjusted for their number. An AUC is told from "
        f"{FEW} positives and {FEW} negatives on, of as many patients."
    )
    return (
        paragraph(text)
        + (side_by_side(tables, pairs=True) if len(tables) > 1 else "".join(tables))
        + source(
            f"{data_folder(evidence.name)}/images.csv, {models_folder(evidence.name)}/ensemble.csv",
            evidence.made_by,
        )
    )


def subgroup_table(evidence: Evidence, k: int, columns: dict[str, pd.Series]) -> str:
    """The table of one label: a heading for each column, a line for each of its subgroups."""
    truth = evidence.units.truth[:, k]
    # one scale for all columns
    rows_of_column = {}
    ends = []
    for column, values in columns.items():
        rows = subgroup_rows(evidence.final[:, k], truth, evidence.patients, values)
        rows_of_column[column] = rows
        for row in rows:
            ends += [row["low"], row["high"]]
    limits = limits_of(ends, 0.1)

    lines = []
    for column, rows in rows_of_column.items():
        heading = Html(f'<span class="soft">{escape(column.replace("_", " "))}</span>')
        lines.append([heading, "", "", "", ""])
        lines += [subgroup_line(row, limits) for row in rows]
    head = ["subgroup", "AUC [95 % interval]", scale(limits), "n", "positives"]
    return html_table(head, lines, f"{evidence.labels[k]}, final scores")


def subgroup_line(row: dict, limits: tuple[float, float]) -> list:
    """The cells of one subgroup."""
    name = "not known" if row["group"] == MISSING else row["group"]
    text = with_interval(row["auc"], row["low"], row["high"], ".3f")
    bar = interval_bar(row["auc"], row["low"], row["high"], limits, "c-final")
    return [name, text, drawn(bar), f"{row['n']:,}", f"{row['positives']:,}"]
