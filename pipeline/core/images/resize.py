"""From any image file to size x size pixels, by one path in training and at inference.

    decode (JPEG at a scale that depends on the image, the size and the specification only) ->
    cells of the specification -> mean of each cell (`area.py`) -> JPEG at the specification's
    quality

Training reads that JPEG back. Inference on raw files makes it too, in memory, and reads it back, so
both see the same pixels; it costs 1.5 ms at 384. An image smaller than `size` is enlarged
bilinearly.

Scale: the smallest of 1, 1/2, 1/4, 1/8 that leaves at least 2.5 decoded pixels an output pixel, at
`largest` or at the size asked for if that is more; so all sizes up to `largest` come from one
decode, whichever of them are asked for. Files of more than 2 bits a pixel are decoded in full:
there the detail that a scaled decode leaves out is most of the file, so little time is saved, and
much of it would alias into the mean.
"""

from collections.abc import Iterable
from functools import partial

import cv2
import numpy as np

from pipeline.core.config.task import Resize
from pipeline.core.images.area import area_mean, cells
from pipeline.core.images.decoding.decode import DecodedImage, decode
from pipeline.core.images.decoding.jpeg import Header
from pipeline.core.raw.unreadable import UnreadableImage

METHOD = 1  # to be raised by whoever changes a prepared pixel: images are then prepared again
# Decoded pixels an output pixel: at least 57 dB to the full decode on images of 1 bit a pixel.
RATIO = 2.5
DETAILED = 2.0  # bits a pixel, above which a JPEG is decoded in full

cv2.setNumThreads(0)  # its own threads gain nothing on one image and fight the workers


def resized(
    data: bytes | np.ndarray, sizes: Iterable[int], resize: Resize
) -> tuple[dict[int, np.ndarray], DecodedImage]:
    """(size -> pixels before JPEG, the decoded image).

    data: as `decode` takes it. Pixels: uint8 (size, size) for gray, (size, size, 3) BGR. A gray
    file stays one channel where the specification has three: its JPEG reads back as three equal
    ones. UnreadableImage gives the reason where there are none.
    """
    by_size = {}
    image = None
    scaled_for = None

    # From the largest on, so that the others reuse its decode: of 6000 x 4000 to four sizes, one
    # decode and not four. `exact` asks for no scaled decode at all.
    for size in sorted(sizes, reverse=True):
        target = 0 if resize.exact else max(size, resize.largest)
        if image is None or (image.note.startswith("jpeg") and target != scaled_for):
            choose = partial(scale_for, target=target, resize=resize)
            image = decode(data, resize.channels == 1, choose)
            scaled_for = target
        by_size[size] = fitted(image, size, resize)
    return by_size, image


def scale_for(header: Header, file_bytes: int, target: int, resize: Resize) -> int:
    """The denominator of a JPEG's scale, 1, 2, 4 or 8, for outputs of up to `target` pixels a side.

    A target of 0 asks for every pixel.
    """
    short, long = sorted((header.width, header.height))
    if target == 0 or file_bytes * 8 > DETAILED * short * long:
        return 1

    # With "long" both sides shrink by as much as the long one.
    side = long if resize.fit == "long" else short
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or side >= RATIO * scale * target)


def fitted(image: DecodedImage, size: int, resize: Resize) -> np.ndarray:
    """The image at size x size by the specification's fit."""
    height = image.height
    width = image.width
    if resize.fit == "square":
        return scaled(image, (0, height, size), (0, width, size))
    if resize.fit == "short":
        side = min(height, width)
        return scaled(image, (height - side, side, size), (width - side, side, size))

    # "long": the whole image, then padding around it.
    side = max(height, width)
    rows = max(1, height * size // side)
    columns = max(1, width * size // side)
    inner = scaled(image, (0, height, rows), (0, width, columns))
    out = np.full((size, size, *inner.shape[2:]), resize.pad, np.uint8)
    top = (size - rows) // 2
    left = (size - columns) // 2
    out[top : top + rows, left : left + columns] = inner
    return out


def scaled(
    image: DecodedImage, down: tuple[int, int, int], across: tuple[int, int, int]
) -> np.ndarray:
    """Part of an image at rows x columns. down, across: (twice the margin left out at the start,
    pixels, cells).

    Sides that shrink are averaged; sides that grow are interpolated afterwards.
    """
    # Enlarging by cells would repeat pixels as blocks: at most one cell a pixel.
    top, height, rows = down
    left, width, columns = across
    cells_down = cells(min(rows, height), height, top, image.scale)
    cells_across = cells(min(columns, width), width, left, image.scale)
    pixels = area_mean(image.pixels, cells_down, cells_across)

    # "EXACT" is in whole numbers: the same bytes on every machine.
    if rows > height or columns > width:
        return cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR_EXACT)
    return pixels


def to_jpeg(pixels: np.ndarray, resize: Resize) -> bytes:
    """JPEG, 4:2:0, at the specification's quality; pixels gray or BGR."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, resize.quality])[1].tobytes()


def read_back(encoded: bytes, channels: int) -> np.ndarray:
    """A prepared JPEG as uint8 (H, W, channels), RGB order."""
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    if pixels is None:
        raise UnreadableImage("damaged: the prepared JPEG is not an image")
    return pixels[:, :, None] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
