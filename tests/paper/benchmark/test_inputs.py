"""Order and augmentation in batches, each against the obvious loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.paper.benchmark.inputs import Images, batches, epoch_rows, view
from pipeline.paper.benchmark.trial import Trial


def slow_view(image: torch.Tensor, change: torch.Tensor, augment: str) -> torch.Tensor:
    """One image, pixel by pixel: mirrored, then read at shifted places, edges repeated."""
    side = image.shape[-1]
    reach = side // 8
    dy = 0
    dx = 0
    if augment == "crop":
        dy, dx = ((change[1:] * (2 * reach + 1)).long() - reach).tolist()
    if change[0] >= 0.5:
        image = image.flip(-1)
        dx = -dx  # the shift is one of the source's columns
    out = torch.empty_like(image)
    for y in range(side):
        for x in range(side):
            out[:, y, x] = image[:, min(max(y + dy, 0), side - 1), min(max(x + dx, 0), side - 1)]
    return out


@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_views_equal_the_loop(augment):
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    rows = torch.tensor([4, 0, 2, 2, 1, 3])
    changes = torch.rand(6, 3)
    views = view(pixels, rows, changes, augment)
    for image, row, change in zip(views, rows, changes):
        assert torch.equal(image, slow_view(pixels[row], change, augment))


def test_without_augmentation_the_images_themselves_come():
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(view(pixels, torch.tensor([3, 3]), torch.rand(2, 3), "none"), pixels[[3, 3]])


def test_crops_shift_up_to_an_eighth_both_ways():
    pixels = torch.arange(32).expand(1, 3, 32, 32).to(torch.uint8)  # every pixel holds its column
    changes = torch.rand(4000, 3)
    changes[:, 0] = 0  # no mirror
    views = view(pixels, torch.zeros(4000, dtype=torch.long), changes, "crop")
    assert sorted(set((views[:, 0, 0, 16].long() - 16).tolist())) == list(range(-4, 5))


@given(count=st.integers(2, 300), batch=st.integers(1, 64), seed=st.integers(0, 9))
def test_an_epoch_visits_each_image_at_most_once(count, batch, seed):
    rows = epoch_rows(torch.zeros(count), batch, 0, torch.Generator().manual_seed(seed))
    assert rows.shape == (count // min(batch, count), min(batch, count))
    assert len(set(rows.flatten().tolist())) == rows.numel()


@given(
    positives=st.integers(1, 20),
    negatives=st.integers(40, 200),
    each=st.integers(1, 8),
    seed=st.integers(0, 9),
)
def test_class_aware_batches_hold_their_positives_each_in_turn(positives, negatives, each, seed):
    labels = torch.cat([torch.ones(positives), torch.zeros(negatives)])
    rows = epoch_rows(labels, 16, each, torch.Generator().manual_seed(seed))
    assert rows.shape == ((positives + negatives) // 16, 16)
    assert (labels[rows].sum(1) == each).all()
    uses = np.bincount(rows[labels[rows] == 1], minlength=positives)[:positives]
    assert uses.max() - uses.min() <= 1


def test_constants_are_the_pixels_mean_and_deviation():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    images = Images.of(pixels, np.zeros(50), torch.device("cpu"))
    normalised = images.normalised(images.pixels)
    assert torch.allclose(normalised.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(normalised.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4)
    other = Images.of(pixels[:3], np.zeros(3), torch.device("cpu"), like=images)
    assert other.mean is images.mean


def test_batches_pair_images_with_their_labels():
    pixels = np.zeros((40, 3, 8, 8), np.uint8)
    pixels[20:] = 255
    images = Images.of(pixels, np.repeat([0, 1], 20), torch.device("cpu"))
    trial = Trial(dataset="cifar10", batch_size=8, augment="crop")
    seen = 0
    for inputs, labels in batches(images, images.labels, trial, torch.Generator().manual_seed(0)):
        assert torch.equal((inputs.mean((1, 2, 3)) > 0).float(), labels)
        seen += len(labels)
    assert seen == 40
