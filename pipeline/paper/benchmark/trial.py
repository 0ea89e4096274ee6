"""A trial: every value that defines one training run of the paper's benchmarks, checked."""

import hashlib
import json
from dataclasses import dataclass, fields

from pipeline.core.config.task import require, require_between, require_in
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.published import LOSS_NAMES

LOSSES = tuple(LOSS_NAMES)  # in the order of the paper's columns
AUGMENTS = ("none", "flip", "crop")
BATCH_SIZE = {"cats_dogs": 128, "cifar10": 128, "cifar100": 128, "stl10": 32}  # §4.1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything a result depends on, so that equal trials give equal results on one machine.

    loss         "ce", "focal", "aucs" (AUC square) or "aucm" (AUC margin)
    seed         of the kept positives and of training
    epochs       in all; the rate is divided by `divide` at 50 % and 75 % of them
    gamma        weight of PESG's proximal term
    weight_decay the paper's lambda
    momentum     0, as the paper names none
    normalize    scores before the AUC losses: "l2" is the paper's BSN; "none", "l2*sqrt_b",
                 "sigmoid"
    dual         "sgd" (the paper) or "closed_form"
    constrained  False drops alpha >= 0
    augment      "none" (the paper names none), "flip", or "crop" (flip and shifts up to 1/8 of the
                 side)
    per_batch    positives in each batch (class-aware sampling), 0 = plain shuffling
    first_ce     of the epochs, how many minimise cross-entropy before a fresh classifier and the
                 AUC loss
    average      decay of an exponential mean of the weights, used for scoring; 0 = none
    noisy, easy  parts added as §5.2 does
    held_out     part of the training set that validates instead of the test set (0 = final run)
    compiled     torch.compile: ResNet20 takes 0.26 s a step of 128 images on a CPU core with bf16
                 instead of 0.36; needs a C++ compiler
    """

    dataset: str
    network: str = "resnet20"
    imratio: float = 0.01
    loss: str = "aucm"
    seed: int = 0
    epochs: int = 100
    batch_size: int = 128
    lr: float = 0.1
    divide: float = 10.0
    weight_decay: float = 1e-4
    momentum: float = 0.0
    gamma: float = 1 / 500
    margin: float = 1.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    normalize: str = "l2"
    dual: str = "sgd"
    constrained: bool = True
    augment: str = "none"
    per_batch: int = 0
    first_ce: int = 0
    average: float = 0.0
    noisy: float = 0.0
    easy: float = 0.0
    held_out: float = 0.0
    precision: str = "auto"
    compiled: bool = False

    def __post_init__(self) -> None:
        require_in(self, "dataset", tuple(READERS))
        require_in(self, "network", tuple(NETWORKS))
        require_in(self, "loss", LOSSES)
        require_in(self, "augment", AUGMENTS)
        for name in ("noisy", "easy", "held_out"):
            require_between(self, name, 0, 0.9)
        require_between(self, "imratio", 1e-6, 0.5)
        require_between(self, "epochs", 1)
        require(
            self.constrained or self.dual == "sgd",
            self,
            "the closed form of alpha is the constrained one",
        )
        require(
            self.first_ce < self.epochs,
            self,
            f"first_ce={self.first_ce} leaves none of {self.epochs} epochs",
        )

    @property
    def key(self) -> str:
        """A short name of all values, the same on every machine; a field added later leaves it as
        it was."""
        changed = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                changed[item.name] = value
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]
