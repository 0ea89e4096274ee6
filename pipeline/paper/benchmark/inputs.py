"""Images on the device: an epoch's order, and augmentation of whole batches.

Order and random shifts of an epoch are drawn once on the CPU (the same on every device) and sent
over in two copies; after that no Python runs per image.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.paper.benchmark.trial import Trial


@dataclass(frozen=True)
class Images:
    """Pixels (N, 3, S, S) uint8 and labels (N,) float32 on the device, with the pixels' mean and
    deviation."""

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(
        pixels: np.ndarray, labels: np.ndarray, device: torch.device, like: "Images | None" = None
    ) -> "Images":
        """From numpy arrays; the constants are per channel, on the scale 0 to 255, of these pixels
        or of `like`."""
        constants = (like.mean, like.deviation) if like else channel_constants(pixels, device)
        return Images(
            torch.from_numpy(pixels).to(device),
            torch.from_numpy(labels).float().to(device),
            *constants,
        )

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 to float32 with mean 0 and deviation 1 over the training set."""
        return (pixels.float() - self.mean) / self.deviation


def channel_constants(pixels: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation), each (3, 1, 1), from counts of the 256 values: exact, no float
    copy of the set."""
    values = np.arange(256)
    counts = np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(3)])
    shares = counts / pixels[:, 0].size
    mean = shares @ values
    deviation = np.sqrt(shares @ values**2 - mean**2)

    def on_device(constants: np.ndarray) -> Tensor:
        return torch.tensor(constants, dtype=torch.float32, device=device).view(3, 1, 1)

    return on_device(mean), on_device(deviation)


def epoch_rows(
    labels: Tensor, batch_size: int, positives: int, generator: torch.Generator
) -> Tensor:
    """Row numbers (steps, B) of one epoch, on the CPU; the remainder of a whole number of batches
    is left out.

    With `positives` = k, each batch holds k positives (all of them in turn, again and again) and B
    - k negatives; the number of steps stays that of plain shuffling.
    """
    size = min(batch_size, len(labels))
    steps = len(labels) // size
    if not positives:
        return torch.randperm(len(labels), generator=generator)[: steps * size].view(steps, size)
    of_positives = in_turn(torch.nonzero(labels == 1)[:, 0], steps, positives, generator)
    of_negatives = in_turn(torch.nonzero(labels == 0)[:, 0], steps, size - positives, generator)
    return torch.cat([of_positives, of_negatives], 1)


def in_turn(rows: Tensor, steps: int, each: int, generator: torch.Generator) -> Tensor:
    """(steps, each) of `rows`, shuffled anew whenever all have been used."""
    rounds = -(-steps * each // len(rows))
    shuffled = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[: steps * each].view(steps, each)


def view(pixels: Tensor, rows: Tensor, changes: Tensor, augment: str) -> Tensor:
    """The images `rows` (B,), flipped and shifted by `changes` (B, 3) uniform in [0, 1); edges are
    repeated.

    "flip" mirrors half of them; "crop" also shifts by up to an eighth of the side, both ways.
    """
    if augment == "none":
        return pixels[rows]
    side = pixels.shape[-1]
    at = torch.arange(side, device=pixels.device)
    xs = torch.where(changes[:, :1] < 0.5, at, side - 1 - at)
    ys = at.expand_as(xs)
    if augment == "crop":
        reach = side // 8
        shift = (changes[:, 1:] * (2 * reach + 1)).long() - reach
        ys = (ys + shift[:, :1]).clamp(0, side - 1)
        xs = (xs + shift[:, 1:]).clamp(0, side - 1)
    channel = torch.arange(3, device=pixels.device)
    return pixels[
        rows[:, None, None, None],
        channel[None, :, None, None],
        ys[:, None, :, None],
        xs[:, None, None, :],
    ]


def batches(
    images: Images, labels: Tensor, trial: Trial, generator: torch.Generator, taken: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised float32 images and labels of one epoch's batches but for the first `taken`.
    `labels` are those of `images`, on the CPU."""
    rows = epoch_rows(labels, trial.batch_size, trial.per_batch, generator)
    changes = torch.rand(*rows.shape, 3, generator=generator)
    rows = rows.to(images.pixels.device)
    changes = changes.to(images.pixels.device)
    for batch, change in zip(rows[taken:], changes[taken:]):
        pixels = view(images.pixels, batch, change, trial.augment)
        yield images.normalised(pixels), images.labels[batch]
