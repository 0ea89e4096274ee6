"""Folds: which patients train and which validate in each fold, none of them both.

    python -m pipeline.folds melanoma                     make folds (or, where folds.csv exists,
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
Writes   data/<competition>/folds.csv          patient_id, fold; -1 always trains; frozen: only
                                               `make clean-folds` removes it
         data/<competition>/folds_dropped.csv  image_id, reason, twin: images that take no part
         data/<competition>/folds_audit.json   the audit that is printed, and the hashes of what it
                                               is about

Images of one patient, one lesion, a list of duplicates, or with near-identical pixels are one
group, and a group is in one fold. Groups are split so that each fold has its share of images,
patients, values of every label, sources, sizes of patients, and categories such as sex. The same
table and seed give the same folds, whatever the order of rows; test rows have no influence.

A map to import has patient_id and fold, or image_name (or image_id) and fold or tfrecord, as the
out-of-fold file of a member from elsewhere has. The
numbers are kept, unless --folds K asks for number modulo K. An image whose tfrecord is -1 is a
duplicate that its makers removed: it is dropped.
"""

import argparse
import sys
from pathlib import Path

from pipeline.core.artifacts.files import file_hash, read_json, remove_abandoned, write_sealed
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import fold_numbers, read_folds, read_images, write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.folds.audit import (
    audit,
    audit_hashes,
    check_scored_labels,
    refuse_leaks,
    require_whole_patients,
)
from pipeline.core.folds.audit_text import audit_text
from pipeline.core.folds.groups import check_patients
from pipeline.core.folds.image_split import leakage, leakage_text
from pipeline.core.folds.make import split
from pipeline.core.folds.shortcuts import shortcut_text, shortcut_warnings, shortcuts
from pipeline.core.folds.split import read_dropped
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    options = stage_parser(__doc__)
    # No defaults: None tells "not asked for" from a value that contradicts the folds that exist.
    own = "number of folds; default: the competition's own choice"
    options.add_argument("--folds", type=int, metavar="K", help=own)
    another = "another seed gives other folds, as good (default 0)"
    options.add_argument("--seed", type=int, help=another)
    foreign = "take the folds of this map"
    options.add_argument("--import", dest="map", type=Path, metavar="CSV", help=foreign)
    only = "only audit the folds.csv that exists"
    options.add_argument("--audit", action="store_true", help=only)
    two = "score two cheap models by image and by group (the second needs prepared images)"
    options.add_argument("--why", action="store_true", help=two)
    return options


def main(arguments: argparse.Namespace) -> None:
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        make_folds(load_competition(name), arguments)


def make_folds(competition: Competition, arguments: argparse.Namespace) -> None:
    """Make, or keep, the folds of one competition; audit them; raise a UserError where anything
    leaks."""
    name = competition.name
    task = competition.task
    folder = data_folder(name)
    path = folder / "folds.csv"

    # A row without a patient or with a wrong label is named before the search, which takes 40 s at
    # CheXpert's size.
    images = read_images(name)
    check_patients(folder / "images.csv", images, task)
    check_scored_labels(folder / "images.csv", images, task)

    say_when_changed(folder)

    # Folds are made once: those that exist are audited as they are. To make them again would move
    # patients between training and validation, and every trained network would have seen some of
    # the patients that it then validates.
    if path.exists() or arguments.audit:
        remove_abandoned(path)  # of a run that was killed just after its renaming
        origin = require_same(name, arguments)
        folds = read_folds(name)
        dropped = read_dropped(name)
        require_whole_patients(folder / "images.csv", images, folds)
        report = audit(path, images, folds, dropped, task, origin)
    else:
        seed = arguments.seed or 0
        folds, dropped, origin = split(folder, images, task, arguments.folds, seed, arguments.map)
        require_whole_patients(folder / "images.csv", images, folds)
        report = audit(path, images, folds, dropped, task, origin)
        refuse_leaks(path, report["leaks"])  # before anything is written
        # folds.csv last: where it exists, the dropped images and the origin exist too.
        write_csv(folder / "folds_dropped.csv", dropped)
        write_sealed(folder / "folds_audit.json", {"made": origin})
        write_csv(path, folds)

    # The audit carries the hashes of the tables it is about; later stages trust it by these, which
    # spares each the search for twins: a minute at CheXpert's size.
    report["hashes"] = audit_hashes(name)
    report["shortcuts"] = shortcuts(images, folds, dropped, task)
    report["warnings"] += shortcut_warnings(report["shortcuts"])
    report["why"] = earlier_why(folder / "folds_audit.json", report["hashes"])
    if arguments.why:
        report["why"] = leakage(name, images, dropped, task)

    # Printed and written also where it finds a leak: the table of leaks shows what to mend.
    write_sealed(folder / "folds_audit.json", report)
    print(f"{path}: {audit_text(report)}")
    print(shortcut_text(report["shortcuts"]))
    if report["why"]:
        print(f"what a split by image would have reported:\n{leakage_text(report['why'])}")
    refuse_leaks(path, report["leaks"])


def say_when_changed(folder: Path) -> None:
    """Print a warning where images.csv is not the one that `prepare` wrote; a user may edit it, and
    a byte may rot."""
    prepared = folder / "prepare.json"
    if not prepared.exists():
        return
    written = read_json(prepared).get("images")
    if written and written != file_hash(folder / "images.csv"):
        print(
            f"warning: {folder / 'images.csv'}: differs from what `prepare` wrote (changed by "
            "hand, or damaged; `prepare` writes it again once it is deleted)",
            file=sys.stderr,
        )


def earlier_why(path: Path, hashes: dict) -> list[dict]:
    """What --why found about these very tables, [] where it was not asked."""
    # It takes a minute, so its answer outlives a plain audit, but not a change of the tables.
    if not path.is_file():
        return []
    before = read_json(path)
    return before.get("why", []) if before.get("hashes") == hashes else []


def require_same(name: str, arguments: argparse.Namespace) -> dict:
    """How the existing folds.csv was made; a UserError where the command line asks for something
    else."""
    # A folds.csv without an audit beside it was written by hand or copied from elsewhere.
    folder = data_folder(name)
    path = folder / "folds_audit.json"
    origin = read_json(path, needed=("made",))["made"] if path.is_file() else {"by": "hand"}
    frozen = f"{folder / 'folds.csv'} is frozen; `make clean-folds COMP={name}` removes it"

    # Each option that asks for other folds than these is refused, never ignored.
    count = len(fold_numbers(read_folds(name)))
    if arguments.folds is not None and count != arguments.folds:
        raise UserError(f"--folds {arguments.folds}: there are {count} folds already: {frozen}")
    # Folds by hand, from a map or the organiser's have no seed, so none contradicts them.
    seed = origin.get("seed", arguments.seed)
    if arguments.seed is not None and arguments.seed != seed:
        raise UserError(f"--seed {arguments.seed}: made with seed {seed}: {frozen}")
    if arguments.map and not arguments.audit:
        raise UserError(f"--import {arguments.map}: {frozen}")
    return origin


if __name__ == "__main__":
    run_stage(main, parser())
