"""Scores of a package's networks for pictures in their organiser's form: streamed, bounded in
memory and in time.

A picture goes the way it goes at home: decoded, brought to each size, kept as the JPEG that
`prepare` would have written, and scored under the run's own views by the code of `predict`.
Pictures come in chunks, so memory does not grow with their number beyond the scores themselves.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.config.run import METADATA, Resize, Run, from_json
from pipeline.core.images.batches import loader
from pipeline.core.images.resize import read_back, resized, to_jpeg
from pipeline.core.images.views import view_matrices
from pipeline.core.networks.image import Network, load_weights
from pipeline.core.networks.patient import load_patient_network, score_patients
from pipeline.core.networks.scoring import VIEWS_IN_BATCH, score_views, sigmoid
from pipeline.core.raw.read import read_source
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runtime.device import device, loader_processes, precision
from pipeline.core.runtime.errors import UserError

FIRST, CHUNK = (
    64,
    1024,
)  # pictures in the first chunk, which is timed, and in the others: 300 MB of JPEGs at four sizes
SHARED_MEMORY = 1 << 30  # bytes of /dev/shm that loader processes want; a container often has 64 MB
SHOWN = 10  # unreadable pictures that are named
SAFETY = 0.9  # part of the time left that may be planned with


@dataclass
class Scorer:
    """One network of a package, ready to score; `seconds` is its measured time per picture."""

    name: str
    fold: int
    run: Run
    labels: tuple[str, ...]
    resize: Resize
    network: Network
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.fold


@dataclass
class Scores:
    """What has been scored: (member, fold) -> a row a picture, a column a label, NaN rows where a
    picture could not be read or was not reached; `unreadable` tells why, picture by picture."""

    made: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)


def read_package(folder: Path) -> dict:
    """package.json."""
    return json.loads((folder / "package.json").read_text(encoding="utf-8"))


def quantiles(package: Path) -> dict:
    """The frozen maps, where the package has them."""
    path = package / "quantiles.json"
    return json.loads(path.read_text(encoding="utf-8"))["members"] if path.is_file() else {}


def image_members(package: Path, about: dict, leave_out: bool = False) -> list[Scorer]:
    """The image networks in order of value. With `leave_out`, one that cannot be built here, where
    timm may be older, is named and left out; otherwise it is a UserError."""
    found = []
    for entry in about["networks"]:
        if entry["member"] != METADATA:
            try:
                found.append(load_member(package / entry["file"], entry))
            except UserError as error:
                if not leave_out:
                    raise
                print(f"{entry['file']}: left out: {error}", flush=True)
    return found


def load_member(path: Path, entry: dict) -> Scorer:
    """One network as its file's header describes it."""
    header = read_weights_header(path)
    run, labels = from_json(Run, header["run"]), tuple(header["labels"])
    try:
        network = load_weights(path, run, labels)
    except RuntimeError as error:
        raise UserError(
            f"{path}: not the weights of this timm's {run.network} ({str(error)[:200]})"
        ) from None
    return Scorer(
        entry["member"], entry["fold"], run, labels, from_json(Resize, header["resize"]), network
    )


class Pictures(torch.utils.data.Dataset):
    """Pictures in their organiser's form; item i is {size: JPEG as `prepare` writes it}, or why it
    cannot be read."""

    def __init__(
        self, raw: Path, files: Sequence[str], sizes: Sequence[int], resize: Resize
    ) -> None:
        self.raw, self.files, self.sizes, self.resize = raw, list(files), tuple(sizes), resize

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[int, bytes] | str:
        try:
            made, _ = resized(read_source(self.raw, self.files[index]), self.sizes, self.resize)
            return {size: to_jpeg(pixels, self.resize) for size, pixels in made.items()}
        except UnreadableImage as error:
            return f"{self.files[index]}: {error}"


def pictures_for(members: list[Scorer], raw: Path, files: Sequence[str]) -> Pictures:
    """The pictures at every size that some member needs, by the resize specification they all
    share."""
    specifications = {member.resize for member in members}
    if len(specifications) > 1:
        raise UserError(
            "the networks of this package were trained on pictures resized in different ways"
        )
    return Pictures(
        raw, files, sorted({member.run.size for member in members}), specifications.pop()
    )


def stream(
    members: list[Scorer],
    pictures: torch.utils.data.Dataset,
    left: Callable[[], float],
    scores: Scores,
    partial: bool = False,
) -> None:
    """Score all pictures with these members, chunk by chunk, into `scores`.

    pictures  item i is {size: JPEG bytes}, or a string: why it cannot be read
    left      seconds there still are. With `partial`, one member goes as far as they last (with one
              view where it would not get to the end with all); otherwise members that would not get
              to the end are dropped, the least valuable first
    """
    count, done, decoding, kept = len(pictures), 0, 0.0, list(members)
    made = {member.key: np.full((count, len(member.labels)), np.nan) for member in members}
    while done < count and kept and left() > 0:
        each = decoding + sum(member.seconds for member in kept)
        chunk = range(done, min(count, done + (chunk_size(each, left()) if done else FIRST)))
        started = time.monotonic()
        jpegs = decode(pictures, chunk, scores)
        decoding = blend_time(decoding, done, time.monotonic() - started, len(chunk))
        for member in kept:
            started = time.monotonic()
            made[member.key][chunk.start : chunk.stop] = score_chunk(member, jpegs)
            member.seconds = blend_time(
                member.seconds, done, time.monotonic() - started, len(chunk)
            )
        done = chunk.stop
        tell(done, count, kept, left())
        if partial:
            hurry(kept[0], decoding, count - done, left())
        else:
            kept = affordable(kept, decoding, count - done, left())
    if partial or done == count:
        for member in kept:
            scores.made[member.key] = pd.DataFrame(made[member.key], columns=list(member.labels))


