"""From the recipes of both stages: losses, optimizers, groups of parameters, smoothed labels, and
the learning rates as functions of the step. Stage 2's are for networks on images and on patient
columns alike."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import nn

from pipeline.core.coda import CODA
from pipeline.core.config.run import PARTIAL, Auxiliary, Finetune, Pretrain, Stage
from pipeline.core.losses import (
    AUCMargin,
    AUCSquare,
    ClassCrossEntropy,
    CrossEntropy,
    Focal,
    Pairwise,
    Part,
    PartialAUC,
    Sum,
)
from pipeline.core.networks.image import Network, import_timm
from pipeline.core.pdsca import PDSCA
from pipeline.core.pesg import PESG

# Batches whose scores give the class means that a stage of PPD-SG begins with: 2,560 images of
# melanoma's, 46 of them positive, hence a standard error of a seventh of the scores' spread.
PPD_SG_BATCHES = 10


def make_loss(recipe: Finetune, labels: int, rows: int) -> nn.Module:
    """The loss that `recipe.loss` names, for this many labels and training rows; the names are
    config/run.py's LOSSES."""
    if recipe.loss == "aucm":
        return AUCMargin(labels, recipe.margin, recipe.prior, recipe.normalize, recipe.dual)
    if recipe.loss == "aucs":
        return AUCSquare(labels, recipe.prior, recipe.normalize)
    if recipe.loss == "pairwise":
        shares = recipe.hardest_negatives, recipe.hardest_positives
        return Pairwise(recipe.surrogate, recipe.margin, *shares, labels)
    if recipe.loss in PARTIAL:
        return PartialAUC(
            rows,
            labels,
            recipe.loss,
            recipe.surrogate,
            recipe.margin,
            recipe.hardest_negatives,
            recipe.hardest_positives,
            recipe.temperature_negatives,
            recipe.temperature_positives,
            recipe.state_rate,
        )
    if recipe.loss == "ce":
        return CrossEntropy()
    return Focal()


def pretrain_loss(labels: int, auxiliary: Sequence[Auxiliary]) -> nn.Module:
    """Stage 1's cross-entropy of so many labels, and of the auxiliary columns behind them."""
    if not auxiliary:
        return CrossEntropy()
    parts = [Part(CrossEntropy(), labels, 1.0)]
    for one in auxiliary:
        own = ClassCrossEntropy() if one.classes else CrossEntropy()
        parts.append(Part(own, one.outputs, one.weight))
    return Sum(parts)


def smoothed(targets: np.ndarray, smoothing: float) -> np.ndarray:
    """Targets y of any shape as y + s (1/2 - y), in their dtype; NaN stays NaN."""
    return (targets + smoothing * (0.5 - targets)).astype(targets.dtype)


def parameter_groups(recipe: Stage, network: Network) -> list:
    """What an image network's optimizer takes: its parameters, or groups of them with `lr_scale`,
    their part of the rate.

    The groups of `layer_decay` are timm's: a layer's part is layer_decay to the power of the layers
    above it, and vectors (biases, norms) and tokens have no weight decay.
    """
    if recipe.backbone_lr == recipe.layer_decay == 1:
        return [parameter for parameter in network.parameters() if parameter.requires_grad]
    backbone = network.backbone
    inside = {id(parameter) for parameter in backbone.parameters()}
    head = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    if recipe.layer_decay == 1:
        parts = {"params": list(backbone.parameters()), "lr_scale": recipe.backbone_lr}
        return [parts, {"params": head, "lr_scale": 1.0}]

    # Tokens and tables of positions: the network itself knows which.
    import_timm()
    from timm.optim import param_groups_layer_decay

    spared = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    groups = param_groups_layer_decay(
        backbone, recipe.weight_decay, spared, layer_decay=recipe.layer_decay
    )
    for group in groups:
        group["lr_scale"] *= recipe.backbone_lr
    vectors = [parameter for parameter in head if parameter.ndim <= 1]
    matrices = [parameter for parameter in head if parameter.ndim > 1]
    return [
        *groups,
        {"params": vectors, "lr_scale": 1.0, "weight_decay": 0.0},
        {"params": matrices, "lr_scale": 1.0},
    ]


