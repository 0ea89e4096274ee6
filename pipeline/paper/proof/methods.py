"""The proof's methods: what each does in stage 2, and the training of both stages."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal
from pipeline.core.networks.image import Network, build, restart_classifier
from pipeline.core.pesg import PESG
from pipeline.core.runtime.device import autocast, device, precision, reuse_memory
from pipeline.paper.benchmark.inputs import epoch_rows, view

NETWORK = "tf_efficientnet_lite0.in1k"
IMAGES_A_BATCH = 64
MARGIN = 0.8  # the paper's best for both competitions; within the sigmoid's reach


@dataclass(frozen=True)
class Method:
    """One way to spend the image passes after stage 1.

    loss       makes the criterion
    rates      tried on inner validation: as many for every method
    restart    a fresh classifier first
    positives  in a batch, 0 = as they come
    adam       goes on with stage 1's optimizer, at these rates; else SGD with momentum 0.9, or PESG
    """

    loss: Callable[[], nn.Module]
    rates: tuple[float, ...]
    restart: bool = True
    positives: int = 0
    adam: bool = False

    def in_words(self) -> str:
        """All that decides its training, as one text."""
        own = f"restart={self.restart}, positives={self.positives}, adam={self.adam}"
        return f"{self.loss()}, rates {self.rates}, {own}"


STAGE_1_RATES = (3e-4, 1e-3, 3e-3)
# The paper's settings but for the rate; and the best form of the lab book (RESULTS.md).
PROOF_METHODS: dict[str, Method] = {
    "CE": Method(CrossEntropy, (1e-4, 3e-4, 1e-3), restart=False, adam=True),
    "CE, fresh classifier": Method(CrossEntropy, (0.003, 0.01, 0.03)),
    "focal": Method(Focal, (0.003, 0.01, 0.03)),
    "AUC-S": Method(lambda: AUCSquare(normalize="l2"), (0.03, 0.1, 0.3)),
    "AUC-M, paper": Method(lambda: AUCMargin(margin=MARGIN, normalize="l2"), (0.03, 0.1, 0.3)),
    "AUC-M, ours": Method(
        lambda: AUCMargin(margin=MARGIN, normalize="sigmoid", dual="closed_form"),
        (0.03, 0.1, 0.3),
        positives=4,
    ),
}
BASELINE = "CE"
OURS = "AUC-M, ours"
RANK_MEAN = f"mean rank of {BASELINE} and {OURS}"


def fresh_network(size: int, seed: int, weights: str = "imagenet") -> Network:
    """The backbone under one new output."""
    run = Run(
        network=NETWORK,
        size=size,
        weights=weights,
        pretrain=Pretrain(lr=STAGE_1_RATES[0]),
        finetune=Finetune(),
    )
    torch.manual_seed(seed)
    return build(run, 1).to(device())


def method_optimizer(
    method: Method, network: nn.Module, criterion: nn.Module, rate: float
) -> torch.optim.Optimizer:
    """Adam, SGD with momentum, or PESG for the AUC losses."""
    weights = network.parameters()
    if method.adam:
        return torch.optim.Adam(weights, rate, weight_decay=1e-5)
    if isinstance(criterion, AUCMargin):
        return PESG(weights, loss=criterion, lr=rate, gamma=1 / 500, weight_decay=1e-5)
    return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=1e-5)


def train(
    network: Network,
    method: Method,
    rate: float,
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    batch_size: int,
    seed: int,
) -> None:
    """Stage 2 (or 1) in place: flips and shifts, and a tenth of the rate in the second half of
    `epochs`."""
    reuse_memory()
    generator = torch.Generator().manual_seed(seed)
    if method.restart:
        restart_classifier(network, seed)
    criterion = method.loss().to(device())
    optimizer = method_optimizer(method, network, criterion, rate)
    pixels = torch.from_numpy(images)
    truth = torch.from_numpy(labels).float()
    dtype = precision("auto")
    network.train()
    for epoch in range(epochs):
        if epochs > 1 and epoch == epochs // 2:
            lower_rate(optimizer)
        rows = epoch_rows(truth, batch_size, method.positives, generator)
        changes = torch.rand(*rows.shape, 3, generator=generator)
        for batch, change in zip(rows, changes):
            inputs = view(pixels, batch, change, "crop").permute(0, 2, 3, 1).to(device())
            with autocast(dtype):
                scores = network(inputs)
            optimizer.zero_grad(set_to_none=True)
            criterion(scores[:, 0], truth[batch].to(device())).backward()
            optimizer.step()


def lower_rate(optimizer: torch.optim.Optimizer) -> None:
    """A tenth of the rate; PESG's reference becomes the mean of the stage."""
    rate = optimizer.param_groups[0]["lr"] / 10
    if isinstance(optimizer, PESG):
        optimizer.next_stage(lr=rate)
    else:
        optimizer.param_groups[0]["lr"] = rate


@torch.inference_mode()
def mirrored_scores(network: Network, images: np.ndarray) -> np.ndarray:
    """(N,) scores, the mean over an image and its mirror image."""
    network.eval()
    parts = []
    for pixels in torch.from_numpy(images).split(IMAGES_A_BATCH):
        inputs = pixels.permute(0, 2, 3, 1).to(device())
        with autocast(precision("auto")):
            parts.append((network(inputs) + network(inputs.flip(2)))[:, 0] / 2)
    return torch.cat(parts).float().cpu().numpy()
