"""Every image of a raw download, decoded once and resized to every size that a run needs.

    python -m pipeline.prepare melanoma [--workers N]        every size that some run needs
    python -m pipeline.prepare melanoma/b5_384               the size of that run, beside those that
                                                             exist already

Reads   data/<comp>/raw                  as downloaded; zips need not be unpacked; never written to
Writes  data/<comp>/images/<size>/*.jpg  one file an image_id, resized as the task says; of more
                                         than 10,000, in the folders 00 to ff
        data/<comp>/images/<size>.csv    image_id bytes crc32: what was written; checked by whoever
                                         reads an image
        data/<comp>/images.csv           image_id file patient_id unit_id split source width
                                         height phash decoded brightness file_bytes, patient
                                         columns, labels; width and height are the original's,
                                         upright; brightness the mean gray value, 0 to 255;
                                         file_bytes blank for rows of pixel arrays
        data/<comp>/prepare_errors.csv   image_id, file, reason: files that gave no image; not in
                                         images.csv
        data/<comp>/prepare.json         the resize specification, hashes, versions and commit that
                                         made them
        data/<comp>/prepare/             journals of finished images

Killed or interrupted, it goes on where it was: at most the images in hand are done again. Several
machines that share the folder may run it at once and share the work. Run again later, it reads all
prepared images and holds them against what was written (size and CRC-32); those that are missing or
damaged, which are named, and those whose files have changed are made again, the rest is left. A
worker holds one image at a time: 0.25 GB for photographs of 24 million pixels; for the largest that
are opened (134 million) 0.9 GB as JPEG, 1.6 GB at 16 bits; its limit is 4 GB.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.files import (
    file_hash,
    require_plain,
    sync_filesystem,
    write_sealed,
)
from pipeline.core.artifacts.paths import (
    SYNTHETIC_MARKER,
    data_folder,
    fan_out,
    fans_out,
    image_path,
    raw_folder,
)
from pipeline.core.artifacts.prepared_images import (
    CHECKSUM_COLUMNS,
    PreparedImage,
    checksum_file,
    needed_sizes,
    prepared_sizes,
)
from pipeline.core.artifacts.provenance import provenance
from pipeline.core.artifacts.tables import IMAGE_COLUMNS, read_csv, write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.images.area import warm_up
from pipeline.core.images.prepared import (
    ImageTask,
    journal_text,
    prepare_one,
    read_journal,
    stamp_of,
)
from pipeline.core.images.resize import METHOD
from pipeline.core.raw.check import check_raw_table
from pipeline.core.runtime.claims import owner_is_gone, unfinished
from pipeline.core.runtime.command import run_stage, stage_parser, stop_with_time_limit, time_left
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.runtime.workers import WorkerDied, usable_cores, worker_pool

DAMAGED_SHOWN = 5  # damaged images that are named
# Images that one machine claims at a time: 26 s of one core at 51 ms each (24 million pixels, four
# sizes). That is about the most that the last machine is waited for.
SHARD = 512
# Images that lie in one folder; more are spread over 256.
MOST_IN_A_FOLDER = 10_000
# Seconds of a time limit left when the stage stops. It looks at the clock as each image ends (51 ms
# as above), so that it ends by itself before a scheduler ends it by force.
SECONDS_KEPT = 10.0
# What a journal says of a readable image; these columns of images.csv come after the organiser's.
IMAGE_FACTS = ["width", "height", "phash", "decoded"]
# Of the file, for the search for shortcuts. An images.csv that was made without them keeps its
# columns, since weights carry its hash.
FILE_FACTS = ["brightness", "file_bytes"]


def main(args: argparse.Namespace) -> None:
    # Its journals are its checkpoints: a scheduler's signal is no end of it.
    stop_with_time_limit()
    for name in dict.fromkeys(parse_target(target).competition for target in args.targets):
        competition = load_competition(name)
        # Sizes that exist stay: another list of sizes is another specification, by which every
        # image is decoded again, and one decode serves them all.
        sizes = needed_sizes(competition, args.targets) | prepared_sizes(competition)
        prepare_images(competition, tuple(sorted(sizes)), args.workers)


def prepare_images(competition: Competition, sizes: tuple[int, ...], workers: int) -> None:
    """Prepare all images of a competition at these sizes, then write its tables."""
    # What the download says, checked before hours are spent on images.
    raw = raw_folder(competition.name)
    folder = data_folder(competition.name)
    table = check_raw_table(competition.name, competition.module.read_raw(raw), competition.task)

    # Journals lie in a folder named by the specification, so that no image of another size or
    # method is ever taken for one of these.
    resize = asdict(competition.task.resize)
    specification = {"resize": resize, "sizes": list(sizes), "method": METHOD}
    home = folder / "prepare" / specification_digest(specification)
    measured = measured_columns(folder)
    forget_others(folder, home)

    # One journal a shard: a machine claims a shard, and what a killed one left is gone on with.
    # The tasks hold the bytes and time of every file: a changed download has journals of its own,
    # which begin with the lines of the images that have not changed.
    tasks = list_tasks(raw, table)
    journals = home / specification_digest(tasks)
    shards = {}
    for start in range(0, len(tasks), SHARD):
        shards[journals / f"{start:06d}.jsonl"] = tasks[start : start + SHARD]
    make_size_folders(folder, sizes, len(tasks))
    known: dict[tuple, dict] = {}
    if any(not owner_is_gone(claim) for claim in journals.glob(".*.claim")):
        # One that joins others at work would read again all that they have written so far.
        print(f"{journals}: others are at work; joining them without a check", flush=True)
    else:
        known = known_lines(folder, home, sizes)
        drop_incomplete(shards, known)
    resize_all(competition, sizes, raw, shards, known, workers)

    # The tables, then the journals of an earlier state of the download go.
    results = {line["image_id"]: line for shard in shards for line in read_journal(shard)}
    write_tables(folder, table, results, specification, measured)
    for old in home.iterdir():
        if old != journals:
            shutil.rmtree(old, ignore_errors=True)


def specification_digest(value: object) -> str:
    """Twelve hexadecimal digits that name a value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def measured_columns(folder: Path) -> list[str]:
    """The columns that are measured: all, or those that the images.csv of before has."""
    path = folder / "images.csv"
    if not path.is_file():
        return IMAGE_FACTS + FILE_FACTS
    there = read_csv(path).columns
    return IMAGE_FACTS + [name for name in FILE_FACTS if name in there]


