"""AUCs of subgroups: by every patient column of a task, ages in bands, with intervals over
patients."""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder, models_folder
from pipeline.core.config.task import Task
from pipeline.core.metrics import auc, auc_interval
from pipeline.core.metrics.roc import classes
from pipeline.core.report.html import Html, drawn, panels, paragraph, scale, source, table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import interval_bar, limits_of

AGE_BANDS = (
    (0, 40, "under 40"),
    (40, 55, "40 to 54"),
    (55, 70, "55 to 69"),
    (70, np.inf, "70 and over"),
)
MISSING = "missing"
MOST = 12  # values of one column that are told apart; the rarer ones are "others"
FEW = 10  # positives, or negatives, under which an AUC is marked as of few


def unit_values(images: pd.DataFrame, column: str) -> pd.Series:
    """The value of a column for every unit, in order of first appearance: text, "missing" where no
    image has one.

    Where the images of a unit differ, as views of one study do, the values are joined: `Frontal +
    Lateral`.
    """
    unit = images["unit_id"] if "unit_id" in images else images["image_id"]
    known = images[column].notna()
    text = images[column][known].astype(str)
    joined = text.groupby(unit[known]).agg(lambda values: " + ".join(sorted(set(values))))
    return pd.Series(pd.unique(unit)).map(joined).fillna(MISSING)


def unit_numbers(images: pd.DataFrame, column: str) -> pd.Series:
    """The mean of a number over every unit's images, in order of first appearance; NaN where none
    has one."""
    unit = images["unit_id"] if "unit_id" in images else images["image_id"]
    values = pd.to_numeric(images[column], errors="coerce")
    return values.groupby(unit, sort=False).mean().reindex(pd.unique(unit)).reset_index(drop=True)


def bands(values: pd.Series, column: str) -> pd.Series:
    """Text for each number: AGE_BANDS for a column of ages, otherwise thirds; "missing" for NaN."""
    if "age" in column.lower().replace("/", "_").split("_"):
        cut = AGE_BANDS
    else:
        low, high = np.nanquantile(values, [1 / 3, 2 / 3]) if values.notna().any() else (0, 0)
        cut = (
            (-np.inf, low, f"under {low:g}"),
            (low, high, f"{low:g} to {high:g}"),
            (high, np.inf, f"{high:g} and over"),
        )
    named = pd.Series(MISSING, index=values.index)
    for start, end, name in cut:
        named[(values >= start) & (values < end)] = name
    return named


def groups(images: pd.DataFrame, task: Task) -> dict[str, pd.Series]:
    """column -> the subgroup of every unit, for the patient columns that tell at least two apart,
    and the source."""
    found = {
        column: bands(unit_numbers(images, column), column)
        for column in task.numeric
        if column in images
    }
    for column in (*task.categorical, "source"):
        if column in images:
            values = unit_values(images, column)
            common = values.value_counts().index[:MOST]
            found[column] = values.where(values.isin(common), "others")
    return {column: values for column, values in found.items() if values.nunique() > 1}


def order(values: pd.Series) -> list[str]:
    """The subgroups as they are shown: bands from low to high, then by name; what is missing comes
    last."""
    names = [name for _, _, name in AGE_BANDS]

    def place(name: str) -> tuple:
        return name == MISSING, name == "others", names.index(name) if name in names else -1, name

    return sorted(values.unique(), key=place)


def subgroup_rows(
    scores: np.ndarray,
    truth: np.ndarray,
    patients: Sequence,
    values: pd.Series,
    replicates: int = 1000,
) -> list[dict]:
    """Per subgroup: group, n, positives, auc, low, high, few; NaN where it holds one class only.

    scores, truth, patients, values: (U,) of one label; NaN truth is left out. Intervals resample
    patients.
    """
    found, patients, values = [], np.asarray(patients), values.to_numpy()
    for name in order(pd.Series(values)):
        inside = (values == name) & ~np.isnan(truth)
        n, positives = int(inside.sum()), int((truth[inside] == 1).sum())
        row = {
            "group": name,
            "n": n,
            "positives": positives,
            "few": min(positives, n - positives) < FEW,
            "auc": float("nan"),
            "low": float("nan"),
            "high": float("nan"),
        }
        if 0 < positives < n:
            low, high = auc_interval(
                scores[inside], truth[inside], patients[inside], replicates=replicates
            )
            row |= {"auc": auc(scores[inside], truth[inside]), "low": low, "high": high}
        if n:
            found.append(row)
    return found


def subgroups(evidence: Evidence) -> str:
    """AUC by sex, age, site, view, ... of the final scores, label by label."""
    found = groups(evidence.rows.validated, evidence.competition.task)
    if not found:
        return paragraph("images.csv tells nothing by which patients could be told apart.")
    truth, parts = evidence.units.truth, []
    for k in np.flatnonzero(classes(truth)):
        rows = {
            column: subgroup_rows(evidence.final[:, k], truth[:, k], evidence.patients, values)
            for column, values in found.items()
        }
        limits = limits_of(
            [row[key] for those in rows.values() for row in those for key in ("low", "high")], 0.1
        )
        lines = [
            line
            for column, those in rows.items()
            for line in (
                [Html(f'<span class="soft">{escape(column.replace("_", " "))}</span>'), *[""] * 4],
                *(subgroup_line(row, limits) for row in those),
            )
        ]
        parts.append(
            table(
                ["subgroup", "AUC [95 % interval]", scale(limits), "n", "positives"],
                lines,
                f"{evidence.labels[k]}, final scores",
            )
        )
    text = (
        f"Gray: fewer than {FEW} positives or negatives, where an AUC says little. Subgroups that "
        "are wide apart "
        "may still differ by chance, or by how hard their cases are; intervals are not adjusted "
        "for their number. "
        "Where an AUC is 1, resampling finds nothing else, and the interval is too narrow."
    )
    return (
        paragraph(text)
        + (panels(parts, pairs=True) if len(parts) > 1 else "".join(parts))
        + source(
            f"{data_folder(evidence.name)}/images.csv, {models_folder(evidence.name)}/ensemble.csv",
            f"make ensemble COMP={evidence.name}",
        )
    )


def subgroup_line(row: dict, limits: tuple[float, float]) -> list:
    """The cells of one subgroup."""
    told = (
        f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if not np.isnan(row["auc"])
        else "one class only"
    )
    bar = interval_bar(
        row["auc"], row["low"], row["high"], limits, "c-soft" if row["few"] else "c-final"
    )
    name = "not known" if row["group"] == MISSING else row["group"]
    return [name, told, drawn(bar), f"{row['n']:,}", f"{row['positives']:,}"]
