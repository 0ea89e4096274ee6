"""Torch datasets and loader: batches of random views for training, all views of an image for
scoring."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.views import all_views, augmented, read_prepared_image
from pipeline.core.runtime.command import leave_signals_to_the_parent
from pipeline.core.runtime.errors import UserError


class TrainingBatches(torch.utils.data.Dataset):
    """Random views of prepared images; the item (epoch, indices) is a uint8 tensor (B, S, S, C)
    and the indices (B,)."""

    def __init__(
        self, images: list[PreparedImage], size: int, channels: int, augment: Augment, seed: int
    ) -> None:
        self.images = images
        self.size = size
        self.channels = channels
        self.augment = augment
        self.seed = seed

    def __getitem__(self, key: tuple[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, indices = key
        batch = np.empty((len(indices), self.size, self.size, self.channels), np.uint8)
        for out, index in zip(batch, indices, strict=True):
            # A stream of its own for each (seed, epoch, image): the same view in any process.
            rng = np.random.default_rng((self.seed, epoch, int(index)))
            image = read_prepared_image(self.images[index], self.channels)
            augmented(image, self.augment, rng, out)
        return torch.from_numpy(batch), torch.from_numpy(np.asarray(indices))


class ViewBatches(torch.utils.data.Dataset):
    """Test-time views; the item `indices` (B,) is a uint8 tensor (B * V, S, S, C), the views of one
    image together, and the indices.

    Each image is decoded once. `read(index)` returns an image as uint8 (S, S, C).
    """

    def __init__(self, read: Callable[[int], np.ndarray], matrices: list[np.ndarray]) -> None:
        self.read = read
        self.matrices = matrices

    def __getitem__(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        views = [all_views(self.read(int(index)), self.matrices) for index in indices]
        return torch.from_numpy(np.concatenate(views)), torch.from_numpy(np.asarray(indices))


class Handed(torch.utils.data.Dataset):
    """The items of a dataset; one that raises a UserError is that error, since torch would raise it
    again with a worker's traceback as its text."""

    def __init__(self, dataset: torch.utils.data.Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: object) -> object:
        try:
            return self.dataset[key]
        except UserError as error:
            return error


def begin_worker(_number: int) -> None:
    """What a loader process does first."""
    leave_signals_to_the_parent()


def loader(
    dataset: torch.utils.data.Dataset, keys: list, workers: int, pin: bool
) -> Iterator[object]:
    """The dataset's items for these keys, in order, prepared ahead by `workers` processes."""
    ahead = {"prefetch_factor": 4, "worker_init_fn": begin_worker} if workers else {}
    items = torch.utils.data.DataLoader(
        Handed(dataset), sampler=keys, batch_size=None, num_workers=workers, pin_memory=pin, **ahead
    )
    for item in items:
        if isinstance(item, UserError):
            raise item
        yield item
