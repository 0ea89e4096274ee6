"""Area means against exact fractions, numba against numpy, and OpenCV's INTER_AREA."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.images import area
from pipeline.core.images.area import area_mean, cells


def overlap(first: tuple, second: tuple) -> Fraction:
    return max(Fraction(0), min(first[1], second[1]) - max(first[0], second[0]))


def weights(count: int, length: int, margin: int, scale: int, pixels: int) -> list[list[Fraction]]:
    """What part of each cell every decoded pixel makes up, by the definition."""
    side = Fraction(length, count)
    edges = [Fraction(margin, 2) + i * side for i in range(count + 1)]
    return [
        [overlap((low, high), (j * scale, (j + 1) * scale)) / side for j in range(pixels)]
        for low, high in pairwise(edges)
    ]


def by_fractions(pixels: np.ndarray, down: tuple, across: tuple) -> np.ndarray:
    """The mean of each cell in exact arithmetic, rounded half up."""
    rows = weights(*down, pixels.shape[0])
    columns = weights(*across, pixels.shape[1])
    out = np.empty((len(rows), len(columns)), np.uint8)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            mean = sum(
                a * b * int(pixels[y, x])
                for y, a in enumerate(row)
                if a
                for x, b in enumerate(column)
                if b
            )
            out[i, j] = int(mean + Fraction(1, 2))
    return out


@st.composite
def cases(draw):
    """A small image, decoded at 1 / scale of its original sides, and cells on part of it."""
    axes = []
    scale = draw(st.sampled_from([1, 2, 4, 8]))
    for _ in range(2):
        original = draw(st.integers(1, 14)) * scale - draw(st.integers(0, scale - 1))
        length = draw(st.integers(1, original))
        axes.append(
            (draw(st.integers(1, length)), length, original - length, scale, -(-original // scale))
        )
    seed = draw(st.integers(0, 2**32 - 1))
    return axes, np.random.default_rng(seed).integers(
        0, 256, (axes[0][-1], axes[1][-1]), dtype=np.uint8
    )


@settings(max_examples=60, deadline=None)
@given(cases())
def test_means_are_the_fractions(case):
    (down, across), pixels = case
    wanted = by_fractions(pixels, down[:4], across[:4])
    assert np.array_equal(area_mean(pixels, cells(*down[:4]), cells(*across[:4])), wanted)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_three_channels_are_three_images(case):
    (down, across), pixels = case
    colour = np.stack([pixels, 255 - pixels, pixels // 2], axis=2)
    got = area_mean(colour, cells(*down[:4]), cells(*across[:4]))
    for channel in range(3):
        alone = area_mean(
            np.ascontiguousarray(colour[:, :, channel]), cells(*down[:4]), cells(*across[:4])
        )
        assert np.array_equal(got[:, :, channel], alone)


@pytest.mark.parametrize(
    "shape, rows, columns",
    [
        ((2000, 700, 3), 7, 333),
        ((1801, 64), 2, 64),
        ((517, 3), 1, 1),
        ((400, 600, 3), 256, 256),
        ((5, 4000), 5, 3),
    ],
)
def test_numpy_gives_the_same_bytes_as_numba(shape, rows, columns, monkeypatch):
    pytest.importorskip("numba")
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    fast = area_mean(pixels, cells(rows, shape[0]), cells(columns, shape[1]))
    monkeypatch.setattr(area, "kernel", lambda: None)
    assert np.array_equal(area_mean(pixels, cells(rows, shape[0]), cells(columns, shape[1])), fast)


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_a_constant_image_stays_constant(value):
    pixels = np.full((1031, 77, 3), value, np.uint8)
    assert (area_mean(pixels, cells(13, 1031), cells(60, 77)) == value).all()


def test_opencv_agrees_within_one_level():
    pixels = np.random.default_rng(2).integers(0, 256, (611, 397, 3), dtype=np.uint8)
    ours = area_mean(pixels, cells(97, 611), cells(64, 397)).astype(int)
    assert np.abs(ours - cv2.resize(pixels, (64, 97), interpolation=cv2.INTER_AREA)).max() <= 1


def test_a_transposed_image_has_the_transposed_means():
    pixels = np.random.default_rng(3).integers(0, 256, (120, 75), dtype=np.uint8)
    turned = area_mean(np.ascontiguousarray(pixels.T), cells(20, 75), cells(31, 120))
    assert np.array_equal(turned.T, area_mean(pixels, cells(31, 120), cells(20, 75)))
