"""Pixel arrays of any type and orientation as upright 8-bit images."""

import numpy as np

from pipeline.core.raw.unreadable import UnreadableImage, check_sides

SAMPLES_A_BLOCK = 1 << 20  # samples that are computed on at a time: 8 MB as float64


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The image turned as EXIF orientation 1 to 8 asks; pixels (h, w) or (h, w, 3)."""
    # From 5 on the stored image is transposed; then rows or columns run backwards.
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels if orientation == 1 else np.ascontiguousarray(pixels)


def eight_bit(values: np.ndarray, kind: str) -> np.ndarray:
    """Samples of any type as uint8 gray (h, w) or BGR (h, w, 3).

    values: (h, w), (h, w, 1), (h, w, 2), (h, w, 3) RGB or (h, w, 4) RGBA; alpha is dropped. kind:
    what they are, for the message of UnreadableImage.
    """
    # Channels: gray, or RGB to BGR.
    if values.ndim == 3 and values.shape[2] in (1, 2):
        values = values[:, :, 0]
    if values.ndim == 3 and values.shape[2] in (3, 4):
        values = values[:, :, 2::-1]
    elif values.ndim != 2:
        raise UnreadableImage(f"not an image: {kind} of shape {values.shape}")
    check_sides(values.shape[1], values.shape[0])

    # Depth.
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
    # X-ray detectors give 12 bits in 16: stretched over all 16, they would be nearly black.
    full = next(top for top in (255, 4095, 65535) if values.max() <= top)
    # A table, since there are 65,536 values and often millions of samples.
    table = (np.arange(65536) * 255 + full // 2) // full
    return looked_up(values, np.minimum(table, 255).astype(np.uint8))


def looked_up(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Each value replaced by its entry in a table, uint8."""
    out = np.empty(values.shape, np.uint8)
    # Some rows at a time: numpy widens what it indexes by to eight bytes.
    for rows in blocks(values):
        out[rows] = table[values[rows]]
    return out


def blocks(values: np.ndarray) -> list[slice]:
    """Slices of rows of about a million samples each, which bound the memory of what is computed
    in between."""
    step = max(1, SAMPLES_A_BLOCK * len(values) // max(1, values.size))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def stretch(values: np.ndarray) -> np.ndarray:
    """Smallest to largest value become 0 to 255; a constant image becomes 0.

    UnreadableImage for values that are not finite numbers.
    """
    if values.dtype.kind not in "iuf":
        raise UnreadableImage(f"not an image: samples of type {values.dtype}")
    low = float(values.min())  # NaN if there is one
    high = float(values.max())
    if not np.isfinite((low, high)).all():
        raise UnreadableImage("damaged: samples that are not finite numbers")
    span = high - low if high > low else 1.0

    # In float64, and a block at a time: eight bytes a sample of a whole image could be too many.
    out = np.empty(values.shape, np.uint8)
    for rows in blocks(values):
        out[rows] = np.floor((values[rows].astype(np.float64) - low) / span * 255 + 0.5)
    return out
