"""Balance of the folds: counts, label values, sources and patient columns of each, how far it is
from the mean fold, and the audit in words."""

import numpy as np
import pandas as pd

from pipeline.core.config.task import Task
from pipeline.core.folds.split import patient_keys

MUCH = 0.05  # a deviation in images that deserves a warning


def fold_rows(
    images: pd.DataFrame, fold: np.ndarray, own: np.ndarray, numbers: list[int], task: Task
) -> list[dict]:
    """Per fold a `describe` of its validated images with "fold" and "deviation".

    fold: (rows,) float, own: (rows,) bool, the images that may be validated. A deviation is
    relative to the mean fold: 0.003 = 0.3 % more than it; "sizes" is the Kolmogorov-Smirnov
    distance between the images per patient of the fold and of all folds together.
    """
    validated = images[own & (fold >= 0)]
    total = describe(validated, task)
    sizes = images_per_patient(validated)
    rows = []
    for k in numbers:
        part = images[own & (fold == k)]
        row = {"fold": k, **describe(part, task)}
        row["deviation"] = deviations(row, total, len(numbers), task)
        row["deviation"]["sizes"] = distance(images_per_patient(part), sizes)
        rows.append(row)
    return rows


def describe(rows: pd.DataFrame, task: Task) -> dict:
    """Counts of images, patients, label values and sources, and the balance of the patient
    columns."""
    values = {label: pd.to_numeric(rows[label]) for label in task.labels}
    keys = patient_keys(rows)
    return {
        "images": len(rows),
        "patients": int(keys.nunique()),
        "positives": {label: int((value == 1).sum()) for label, value in values.items()},
        "negatives": {label: int((value == 0).sum()) for label, value in values.items()},
        "uncertain": {label: int((value == -1).sum()) for label, value in values.items()},
        "positive_patients": {
            label: int(keys[value == 1].nunique()) for label, value in values.items()
        },
        "sources": rows["source"].value_counts().sort_index().to_dict() if "source" in rows else {},
        "metadata": metadata_lines(rows, task),
    }


def metadata_lines(rows: pd.DataFrame, task: Task) -> dict:
    """column -> {"mean", "missing"} for numbers, {category: share, "missing": share} for
    categories."""
    summary = {}
    for column in (name for name in task.numeric if name in rows):
        value = pd.to_numeric(rows[column], errors="coerce")
        summary[column] = {
            "mean": None if value.isna().all() else float(value.mean()),
            "missing": float(value.isna().mean()) if len(rows) else 0.0,
        }
    for column in (name for name in task.categorical if name in rows):
        shares = rows[column].value_counts(normalize=True, dropna=False).sort_index()
        summary[column] = {
            "missing" if pd.isna(name) else str(name): float(share)
            for name, share in shares.items()
        }
    return summary


def deviations(row: dict, total: dict, folds: int, task: Task) -> dict:
    """Relative deviations of a fold's counts from total / folds; 0 where there is nothing to share
    out."""

    def relative(count: int, whole: int) -> float:
        return count * folds / whole - 1 if whole else 0.0

    return {
        "images": relative(row["images"], total["images"]),
        "patients": relative(row["patients"], total["patients"]),
        "positives": {
            label: relative(row["positives"][label], total["positives"][label])
            for label in task.labels
        },
    }


