"""Folds: who validates whom, by patient.

    python -m pipeline.folds melanoma                     make folds (or, where folds.csv stands, audit it)
    python -m pipeline.folds chexpert --folds 5           another number than the competition's own choice
    python -m pipeline.folds melanoma --import map.csv    take a map made elsewhere
    python -m pipeline.folds melanoma --audit             print the audit of folds.csv, change nothing else
    python -m pipeline.folds melanoma --why               and what a split by image would have reported (a minute)

Reads    data/<competition>/images.csv, and nothing else: image_id, patient_id, split, the labels, and where they are
         there source, phash, lesion_id, duplicate_of and the patient columns
Writes   data/<competition>/folds.csv          patient_id, fold; -1 always trains; frozen: only `make clean-folds`
                                               removes it
         data/<competition>/folds_dropped.csv  image_id, reason, twin: images that take no part
         data/<competition>/folds_audit.json   the audit that is printed, and the hashes of what it is about

Images of one patient, one lesion, a list of duplicates, or with near-identical pixels are one group, and a group is in
one fold. Groups are split so that each fold has its share of images, patients, values of every label, sources, sizes of
patients, and categories such as sex. The same table and seed give the same folds, whatever the order of rows; test rows
have no influence.

A map to import has patient_id and fold, or image_name (or image_id) and fold or tfrecord. The numbers are kept, unless
--folds K asks for number modulo K. An image whose tfrecord is -1 is a duplicate that its makers removed: it is dropped.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.tables import data_folder, fold_numbers, read_folds, read_images, write_csv, write_json
from pipeline.core.config.competition import Competition, load, parse_target
from pipeline.core.config.task import OFFICIAL, Task
from pipeline.core.folds.audit import audit, audit_hashes, check_labels, refuse
from pipeline.core.folds.balance import audit_text
from pipeline.core.folds.groups import check_patients, links, patient_groups
from pipeline.core.folds.image_split import leakage, leakage_text
from pipeline.core.folds.import_map import imported_folds
from pipeline.core.folds.search import group_table, split_groups
from pipeline.core.folds.split import (
    TEST_TWIN,
    external_twins,
    first_reasons,
    patient_keys,
    read_dropped,
    scored,
    shared_with_test,
    taking_part,
)
from pipeline.core.runtime.command import UserError, run_stage, stage_parser


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    made = stage_parser(__doc__)
    made.add_argument("--folds", type=int, metavar="K", help="number of folds; default: the competition's own choice")
    made.add_argument("--seed", type=int, help="another seed gives other folds, as good (default 0)")
    made.add_argument("--import", dest="map", type=Path, metavar="CSV", help="take the folds of this map")
    made.add_argument("--audit", action="store_true", help="only audit the folds.csv that stands")
    made.add_argument("--why", action="store_true",
                      help="score two cheap models by image and by group; uses prepared images where they are there")
    return made


def main(arguments: argparse.Namespace) -> None:
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        folds_of(load(name), arguments)


def folds_of(competition: Competition, arguments: argparse.Namespace) -> None:
    """Make, or keep, the folds of one competition; audit them; raise a UserError where anything leaks."""
    folder, task = data_folder(competition.name), competition.task
    images = read_images(competition.name)
    check_patients(folder / "images.csv", images, task)
    check_labels(folder / "images.csv", images, task)
    if (folder / "folds.csv").exists() or arguments.audit:
        made = require_same(competition.name, arguments)
        folds, dropped = read_folds(competition.name), read_dropped(competition.name)
        found = audit(folder / "folds.csv", images, folds, dropped, task, made)
    else:
        folds, dropped, made = split(folder, images, task, arguments.folds, arguments.seed or 0, arguments.map)
        found = audit(folder / "folds.csv", images, folds, dropped, task, made)
        refuse(folder / "folds.csv", found["leaks"])  # before anything is written
        write_csv(folder / "folds_dropped.csv", dropped)
        write_json(folder / "folds_audit.json", {"made": made})
        write_csv(folder / "folds.csv", folds)
    found["hashes"] = audit_hashes(competition.name)
    found["why"] = earlier_why(folder / "folds_audit.json", found["hashes"])
    if arguments.why:
        found["why"] = leakage(competition.name, images, dropped, task)
    write_json(folder / "folds_audit.json", found)
    print(f"{folder / 'folds.csv'}: {audit_text(found)}")
    if found["why"]:
        print(f"what a split by image would have reported:\n{leakage_text(found['why'])}")
    refuse(folder / "folds.csv", found["leaks"])


def earlier_why(path: Path, hashes: dict) -> list[dict]:
    """What --why found about these very tables, [] where it was not asked."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return before.get("why", []) if before.get("hashes") == hashes else []


