"""Scores of images under test-time views: each image decoded once, its views batched, every
process a share."""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from pipeline.core.images.batches import ViewBatches, loader
from pipeline.core.runtime.device import autocast, device, is_main, world

# Enough to fill the device at 224 px, and 450 MB of float32 input at 768.
VIEWS_IN_BATCH = 64


@torch.inference_mode()
def score_views(
    network: nn.Module,
    read: Callable[[int], np.ndarray],
    count: int,
    matrices: list[np.ndarray],
    dtype: torch.dtype,
    workers: int,
    title: str = "",
    views_in_batch: int = VIEWS_IN_BATCH,
) -> np.ndarray:
    """float32 scores (count, V, K) of `count` images in order, in every process.

    read(index) gives an image as uint8 (S, S, C); `matrices` are the V views of
    `images.views.view_matrices`; `workers` the loader processes. The network is left in eval mode.
    A `title` shows progress. A batch holds all views of its images, `views_in_batch` or less unless
    one image has more.
    """
    rank, processes = world()
    views = len(matrices)
    network.to(device()).eval()

    # Every process takes each processes-th image; a batch is all views of a few images.
    mine = np.arange(count)[rank::processes]
    images = max(1, views_in_batch // views)
    keys = [mine[start : start + images] for start in range(0, len(mine), images)]
    batches = loader(ViewBatches(read, matrices), keys, workers, device().type == "cuda")

    # A part of no rows comes first: a process may have no image at all, and concatenate needs one.
    parts = [np.empty((0, views, network.classifier.out_features), np.float32)]
    hidden = not (title and is_main())
    shown = dict(unit="image", desc=title, disable=hidden, dynamic_ncols=True)
    with tqdm(total=len(mine), **shown) as bar:
        for batch, indices in batches:
            with autocast(dtype):
                scores = network(batch.to(device(), non_blocking=True))
            parts.append(scores.float().cpu().numpy().reshape(len(indices), views, -1))
            bar.update(len(indices))
    return in_order(np.concatenate(parts), count)


def in_order(mine: np.ndarray, count: int) -> np.ndarray:
    """The shares (n, V, K) of all processes as one array (count, V, K) in the images' order."""
    # Shares differ in length by one image, which the gathering of objects, unlike that of tensors,
    # does not mind.
    processes = world()[1]
    if processes == 1:
        return mine
    shares: list = [None] * processes
    dist.all_gather_object(shares, mine)
    scores = np.empty((count, *mine.shape[1:]), np.float32)
    for share, part in enumerate(shares):
        scores[share::processes] = part
    return scores


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Scores as values in [0, 1], float64 so that large ones stay apart; what every prediction file
    holds. Of the shape of the scores."""
    # exp of -|score| never overflows: 1 / (1 + exp(-s)) for s >= 0, exp(s) / (1 + exp(s)) below.
    small = np.exp(-np.abs(scores.astype(np.float64)))
    return np.where(scores >= 0, 1.0, small) / (1 + small)
