"""What a fold holds: counts, label values, sources, patient columns, and how far it is from a mean
fold."""

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
    validated = own & (fold >= 0)
    total, sizes, rows = (
        describe(images[validated], task),
        images_per_patient(images[validated]),
        [],
    )
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
        "metadata": metadata(rows, task),
    }


def metadata(rows: pd.DataFrame, task: Task) -> dict:
    """column -> {"mean", "missing"} for numbers, {category: share, "missing": share} for
    categories."""
    found = {}
    for column in (c for c in task.numeric if c in rows):
        value = pd.to_numeric(rows[column], errors="coerce")
        found[column] = {
            "mean": None if value.isna().all() else float(value.mean()),
            "missing": float(value.isna().mean()) if len(rows) else 0.0,
        }
    for column in (c for c in task.categorical if c in rows):
        shares = rows[column].value_counts(normalize=True, dropna=False).sort_index()
        found[column] = {
            "missing" if pd.isna(name) else str(name): float(share)
            for name, share in shares.items()
        }
    return found


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
    found = {
        kind: max(abs(row["deviation"][kind]) for row in rows)
        for kind in ("images", "patients", "sizes")
    }
    labels = rows[0]["deviation"]["positives"]
    return {
        **found,
        "positives": {
            label: max(abs(row["deviation"]["positives"][label]) for row in rows)
            for label in labels
        },
    }


def warnings(images: pd.DataFrame, rows: list[dict], total: dict, task: Task) -> list[str]:
    """What the folds cannot mend, in words."""
    found = []
    if (
        task.scored_source
        and "source" in images
        and not (images["source"] == task.scored_source).any()
    ):
        found.append(
            f"no image has the source {task.scored_source!r}, so images of every source are scored"
        )
    for label in task.labels:
        without = [str(row["fold"]) for row in rows if not row["positives"][label]]
        if without:
            found.append(
                f"{label}: {total['positive_patients'][label]} patients with a positive for "
                f"{len(rows)} "
                f"fold(s); no AUC in fold {', '.join(without)}"
            )
    for row in rows:
        if abs(row["deviation"]["images"]) > MUCH:
            found.append(
                f"fold {row['fold']} has {row['deviation']['images']:+.1%} images: a group of "
                "images that "
                "belong together outweighs a fold's share"
            )
    return found


def audit_text(audit: dict) -> str:
    """The audit as the table that is printed."""
    lines = [header(audit), balance_text(audit)]
    always, test, groups = audit["always_trains"], audit["test"], audit["groups"]
    if always["images"]:
        lines.append(
            f"always train: {always['images']} images of {always['patients']} patients"
            + "".join(f", {name} {count}" for name, count in always["sources"].items())
        )
    for reason, count in audit["dropped"].items():
        lines.append(f"dropped from training: {count} images, {reason}")
    joined = (
        ", ".join(f"{count} by {reason}" for reason, count in groups["links"].items()) or "none"
    )
    lines.append(
        f"groups: {groups['groups']} of {groups['patients']} patients, the largest of "
        f"{groups['largest_patients']}; links between images beyond the patient: {joined}"
    )
    lines.append(
        f"test: {test['images']} images; {test['patients_in_training']} of its patients are in "
        "training "
        f"{test['first_patients'] or ''}; {test['linked_to_training']} links to training images "
        f"{test['first_linked'] or ''}".replace("  ", " ")
    )
    lines += [f"warning: {text}" for text in audit["warnings"]]
    lines.append(f"leaks: {len(audit['leaks'])}")
    return "\n".join(lines)


def header(audit: dict) -> str:
    made = audit["made"]
    return f"{len(audit['folds'])} fold(s), " + ", ".join(
        f"{key} {value}" for key, value in made.items()
    )


def balance_text(audit: dict) -> str:
    """One column a fold; counts with their deviation from the mean fold, means and shares of the
    patient columns."""
    if not audit["folds"]:
        return "no fold is validated"
    table = pd.DataFrame({f"fold {row['fold']}": balance_column(row) for row in audit["folds"]})
    table["all"] = pd.Series(balance_column({**audit["all"], "deviation": None}))
    return table.fillna("0").to_string()


def balance_column(row: dict) -> dict[str, str]:
    """What a column of the printed table says, from top to bottom."""
    deviation = row["deviation"]

    def count(number: int, relative: float | None) -> str:
        return f"{number}" if relative is None else f"{number} {relative:+.2%}"

    column = {
        name: count(row[name], deviation and deviation[name]) for name in ("images", "patients")
    }
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
