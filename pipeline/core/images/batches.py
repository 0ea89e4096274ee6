"""Torch datasets and loader: batches of random views for training, all views for scoring, of images
or of whole units (studies)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.views import all_views, augmented, read_prepared_image
from pipeline.core.runtime.command import leave_signals_to_the_parent
from pipeline.core.runtime.errors import UserError

BAG_STREAM = 2  # apart from the other draws of (seed, epoch, unit)


@dataclass(frozen=True)
class Bags:
    """The images of several units, one unit after the other; it travels like a tensor of units.

    images  uint8 (N, S, S, C)
    sizes   int64 (B,), how many are each unit's; on the CPU always
    """

    images: torch.Tensor
    sizes: torch.Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Bags":
        """The same with its images on a device."""
        return Bags(self.images.to(device, non_blocking=non_blocking), self.sizes)

    def pin_memory(self) -> "Bags":
        """The same in memory that a GPU copies from; the loader calls it."""
        return Bags(self.images.pin_memory(), self.sizes)

    def chunk(self, parts: int) -> tuple["Bags", ...]:
        """The units in so many parts, as `torch.chunk` cuts rows."""
        sizes = self.sizes.chunk(parts)
        images = self.images.split([int(part.sum()) for part in sizes])
        return tuple(map(Bags, images, sizes))


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
        return self.random_views(epoch, indices), torch.from_numpy(np.asarray(indices))

    def random_views(self, epoch: int, indices: np.ndarray) -> torch.Tensor:
        """uint8 (B, S, S, C) of these images in an epoch."""
        batch = np.empty((len(indices), self.size, self.size, self.channels), np.uint8)
        for out, index in zip(batch, indices, strict=True):
            # A stream of its own for each (seed, epoch, image): the same view in any process.
            rng = np.random.default_rng((self.seed, epoch, int(index)))
            image = read_prepared_image(self.images[index], self.channels)
            augmented(image, self.augment, rng, out)
        return torch.from_numpy(batch)


class TrainingBags(TrainingBatches):
    """Random views of whole units; the item (epoch, indices of units) is Bags and the indices.

    bags   each unit's images, as positions in `images`
    most   images of a unit at most, drawn anew for each epoch
    """

    def __init__(self, bags: Sequence[np.ndarray], most: int, *images) -> None:
        super().__init__(*images)
        self.bags = bags
        self.most = most

    def __getitem__(self, key: tuple[int, np.ndarray]) -> tuple[Bags, torch.Tensor]:
        epoch, indices = key
        chosen = [self.drawn_images(epoch, int(index)) for index in indices]
        views = self.random_views(epoch, np.concatenate(chosen))
        return Bags(views, bag_sizes(chosen)), torch.from_numpy(np.asarray(indices))

    def drawn_images(self, epoch: int, index: int) -> np.ndarray:
        """The images of a unit in an epoch."""
        images = self.bags[index]
        if len(images) <= self.most:
            return images
        rng = np.random.default_rng((self.seed, epoch, index, BAG_STREAM))
        return np.sort(rng.choice(images, self.most, replace=False))


def bag_sizes(bags: Sequence[np.ndarray]) -> torch.Tensor:
    """int64 (B,)."""
    return torch.tensor([len(images) for images in bags])


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


class ViewBags(ViewBatches):
    """Test-time views of whole units; the item `indices` of B units is Bags of B * V, the views of
    one unit together, each with all its images, and the indices."""

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        matrices: list[np.ndarray],
        bags: Sequence[np.ndarray],
    ) -> None:
        super().__init__(read, matrices)
        self.bags = bags

    def __getitem__(self, indices: np.ndarray) -> tuple[Bags, torch.Tensor]:
        chosen = [self.bags[index] for index in indices]
        views = []
        for images in chosen:
            # (images, V, ...) -> (V, images, ...)
            each = np.stack([all_views(self.read(int(one)), self.matrices) for one in images])
            views += list(each.swapaxes(0, 1))
        sizes = bag_sizes(chosen).repeat_interleave(len(self.matrices))
        return Bags(torch.from_numpy(np.concatenate(views)), sizes), torch.from_numpy(indices)


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
