"""A perceptual hash: 256 signs that survive re-encoding and resizing, and turn with the image.

The image is averaged to 32 x 32 gray levels; bit (u, v) of the hash is the sign of its cosine
coefficient (u, v), for u, v < 16. Signs rather than comparisons with a median, because a mirrored
image has the coefficients of odd frequency negated and a transposed one has them transposed: all
eight turns of an image are known from its hash alone.
"""

from functools import lru_cache

import cv2
import numpy as np

from pipeline.core.images.area import area_mean, cells

HASHED_SIDE = 32  # of the small gray image, in pixels
KEPT = 16  # frequencies a side
ROWS = 256  # of a large image that are looked at
DIGITS = KEPT * KEPT // 4  # hexadecimal, of a hash


@lru_cache(maxsize=1)
def cosines() -> np.ndarray:
    """(KEPT, HASHED_SIDE) float32 rows of the cosine transform, unscaled: only signs are used."""
    u = np.arange(KEPT)[:, None]
    x = np.arange(HASHED_SIDE)[None, :]
    return np.cos(np.pi * u * (2 * x + 1) / (2 * HASHED_SIDE)).astype(np.float32)


def perceptual_hash(pixels: np.ndarray) -> str:
    """64 hexadecimal digits from uint8 (h, w) or (h, w, 3) BGR; the constant term's bit is 0.

    Of large images some 256 rows are used, since to use all would take 2 % of the time of a
    decode.
    """
    # Averaged first: that is what survives another encoder and another size.
    rows = pixels[:: max(1, len(pixels) // ROWS)]
    small = area_mean(rows, cells(HASHED_SIDE, rows.shape[0]), cells(HASHED_SIDE, rows.shape[1]))
    gray = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)

    # The constant term is the mean, positive in every image: it would tell nothing apart.
    bits = cosines() @ gray.astype(np.float32) @ cosines().T > 0
    bits[0, 0] = False
    return np.packbits(bits).tobytes().hex()
