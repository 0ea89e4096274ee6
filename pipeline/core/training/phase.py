"""One phase of training, as plain values: what pretrain, finetune and metadata give to the loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn


@dataclass(kw_only=True)
class Phase:
    """What one phase gives to the loop.

    name      "pretrained" or "finetuned": the artifact it leads to
    key       what made it: goes into weights and checkpoints; only a checkpoint of the same key is
              gone on from
    data      (epoch, indices) -> inputs, indices; targets: float32 (N, K), NaN = left out
    rate      step -> learning rate; restarts: steps at which PESG takes its mean as the new
              reference
    validate  network -> {"mean": AUC, label: AUC, …}, called in every process
    micro     micro-batches per step; positives: at least so many of each label in a batch, 0 =
              plain shuffling
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
    restarts: frozenset[int] = field(default_factory=frozenset)
    dtype: torch.dtype = torch.float32
    micro: int = 1
    ema: float = 0.0
    positives: int = 0
    workers: int = 0
