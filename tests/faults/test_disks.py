"""Disks that are full or read-only, pipes and sockets in the place of files, roots that are no
folders: the stage makes its artifact or says in one line why not, and what is half-made never looks
whole."""

import os
import random
import resource
import shutil
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.tables import read_csv, write_csv
from tests.cases import mounts
from tests.cases.faults import (
    FOLD,
    STAGES,
    TALLY,
    contents,
    leftovers,
    remove,
    restore,
    results,
)
from tests.cases.forked import Ended, run_forked

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SIZES = 4  # limits tried of each stage
ROOTS = {"DATA": "data", "MODELS": "models", "SUBMISSIONS": "submissions"}
WRITES = {
    "prepare": "data",
    "folds": "data",
    "pretrain": "models",
    "finetune": "models",
    "metadata": "models",
    "predict": "models",
    "ensemble": "models",
    "submit": "submissions",
    "report": "submissions",
}
# Where a full disk is put.
FULL = {
    "prepare": "data/melanoma/images",
    "ensemble": "models",
    "submit": "submissions",
    "report": "submissions",
}
PAGE = 4096  # bytes
# Files that a stage opens, in whose place a pipe, a socket or a folder is put.
OPENED = [
    ("folds", "data/melanoma/images.csv"),
    ("ensemble", "data/melanoma/folds.csv"),
    ("ensemble", "data/melanoma/folds_audit.json"),
    ("ensemble", "data/melanoma/folds_dropped.csv"),
    ("report", "data/melanoma/prepare.json"),
    ("finetune", f"models/{FOLD}/pretrained.safetensors"),
    ("predict", f"models/{FOLD}/finetuned.safetensors"),
    ("finetune", f"models/{FOLD}/finetuned.checkpoint.safetensors"),
    ("finetune", f"models/{FOLD}/log.jsonl"),
    ("finetune", f"models/{FOLD}/.finetuned.safetensors.claim"),
    ("predict", f"models/{FOLD}/predictions.csv"),
    ("ensemble", f"models/{FOLD}/predictions.csv"),
    ("ensemble", f"models/{FOLD}/predictions.json"),
    ("ensemble", f"models/{FOLD}/predictions_pretrained.csv"),
    ("report", f"models/{FOLD}/predictions_views.npz"),
    ("report", f"models/{FOLD}/log.jsonl"),
    ("report", "models/melanoma/ensemble.json"),
    ("submit", "models/melanoma/ensemble.csv"),
    ("submit", "models/melanoma/scores.csv"),
    ("submit", "submissions/LOG.md"),
    ("submit", "submissions/melanoma/submission.csv"),
    ("report", "submissions/melanoma/report.html"),
]
# Files and folders that a user names: FILE is what is no such thing, OTHERS are as they should be.
FILE = "named.csv"
OTHERS = {"SUBMISSION": "submissions/melanoma/submission.csv", "TRUTH": "truth.csv"}
OTHERS |= {"IMAGES": "data/melanoma/raw/jpeg/test", "SCORES": "oof.csv"}
NAMED = [
    ("score", "melanoma", "--file", FILE, "--truth", "TRUTH"),
    ("score", "melanoma", "--file", "SUBMISSION", "--truth", FILE),
    ("score", "melanoma", "--file", "SUBMISSION", "--truth", "TRUTH", "--readers", FILE),
    ("member", "melanoma/theirs", "--out-of-fold", FILE, "--trust-folds"),
    ("member", "melanoma/theirs", "--out-of-fold", "SCORES", "--trust-folds", "--test", FILE),
    ("member", "melanoma/theirs", "--out-of-fold", "SCORES", "--fold-map", FILE),
    ("folds", "melanoma", "--import", FILE),
    ("submit", "melanoma", "--check", FILE),
    ("submit", "melanoma", "--check", "SUBMISSION", "--sample", FILE),
    ("report", "melanoma", "--truth", FILE, "--readers", "IMAGES"),
    ("report", "melanoma", "--truth", "TRUTH", "--readers", FILE),
    ("deploy.score_images", "melanoma", "--images", FILE, "--out", "out.csv"),
    ("deploy.score_images", "melanoma", "--images", "IMAGES", "--out", FILE),
    (
        *("deploy.score_images", "melanoma", "--images", "IMAGES", "--out", "out.csv"),
        *("--metadata", FILE),
    ),
]
# Files that a stage needs, whose owner may not read them.
UNREADABLE = [
    ("prepare", "data/melanoma/raw/train.csv"),
    ("folds", "data/melanoma/images.csv"),
    ("finetune", f"models/{FOLD}/pretrained.safetensors"),
    ("predict", f"models/{FOLD}/finetuned.safetensors"),
    ("ensemble", f"models/{FOLD}/predictions.csv"),
    ("ensemble", f"models/{FOLD}/predictions.json"),
    ("submit", "models/melanoma/ensemble.csv"),
    ("report", "models/melanoma/ensemble.json"),
    ("report", f"models/{FOLD}/log.jsonl"),
]
NO_FOLDERS = ("/etc/passwd", "/proc", "/dev/null", "/etc/passwd/x", "/sys/kernel/x")


