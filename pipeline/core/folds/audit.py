"""The audit of folds.csv: what each fold holds, and whether anything leaks from training into
validation.

`checked_tables` is how a later stage reads images.csv, folds.csv and folds_dropped.csv: it raises a
UserError naming the pair when an image trains in a fold that validates its twin.
data/<competition>/folds_audit.json holds the audit for the report, with the hashes of the tables it
was made from; as long as they match, the search for twins is not repeated.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash, read_json
from pipeline.core.artifacts.labels import NOT_A_LABEL, valid_labels
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import fold_numbers, read_folds, read_images
from pipeline.core.config.competition import Competition
from pipeline.core.config.task import Task
from pipeline.core.folds.audit_text import describe, fold_rows, warnings, worst
from pipeline.core.folds.groups import check_patients, links, patient_groups
from pipeline.core.folds.split import (
    fold_of,
    patient_keys,
    read_dropped,
    scored,
    shared_with_test,
    taking_part,
)
from pipeline.core.runtime.errors import UserError

PAIRS_SHOWN = 5  # pairs that an error or the printed audit names; the JSON has all


def checked_tables(competition: Competition) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(images, folds, dropped) of a competition, after the leak check; UserError where anything
    leaks."""
    folder = data_folder(competition.name)
    images = read_images(competition.name)
    folds = read_folds(competition.name)
    dropped = read_dropped(competition.name)
    check_scored_labels(folder / "images.csv", images, competition.task)
    # The search for twins takes a minute at 223,414 images: not twice for the same tables.
    if not audit_is_current(competition.name):
        require_whole_patients(folder / "images.csv", images, folds)
        require_no_leak(folder / "folds.csv", images, folds, dropped, competition.task)
    return images, folds, dropped


def audit_is_current(name: str) -> bool:
    """True when folds_audit.json found no leak in the very tables of today."""
    path = data_folder(name) / "folds_audit.json"
    if not path.exists():
        return False
    audit = read_json(path, needed=("made",))
    today = audit_hashes(name)
    for part, before in audit.get("hashes", {}).items():
        if today.get(part) != before:
            print(
                f"warning: {data_folder(name) / part}.csv: another than {path.name} is about "
                f"(changed by hand, or damaged); `python -m pipeline.folds {name} --audit` looks "
                "at it again",
                file=sys.stderr,
            )
    return audit.get("hashes") == today and audit.get("leaks") == []


def audit_hashes(name: str) -> dict[str, str]:
    """The sha256 of the three tables that an audit is about; "" for a file that does not exist."""
    hashes = {}
    for part in ("images", "folds", "folds_dropped"):
        path = data_folder(name) / f"{part}.csv"
        hashes[part] = file_hash(path) if path.is_file() else ""
    return hashes


def check_scored_labels(where: object, images: pd.DataFrame, task: Task) -> None:
    """Raise a UserError that names the first label of a train or valid image that is not 1, 0, -1
    or blank."""
    for label in task.labels:
        if label not in images:
            present = ", ".join(images.columns)
            raise UserError(f"{where}: the label column {label!r} is missing; there are {present}")
        # Test labels do not exist, or must not matter.
        value = images[label].where(images["split"] != "test")
        wrong = ~valid_labels(value, value.isna())
        if wrong.any():
            row = wrong.argmax()
            raise UserError(
                f"{where}: row {row + 2}, column {label}: {value.iloc[row]!r} {NOT_A_LABEL}"
            )