def forget_others(folder: Path, home: Path) -> None:
    """Remove the tables and journals of another specification, whose images are about to be
    overwritten."""
    others = [path for path in (folder / "prepare").glob("*") if path != home]
    if others:
        # The tables go before the first image is overwritten: should this run be killed, no later
        # stage finds a table over images of two kinds.
        print(
            f"{folder}: prepared by another specification before; preparing all images again",
            flush=True,
        )
        for name in ("images.csv", "prepare.json"):
            (folder / name).unlink(missing_ok=True)
    for other in others:
        shutil.rmtree(other, ignore_errors=True)


def list_tasks(raw: Path, table: pd.DataFrame) -> list[ImageTask]:
    """(image_id, file, stamp) of every row; a file's stamp shows whether it has changed since."""
    # Images inside one archive ("train.zip::a.jpg") share its stamp: one look at the disk for all.
    containers = {file: file.partition("::")[0] for file in table["file"]}
    stamps = {path: stamp_of(raw, path) for path in set(containers.values())}
    return [
        (image_id, file, stamps[containers[file]])
        for image_id, file in zip(table["image_id"], table["file"])
    ]


def make_size_folders(folder: Path, sizes: tuple[int, ...], count: int) -> None:
    """data/<comp>/images/<size> of every size; of many images, with the folders that they are
    spread over, unless it has images already."""
    for size in sizes:
        images = folder / "images" / str(size)
        images.mkdir(parents=True, exist_ok=True)
        if count > MOST_IN_A_FOLDER and not fans_out(images) and not any(images.glob("*.jpg")):
            fan_out(images)


