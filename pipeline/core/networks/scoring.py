"""Scores of images under test-time views: each image decoded once, its views batched, every
process a share."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from pipeline.core.images.batches import ViewBags, ViewBatches, loader
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
    bags: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """float32 scores (count, V, K) of `count` images in order, in every process.

    read(index) gives an image as uint8 (S, S, C); `matrices` are the V views of
    `images.views.view_matrices`; `workers` the loader processes. The network is left in eval mode.
    A `title` shows progress. A batch holds all views of its images, `views_in_batch` or less unless
    one image has more. `bags`: each unit's images, for a network that sees all of them at once
    (`Run.bag`); each of them has the unit's score.
    """
    require_same_form(network, bags)
    rank, processes = world()
    views = len(matrices)
    network.to(device()).eval()

    # Every process takes each processes-th image, or unit; a batch is all views of a few.
    sizes = np.ones(count, int) if bags is None else np.array([len(images) for images in bags], int)
    data = ViewBatches(read, matrices) if bags is None else ViewBags(read, matrices, bags)
    mine = np.arange(len(sizes))[rank::processes]
    keys = batches_within(mine, sizes[mine] * views, views_in_batch)
    batches = loader(data, keys, workers, device().type == "cuda")

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
    scores = in_order(np.concatenate(parts), len(sizes))
    return scores if bags is None else of_each_image(scores, bags, count)


def require_same_form(network: nn.Module, bags: Sequence[np.ndarray] | None) -> None:
    """Raise a ValueError where a network of whole units is given images, or the reverse."""
    kind = getattr(network, "bag", "")
    if bool(kind) != (bags is not None):
        wanted = "needs the units of its images" if kind else "scores images, not units"
        raise ValueError(f"a network with bag={kind!r} {wanted}")


def batches_within(keys: np.ndarray, costs: np.ndarray, most: int) -> list[np.ndarray]:
    """The keys in order, cut where their costs would sum to more than `most`; one that costs more
    is alone.

    >>> batches_within(np.arange(4), np.array([2, 2, 1, 9]), 4)
    [array([0, 1]), array([2]), array([3])]
    """
    parts = []
    start, sum_so_far = 0, 0
    for position, cost in enumerate(costs):
        if position > start and sum_so_far + cost > most:
            parts.append(keys[start:position])
            start, sum_so_far = position, 0
        sum_so_far += cost
    return [*parts, keys[start:]] if len(keys) else []


def of_each_image(scores: np.ndarray, bags: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Scores (U, V, K) of units as those of their `count` images."""
    images = np.empty((count, *scores.shape[1:]), scores.dtype)
    for score, own in zip(scores, bags, strict=True):
        images[own] = score
    return images


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
