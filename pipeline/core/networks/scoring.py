"""Scores of pictures under test-time views: each picture decoded once, its views batched, every
process a share."""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from pipeline.core.images.batches import ViewBatches, loader
from pipeline.core.runtime.device import autocast, device, is_main, world

PICTURES = (
    64  # views in a batch: enough to fill the device at 224 px, and 150 MB of float32 input at 768
)


@torch.inference_mode()
def score_views(
    network: nn.Module,
    read: Callable[[int], np.ndarray],
    count: int,
    matrices: list[np.ndarray],
    dtype: torch.dtype,
    workers: int,
    title: str = "",
    pictures: int = PICTURES,
) -> np.ndarray:
    """float32 scores (count, V, K) of `count` pictures in order, in every process.

    read(index) gives a picture as uint8 (S, S, C); `matrices` are the views of
    `images.view_matrices`. The network is left in eval mode. A `title` shows progress; `pictures`
    is the number of views in a batch.
    """
    rank, processes = world()
    network.to(device()).eval()
    mine, images = np.arange(count)[rank::processes], max(1, pictures // len(matrices))
    keys = [mine[start : start + images] for start in range(0, len(mine), images)]
    batches = loader(ViewBatches(read, matrices), keys, workers, device().type == "cuda")
    made = []
    with tqdm(
        total=len(mine),
        unit="image",
        desc=title,
        disable=not (title and is_main()),
        dynamic_ncols=True,
    ) as bar:
        for batch, indices in batches:
            with autocast(dtype):
                scores = network(batch.to(device(), non_blocking=True))
            made.append(scores.float().cpu().numpy().reshape(len(indices), len(matrices), -1))
            bar.update(len(indices))
    return in_order(made, count, len(matrices), network)


def in_order(made: list[np.ndarray], count: int, views: int, network: nn.Module) -> np.ndarray:
    """The shares of all processes as one array in the pictures' order."""
    processes = world()[1]
    labels = network.classifier.out_features
    mine = np.concatenate(made) if made else np.empty((0, views, labels), np.float32)
    if processes == 1:
        return mine
    shares: list = [None] * processes
    dist.all_gather_object(shares, mine)
    scores = np.empty((count, views, labels), np.float32)
    for share, part in enumerate(shares):
        scores[share::processes] = part
    return scores


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Scores as values in [0, 1], float64 so that large ones stay apart; what every prediction file
    holds."""
    small = np.exp(-np.abs(scores.astype(np.float64)))
    return np.where(scores >= 0, 1.0, small) / (1 + small)
