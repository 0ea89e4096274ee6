"""Folds: who validates whom, by patient.

    python -m pipeline.folds melanoma                     make folds (or, where folds.csv stands,
                                                          audit it)
    python -m pipeline.folds chexpert --folds 5           another number than the competition's own
                                                          choice
    python -m pipeline.folds melanoma --import map.csv    take a map made elsewhere
    python -m pipeline.folds melanoma --audit             print the audit of folds.csv, change
                                                          nothing else
    python -m pipeline.folds melanoma --why               and what a split by image would have
                                                          reported (a minute)

Reads    data/<competition>/images.csv, and nothing else: image_id, patient_id, split, the labels,
         and where they are there source, phash, lesion_id, duplicate_of and the patient columns
Writes   data/<competition>/folds.csv          patient_id, fold; -1 always trains; frozen: only `make clean-folds`
                                               removes it
         data/<competition>/folds_dropped.csv  image_id, reason, twin: images that take no part
         data/<competition>/folds_audit.json   the audit that is printed, and the hashes of what it
                                               is about

Images of one patient, one lesion, a list of duplicates, or with near-identical pixels are one
group, and a group is in one fold. Groups are split so that each fold has its share of images,
patients, values of every label, sources, sizes of patients, and categories such as sex. The same
table and seed give the same folds, whatever the order of rows; test rows have no influence.

A map to import has patient_id and fold, or image_name (or image_id) and fold or tfrecord. The
numbers are kept, unless --folds K asks for number modulo K. An image whose tfrecord is -1 is a
duplicate that its makers removed: it is dropped.
"""

import argparse
import json
from pathlib import Path

from pipeline.core.artifacts.files import write_json
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import fold_numbers, read_folds, read_images, write_csv
from pipeline.core.config.competition import Competition, load
from pipeline.core.config.target import parse_target
from pipeline.core.folds.audit import audit, audit_hashes, check_labels, refuse_leaks
from pipeline.core.folds.balance import audit_text
from pipeline.core.folds.groups import check_patients
from pipeline.core.folds.image_split import leakage, leakage_text
from pipeline.core.folds.make import split
from pipeline.core.folds.split import (
    read_dropped,
)
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    made = stage_parser(__doc__)
    made.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="number of folds; default: the competition's own choice",
    )
    made.add_argument(
        "--seed", type=int, help="another seed gives other folds, as good (default 0)"
    )
    made.add_argument(
        "--import", dest="map", type=Path, metavar="CSV", help="take the folds of this map"
    )
    made.add_argument("--audit", action="store_true", help="only audit the folds.csv that stands")
    made.add_argument(
        "--why",
        action="store_true",
        help="score two cheap models by image and by group; uses prepared images where they are there",
    )
    return made


def main(arguments: argparse.Namespace) -> None:
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        folds_of(load(name), arguments)


def folds_of(competition: Competition, arguments: argparse.Namespace) -> None:
    """Make, or keep, the folds of one competition; audit them; raise a UserError where anything
    leaks."""
    folder, task = data_folder(competition.name), competition.task
    images = read_images(competition.name)
    check_patients(folder / "images.csv", images, task)
    check_labels(folder / "images.csv", images, task)
    if (folder / "folds.csv").exists() or arguments.audit:
        made = require_same(competition.name, arguments)
        folds, dropped = read_folds(competition.name), read_dropped(competition.name)
        found = audit(folder / "folds.csv", images, folds, dropped, task, made)
    else:
        folds, dropped, made = split(
            folder, images, task, arguments.folds, arguments.seed or 0, arguments.map
        )
        found = audit(folder / "folds.csv", images, folds, dropped, task, made)
        refuse_leaks(folder / "folds.csv", found["leaks"])  # before anything is written
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
    refuse_leaks(folder / "folds.csv", found["leaks"])


def earlier_why(path: Path, hashes: dict) -> list[dict]:
    """What --why found about these very tables, [] where it was not asked."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return before.get("why", []) if before.get("hashes") == hashes else []


def require_same(name: str, arguments: argparse.Namespace) -> dict:
    """How the standing folds.csv was made; a UserError where the command line asks for something
    else."""
    folder = data_folder(name)
    numbers = fold_numbers(read_folds(name))
    path = folder / "folds_audit.json"
    made = (
        json.loads(path.read_text(encoding="utf-8"))["made"] if path.is_file() else {"by": "hand"}
    )
    frozen = f"{folder / 'folds.csv'} is frozen; `make clean-folds COMP={name}` removes it"
    if arguments.folds is not None and len(numbers) != arguments.folds:
        raise UserError(
            f"--folds {arguments.folds}: there are {len(numbers)} folds already: {frozen}"
        )
    if arguments.seed is not None and arguments.seed != made.get("seed", arguments.seed):
        raise UserError(f"--seed {arguments.seed}: made with seed {made['seed']}: {frozen}")
    if arguments.map and not arguments.audit:
        raise UserError(f"--import {arguments.map}: {frozen}")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
