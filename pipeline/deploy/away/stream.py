"""Scores of a package's networks for images in their organiser's form: streamed, bounded in memory
and in time.

An image goes the way it goes at home: decoded, brought to each size, kept as the JPEG that
`prepare` would have written, and scored under the run's own views by the code of `predict`. Images
come in chunks, so memory does not grow with their number beyond the scores themselves.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.core.artifacts.files import file_hash, read_json
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.tables import as_written
from pipeline.core.config.run import METADATA, Resize, Run, from_json
from pipeline.core.images.area import warm_up
from pipeline.core.images.decoding.decode import DecodedImage
from pipeline.core.images.resize import read_back, resized, to_jpeg
from pipeline.core.images.views import view_matrices
from pipeline.core.networks.image import Network, load_weights
from pipeline.core.networks.patient import load_patient_network, score_patients
from pipeline.core.networks.scoring import VIEWS_IN_BATCH, score_views, sigmoid
from pipeline.core.raw.read import read_source
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runs.bags import rows_of_units
from pipeline.core.runtime.device import device, loader_processes, precision
from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.workers import WorkerDied, worker_pool

IMAGES_OF_FIRST_CHUNK = 64  # images in the first chunk, which is timed
IMAGES_A_CHUNK = 1024  # images in the other chunks: 300 MB of JPEGs at four sizes
SHARED_MEMORY = 1 << 30  # bytes of /dev/shm that loader processes need; a container often has 64 MB
UNLIMITED = 1 << 40  # bytes that stand for "no limit is known"
UNREADABLE_SHOWN = 10  # unreadable images that are printed
SAFETY = 0.9  # part of the time left that may be planned with
UNLIMITED_SECONDS = 1e9  # seconds that an unlimited time counts as


@dataclass
class Scorer:
    """One network of a package, ready to score; `seconds` is its measured time per image."""

    name: str
    fold: int | str
    run: Run
    labels: tuple[str, ...]
    resize: Resize
    network: Network
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, int | str]:
        return self.name, self.fold


@dataclass
class Progress:
    """What has been scored.

    tables      (member, fold) -> one row for each image, one column for each label; rows of NaN
                where an image could not be read or was not reached
    unreadable  position of an image -> why it cannot be read
    """

    tables: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


# ---- The package ----------------------------------------------------------------------------


def read_package(folder: Path) -> dict:
    """What package.json says: the competition, the labels, the networks in order of value."""
    return read_json(folder / "package.json", needed=("networks",))


def read_quantiles(folder: Path) -> dict:
    """The package's frozen maps: member -> fold -> label -> map; empty where it has none."""
    path = folder / "quantiles.json"
    return read_json(path, needed=("members",))["members"] if path.exists() else {}


def load_scorers(folder: Path, package: dict, leave_out: bool = False) -> list[Scorer]:
    """The image networks in order of value. With `leave_out`, one that cannot be built here, where
    timm may be older, is printed and left out; otherwise it is a UserError."""
    scorers = []
    for entry in package["networks"]:
        if entry["member"] == METADATA:  # it takes patients, not images: `score_metadata`
            continue
        try:
            scorers.append(load_scorer(folder / entry["file"], entry))
        except UserError as error:
            if not leave_out:
                raise
            print(f"{entry['file']}: left out: {error}", flush=True)
    return scorers


def require_packed(path: Path, entry: dict) -> None:
    """Raise a UserError where a file is not the one whose sha256 package.json has."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file, and package.json names it")
    if file_hash(path) != entry["sha256"]:
        raise UserError(
            f"{path}: not the file that was packed: its sha256 is {file_hash(path)[:12]}…, in "
            f"package.json it is {entry['sha256'][:12]}…; copy or make the package again"
        )


def load_scorer(path: Path, entry: dict) -> Scorer:
    """One network as its file's header describes it."""
    require_packed(path, entry)
    # Everything from the file itself: today's competition file may say something else.
    header = read_weights_header(path)
    run = from_json(Run, header["run"])
    labels = tuple(header["labels"])
    network = load_weights(path, run, labels)
    resize = from_json(Resize, header["resize"])
    return Scorer(entry["member"], entry["fold"], run, labels, resize, network)


# ---- Images ---------------------------------------------------------------------------------


class RawImages:
    """Images in their organiser's form; item i is {size: JPEG as `prepare` writes it}, or a string:
    why it cannot be read."""

    def __init__(
        self, raw: Path, files: Sequence[str], sizes: Sequence[int], resize: Resize
    ) -> None:
        self.raw = raw
        self.files = list(files)
        self.sizes = tuple(sizes)
        self.resize = resize

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[int, bytes] | str:
        try:
            return self.read(index)[0]
        except UnreadableImage as error:
            return f"{self.files[index]}: {error}"

    def read(self, index: int) -> tuple[dict[int, bytes], DecodedImage]:
        """({size: JPEG as `prepare` writes it}, the decoded image); UnreadableImage where there is
        none."""
        source = read_source(self.raw, self.files[index])
        by_size, image = resized(source, self.sizes, self.resize)
        return {size: to_jpeg(pixels, self.resize) for size, pixels in by_size.items()}, image