def split(folder: Path, images: pd.DataFrame, task: Task, folds: int | None = None, seed: int = 0,
          path: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """(folds.csv, folds_dropped.csv, how they were made): from the map at `path`, or by the search, or the official.

    folds: what --folds says, None = the task's choice; folder: where images.csv is, for messages.
    """
    linked = links(images, task)
    dropped = left_out(images, linked, task)
    wanted = task.folds if folds is None else folds
    removed = dropped[:0]
    if path:
        made = {"by": "import", "map": path.name} | ({"modulo": folds} if folds else {})
        fold, removed = imported_folds(path, images, task, folds)
    elif wanted == OFFICIAL:
        made = {"by": OFFICIAL}
        fold, removed = official_folds(folder, images, linked)
    else:
        made = {"by": "search", "folds": wanted, "seed": seed}
        fold = searched_folds(folder, images, linked, dropped, task, wanted, seed)
    dropped = first_reasons(dropped, removed)
    return fold_table(images, fold, dropped), dropped, made


def left_out(images: pd.DataFrame, linked: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Rows of folds_dropped.csv for twins of scored and test images, and for test patients where the task says so."""
    dropped = external_twins(images, linked, task)
    if task.test_patients == "drop":
        shared = shared_with_test(images)
        rows = images[images["patient_id"].isin(shared) & (images["split"] != "test")]
        dropped = first_reasons(dropped, rows[["image_id"]].assign(reason="patient is in the test set", twin=""))
    return dropped


def searched_folds(folder: Path, images: pd.DataFrame, linked: pd.DataFrame, dropped: pd.DataFrame, task: Task,
                   folds: int, seed: int) -> pd.Series:
    """patient -> fold by `core.splitting`; groups without a scored image get -1."""
    if folds < 2:
        raise UserError(f"--folds {folds}: one fold would validate everyone and leave no one to train on; at least 2")
    groups = patient_groups(images, linked)
    rows = images[scored(images, task) & taking_part(images, dropped)]
    patient = patient_keys(rows).to_numpy()
    group = groups.loc[patient].to_numpy()
    if len(np.unique(group)) < folds:
        raise UserError(f"{folder / 'images.csv'}: {folds} folds asked of {len(np.unique(group))} groups of patients "
                        "that have nothing in common; ask for fewer with --folds")
    labels = rows.assign(**{label: pd.to_numeric(rows[label]) for label in task.labels})
    table = group_table(labels, group, patient, task.labels, task.categorical)
    fold = pd.Series(split_groups(table, folds, seed), index=table.index)
    return groups.map(fold).fillna(-1).astype(int)


def official_folds(folder: Path, images: pd.DataFrame, linked: pd.DataFrame) -> tuple[pd.Series, pd.DataFrame]:
    """patient -> 0 for the patients of the organiser's validation set, -1 for all others; and the training images to
    drop because their group reaches into that set."""
    valid = patient_keys(images)[images["split"] == "valid"]
    if valid.empty:
        raise UserError(f"{folder / 'images.csv'}: column split: no row is 'valid', so there is no official validation "
                        "set; ask for folds with --folds 5")
    groups = patient_groups(images, linked)
    keys = patient_keys(images)
    reached = groups.loc[valid].drop_duplicates()
    first = pd.Series(images["image_id"][valid.index].to_numpy(), index=groups.loc[valid]).groupby(level=0).min()
    hit = (images["split"] == "train") & keys.map(groups).isin(reached)
    removed = pd.DataFrame({"image_id": images["image_id"][hit], "reason": "belongs together with a validation image",
                            "twin": keys[hit].map(groups).map(first)})
    return pd.Series(np.where(groups.index.isin(valid), 0, -1), index=groups.index), removed


def fold_table(images: pd.DataFrame, fold: pd.Series, dropped: pd.DataFrame) -> pd.DataFrame:
    """folds.csv, by patient; a patient none of whose images takes part gets -1.

    Twins of test images count as taking part here, so that test rows leave folds.csv as it was.
    """
    lasting = dropped[~dropped["reason"].str.startswith(TEST_TWIN)]
    present = patient_keys(images)[taking_part(images, lasting)].unique()
    table = fold.where(fold.index.isin(present), -1).sort_index()
    return pd.DataFrame({"patient_id": table.index, "fold": table.to_numpy()})


def require_same(name: str, arguments: argparse.Namespace) -> dict:
    """How the standing folds.csv was made; a UserError where the command line asks for something else."""
    folder = data_folder(name)
    numbers = fold_numbers(read_folds(name))
    path = folder / "folds_audit.json"
    made = json.loads(path.read_text(encoding="utf-8"))["made"] if path.is_file() else {"by": "hand"}
    frozen = f"{folder / 'folds.csv'} is frozen; `make clean-folds COMP={name}` removes it"
    if arguments.folds is not None and len(numbers) != arguments.folds:
        raise UserError(f"--folds {arguments.folds}: there are {len(numbers)} folds already: {frozen}")
    if arguments.seed is not None and arguments.seed != made.get("seed", arguments.seed):
        raise UserError(f"--seed {arguments.seed}: made with seed {made['seed']}: {frozen}")
    if arguments.map and not arguments.audit:
        raise UserError(f"--import {arguments.map}: {frozen}")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
