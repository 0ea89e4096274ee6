"""Facts that should say nothing of a label, looked at all the same: the order of rows, numbers in
ids, columns that name a patient. What a file's size, sides and brightness tell is looked at with
the folds (`folds.shortcuts`).

    suspicious_columns(images, labels, patients)

Reads    rows of images.csv
Writes   nothing

An AUC far from 1/2 means that positives and negatives were collected in different ways (another
camera, another hospital, another order). Such a fact will not hold elsewhere. None of these is a
column of the second level unless the competition's `numeric` or `categorical` names it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.metrics.roc import auc
from pipeline.core.metrics.score_interval import auc_interval

NAMES_PATIENTS = 0.5  # a column whose values single out this share of the patients names them


def suspicious_columns(
    images: pd.DataFrame,
    labels: np.ndarray,
    patients: np.ndarray,
    columns: Sequence[str] = (),
) -> list[dict]:
    """Rows column, auc, low, high, tells, names_patients of each fact that there is.

    images: n rows of images.csv; labels: (n,) of 1, 0, NaN; patients: (n,) str; columns: the
    patient columns in use, looked at too. Intervals are over patients, 95 % for
    all facts together; `tells` where that excludes 1/2, `names_patients` is the share of patients
    that have a value of their own.
    """
    facts = facts_of_images(images)
    facts |= {name: column_codes(images[name]) for name in columns if name not in facts}
    level = 1 - 0.05 / max(len(facts), 1)
    rows = []
    for name, values in facts.items():
        known = ~np.isnan(values) & ~np.isnan(labels)
        if len(np.unique(values[known])) < 2 or len(np.unique(labels[known])) < 2:
            continue
        area = auc(values[known], labels[known])
        low, high = auc_interval(values[known], labels[known], patients[known], level)
        if np.isnan(low):  # too few to tell
            continue
        rows.append(
            {
                "column": name,
                "auc": float(area),
                "low": low,
                "high": high,
                "tells": bool(low > 0.5 or high < 0.5),
                "names_patients": singled_out(values, patients),
                "used": name in columns,
            }
        )
    return rows


def suspicion_lines(found: Sequence[dict]) -> list[str]:
    """What `suspicious_columns` found, in sentences without their full stop; [] where nothing."""
    lines = []
    tell = [row for row in found if row["tells"] and not row["used"]]
    if tell:
        texts = [f"{row['column']} {row['auc']:.3f}" for row in tell]
        lines.append(f"tells the label though it should not (AUC): {', '.join(texts)}")
    name = [row for row in found if row["names_patients"] > NAMES_PATIENTS and row["used"]]
    if name:
        texts = [f"{row['column']} {row['names_patients']:.0%}" for row in name]
        lines.append(f"names patients (share singled out): {', '.join(texts)}")
    return lines


def facts_of_images(images: pd.DataFrame) -> dict[str, np.ndarray]:
    """{fact: (n,) float64, NaN where unknown}."""
    return {
        "row in images.csv": np.arange(len(images), dtype=np.float64),
        "number in image_id": last_number(images["image_id"]),
        "last digit of image_id": last_number(images["image_id"]) % 10,
        "number in patient_id": last_number(images["patient_id"]),
    }


def last_number(ids: pd.Series) -> np.ndarray:
    """(n,) float64: the last run of digits in each id, NaN where there is none."""
    digits = ids.astype("str").str.extract(r"(\d+)\D*$")[0]
    return pd.to_numeric(digits, errors="coerce").to_numpy(np.float64)


def column_codes(column: pd.Series) -> np.ndarray:
    """(n,) float64: numbers as they are, categories as codes in order of their names; NaN where
    blank."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)
    codes = pd.Categorical(column.astype("object")).codes.astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def singled_out(values: np.ndarray, patients: np.ndarray) -> float:
    """The share of patients all of whose images have one value, which no other patient has; of the
    patients with two images or more, as one image has one value always. 0 where there are none."""
    table = pd.DataFrame({"patient": patients, "value": values}).dropna()
    several = table.groupby("patient")["value"].transform("size") > 1
    pairs = table[several].drop_duplicates()
    if pairs.empty:
        return 0.0
    constant = ~pairs["patient"].duplicated(keep=False)
    users = table.drop_duplicates().groupby("value")["patient"].transform("size")
    own = users.reindex(pairs.index) == 1
    return float((constant & own).sum() / pairs["patient"].nunique())