def images_per_patient(rows: pd.DataFrame) -> np.ndarray:
    """The number of images of every patient, ascending, (patients,) int64."""
    return np.sort(patient_keys(rows).value_counts().to_numpy())


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of two sorted samples: the largest gap between their
    distribution functions."""
    at = np.union1d(first, second)
    shares = [
        np.searchsorted(sizes, at, side="right") / max(len(sizes), 1) for sizes in (first, second)
    ]
    return float(np.abs(shares[0] - shares[1]).max(initial=0))


def worst(rows: list[dict]) -> dict:
    """The largest absolute deviation over the folds, of each kind; for positives per label."""
    if not rows:
        return {}
    every = [row["deviation"] for row in rows]
    largest = {}
    for kind in ("images", "patients", "sizes"):
        largest[kind] = max(abs(deviation[kind]) for deviation in every)
    largest["positives"] = {
        label: max(abs(deviation["positives"][label]) for deviation in every)
        for label in every[0]["positives"]
    }
    return largest


def warnings(images: pd.DataFrame, rows: list[dict], total: dict, task: Task) -> list[str]:
    """What no choice of folds can mend, in words."""
    texts = []

    # Nothing is of the source that should be scored.
    wanted = task.scored_source
    if wanted and "source" in images and not (images["source"] == wanted).any():
        texts.append(f"no image has the source {wanted!r}, so images of every source are scored")

    # Fewer patients with a positive than folds.
    for label in task.labels:
        without = [str(row["fold"]) for row in rows if not row["positives"][label]]
        if without:
            texts.append(
                f"{label}: {total['positive_patients'][label]} patients with a positive for "
                f"{len(rows)} fold(s); no AUC in fold {', '.join(without)}"
            )

    # A group larger than a fold.
    for row in rows:
        if abs(row["deviation"]["images"]) > MUCH:
            texts.append(
                f"fold {row['fold']} has {row['deviation']['images']:+.1%} images: a group of "
                "images that belong together outweighs a fold's share"
            )
    return texts


def audit_text(audit: dict) -> str:
    """The audit as it is printed."""
    lines = [audit_header(audit), balance_text(audit), *group_lines(audit, examples=True)]
    lines += [f"warning: {text}" for text in audit["warnings"]]
    lines.append(f"leaks: {len(audit['leaks'])}")
    return "\n".join(lines)


def audit_header(audit: dict) -> str:
    """How many folds there are, and how they were made."""
    origin = ", ".join(f"{key} {value}" for key, value in audit["made"].items())
    return f"{len(audit['folds'])} fold(s), {origin}"


def group_lines(audit: dict, examples: bool = False) -> list[str]:
    """What was joined, is shared with the test set, always trains, and was dropped: a sentence
    each, for the printed audit and the report.

    examples: also name sources, and the first patients and links shared with the test set.
    """
    groups = audit["groups"]
    joined = ", ".join(f"{count} by {reason}" for reason, count in groups["links"].items())
    lines = [
        f"{groups['patients']} patients in {groups['groups']} groups, the largest of "
        f"{groups['largest_patients']}; links between images beyond the patient: "
        f"{joined or 'none'}."
    ]

    # The test set.
    test = audit["test"]
    patients = f"{test['patients_in_training']} of its patients also train"
    linked = f"{test['linked_to_training']} links to training images"
    if examples and test["first_patients"]:
        patients += f" {test['first_patients']}"
    if examples and test["first_linked"]:
        linked += f" {test['first_linked']}"
    lines.append(f"Test: {test['images']} images; {patients}; {linked}.")

    # Images that are never validated, and those that take no part.
    always = audit["always_trains"]
    if always["images"]:
        sources = ", ".join(f"{name} {count}" for name, count in always["sources"].items())
        named = f": {sources}" if examples and sources else ""
        lines.append(
            f"{always['images']} images of {always['patients']} patients always train{named}."
        )
    for reason, count in audit["dropped"].items():
        lines.append(f"Dropped from training: {count} images, {reason}.")
    return lines


def balance_text(audit: dict) -> str:
    """One column a fold; counts with their deviation from the mean fold, means and shares of the
    patient columns."""
    if not audit["folds"]:
        return "no fold is validated"
    table = pd.DataFrame({f"fold {row['fold']}": balance_column(row) for row in audit["folds"]})
    table["all"] = pd.Series(balance_column({**audit["all"], "deviation": None}))
    return table.fillna("0").to_string()


def balance_column(row: dict) -> dict[str, str]:
    """A column of the table, name -> text from top to bottom; row: one of `fold_rows`.

    A deviation of None, that of all folds together, is left out.
    """
    deviation = row["deviation"]

    def count(number: int, relative: float | None) -> str:
        return f"{number}" if relative is None else f"{number} {relative:+.2%}"

    column = {}
    for name in ("images", "patients"):
        column[name] = count(row[name], deviation and deviation[name])
    for label, number in row["positives"].items():
        column[f"{label} = 1"] = count(number, deviation and deviation["positives"][label])
    column["images per patient, KS"] = f"{deviation['sizes']:.4f}" if deviation else ""
    column |= {f"source {name}": str(number) for name, number in row["sources"].items()}
    for name, values in row["metadata"].items():
        column |= {
            f"{name}, {value}": "-" if share is None else f"{share:.3g}"
            for value, share in values.items()
        }
    return column