def raw_images(scorers: list[Scorer], raw: Path, files: Sequence[str]) -> RawImages:
    """The images at every size that some network needs, by the resize specification that they all
    share."""
    # One specification, so that an image is read and decoded once for all networks.
    specifications = {scorer.resize for scorer in scorers}
    if len(specifications) > 1:
        reason = "were trained on images resized in different ways"
        raise UserError(f"the networks of this package {reason}")
    sizes = sorted({scorer.run.size for scorer in scorers})
    warm_up()
    return RawImages(raw, files, sizes, specifications.pop())


def read_chunk(images: RawImages, chunk: range, scores: Progress) -> list[dict[int, bytes] | None]:
    """The JPEGs of a chunk, None where an image cannot be read (and why, into `scores`).

    They are strangers' files, so they are decoded as `prepare` does it: in workers whose memory and
    time are limited, one of which may die without the others.
    """
    # JPEGs between processes rather than pixels: 47 KB at 384, not 442.
    jpegs: list[dict[int, bytes] | None] = [None] * len(chunk)
    with worker_pool(max(1, min(loader_processes(), len(chunk))), item_of, images) as run:
        for index, item in run(chunk):
            if isinstance(item, WorkerDied):
                item = f"{images.files[index]}: {item}"
            if isinstance(item, str):
                scores.unreadable[index] = item
            else:
                jpegs[index - chunk.start] = item
    return jpegs


def item_of(index: int, images: RawImages) -> dict[int, bytes] | str:
    """One image, for a worker."""
    try:
        return images[index]
    except MemoryError:
        return f"{images.files[index]}: too large: memory ran out"


# ---- The plan: networks, chunks and the time left -------------------------------------------


def stream(
    scorers: list[Scorer],
    images: RawImages,
    left: Callable[[], float],
    scores: Progress,
    partial: bool = False,
    units: Sequence[str] | None = None,
) -> None:
    """Score all images with these networks, chunk by chunk, into `scores`.

    images   item i is {size: JPEG bytes}, or a string: why it cannot be read
    left     seconds there still are. With `partial`, one network goes as far as they last (with one
             view where it would not get to the end with all); otherwise networks that would not get
             to the end are dropped, the least valuable first
    units    the unit (study) of each image, a unit's images together, for networks that see a unit
             at once (`Run.bag`): no chunk cuts one in two
    """
    count = len(images)
    values = {scorer.key: np.full((count, len(scorer.labels)), np.nan) for scorer in scorers}
    kept = list(scorers)
    done = 0
    reading = 0.0  # seconds per image to read and decode, for all networks together
    while done < count and kept and left() > 0:
        # The next chunk: timed where it is the first, else no more than there is time for.
        size = IMAGES_OF_FIRST_CHUNK
        if done:
            size = chunk_size(reading + sum(scorer.seconds for scorer in kept), left())
        chunk = range(done, whole_units(min(count, done + size), units))

        # Its scores, and what they cost.
        started = time.monotonic()
        jpegs = read_chunk(images, chunk, scores)
        reading = mean_seconds(reading, done, time.monotonic() - started, len(chunk))
        for scorer in kept:
            started = time.monotonic()
            own = None if units is None else units[chunk.start : chunk.stop]
            values[scorer.key][chunk.start : chunk.stop] = score_chunk(scorer, jpegs, own)
            elapsed = time.monotonic() - started
            scorer.seconds = mean_seconds(scorer.seconds, done, elapsed, len(chunk))
        done = chunk.stop
        print_progress(done, count, kept, left())

        # What the rest can afford.
        if partial:
            reduce_views(kept[0], reading, count - done, left())
        else:
            kept = affordable(kept, reading, count - done, left())

    # An image counts only where every network has scored it: one that stopped half way would take
    # the other half from all.
    if partial or done == count:
        for scorer in kept:
            table = pd.DataFrame(values[scorer.key], columns=list(scorer.labels))
            scores.tables[scorer.key] = table


def chunk_size(seconds: float, left: float) -> int:
    """Images in the next chunk, where one takes so many seconds: no more than there is time for."""
    affordable_images = SAFETY * min(left, UNLIMITED_SECONDS) / max(seconds, 1e-9)
    return int(np.clip(affordable_images, 1, IMAGES_A_CHUNK))


def whole_units(end: int, units: Sequence[str] | None) -> int:
    """The end of a chunk, moved on to the end of the unit that it would cut.

    >>> whole_units(2, ["a", "b", "b", "c"])
    3
    """
    while units is not None and end < len(units) and units[end] == units[end - 1]:
        end += 1
    return end


