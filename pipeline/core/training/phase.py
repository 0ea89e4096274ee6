"""One phase of training, as plain values: what pretrain, finetune and metadata give to the loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.config.run import Finetune, Pretrain, as_json
from pipeline.core.images.batches import Bags, TrainingBags, TrainingBatches
from pipeline.core.runs.bags import bags_of
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.core.runtime.device import device, loader_processes, precision
from pipeline.core.training.batch_order import BatchOrder
from pipeline.core.training.mixing import Mixing
from pipeline.core.training.validation import image_validator


class StepBatch(NamedTuple):
    """One process's part of a step: images, units or patient columns, the numbers (B,) of their
    training rows, targets (B, K) with NaN, and weights (B, K) or None."""

    inputs: torch.Tensor | Bags
    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None = None

    def value(self, loss: nn.Module, scores: torch.Tensor) -> torch.Tensor:
        """The loss of these scores (B, K). One that keeps something of each row is told which rows
        they are; only losses that are a mean over entries take weights."""
        more = {}
        if getattr(loss, "per_row", False):
            more["rows"] = self.rows
        if self.weights is not None:
            more["weights"] = self.weights
        return loss(scores, self.targets, **more)


@dataclass(kw_only=True)
class Phase:
    """What one phase gives to the loop.

    name        "pretrained" or "finetuned": the artifact it leads to
    folder      where weights, checkpoints and log.jsonl go
    key         what made it: goes into weights and checkpoints; only a checkpoint of the same key
                is continued
    data        (epoch, indices) -> (inputs, indices)
    targets     float32 (N, K), NaN = left out
    weights     float32 (N, K), >= 0, of the targets; None = all count alike
    mixing      mixup and CutMix of the batches, None = neither
    rate        step -> learning rate; times a group's `lr_scale`, where it has one
    clip        the length (L2) that a longer gradient of the weights is shortened to, 0 = none is
    validate    network -> {"mean": AUC, label: AUC, …}, called in every process
    batch_size  images in a step of all processes
    restarts    steps at which PESG takes its mean as the new reference
    restart_batches  PPD-SG: there the weights become the mean too, and the loss takes a, b, α from
                class means over the next so many batches; 0 = they go on
    dtype       of autocast
    micro       micro-batches per step
    ema         decay of an exponential moving average of the weights, 0 = none
    positives   at least so many of each label in a batch, 0 = plain shuffling
    negatives   so many images without a positive label for each with one, 0 = all
    auxiliary   how many of the targets' columns, the last, are trained only
    workers     loader processes
    origin      where its first weights are from: goes into the weights' header, compared with
                nothing
    """

    name: str
    folder: Path
    key: dict
    network: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    data: torch.utils.data.Dataset
    targets: torch.Tensor
    rate: Callable[[int], float]
    validate: Callable[[nn.Module], dict[str, float]]
    epochs: int
    batch_size: int
    seed: int
    weights: torch.Tensor | None = None
    mixing: Mixing | None = None
    restarts: frozenset[int] = field(default_factory=frozenset)
    restart_batches: int = 0
    dtype: torch.dtype = torch.float32
    clip: float = 0.0
    micro: int = 1
    ema: float = 0.0
    positives: int = 0
    negatives: float = 0.0
    auxiliary: int = 0
    workers: int = 0
    origin: dict = field(default_factory=dict)

    @property
    def order(self) -> BatchOrder:
        """Which images each step takes."""
        return BatchOrder(
            targets=self.of_labels(self.targets).numpy(),
            batch_size=self.batch_size,
            epochs=self.epochs,
            seed=self.seed,
            positives=self.positives,
            negatives=self.negatives,
        )

    def of_labels(self, columns: torch.Tensor) -> torch.Tensor:
        """Targets or scores (B, K + A) without the auxiliary columns, (B, K)."""
        return columns[:, : columns.shape[1] - self.auxiliary]

    def batch(self, step: int, inputs: torch.Tensor | Bags, indices: torch.Tensor) -> StepBatch:
        """The batch of a step on the device, mixed where the phase mixes."""
        inputs = inputs.to(device(), non_blocking=True)
        targets = self.targets[indices].to(device())
        weights = None if self.weights is None else self.weights[indices].to(device())
        if self.mixing:
            inputs, targets, weights = self.mixing(step, inputs, targets, weights)
        return StepBatch(inputs, indices, targets, weights)


def image_phase(
    job: Job,
    name: str,
    recipe: Pretrain | Finetune,
    *,
    rows: pd.DataFrame,
    targets: np.ndarray,
    network: nn.Module,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    seed: int,
    epochs: int,
    restarts: frozenset[int] = frozenset(),
    restart_batches: int = 0,
    positives: int = 0,
    negatives: float = 0.0,
    weights: np.ndarray | None = None,
    auxiliary: int = 0,
    origin: dict | None = None,
) -> Phase:
    """The phase of an image network, stage 1 or 2; what the two share is taken from the job.

    name     "pretrained" or "finetuned"
    recipe   the stage's part of the run: batch size, clipping, mixing
    rows     the training rows of images.csv
    targets  float32 (N, K), their labels in the rows' order, NaN = left out; where the run has
             `bag`, those of the units in the order of `runs.bags`
    The other arguments are those of `Phase`.
    """
    # Rows, images and targets are in one order; batches are indices into it.
    run = job.run
    resize = job.competition.task.resize
    dtype = precision(run.precision)
    images = prepared_images(job.competition.name, run.size, rows["image_id"])
    mixes = recipe.mixup or recipe.cutmix
    mixing = Mixing(seed, recipe.mixup, recipe.cutmix) if mixes else None
    source = (images, run.size, resize.channels, run.augment, seed)
    bags = bags_of(run, rows)
    data = TrainingBatches(*source) if bags is None else TrainingBags(bags, run.bag_images, *source)

    # The whole run goes into the key, since a checkpoint is continued by the very same run only.
    return Phase(
        name=name,
        folder=job.folder,
        key={**facts_of(job, f"{name}.safetensors"), "run": as_json(run)},
        network=network,
        loss=loss,
        optimizer=optimizer,
        data=data,
        targets=torch.from_numpy(targets),
        mixing=mixing,
        rate=rate,
        validate=image_validator(job, dtype),
        epochs=epochs,
        batch_size=recipe.batch_size,
        seed=seed,
        restarts=restarts,
        restart_batches=restart_batches,
        dtype=dtype,
        clip=recipe.clip,
        micro=run.accumulate,
        ema=run.ema,
        positives=positives,
        negatives=negatives,
        weights=None if weights is None else torch.from_numpy(weights),
        auxiliary=auxiliary,
        workers=loader_processes(),
        origin=origin or {},
    )