def known_lines(folder: Path, home: Path, sizes: tuple[int, ...]) -> dict[tuple, dict]:
    """(image_id, file, stamp) -> journal line, for every image all of whose prepared copies are
    what was written; the first of those that are not are printed."""
    # Whole journals and those that a killed machine left half written (.jsonl.part).
    lines = {}
    for journal in sorted(home.glob("*/*.jsonl*")):
        for line in read_journal(journal):
            lines[key(line["image_id"], line["file"], line["stamp"])] = line

    # An unreadable image has no copy that could have changed.
    known = {}
    faults = []
    for name, line in tqdm(lines.items(), "checking", unit="image", disable=not lines):
        fault = None if "reason" in line else copy_fault(folder.name, line, sizes)
        if fault:
            faults.append(fault)
        else:
            known[name] = line
    for fault in faults[:DAMAGED_SHOWN]:
        print(f"made again: {fault}", flush=True)
    if len(faults) > DAMAGED_SHOWN:
        print(f"made again: {len(faults) - DAMAGED_SHOWN:,} more", flush=True)
    return known


def copy_fault(competition: str, line: dict, sizes: tuple[int, ...]) -> str | None:
    """What is wrong with the first of an image's prepared copies that is not as the journal's line
    has it; None where all are."""
    for size in sizes:
        path = image_path(competition, size, line["image_id"])
        written = line.get("written", {}).get(str(size))
        if written is None:
            return f"{path}: nothing says what was written"
        try:
            PreparedImage(path, *written).read()
        except UserError as error:
            return str(error).partition("; `make prepare")[0]
    return None


def key(image_id: str, file: str, stamp: list[int]) -> tuple:
    """What a journal line is about, as a dictionary key; a stamp is a list, which cannot be one."""
    return image_id, file, *stamp


def drop_incomplete(shards: dict[Path, list[ImageTask]], known: dict[tuple, dict]) -> None:
    """Remove the journals of which some images have been lost since, so that those are made
    again."""
    # A shard counts as done when its journal exists. The lines of the images that are left are in
    # `known`, so only the lost ones are made again.
    for shard, tasks in shards.items():
        if shard.exists() and not all(key(*task) in known for task in tasks):
            shard.unlink(missing_ok=True)


def resize_all(
    competition: Competition,
    sizes: tuple[int, ...],
    raw: Path,
    shards: dict[Path, list[ImageTask]],
    known: dict,
    workers: int,
) -> None:
    """Work through the shards that no other machine has, until all exist."""
    name = competition.name
    images = data_folder(name) / "images"
    total = sum(map(len, shards.values()))
    done = sum(len(tasks) for path, tasks in shards.items() if path.exists())
    if done == total:
        list(unfinished(list(shards)))  # nothing to make; the claim of one killed at its end goes
        return

    # Compiled code is loaded once, 0.3 s, before the workers are forked from this process.
    warm_up()
    setup = (raw.resolve(), images, sizes, competition.task.resize)
    with (
        worker_pool(min(workers, total), prepare_one, *setup) as run,
        tqdm(total=total, initial=done, unit="image", mininterval=0.5, desc=name) as bar,
    ):
        for shard in unfinished(list(shards)):
            finish_shard(shard, shards[shard], images, known, run, bar)
        bar.update(total - bar.n)  # what other machines have done


