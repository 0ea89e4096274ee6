"""The proof's sets of images: two competitions, prepared and split by patient, and three benchmarks
at 1 % positive with their own test sets."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.config.competition import load_competition
from pipeline.core.folds.split import fold_of, patient_keys, scored, taking_part
from pipeline.core.images.views import read_prepared_image
from pipeline.core.runs.job import tables
from pipeline.core.runtime.errors import UserError
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.datasets import imbalance

# Set -> its label; of the chest set's five the one with most positives.
COMPETITIONS = {"melanoma": "target", "chexpert": "Pleural Effusion"}
BENCHMARKS = ("cats_dogs", "cifar10", "stl10")
SETS = (*COMPETITIONS, *BENCHMARKS)
IMRATIO = 0.01


@dataclass(frozen=True)
class ImageSet:
    """images (N, 3, S, S) uint8, labels (N,) of 0 and 1, patients (N,) as texts, folds (N,): the
    fold that tests an image, -1 where it only trains."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    folds: np.ndarray

    def split(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows that train, rows that are tested) for one fold."""
        return np.flatnonzero(self.folds != fold), np.flatnonzero(self.folds == fold)


def why_missing(name: str) -> str:
    """Why a set cannot be had here, "" when it can."""
    needed = "folds.csv" if name in COMPETITIONS else "raw"
    path = data_folder(name) / needed
    return "" if path.exists() else f"there is no {path}"


def read_set(name: str, size: int, seed: int) -> ImageSet:
    """A set at `size` pixels; of a benchmark the seed decides which positives are kept."""
    if name in COMPETITIONS:
        return read_competition(name, size)
    benchmark = datasets.read(name)
    kept, _ = imbalance(benchmark.train_labels, IMRATIO, seed)
    images = np.concatenate([benchmark.train_images[kept], benchmark.test_images])
    labels = np.concatenate([benchmark.train_labels[kept], benchmark.test_labels])
    folds = np.zeros(len(labels), np.int64)
    folds[: len(kept)] = -1
    channels_last = [resized_square(image.transpose(1, 2, 0), size) for image in images]
    return ImageSet(
        name,
        np.ascontiguousarray(np.stack(channels_last).transpose(0, 3, 1, 2)),
        labels,
        np.arange(len(labels)).astype(str),
        folds,
    )


def read_competition(name: str, size: int) -> ImageSet:
    """The labelled images of a competition, in its own folds."""
    competition = load_competition(name)
    known = tables(competition)
    images = known.images
    labels = images[COMPETITIONS[name]]
    # A blank is what the competition's file says it is; an uncertain label takes no part.
    if competition.task.blank == "negative":
        labels = labels.fillna(0)
    fold = fold_of(images, known.folds)
    usable = taking_part(images, known.dropped) & fold.notna().to_numpy()
    usable &= scored(images, competition.task) & labels.isin((0, 1)).to_numpy()
    chosen = images[usable]
    prepared = prepared_size(name, size)
    pixels = []
    for image in prepared_images(name, prepared, chosen["image_id"]):
        pixels.append(
            resized_square(read_prepared_image(image, competition.task.resize.channels), size)
        )
    stacked = np.stack([np.broadcast_to(image, (size, size, 3)) for image in pixels])
    return ImageSet(
        name,
        np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)),
        labels[usable].to_numpy(np.int64),
        patient_keys(chosen).to_numpy(),
        fold[usable].to_numpy(np.int64),
    )


def prepared_size(name: str, size: int) -> int:
    """The smallest prepared size that is at least `size`."""
    folders = (data_folder(name) / "images").glob("*")
    sizes = sorted(int(folder.name) for folder in folders if folder.name.isdigit())
    for each in sizes:
        if each >= size:
            return each
    raise UserError(
        f"{data_folder(name)}/images: no prepared size of {size} or more (there are {sizes}); "
        f"`make prepare COMP={name}` makes those of its runs, --size takes a smaller one"
    )


def resized_square(image: np.ndarray, size: int) -> np.ndarray:
    """(S, S, C) uint8 at size x size: area-averaged down, cubic up."""
    if image.shape[0] == size:
        return image
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=how)
    return small.reshape(size, size, -1)
