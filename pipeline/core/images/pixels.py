"""Pixel arrays of any type and orientation as upright 8-bit images."""

import numpy as np

from pipeline.core.raw.unreadable import UnreadableImage, check_size


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The picture that EXIF orientation 1 to 8 means: mirrored where even in pairs, transposed from
    5 on."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels if orientation == 1 else np.ascontiguousarray(pixels)


def eight_bit(values: np.ndarray, kind: str) -> np.ndarray:
    """Samples of any type as uint8 (h, w) or (h, w, 3), the channel order kept as BGR for arrays of
    RGB.

    values: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); alpha is dropped.
    """
    if values.ndim == 3 and values.shape[2] in (1, 2):
        values = values[:, :, 0]
    if values.ndim == 3 and values.shape[2] in (3, 4):
        values = values[:, :, 2::-1]
    elif values.ndim != 2:
        raise UnreadableImage(f"not an image: {kind} of shape {values.shape}")
    check_size(values.shape[1], values.shape[0])
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16:
        return narrow(values)
    return stretch(values)


def narrow(values: np.ndarray) -> np.ndarray:
    """uint16 to uint8: the range of 8, 12 or 16 bits, the least that holds the largest value,
    becomes 0 to 255."""
    full = next(top for top in (255, 4095, 65535) if values.max() <= top)
    return looked_up(
        values, np.minimum((np.arange(65536) * 255 + full // 2) // full, 255).astype(np.uint8)
    )


def looked_up(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """table[values], uint8, some rows at a time: numpy widens what it indexes by to eight bytes."""
    out = np.empty(values.shape, np.uint8)
    for rows in blocks(values):
        out[rows] = table[values[rows]]
    return out


def blocks(values: np.ndarray):
    """Slices of rows of about a million samples each, which bound the memory of what is computed on
    the way."""
    step = max(1, (1 << 20) * len(values) // max(1, values.size))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def stretch(values: np.ndarray) -> np.ndarray:
    """Smallest to largest value become 0 to 255; a constant picture becomes 0. Values must be
    finite numbers."""
    if values.dtype.kind not in "iuf":
        raise UnreadableImage(f"not an image: samples of type {values.dtype}")
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not np.isfinite((low, high)).all():
        raise UnreadableImage("damaged: samples that are no finite numbers")
    out, span = np.empty(values.shape, np.uint8), high - low if high > low else 1.0
    for rows in blocks(values):
        out[rows] = np.floor((values[rows].astype(np.float64) - low) / span * 255 + 0.5)
    return out
