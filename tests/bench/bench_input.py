"""The input pipeline against albumentations per picture and PyTorch's default collation, one
process, one thread.

    python -m tests.bench.bench_input [--rounds 31]

Both read the same prepared JPEGs and draw from the same ranges: flip, shift, scale, rotation,
shear, coarse dropout. Plain: albumentations with Normalize and ToTensorV2, float32 items stacked by
the default collate function. Ours: one fused warp into a uint8 batch, "to the device"; and with the
normalisation that falls to the device done on this CPU. Milliseconds per picture, medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.batches import TrainingBatches

BATCH = 32
WIDTHS = (9, 15, 12, 21, 18)
AUGMENT = Augment(flip=True, rotate=15, translate=0.05, scale=0.1, shear=5, holes=8, hole_size=0.1)


class Plain(torch.utils.data.Dataset):
    """What public solutions do."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.Affine(
                    scale=(0.9, 1.1),
                    translate_percent=(-0.05, 0.05),
                    rotate=(-15, 15),
                    shear=(-5, 5),
                    border_mode=cv2.BORDER_REFLECT_101,
                    p=1.0,
                ),
                A.CoarseDropout(
                    num_holes_range=(8, 8),
                    hole_height_range=(0.1, 0.1),
                    hole_width_range=(0.1, 0.1),
                    p=1.0,
                ),
                A.Normalize(),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        picture = cv2.cvtColor(cv2.imread(str(self.paths[index])), cv2.COLOR_BGR2RGB)
        return self.transform(image=picture)["image"]


def write_pictures(folder: Path, size: int, channels: int) -> list[Path]:
    """Smooth noise at JPEG quality 95, 0.33 bytes per pixel in colour and 0.25 in gray: a little
    more than real skin (0.25 at 192 px, 0.32 at 384) and real X-rays (0.23 at 224, 0.19 at 320)."""
    rng = np.random.default_rng(size)
    paths = []
    for number in range(BATCH):
        coarse = rng.integers(0, 256, (size // 16 + 1, size // 16 + 1, channels), dtype=np.uint8)
        picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC).reshape(
            size, size, channels
        )
        picture = np.clip(
            picture + rng.normal(0, 2 if channels == 3 else 1, picture.shape), 0, 255
        ).astype(np.uint8)
        paths.append(folder / f"{size}_{channels}_{number}.jpg")
        cv2.imwrite(str(paths[-1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def plain_batch(data: Plain) -> torch.Tensor:
    return torch.utils.data.default_collate([data[index] for index in range(BATCH)])


def our_batch(data: TrainingBatches, epoch: int) -> torch.Tensor:
    """With the work that is left to the device done here too."""
    pictures, _ = data[(epoch, np.arange(BATCH))]
    return (pictures.permute(0, 3, 1, 2).float() - 127.5) / 58.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    heads = ("plain", "to the device", "normalised", "plain/to the device", "plain/normalised")
    print(
        f"{'':16}" + "".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True))
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in (224, 320, 384):
            for channels in (3, 1):
                paths = write_pictures(Path(folder), size, channels)
                plain = Plain(paths)
                ours = TrainingBatches(list(map(PreparedImage, paths)), size, channels, AUGMENT, 0)
                calls = [
                    lambda _, p=plain: plain_batch(p),
                    lambda e, o=ours: o[(e, np.arange(BATCH))],
                    lambda e, o=ours: our_batch(o, e),
                ]
                show(f"{size} px, {channels} channel{'s' * (channels > 1)}", calls, rounds)


def show(title: str, calls: list, rounds: int) -> None:
    times = [[timed(call, epoch) for call in calls] for epoch in range(rounds + 1)][1:]
    plain, handed, normalised = (
        statistics.median(column) / BATCH * 1000 for column in zip(*times, strict=True)
    )
    cells = [f"{ms:.2f}ms" for ms in (plain, handed, normalised)] + [
        f"{plain / x:.1f}x" for x in (handed, normalised)
    ]
    print(
        f"{title:16}"
        + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)),
        flush=True,
    )


def timed(call, epoch: int) -> float:
    began = time.perf_counter()
    call(epoch)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