def limit_files(size: int) -> None:
    """No file of more than `size` bytes may be written by this process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def jobs() -> list[tuple[str, ...]]:
    """(kind, stage, ...) of every fault."""
    found = [("no room", stage) for stage in STAGES]
    found += [("a full disk", stage) for stage in FULL]
    found += [("a read-only folder", stage, root) for stage in STAGES for root in ROOTS]
    found += [("no permission to write", stage) for stage in STAGES]
    found += [("no permission to read", stage, path) for stage, path in UNREADABLE]
    found += [("a pipe, a socket, a folder", stage, path) for stage, path in OPENED]
    found += [("a pipe, a socket, a folder that a user names", *command) for command in NAMED]
    return found + [("a root that is no folder", stage) for stage in STAGES]


@pytest.mark.parametrize("job", jobs(), ids=lambda job: " ".join(job))
def test_a_stage_ends_well_or_in_one_line(home, job):
    if job[0] in ("a full disk", "a read-only folder") and not mounts.permitted():
        pytest.skip("this user may not mount")
    run_job(home, *job)
    TALLY.require_none_wrong()


def run_job(home, kind: str, stage: str, *more: str) -> None:
    """Do one of `jobs`."""
    work = {
        "no room": no_room,
        "a full disk": full_disk,
        "a read-only folder": read_only_folder,
        "no permission to write": no_writing,
        "no permission to read": no_reading,
        "a pipe, a socket, a folder": no_plain_file,
        "a pipe, a socket, a folder that a user names": no_named_file,
        "a root that is no folder": no_folder,
    }
    work[kind](home, kind, stage, *more)


def no_room(home, kind: str, stage: str) -> None:
    """A limit on the size of files, as a quota or a full disk in the middle of a file."""
    arguments, made = STAGES[stage]
    before = contents(home, ("data/melanoma/*.*", "data/melanoma/prepare", "models", "submissions"))
    expected = results(home, made)
    largest = max(map(len, contents(home, made).values()))
    chance = random.Random(stage)
    for _ in range(SIZES):
        remove(home, made)
        size = int(largest ** chance.uniform(0.3, 1.0))
        done = run_forked(home, stage, *arguments, first=lambda size=size: limit_files(size))
        fault = fault_of(home, done, made, expected)
        # With room again, the same command makes all.
        again = run_forked(home, stage, *arguments)
        fault = fault or again.fault or ("" if again.status == 0 else again.printed[-400:])
        TALLY.note(kind, f"{stage}, files of {size} bytes", fault)
        restore(home, before)


def full_disk(home, kind: str, stage: str) -> None:
    """A disk with one to sixteen pages to spare in the place of the folder that the stage
    writes."""
    arguments, made = STAGES[stage]
    folder = home / FULL[stage]
    remove(home, made)
    # What else is there takes whole pages.
    there = contents(home, (FULL[stage],))
    held = sum(-(-len(data) // PAGE) for data in there.values())

    def disk(pages: int) -> None:
        mounts.small_disk(folder, (held + pages) * PAGE)
        restore(home, there)

    for pages in (1, 2, 3, 4, 8, 16):
        done = run_forked(home, stage, *arguments, first=partial(disk, pages))
        TALLY.note(kind, f"{stage}, {pages} pages", done.fault and f"{done.fault}: {done.printed}")


def read_only_folder(home, kind: str, stage: str, root: str) -> None:
    """A stage that writes there says so in one line; for any other it is enough to read."""
    arguments, made = STAGES[stage]
    expected = results(home, made)
    remove(home, made)
    folder = home / ROOTS[root]
    done = run_forked(home, stage, *arguments, first=lambda: mounts.read_only(folder))
    fault = fault_of(home, done, made, expected)
    wanted = 2 if WRITES[stage] == ROOTS[root] else 0
    if not fault and done.status != wanted:
        fault = f"status {done.status}: {done.printed[-400:]}"
    TALLY.note(kind, f"{stage}, {root}", fault)


def no_writing(home, kind: str, stage: str) -> None:
    """Folders and files that this user may read and not write: one line, and nothing made."""
    arguments, made = STAGES[stage]
    expected = results(home, made)
    remove(home, made)
    folder = home / WRITES[stage]
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run_forked(home, stage, *arguments, first=mounts.obey_permissions)
    fault = fault_of(home, done, made, expected)
    if not fault and (done.status != 2 or "Permission denied" not in done.printed):
        fault = f"status {done.status}: {done.printed[-400:]}"
    TALLY.note(kind, f"{stage}, {WRITES[stage]}", fault)
    for path in paths:
        path.chmod(0o755)


def no_reading(home, kind: str, stage: str, name: str) -> None:
    """A file that a stage needs and may not read: one line that names it."""
    arguments, made = STAGES[stage]
    remove(home, tuple(pattern for pattern in made if pattern != name))
    (home / name).chmod(0)
    done = run_forked(home, stage, *arguments, first=mounts.obey_permissions)
    fault = done.fault
    if not fault and (done.status != 2 or name.rpartition("/")[2] not in done.printed):
        fault = f"status {done.status}"
    TALLY.note(kind, f"{name}, {stage}", fault and f"{fault}: {done.printed[-400:]}")


def no_plain_file(home, kind: str, stage: str, name: str) -> None:
    """Something that opens without end, or not at all, under the name of a file."""
    arguments, made = STAGES[stage]
    path = home / name
    for what in ("pipe", "socket", "folder"):
        remove(home, tuple(pattern for pattern in made if pattern != name))
        if path.exists():
            path.unlink()
        make_no_file(path, what)
        done = run_forked(home, stage, *arguments)
        fault = done.fault and f"{done.fault}: {done.printed}"
        TALLY.note(kind, f"{name} is a {what}, {stage}", fault)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def make_no_file(path: Path, what: str) -> None:
    """Make a pipe, a socket, a folder or a device of that name."""
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        # The path of a socket has 107 bytes at most.
        here = Path.cwd()
        os.chdir(path.parent)
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(here)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


def no_named_file(home, kind: str, stage: str, *arguments: str) -> None:
    """The same under a name that a user gives: one line of error, which names it."""
    images = read_csv(home / "data/melanoma/images.csv")
    ids = images["image_id"][images["split"] != "test"]
    scores = pd.DataFrame({"image_id": ids, "target": np.linspace(0.1, 0.9, len(ids))})
    write_csv(home / OTHERS["SCORES"], scores)
    sample = read_csv(home / "data/melanoma/raw/sample_submission.csv", ids=("image_name",))
    write_csv(home / OTHERS["TRUTH"], sample.assign(target=np.arange(len(sample)) % 2))
    if stage == "folds":
        remove(home, STAGES["folds"][1])
    path = home / FILE
    for what in ("pipe", "socket", "device", "folder", "nothing"):
        if what != "nothing":
            make_no_file(path, what)
        given = [str(home / OTHERS.get(one, one)) if one.isupper() else one for one in arguments]
        given = [str(path) if one == FILE else one for one in given]
        done = run_forked(home, stage, *given, first=lambda: os.chdir(home))
        fault = done.fault
        # A folder may be what is asked for, and OUT may be nothing.
        if not fault and done.status != 2 and what not in ("folder", "nothing"):
            fault = f"status {done.status}"
        TALLY.note(kind, f"{stage} {' '.join(arguments)}: {what}", fault and f"{fault}: {done}")
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def no_folder(home, kind: str, stage: str) -> None:
    """A root that names a file, or a place where nothing can be made."""
    arguments, _ = STAGES[stage]
    for root in ROOTS:
        for value in NO_FOLDERS:
            change = {root: value}
            done = run_forked(home, stage, *arguments, **change)
            fault = done.fault
            if not fault and WRITES[stage] == ROOTS[root] and done.status != 2:
                fault = f"status {done.status}"
            fault = fault and f"{fault}: {done.printed[-400:]}"
            TALLY.note(kind, f"{stage}, {root}={value}", fault)


def fault_of(home, done: Ended, made: tuple[str, ...], expected: dict) -> str:
    """What is wrong with how a stage ended, "" where nothing is: every file there is whole."""
    if done.fault:
        return f"{done.fault}: {done.printed[-400:]}"
    for name, value in results(home, made).items():
        # The audit's first form says how the folds are made; folds.csv comes after it.
        early = name.endswith("folds_audit.json")
        if name in expected and value != expected[name] and not early:
            return f"{name} is half-made or another"
    left = leftovers(home, (".tmp", ".claim"))
    return f"left {left}" if left else ""