def make_optimizer(recipe: Finetune, parameters: Iterable, loss: nn.Module) -> PESG:
    """PESG, PDSCA or CODA, on parameters or groups of them; with the a, b and α of an AUC loss,
    without any for the others."""
    # The ablations (cross-entropy, focal) keep the optimizer, so that only the loss differs.
    # AUCSquare is an AUCMargin, so it joins too.
    auc_loss = loss if isinstance(loss, AUCMargin) else None
    if recipe.site_column:
        settings = dict(lr=recipe.lr, gamma=recipe.gamma, weight_decay=recipe.weight_decay)
        return CODA(parameters, auc_loss, recipe.site_steps, recipe.site_control, **settings)
    if recipe.inner_lr:
        regularizers = dict(gamma=recipe.gamma, weight_decay=recipe.weight_decay)
        return PDSCA(parameters, auc_loss, recipe.lr, recipe.inner_lr, **regularizers)
    return PESG(
        parameters,
        auc_loss,
        lr=recipe.lr,
        gamma=recipe.gamma,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        adam=recipe.optimizer == "adamw",
        dual_lr=recipe.dual_lr,
    )


def milestones(recipe: Finetune, steps_per_epoch: int) -> list[int]:
    """The steps at which PESG's stages end: the rate is divided and the reference restarts."""
    # Steps as in the paper's CheXpert (2000, 8000), epochs as in its melanoma (10, 20, 30).
    unit = steps_per_epoch if recipe.milestone_unit == "epoch" else 1
    if not recipe.first_stage:
        return [mark * unit for mark in recipe.milestones]
    total = recipe.epochs * steps_per_epoch
    return growing_stages(recipe.first_stage * unit, recipe.divide, total)


def growing_stages(first: int, factor: float, total: int) -> list[int]:
    """Where the stages of PPD-SG end, those of `total` steps that do: stage k takes first ·
    factor^k steps.

    >>> growing_stages(10, 3, 200)
    [10, 40, 130]
    """
    ends = []
    length = float(first)
    end = length
    while round(end) < total:
        ends.append(round(end))
        length *= factor
        end += length
    return ends


def restart_batches(recipe: Finetune) -> int:
    """Over how many batches a stage's class means are taken; 0 where stages take over a, b, α."""
    return PPD_SG_BATCHES if recipe.first_stage else 0


def constant(rate: float) -> Callable[[int], float]:
    """The same rate at every step."""
    return lambda _step: rate


def triangular(low: float, high: float, period: int) -> Callable[[int], float]:
    """From low up to high and back every `period` steps (the paper's cyclical rate).

    >>> [round(triangular(1.0, 3.0, 4)(step), 1) for step in range(5)]
    [1.0, 2.0, 3.0, 2.0, 1.0]
    """
    return lambda step: high - (high - low) * abs(2 * (step % period) / period - 1)


def cosine(top: float, warmup: int, total: int) -> Callable[[int], float]:
    """From 0 to `top` on a straight line in `warmup` steps, then half a cosine down to 0 at `total`
    steps (Loshchilov and Hutter, 2017).

    >>> [round(cosine(1.0, 2, 6)(step), 2) for step in range(7)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 0.0]
    """

    def rate(step: int) -> float:
        if step < warmup:
            return top * step / warmup
        part = (step - warmup) / max(total - warmup, 1)
        return top * (1 + math.cos(math.pi * min(part, 1.0))) / 2

    return rate


def pretrain_rate(recipe: Pretrain, steps_per_epoch: int) -> Callable[[int], float]:
    """Stage 1's rate: constant, triangles of `cycle_epochs` between lr and lr_max, or a cosine."""
    if recipe.schedule == "cosine":
        return whole_cosine(recipe, steps_per_epoch)
    if recipe.lr_max is not None:
        return triangular(recipe.lr, recipe.lr_max, recipe.cycle_epochs * steps_per_epoch)
    return constant(recipe.lr)


def finetune_rate(recipe: Finetune, steps_per_epoch: int) -> Callable[[int], float]:
    """Stage 2's rate: divided at each milestone, or a cosine."""
    if recipe.schedule == "cosine":
        return whole_cosine(recipe, steps_per_epoch)
    return stepwise(recipe.lr, recipe.divide, milestones(recipe, steps_per_epoch))


def whole_cosine(recipe: Pretrain | Finetune, steps_per_epoch: int) -> Callable[[int], float]:
    """The cosine of a recipe, from its first step to its last."""
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    return cosine(recipe.lr, warmup, recipe.epochs * steps_per_epoch)


def pretrain_optimizer(recipe: Pretrain, parameters: Iterable) -> torch.optim.Optimizer:
    """Stage 1's optimizer, Adam or AdamW."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def stepwise(rate: float, divide: float, milestones: Sequence[int]) -> Callable[[int], float]:
    """The rate divided by `divide` at each milestone (in steps).

    >>> [stepwise(0.1, 10, [2])(step) for step in (1, 2)]
    [0.1, 0.01]
    """
    return lambda step: rate / divide ** bisect_right(milestones, step)
