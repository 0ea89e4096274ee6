"""One training run: the training set a trial sees, the training, and the record it leaves."""

import math
import time
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import torch

from pipeline.core.artifacts.provenance import provenance
from pipeline.core.runtime import device as machine
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.datasets import Benchmark, flip_labels, hold_out, imbalance
from pipeline.paper.benchmark.inputs import Images
from pipeline.paper.benchmark.training import fit, score
from pipeline.paper.benchmark.trial import Trial


def training_rows(trial: Trial, benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows of the benchmark's training images, their labels, the removed positives) before easy
    data are added."""
    labels = benchmark.train_labels
    rows, removed = imbalance(labels, trial.imratio, trial.seed)
    targets = labels[rows].copy()
    if trial.noisy:
        flipped, added = flip_labels(targets, removed, trial.noisy, trial.seed)
        targets[flipped] = 1
        rows, targets = (
            np.concatenate([rows, added]),
            np.concatenate([targets, np.zeros(len(added), np.int64)]),
        )
        removed = np.setdiff1d(removed, added)
    return rows, targets, removed


@lru_cache(maxsize=16)
def easiest_first(first: Trial, device: torch.device) -> np.ndarray:
    """The removed positives, those first that a network trained by the trial `first` on the rest
    scores highest."""
    benchmark = datasets.read(first.dataset)
    rows, targets, removed = training_rows(first, benchmark)
    train = Images.of(benchmark.train_images[rows], targets, device)
    network, _ = fit(first, train, {})
    others = Images.of(benchmark.train_images[removed], np.ones(len(removed)), device, like=train)
    scores = score(network, others, first.precision).numpy()
    return removed[np.argsort(-scores, kind="stable")]


def easy_rows(trial: Trial, removed: np.ndarray, device: torch.device) -> np.ndarray:
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
    )
    return easiest_first(first, device)[: round(trial.easy * len(removed))]


def run(trial: Trial, device: torch.device, keep: dict | None = None) -> dict:
    """Train and return the record. `keep`, when given, receives the last network and its training
    images."""
    started, worked, benchmark = time.monotonic(), time.process_time(), datasets.read(trial.dataset)
    rows, targets, removed = training_rows(trial, benchmark)
    if trial.easy:
        easy = easy_rows(trial, removed, device)
        rows, targets = (
            np.concatenate([rows, easy]),
            np.concatenate([targets, np.ones(len(easy), np.int64)]),
        )
    judged, name = (benchmark.test_images, benchmark.test_labels), "test_auc"
    if trial.held_out:
        training, validation = hold_out(targets, trial.held_out, trial.seed)
        judged, name = (benchmark.train_images[rows[validation]], targets[validation]), "valid_auc"
        rows, targets = rows[training], targets[training]
    train = Images.of(benchmark.train_images[rows], targets, device)
    network, history = fit(trial, train, {name: Images.of(*judged, device, like=train)})
    if keep is not None:
        keep.update(network=network, train=train)
    made_by = provenance()
    facts = {
        "trained_on": len(rows),
        "trained_on_positives": int(targets.sum()),
        "bound": round(bound(targets, trial.batch_size), 4),
        "note": benchmark.note,
        "device": device_name(device),
        "computed_in": str(machine.precision(trial.precision)).removeprefix("torch."),
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
        "commit": made_by["commit"],
        "torch": made_by["versions"]["torch"],
    }
    return {"key": trial.key, **asdict(trial), **history, **facts}


def bound(targets: np.ndarray, batch_size: int) -> float:
    """The largest mean difference that scores of unit L2 norm can have in a batch of the usual
    class counts."""
    positives = max(1, round(float(targets.mean()) * batch_size))
    return math.sqrt(1 / positives + 1 / (batch_size - positives))


def device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
