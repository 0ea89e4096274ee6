"""Where the networks looked: for each image and label the heat map of the best single network that
never saw the image."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.core.artifacts.paths import (
    FINETUNED,
    PREDICTIONS,
    PRETRAINED,
    STAGE_1_PREDICTIONS,
    data_folder,
)
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.networks.heat_maps import heat_maps
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.pooling import NoFeatureMapError
from pipeline.core.networks.scoring import sigmoid
from pipeline.core.report.inputs import Evidence
from pipeline.core.runs.facts import predicted_with_other_weights
from pipeline.core.runs.job import Job
from pipeline.core.runs.predictions import is_imported

HIGHEST = 99.5  # percentile of all places of a label's pictures that has the strongest colour


@dataclass(frozen=True)
class Look:
    """What one network makes of one image for one label.

    run    its name
    score  of the image as it is, without other views, in [0, 1]
    heat   (h, w) float32, in units of the score before the sigmoid
    """

    run: str
    score: float
    heat: np.ndarray


@dataclass(frozen=True)
class Looks:
    """found: (image_id, number of the label) -> Look; missing: why there are none, a line each."""

    found: dict[tuple[str, int], Look]
    missing: tuple[str, ...]

    @property
    def runs(self) -> list[str]:
        """The runs that looked."""
        return sorted({look.run for look in self.found.values()})

    def limits(self, label: int) -> tuple[float, float]:
        """(without colour, strongest colour) of all pictures of a label, in its score's units."""
        heats = [look.heat.ravel() for (_, own), look in self.found.items() if own == label]
        low, high = np.percentile(np.concatenate(heats), (50, HIGHEST))
        return float(low), float(max(high, low + 1e-6))


def look_at(evidence: Evidence, asked: Iterable[tuple[str, int, int]]) -> Looks:
    """The looks at (image_id, fold, number of the label); prints how long they took.

    Each network's weights are loaded once, and each of its images is passed through once.
    """
    # The pictures of each network together.
    by_network: dict[tuple[str, int], list[tuple[str, int]]] = {}
    best = {}
    for image, fold, label in dict.fromkeys(asked):
        if label not in best:
            best[label] = best_trained_run(evidence, label)
        if best[label]:
            by_network.setdefault((best[label], fold), []).append((image, label))

    # The weights may be elsewhere: then the page says so, and has no maps.
    started = time.monotonic()
    found: dict[tuple[str, int], Look] = {}
    missing = []
    for (run, fold), pairs in sorted(by_network.items()):
        job = Job(evidence.competition, evidence.competition.run(run), fold)
        reason = why_blind(job) or look_with(job, pairs, found)
        if reason:
            missing.append(f"{job.target}: {reason}")
    if found:
        images = len({image for image, _ in found})
        seconds = time.monotonic() - started
        runs = ", ".join(Looks(found, ()).runs)
        print(f"{evidence.name}: heat maps of {images} images by {runs}: {seconds:.1f} s")
    return Looks(found, tuple(missing))


def best_trained_run(evidence: Evidence, label: int) -> str:
    """The run with the highest AUC out of fold for a label; "" where none was trained here."""
    areas = {}
    for run, scores in evidence.after.items():
        area = auc_or_nan(scores[:, label], evidence.units.truth[:, label])
        if not np.isnan(area) and not is_imported(evidence.name, run):
            areas[run] = area
    return max(areas, key=areas.get, default="")


def files_of_member(job: Job) -> tuple[str, str]:
    """(weights, predictions) of the stage whose scores are in the ensemble."""
    if job.run.stage == "pretrained":
        return PRETRAINED, STAGE_1_PREDICTIONS
    return FINETUNED, PREDICTIONS


def why_blind(job: Job) -> str:
    """Why a fold's network cannot be looked through here; "" where it can."""
    weights, predictions = files_of_member(job)
    if not (job.folder / weights).is_file():
        return f"{weights} is not here"
    if predicted_with_other_weights(job, job.folder / predictions):
        return f"{weights} was trained again since it predicted"
    folder = data_folder(job.competition.name) / "images" / str(job.run.size)
    return "" if folder.is_dir() else f"{folder} is not here"


def look_with(job: Job, pairs: list[tuple[str, int]], found: dict[tuple[str, int], Look]) -> str:
    """Add one network's looks at (image_id, number of the label) to `found`; returns why it has
    none."""
    run = job.run
    ids = list(dict.fromkeys(image for image, _ in pairs))
    channels = job.competition.task.resize.channels
    prepared = prepared_images(job.competition.name, run.size, ids)
    pixels = np.stack([read_prepared_image(image, channels) for image in prepared])
    network = load_weights(job.folder / files_of_member(job)[0], run, job.labels)
    try:
        scores, maps = heat_maps(network, pixels)
    except NoFeatureMapError as error:
        return f"{run.network} has no heat map: {error}"

    # A run may predict some of the task's labels only.
    for image, label in pairs:
        column = job.labels.index(job.competition.task.labels[label])
        row = ids.index(image)
        score = float(sigmoid(scores[row, column]))
        found[image, label] = Look(run.name, score, maps[row, column])
    return ""
