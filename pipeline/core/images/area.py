"""Area averaging in whole numbers: the same bytes with numba, which is fast, and without it.

An output pixel is the mean of the source pixels that its cell covers, each weighted by the part
that is covered, rounded half up. Cell edges are fractions, so every weight and sum is a whole
number (below 2**53) and nothing depends on the order of summation: numpy and numba agree bit for
bit, on any machine. cv2.INTER_AREA differs by at most one gray level and takes two to seven times
as long.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Cells(NamedTuple):
    """Where cells begin and end along one axis of the decoded image.

    Edge i lies at index[i] + part[i] / whole pixels. index, part: (cells + 1,) int64; whole: int;
    width: a cell's width in units of 1 / whole pixel.
    """

    index: np.ndarray
    part: np.ndarray
    whole: int
    width: int


def cells(count: int, length: int, margin: int = 0, scale: int = 1) -> Cells:
    """`count` equal cells over `length` original pixels, margin / 2 left out before, in an image
    at 1 / scale."""
    # Everything in units of 1 / (2 * count * scale) decoded pixel: half a margin and a cell of any
    # fraction are whole numbers there.
    edges = margin * count + 2 * length * np.arange(count + 1, dtype=np.int64)
    whole = 2 * count * scale

    # Reduced fractions keep the weights small.
    common = math.gcd(margin * count, 2 * length, whole)
    edges = edges // common
    whole = whole // common
    return Cells(edges // whole, edges % whole, whole, 2 * length // common)


def area_mean(pixels: np.ndarray, rows: Cells, columns: Cells) -> np.ndarray:
    """Mean of every cell, rounded half up; pixels uint8 (H, W) or (H, W, 3), the result
    likewise."""
    # Rows of interleaved channels: summing rows need not know how many there are.
    channels = pixels[0, 0].size
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    out = np.empty((len(rows.index) - 1, (len(columns.index) - 1) * channels), np.uint8)
    compiled = kernel()
    if compiled is None:
        mean_numpy(flat, out, channels, rows, columns)
    else:
        down = (rows.index, rows.part, rows.whole)
        across = (columns.index, columns.part, columns.whole)
        compiled(flat, out, channels, *down, *across, rows.width * columns.width)
    return out.reshape(len(out), -1, *pixels.shape[2:])


def warm_up() -> None:
    """Load the compiled form, 0.3 s, once before processes are forked rather than once in each."""
    for shape in ((2, 2), (2, 2, 3)):
        area_mean(np.zeros(shape, np.uint8), cells(1, 2), cells(1, 2))


def mean_numpy(
    flat: np.ndarray, out: np.ndarray, channels: int, rows: Cells, columns: Cells
) -> None:
    """`area_mean` in numpy, into `out`; about ten times slower."""
    total = rows.width * columns.width
    width = flat.shape[1] // channels
    before = np.zeros((width + 1, channels), np.int64)
    last = np.minimum(columns.index, width - 1)  # the last edge has no part in a further pixel

    # One output row at a time, so that the sums stay in the cache.
    for i, line in enumerate(out):
        sums = cell_rows(flat, rows, i).reshape(width, channels)
        np.cumsum(sums, axis=0, out=before[1:])
        # A cell is the difference of what lies before its two edges, however wide it is.
        edges = columns.whole * before[columns.index] + columns.part[:, None] * sums[last]
        line[:] = ((np.diff(edges, axis=0) + total // 2) // total).reshape(-1)


def cell_rows(flat: np.ndarray, rows: Cells, i: int) -> np.ndarray:
    """The rows of cell i summed, each times the part of it that the cell covers: (W * channels,)
    int64."""
    # All rows from the one the cell begins in, less the part of that one that lies above it.
    first = rows.index[i]
    last = rows.index[i + 1]
    sums = rows.whole * flat[first:last].sum(axis=0, dtype=np.int64)
    sums = sums - rows.part[i] * flat[first].astype(np.int64)

    # The end of the last cell lies on the border, where there is no further row.
    return sums + rows.part[i + 1] * flat[last] if rows.part[i + 1] else sums


@lru_cache(maxsize=1)
def kernel():
    """The compiled form, or None where numba is not installed or has no folder to keep what it
    compiles in."""
    try:
        from pipeline.core.images.area_numba import mean_compiled
    except (ImportError, RuntimeError):
        return None
    return mean_compiled
