"""Training and inference steps against the plain loop: fp32, contiguous, normalised float batches.

    python -m tests.bench.bench_training [--rounds 5] [--networks densenet121 resnet18
    tf_efficientnet_b0]

Both take the same images at the same size and batch, in turn, within one run: medians and their
ratio. The first column is the plain loop against itself: how far from 1 this machine's noise goes.
With a GPU the absolute images/s stand beside, and the part of the machine's dense bf16 peak that
the training step reaches (PEAK_TFLOPS).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.networks.image import build, import_timm
from pipeline.core.runtime.device import autocast, device, precision

SIZE = 224
# ImageNet's, as the plain loop's loader normalises.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def synchronised(call: Callable[[], object]) -> float:
    """Seconds that a call takes, the device's work included."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def plain_training(name: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """timm's model as it comes, float32 and contiguous; the batch was normalised by the loader, as
    usual."""
    network = import_timm().create_model(name, num_classes=1).to(device()).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batch = ((images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD).contiguous()

    def step() -> None:
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(batch.to(device())), labels.to(device())
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_training(name: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """The pipeline's network and precision, uint8 images."""
    run = Run(
        network=name, size=SIZE, weights="random", pretrain=Pretrain(lr=1e-4), finetune=Finetune()
    )
    network = build(run, 1).to(device()).train()
    dtype = precision("auto")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        with autocast(dtype):
            scores = network(images.to(device()))
        nn.functional.binary_cross_entropy_with_logits(scores, labels.to(device())).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def plain_inference(name: str, images: torch.Tensor) -> Callable[[], None]:
    network = import_timm().create_model(name, num_classes=1).to(device()).eval()
    batch = ((images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD).contiguous()

    def step() -> None:
        with torch.no_grad():
            network(batch.to(device())).cpu()

    return step


def our_inference(name: str, images: torch.Tensor) -> Callable[[], None]:
    run = Run(
        network=name, size=SIZE, weights="random", pretrain=Pretrain(lr=1e-4), finetune=Finetune()
    )
    network = build(run, 1).to(device()).eval()
    dtype = precision("auto")

    def step() -> None:
        with torch.inference_mode(), autocast(dtype):
            network(images.to(device())).cpu()

    return step


def interleaved(calls: list[Callable[[], None]], rounds: int) -> list[float]:
    """The median seconds of each call over rounds in which all take their turn, after one round of
    warming up."""
    times = [[synchronised(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def flops(name: str, batch: int) -> float:
    """Floating-point operations of one training step, counted by torch: forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    network = import_timm().create_model(name, num_classes=1)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, SIZE, SIZE)).sum().backward()
    return counter.get_total_flops() * batch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256 if torch.cuda.is_available() else 16)
    parser.add_argument(
        "--networks", nargs="*", default=["densenet121", "resnet18", "tf_efficientnet_b0"]
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    images = torch.from_numpy(
        rng.integers(0, 256, (arguments.batch, SIZE, SIZE, 3), dtype=np.uint8)
    )
    labels = torch.from_numpy(rng.integers(0, 2, (arguments.batch, 1)).astype(np.float32))
    peak = float(os.environ.get("PEAK_TFLOPS", 0)) * 1e12
    print(
        f"{device()}, {torch.get_num_threads()} threads, {str(precision('auto'))[6:]}, batch "
        f"{arguments.batch}, {SIZE} px, {arguments.rounds} rounds; images/s"
    )
    of_peak = f"{'of peak':>9}" if peak else ""
    print(f"{'':30}{'plain/plain':>12}{'plain':>9}{'ours':>9}{'ours/plain':>12}{of_peak}")
    for name in arguments.networks:
        plain = plain_training(name, images, labels)
        first, second, ours = interleaved(
            [plain, plain, our_training(name, images, labels)], arguments.rounds
        )
        part = f"{flops(name, arguments.batch) / ours / peak:>8.1%}" if peak else ""
        show(f"{name} training", arguments.batch, first, second, ours, part)
        plain = plain_inference(name, images)
        show(
            f"{name} inference",
            arguments.batch,
            *interleaved([plain, plain, our_inference(name, images)], arguments.rounds),
        )


def show(title: str, batch: int, first: float, second: float, ours: float, part: str = "") -> None:
    """A line: noise (plain beside plain), images/s of both loops, ratio, part of the peak."""
    rates = f"{batch / first:>9.1f}{batch / ours:>9.1f}"
    print(f"{title:30}{first / second:>12.2f}{rates}{first / ours:>12.2f}{part}", flush=True)


if __name__ == "__main__":
    main()