def units_together(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with each unit's one after the other, units in order of first appearance."""
    order = rows_of_units(rows["unit_id"])
    return rows.iloc[np.concatenate(order)].reset_index(drop=True) if order else rows


def mean_seconds(before: float, done: int, seconds: float, count: int) -> float:
    """Seconds per image over all so far: `before` for the `done` images, `seconds` for `count` more
    together. The first chunk, which warms up, counts as one image."""
    weight = done if done > IMAGES_OF_FIRST_CHUNK else min(done, 1)
    return (before * weight + seconds) / (weight + count)


def print_progress(done: int, count: int, scorers: list[Scorer], left: float) -> None:
    """One line a chunk; a notebook's log has no place for a bar."""
    time_left = f", {left:.0f} s left" if left < float("inf") else ""
    print(f"{done:,} of {count:,} images by {len(scorers)} networks{time_left}", flush=True)


def reduce_views(scorer: Scorer, reading: float, images: int, left: float) -> None:
    """One view per image where all of the run's would take longer than there is."""
    # One view of all images is worth more than all views of some: those without would get the mean.
    if scorer.run.views > 1 and images * (reading + scorer.seconds) > SAFETY * left:
        scorer.seconds /= scorer.run.views
        scorer.run = replace(scorer.run, views=1)
        print(f"{scorer.name}: one view per image from here on, for want of time", flush=True)


def affordable(scorers: list[Scorer], reading: float, images: int, left: float) -> list[Scorer]:
    """The networks that can score so many more images in the time left, the most valuable first."""
    # Reading is paid once, however many networks look at the image. A small network may still fit
    # where a larger, more valuable one did not.
    cost = images * reading
    kept = []
    for scorer in scorers:
        if cost + images * scorer.seconds <= SAFETY * left:
            cost += images * scorer.seconds
            kept.append(scorer)
        else:
            print(f"{scorer.name} fold {scorer.fold}: left out for want of time", flush=True)
    return kept


# ---- Scores ---------------------------------------------------------------------------------


def score_chunk(
    scorer: Scorer, jpegs: list[dict[int, bytes] | None], units: Sequence[str] | None = None
) -> np.ndarray:
    """float64 (n, K) mean scores over the run's views, in [0, 1]; rows of NaN for images that could
    not be read. units: of each image, for a network that sees them at once; None = each alone."""
    run = scorer.run
    means = np.full((len(jpegs), len(scorer.labels)), np.nan)
    readable = [number for number, jpeg in enumerate(jpegs) if jpeg is not None]
    if readable:
        matrices = view_matrices(run.views, run.size, run.augment)
        own_size = [jpegs[number][run.size] for number in readable]
        bags = None
        if run.bag:
            names = range(len(jpegs)) if units is None else units
            bags = rows_of_units([names[number] for number in readable])
        scores = score_on_device(scorer, own_size, matrices, bags)
        means[readable] = sigmoid(scores).mean(axis=1)
    return means


def score_on_device(
    scorer: Scorer,
    jpegs: list[bytes],
    matrices: list[np.ndarray],
    bags: Sequence[np.ndarray] | None,
) -> np.ndarray:
    """float32 (n, V, K) scores before the sigmoid; the views in several parts where the device has
    too little memory for all at once. bags: as in `score_views`."""
    channels = scorer.resize.channels

    # fp16 needs a CUDA device; a CPU computes in fp32 instead.
    asked = scorer.run.precision
    dtype = precision("fp32" if asked == "fp16" and device().type == "cpu" else asked)

    # Without enough shared memory a loader process dies by SIGBUS; without processes it is slower.
    processes = loader_processes() if shared_memory() > SHARED_MEMORY else 0

    def read(number: int) -> np.ndarray:
        return read_back(jpegs[number], channels)

    # All views at once, then in halves, thirds, ..., until a part fits.
    for parts in range(1, len(matrices) + 1):
        scores = np.empty((len(jpegs), len(matrices), len(scorer.labels)), np.float32)
        try:
            for part in range(parts):
                scores[:, part::parts] = score_views(
                    scorer.network,
                    read,
                    len(jpegs),
                    matrices[part::parts],
                    dtype,
                    processes,
                    views_in_batch=max(1, VIEWS_IN_BATCH // parts),
                    bags=bags,
                )
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        scorer.network.cpu()  # only one network at a time takes memory on the device
        return scores
    raise UserError(f"{scorer.name}: one view of one image does not fit into the device's memory")


def shared_memory() -> int:
    """Free bytes for what loader processes hand over; a container often has 64 MB."""
    if not os.path.isdir("/dev/shm"):  # noqa: PTH112
        return UNLIMITED
    status = os.statvfs("/dev/shm")
    return status.f_bavail * status.f_frsize


def score_metadata(folder: Path, package: dict, rows: pd.DataFrame, scores: Progress) -> None:
    """Score the rows with each fold's metadata network; columns that are not there, and categories
    that training never saw, are missing values."""
    # As they went through images.csv at home.
    rows = as_written(rows)
    for entry in package["networks"]:
        if entry["member"] == METADATA:
            require_packed(folder / entry["file"], entry)
            network, header = load_patient_network(folder / entry["file"])
            values = score_patients(network, rows, header["encoder"])
            table = pd.DataFrame(values, columns=header["labels"])
            scores.tables[METADATA, entry["fold"]] = table


def print_unreadable(scores: Progress) -> None:
    """Print which images could not be read, and why."""
    for reason in list(scores.unreadable.values())[:UNREADABLE_SHOWN]:
        print(f"unreadable: {reason}")
    count = len(scores.unreadable)
    if count:
        print(f"{count} images could not be read; they have a neutral score", flush=True)