def chunk_size(seconds: float, left: float) -> int:
    """Pictures in the next chunk, where one takes so many seconds: no more than there is time
    for."""
    return int(np.clip(SAFETY * min(left, 1e9) / max(seconds, 1e-9), 1, CHUNK))


def blend_time(before: float, done: int, seconds: float, count: int) -> float:
    """Seconds per picture over all so far; the first chunk, which warms up, counts as one
    picture."""
    weight = done if done > FIRST else min(done, 1)
    return (before * weight + seconds) / (weight + count)


def tell(done: int, count: int, members: list[Scorer], left: float) -> None:
    time_left = f", {left:.0f} s left" if left < float("inf") else ""
    print(f"{done:,} of {count:,} pictures by {len(members)} networks{time_left}", flush=True)


def hurry(member: Scorer, decoding: float, pictures: int, left: float) -> None:
    """One view per picture where all of the run's would take longer than there is."""
    if member.run.views > 1 and pictures * (decoding + member.seconds) > SAFETY * left:
        member.seconds /= member.run.views
        member.run = replace(member.run, views=1)
        print(f"{member.name}: one view per picture from here on, for want of time", flush=True)


def affordable(members: list[Scorer], decoding: float, pictures: int, left: float) -> list[Scorer]:
    """The members that can score so many more pictures in the time left, the most valuable
    first."""
    cost, kept = pictures * decoding, []
    for member in members:
        if cost + pictures * member.seconds <= SAFETY * left:
            cost += pictures * member.seconds
            kept.append(member)
        else:
            print(f"{member.name} fold {member.fold}: left out for want of time", flush=True)
    return kept


def decode(
    pictures: torch.utils.data.Dataset, chunk: range, scores: Scores
) -> list[dict[int, bytes] | None]:
    """The JPEGs of a chunk, None where a picture cannot be read (and why, into `scores`)."""
    found = []
    for index, item in zip(chunk, loader(pictures, list(chunk), loader_processes(), pin=False)):
        if isinstance(item, str):
            scores.unreadable[index] = item
        found.append(None if isinstance(item, str) else item)
    return found


def score_chunk(member: Scorer, jpegs: list[dict[int, bytes] | None]) -> np.ndarray:
    """float64 (n, K) mean scores over the run's views, in [0, 1]; NaN rows for pictures that could
    not be read."""
    run, there = member.run, [number for number, jpeg in enumerate(jpegs) if jpeg is not None]
    made = np.full((len(jpegs), len(member.labels)), np.nan)
    if there:
        matrices = view_matrices(run.views, run.size, run.augment)
        made[there] = sigmoid(
            on_device(member, [jpegs[number][run.size] for number in there], matrices)
        ).mean(axis=1)
    return made


def on_device(member: Scorer, jpegs: list[bytes], matrices: list[np.ndarray]) -> np.ndarray:
    """float32 (n, V, K) scores; the views in several parts where the device has too little memory
    for all at once."""
    channels, asked = member.resize.channels, member.run.precision
    dtype = precision("fp32" if asked == "fp16" and device().type == "cpu" else asked)
    processes = loader_processes() if shared_memory() > SHARED_MEMORY else 0
    for parts in range(1, len(matrices) + 1):
        groups = [matrices[part::parts] for part in range(parts)]
        made = np.empty((len(jpegs), len(matrices), len(member.labels)), np.float32)
        try:
            for part, group in enumerate(groups):
                made[:, part::parts] = score_views(
                    member.network,
                    lambda number: read_back(jpegs[number], channels),
                    len(jpegs),
                    group,
                    dtype,
                    processes,
                    views_in_batch=max(1, VIEWS_IN_BATCH // parts),
                )
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            continue
        member.network.cpu()  # only one network at a time takes memory on the device
        return made
    raise UserError(f"{member.name}: one view of one picture does not fit into the device's memory")


def shared_memory() -> int:
    """Free bytes for what loader processes hand over; a container often has 64 MB."""
    status = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    return status.f_bavail * status.f_frsize if status else 1 << 40


def patients(package: Path, about: dict, rows: pd.DataFrame, scores: Scores) -> None:
    """Score the rows with each fold's metadata network; columns that are not there, and categories
    that training never saw, are missing values."""
    rows = rows.assign(
        **{name: nine_digits(column) for name, column in rows.select_dtypes("float").items()}
    )
    for entry in about["networks"]:
        if entry["member"] == METADATA:
            network, header = load_patient_network(package / entry["file"])
            table = pd.DataFrame(
                score_patients(network, rows, header["encoder"]), columns=header["labels"]
            )
            scores.made[METADATA, entry["fold"]] = table


def nine_digits(column: pd.Series) -> np.ndarray:
    """Numbers as images.csv holds them, with nine significant digits; networks learnt from
    these."""
    values = column.to_numpy(np.float64)
    size = np.where(np.isfinite(values) & (values != 0), np.abs(values), 1.0)
    places = 10.0 ** (8 - np.floor(np.log10(size)))
    return np.round(values * places) / places


def tell_unreadable(scores: Scores) -> None:
    """Print which pictures could not be read, and why."""
    for reason in list(scores.unreadable.values())[:SHOWN]:
        print(f"unreadable: {reason}")
    if scores.unreadable:
        print(
            f"{len(scores.unreadable)} pictures could not be read; they have a neutral score",
            flush=True,
        )
