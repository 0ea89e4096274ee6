"""A perceptual hash: 256 signs that survive re-encoding and resizing, and turn with the picture.

The picture is averaged to 32 x 32 gray levels; bit (u, v) of the hash is the sign of its cosine
coefficient (u, v), for u, v < 16. Signs rather than comparisons with a median, because a mirrored
picture has the coefficients of odd frequency negated and a transposed one has them transposed: all
eight turns of a picture are known from its hash alone.
"""

from functools import lru_cache

import cv2
import numpy as np

from pipeline.core.images.area import area_mean, cells

SIDE, KEPT, ROWS = 32, 16, 256
DIGITS = KEPT * KEPT // 4


@lru_cache(maxsize=1)
def cosines() -> np.ndarray:
    """(KEPT, SIDE) rows of the cosine transform, unscaled: only signs are used."""
    u, x = np.arange(KEPT)[:, None], np.arange(SIDE)[None, :]
    return np.cos(np.pi * u * (2 * x + 1) / (2 * SIDE)).astype(np.float32)


def perceptual_hash(pixels: np.ndarray) -> str:
    """64 hexadecimal digits from uint8 (h, w) or (h, w, 3) BGR; the constant term's bit is 0.

    Of large pictures some 256 rows are looked at, since to look at all would take 2 % of the time
    of a decode.
    """
    rows = pixels[:: max(1, len(pixels) // ROWS)]
    small = area_mean(rows, cells(SIDE, rows.shape[0]), cells(SIDE, rows.shape[1]))
    gray = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    bits = cosines() @ gray.astype(np.float32) @ cosines().T > 0
    bits[0, 0] = False
    return np.packbits(bits).tobytes().hex()
