"""Images as a network gets them."""

import numpy as np

from pipeline.core.config.task import Resize
from pipeline.core.images.resize import read_back, resized, to_jpeg


def network_input(data: bytes | np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """An encoded file or an array as uint8 (size, size, channels), RGB: resized, stored and read
    back, as prepared images and inference on raw files are."""
    pixels = resized(data, (size,), resize)[0][size]
    return read_back(to_jpeg(pixels, resize), resize.channels)
