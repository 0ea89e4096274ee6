"""One training run: the training set a trial sees, the training, and the record it leaves."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pipeline.core.artifacts.provenance import provenance
from pipeline.core.runtime import device as machine
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.datasets import Benchmark, flip_labels, hold_out, imbalance
from pipeline.paper.benchmark.inputs import Images
from pipeline.paper.benchmark.progress import Checkpoints
from pipeline.paper.benchmark.training import fit, score
from pipeline.paper.benchmark.trial import Trial

# What `easiest_first` returned in this process: trials of several losses share it.
EASIEST: dict[tuple[Trial, torch.device], np.ndarray] = {}


def training_rows(trial: Trial, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of the benchmark's training images, their labels, the removed positives) before easy
    data are added."""
    labels = benchmark.train_labels
    rows, removed = imbalance(labels, trial.imratio, trial.seed)
    targets = labels[rows].copy()
    if trial.noisy:
        flipped, added = flip_labels(targets, removed, trial.noisy, trial.seed)
        targets[flipped] = 1
        rows, targets = extended(rows, targets, added, 0)
        removed = np.setdiff1d(removed, added)
    return rows, targets, removed


def extended(
    rows: np.ndarray, targets: np.ndarray, added: np.ndarray, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels with more rows of one label at the end."""
    more = np.full(len(added), label, np.int64)
    return np.concatenate([rows, added]), np.concatenate([targets, more])


def easiest_first(first: Trial, device: torch.device, checkpoints: Checkpoints) -> np.ndarray:
    """The removed positives, those first that a network trained by the trial `first` on the
    training set scores highest."""
    benchmark = datasets.read(first.dataset)
    rows, targets, removed = training_rows(first, benchmark)
    train = Images.of(benchmark.train_images[rows], targets, device)
    network, _ = fit(first, train, {}, checkpoints)
    others = Images.of(benchmark.train_images[removed], np.ones(len(removed)), device, like=train)
    scores = score(network, others, first.precision).numpy()
    return removed[np.argsort(-scores, kind="stable")]


def easy_rows(
    trial: Trial, removed: np.ndarray, device: torch.device, checkpoints: Checkpoints
) -> np.ndarray:
    """The part `easy` of the removed positives that cross-entropy finds easiest (§5.2)."""
    first = Trial(
        dataset=trial.dataset,
        network=trial.network,
        imratio=trial.imratio,
        seed=trial.seed,
        loss="ce",
        epochs=trial.epochs,
        batch_size=trial.batch_size,
        augment=trial.augment,
        noisy=trial.noisy,
        precision=trial.precision,
        compiled=trial.compiled,
    )
    if (first, device) not in EASIEST:
        EASIEST[first, device] = easiest_first(first, device, checkpoints)
    return EASIEST[first, device][: round(trial.easy * len(removed))]


def checkpoints_of(trial: Trial, folder: Path | None) -> tuple[Checkpoints, Checkpoints]:
    """Those of the trial's training, and of the network that finds its easy data."""
    return Checkpoints(folder, trial.key), Checkpoints(folder, f"{trial.key}-easy")


def run(
    trial: Trial, device: torch.device, keep: dict | None = None, folder: Path | None = None
) -> dict:
    """Train and return the record. `keep`, when given, receives the last network and its training
    images; in `folder` lie the checkpoints, from which a cut run goes on."""
    checkpoints, of_easy = checkpoints_of(trial, folder)
    benchmark = datasets.read(trial.dataset)

    # The training set.
    rows, targets, removed = training_rows(trial, benchmark)
    if trial.easy:
        rows, targets = extended(rows, targets, easy_rows(trial, removed, device, of_easy), 1)

    # What it is scored on: the test set, or, when tuning, a part of the training set.
    if trial.held_out:
        name = "valid_auc"
        training, validation = hold_out(targets, trial.held_out, trial.seed)
        scored = (benchmark.train_images[rows[validation]], targets[validation])
        rows = rows[training]
        targets = targets[training]
    else:
        name = "test_auc"
        scored = (benchmark.test_images, benchmark.test_labels)

    train = Images.of(benchmark.train_images[rows], targets, device)
    scored_on = {name: Images.of(*scored, device, like=train)}
    network, history = fit(trial, train, scored_on, checkpoints)
    if keep is not None:
        keep.update(network=network, train=train)
    code = provenance()
    facts = {
        "trained_on": len(rows),
        "trained_on_positives": int(targets.sum()),
        "bound": round(bound(targets, trial.batch_size), 4),
        "note": benchmark.note,
        "device": device_name(device),
        "computed_in": str(machine.precision(trial.precision)).removeprefix("torch."),
        **{name: round(value, 1) for name, value in checkpoints.spent().items()},
        "commit": code["commit"],
        "torch": code["versions"]["torch"],
    }
    return {"key": trial.key, **asdict(trial), **history, **facts}


def bound(targets: np.ndarray, batch_size: int) -> float:
    """The largest difference of the class means that scores of unit L2 norm can have in a batch
    with the training set's share of positives."""
    positives = max(1, round(float(targets.mean()) * batch_size))
    return math.sqrt(1 / positives + 1 / (batch_size - positives))


def device_name(device: torch.device) -> str:
    """`NVIDIA H100`, or `CPU, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