def finish_shard(
    shard: Path,
    tasks: list[ImageTask],
    images: Path,
    known: dict[tuple, dict],
    run: Callable,
    bar: tqdm,
) -> None:
    """Complete one journal: what is known already, then what has to be made; renamed when whole."""
    # The lines of an earlier attempt and of earlier journals. Written anew, since a kill may have
    # left the last line cut in the middle, and the next would be appended to it.
    part = shard.with_suffix(".jsonl.part")
    require_plain(part)
    kept = {key(line["image_id"], line["file"], line["stamp"]): line for line in read_journal(part)}
    for task in tasks:
        if key(*task) in known:
            kept[key(*task)] = known[key(*task)]
    part.write_text("".join(map(journal_text, kept.values())), encoding="utf-8")
    bar.update(len(kept))

    # A line is handed to the system as its image ends (buffering=1), so that a kill loses no image
    # but those in hand.
    left = [task for task in tasks if key(*task) not in kept]
    with part.open("a", encoding="utf-8", buffering=1) as journal:
        for task, result in run(left):
            journal.write(journal_text(checked_line(task, result)))
            bar.update()
            if time_left() < SECONDS_KEPT:
                raise TimeLimitReached(
                    f"{shard.parent}: time is up after {bar.n:,} of {bar.total:,} images"
                )
    # A whole journal vouches for its images: they are on the disk before it is.
    sync_filesystem(images)
    part.replace(shard)


def checked_line(task: ImageTask, result: dict | WorkerDied) -> dict:
    """The journal line of a result; a UserError where the disk is at fault."""
    # An image that took its decoder down, or more than two minutes, is one unreadable image.
    if isinstance(result, WorkerDied):
        image_id, file, stamp = task
        return {"image_id": image_id, "file": file, "stamp": stamp, "reason": str(result)}
    # A full disk would make every image that follows unreadable, so it stops the stage.
    if "failed" in result:
        raise UserError(result["failed"])
    return result


def write_tables(
    folder: Path,
    table: pd.DataFrame,
    results: dict[str, dict],
    specification: dict,
    measured: list[str],
) -> None:
    """Write images.csv, prepare_errors.csv and prepare.json, the last one last."""
    # What could not be read is listed with its reason, never dropped in silence.
    errors = folder / "prepare_errors.csv"
    columns = ["image_id", "file", "reason"]
    lines = [results[image_id] for image_id in table["image_id"]]
    failed = [{name: line[name] for name in columns} for line in lines if "reason" in line]
    unreadable = pd.DataFrame(failed, columns=columns)
    write_csv(errors, unreadable)
    if len(unreadable) == len(table):
        raise UserError(
            f"{errors}: none of the {len(table):,} images could be read; "
            f"{unreadable['file'].iloc[0]}: {unreadable['reason'].iloc[0]}"
        )

    # The readable images, in the table's order: ids, what was seen in the image, patient columns
    # and labels. Width and height are float where some rows have none, and whole numbers after.
    # A journal that an older version began does not have all that is measured today.
    seen = [{name: line.get(name) for name in measured} for line in lines]
    facts = pd.DataFrame(seen, index=table.index)
    facts = facts.drop(columns=[name for name in measured if facts[name].isna().all()])
    readable = ~table["image_id"].isin(unreadable["image_id"])
    write_checksums(folder, [line for line in lines if "reason" not in line], specification)
    first = [name for name in IMAGE_COLUMNS if name in table.columns]
    images = pd.concat([table[first], facts, table.drop(columns=first)], axis=1)[readable]
    write_csv(folder / "images.csv", images.astype({"width": "int64", "height": "int64"}))

    # Last, since sizes count as prepared where prepare.json names them.
    made = provenance(
        **specification,
        synthetic=(folder / "raw" / SYNTHETIC_MARKER).is_file(),
        readable=int(readable.sum()),
        unreadable=len(unreadable),
        images=file_hash(folder / "images.csv"),
    )
    write_sealed(folder / "prepare.json", made)
    listed = f", listed in {errors}" if len(unreadable) else ""
    path = folder / "images.csv"
    print(f"{path}: {readable.sum():,} images; {len(unreadable):,} unreadable{listed}")


def write_checksums(folder: Path, lines: list[dict], specification: dict) -> None:
    """images/<size>.csv of every size."""
    for size in specification["sizes"]:
        rows = [(line["image_id"], *line["written"][str(size)]) for line in lines]
        write_csv(checksum_file(folder.name, size), pd.DataFrame(rows, columns=CHECKSUM_COLUMNS))


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    parser = stage_parser(__doc__)
    words = "processes (default: one a core)"
    parser.add_argument("--workers", type=int, default=len(usable_cores()), help=words)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