def require_whole_patients(path: Path, images: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Raise a UserError for a patient of images.csv who is in two folds, read here a second way.

    As plain text: a reader of tables that takes the patient `NA` for blank, and so for several
    patients, would hide their leak from every check that begins with its table.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = (row for row in csv.reader(file) if row)
    patient = [row[header.index("patient_id")] for row in rows]
    pairs = pd.DataFrame({"patient": patient, "fold": fold_of(images, folds).to_numpy()})
    # Test images have no fold; rows whose cell is empty may be patients of their own.
    pairs = pairs[pairs["fold"].notna() & (pairs["patient"] != "")].drop_duplicates()
    split = pairs[pairs["patient"].duplicated(keep=False)].sort_values(["patient", "fold"])
    if len(split):
        name = split["patient"].iloc[0]
        both = ", ".join(f"{fold:.0f}" for fold in split["fold"][split["patient"] == name])
        raise UserError(f"{path}: column patient_id: patient {name!r} is in folds {both}")


def require_no_leak(
    where: object, images: pd.DataFrame, folds: pd.DataFrame, dropped: pd.DataFrame, task: Task
) -> None:
    """Raise a UserError naming the first pairs of images of which one trains where the other is
    validated."""
    refuse_leaks(where, find_leaks(where, images, folds, dropped, task))


def refuse_leaks(where: object, leaking: list[dict]) -> None:
    """Raise a UserError that names the leaking pairs, if there are any."""
    if leaking:
        named = "; ".join(map(leak_text, leaking[:PAIRS_SHOWN]))
        raise UserError(f"{where}: {len(leaking)} leak(s): {named}")


def leak_text(leak: dict) -> str:
    """One leak in words."""
    places = []
    for side in ("first", "second"):
        place = place_text(leak[f"{side}_fold"])
        places.append(f"{leak[side]} (patient {leak[f'{side}_patient']}, {place})")
    return f"{places[0]} and {places[1]} belong together by {leak['reason']}"


def place_text(fold: int | None) -> str:
    """Where an image is: in the test set (None), in a fold, or always in training (-1)."""
    if fold is None:
        return "test"
    return f"fold {fold}" if fold >= 0 else "always trains"


def find_leaks(
    where: str | Path,
    images: pd.DataFrame,
    folds: pd.DataFrame,
    dropped: pd.DataFrame,
    task: Task,
    linked: pd.DataFrame | None = None,
) -> list[dict]:
    """Every linked pair of images of which one is validated in a fold, or tested, while the other
    trains for it.

    Patients cannot leak between the folds of a table with one row a patient; that, and that every
    patient has a row, is checked first. Scored images with a twin in the test set are not a leak of
    the folds: the audit counts them. linked: the pairs among images that take part, where they are
    known already.
    """
    check_patients(Path(where).with_name("images.csv"), images, task)
    check_rows(where, images, folds)
    if linked is None:
        linked = links(images, task, taking_part(images, dropped, test=True))

    # What each image does, (rows,), and the two rows of each pair.
    fold = fold_of(images, folds).to_numpy()
    own = scored(images, task)
    test = (images["split"] == "test").to_numpy()
    validated = own & (fold >= 0)
    external = ~test & ~own
    a = linked["first"].to_numpy()
    b = linked["second"].to_numpy()

    # Two folds, at least one of the two validated.
    across = ~test[a] & ~test[b] & (fold[a] != fold[b]) & (validated[a] | validated[b])
    # A test image and one of another source; two images of one lesion are different images.
    one_tested = (test[a] & external[b]) | (test[b] & external[a])
    into_test = (linked["reason"] != "lesion_id").to_numpy() & one_tested
    pairs = linked[across | into_test].itertuples(index=False)
    return [leak(images, fold, *pair) for pair in pairs]


def leak(images: pd.DataFrame, fold: np.ndarray, first: int, second: int, reason: str) -> dict:
    """One leak as plain values: reason, and for each side the image, its patient and its fold."""
    values = {"reason": reason}
    for side, row in (("first", first), ("second", second)):
        values[side] = images["image_id"].iloc[row]
        values[f"{side}_patient"] = str(patient_keys(images.iloc[[row]]).iloc[0])
        values[f"{side}_fold"] = None if np.isnan(fold[row]) else int(fold[row])
    return values


def check_rows(where: object, images: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Raise a UserError for a patient with two folds, or a train or valid patient with none."""
    # A second row for a patient would let their images train and validate in one fold.
    twice = folds["patient_id"].duplicated().to_numpy()
    if twice.any():
        patient = folds["patient_id"][twice].iloc[0]
        both = ", ".join(map(str, folds["fold"][folds["patient_id"] == patient]))
        raise UserError(f"{where}: patient {patient} occurs twice, in folds {both}")

    lost = ((images["split"] != "test") & fold_of(images, folds).isna()).to_numpy()
    if lost.any():
        raise UserError(
            f"{where}: patient {patient_keys(images)[lost].iloc[0]} of image "
            f"{images['image_id'][lost].iloc[0]} has no fold ({lost.sum()} such images): "
            "images.csv has changed since; `make clean-folds` removes these folds (what was "
            "trained on them is stale)"
        )


def audit(
    where: str | Path,
    images: pd.DataFrame,
    folds: pd.DataFrame,
    dropped: pd.DataFrame,
    task: Task,
    origin: dict,
) -> dict:
    """The audit of the folds.csv at `where` as plain values, as folds_audit.json holds it.

    "made" (origin, as given), "folds" (a `balance.describe` per fold with its "deviation"), "all"
    (the scored images together), "always_trains", "worst" deviations, "groups", "test", "dropped"
    (reason -> images), "leaks", "warnings".
    """
    linked = links(images, task, taking_part(images, dropped, test=True))
    leaking = find_leaks(where, images, folds, dropped, task, linked)

    # The balance is that of the images which take part and may be validated.
    part = taking_part(images, dropped)
    fold = fold_of(images, folds).to_numpy()
    own = part & scored(images, task)
    total = describe(images[own & (fold >= 0)], task)
    rows = fold_rows(images, fold, own, fold_numbers(folds), task)
    return {
        "made": origin,
        "folds": rows,
        "all": total,
        "always_trains": describe(images[part & (fold < 0)], task),
        "worst": worst(rows),
        "groups": group_facts(images, linked),
        "test": test_facts(images, dropped, linked),
        "dropped": dropped["reason"].value_counts().to_dict(),
        "leaks": leaking,
        "warnings": warnings(images, rows, total, task),
    }


def group_facts(images: pd.DataFrame, linked: pd.DataFrame) -> dict:
    """How many groups there are, and what joined patients."""
    size = patient_groups(images, linked).value_counts()
    return {
        "groups": len(size),
        "patients": int(size.sum()),
        "largest_patients": int(size.max()) if len(size) else 0,
        "patients_joined": int(size[size > 1].sum()),
        "links": linked["reason"].value_counts().to_dict(),
    }


def test_facts(images: pd.DataFrame, dropped: pd.DataFrame, linked: pd.DataFrame) -> dict:
    """Test patients who also train, and training images that belong together with a test image."""
    test = (images["split"] == "test").to_numpy()
    ids = images["image_id"].to_numpy()
    across = linked[test[linked["first"]] != test[linked["second"]]]
    shared = sorted(shared_with_test(images[taking_part(images, dropped, test=True)]))
    first_pairs = across.head(PAIRS_SHOWN).itertuples(index=False)
    return {
        "images": int(test.sum()),
        "patients_in_training": len(shared),
        "first_patients": shared[:PAIRS_SHOWN],
        "linked_to_training": len(across),
        "first_linked": [[ids[i], ids[j], reason] for i, j, reason in first_pairs],
    }
