"""How fast the paper's benchmarks train: augmentation of whole batches against one image at a time,
and whole steps.

    python -m tests.bench.bench_paper [--device cuda] [--rounds 7]

Rounds are interleaved, the median counts, and the first line is measured twice as a control. An
epoch of CIFAR-10 at 1 % is 197 steps of 128; Table 1's row for it is 4 losses x 5 seeds x 100
epochs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from pipeline.paper.benchmark.inputs import Images, view
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.progress import Training
from pipeline.paper.benchmark.store import torch_device
from pipeline.paper.benchmark.training import step
from pipeline.paper.benchmark.trial import Trial

BATCH = 128
STEPS_PER_EPOCH = 197
ROW_EPOCHS = 4 * 5 * 100


def one_by_one(pixels: torch.Tensor, rows: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """What a Dataset's __getitem__ does: flip, pad, crop and stack, an image at a time."""
    crops = []
    for row, change in zip(rows, changes):
        image = pixels[row]
        image = image if change[0] < 0.5 else image.flip(-1)
        padded = torch.nn.functional.pad(image.float(), (4, 4, 4, 4), mode="replicate")
        top = int(change[1] * 9)
        left = int(change[2] * 9)
        crops.append(padded[:, top : top + 32, left : left + 32])
    return torch.stack(crops)


def training_step(network: str, loss: str, precision: str, images: Images) -> Callable[[], None]:
    """One whole update on a batch."""
    asked = Trial(dataset="cifar10", network=network, loss=loss, margin=0.8, precision=precision)
    training = Training(asked, images, [])
    training.network.train()
    pixels = images.normalised(images.pixels[:BATCH])

    def take() -> None:
        step(training, pixels, images.labels[:BATCH])
        training.seen.clear()  # what an epoch's end would read

    return take


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="+", default=["resnet20"], choices=NETWORKS)
    options = parser.parse_args()
    device = torch_device(options.device)
    random = np.random.default_rng(0)
    labels = np.zeros(2048)
    labels[::50] = 1
    images = Images.of(random.integers(0, 256, (2048, 3, 32, 32), dtype=np.uint8), labels, device)
    rows = torch.randint(2048, (BATCH,), device=device)
    changes = torch.rand(BATCH, 3, device=device)
    work: dict[str, Callable] = {
        "crop, in a batch": partial(view, images.pixels, rows, changes, "crop"),
        "crop, in a batch (again)": partial(view, images.pixels, rows, changes, "crop"),
        "crop, one by one": partial(one_by_one, images.pixels, rows, changes),
    }
    for network in options.networks:
        for precision in ("fp32", "auto"):
            for loss in ("ce", "aucm"):
                work[f"{network} step, {loss}, {precision}"] = training_step(
                    network, loss, precision, images
                )
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds + 1):  # the first round warms up
        for name, do in work.items():
            times[name].append(milliseconds(do, device))
    print(
        f"{device}, {torch.get_num_threads()} threads, batches of {BATCH}, median of "
        f"{options.rounds}"
    )
    for name, values in times.items():
        median = statistics.median(values[1:])
        epoch = median * STEPS_PER_EPOCH / 1000
        print(f"{name:34}{median:9.2f} ms", end="")
        if "step" in name:
            print(f"  epoch {epoch:7.1f} s, row {epoch * ROW_EPOCHS / 3600:6.1f} h", end="")
        print()


if __name__ == "__main__":
    main()
