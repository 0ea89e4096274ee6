"""From any picture file to size x size pixels, by one path in training and at inference.

    decode (JPEG at a scale that depends on the picture, the size and the specification only) ->
    cells of the specification -> mean of each cell (`area.py`) -> JPEG at the specification's
    quality

Training reads that JPEG back. Inference on raw files makes it too, in memory, and reads it back, so
both see the same pixels; it costs 1.5 ms at 384. A picture smaller than `size` is enlarged
bilinearly.

Scale: the smallest of 1, 1/2, 1/4, 1/8 that leaves at least 2.5 decoded pixels an output pixel, at
`largest` or at the size asked for if that is more; so all sizes up to `largest` come from one
decode, whichever of them are asked for. Files of more than 2 bits a pixel are decoded in full:
there the detail that a scaled decode leaves out is most of the file, so little time is saved, and
much of it would alias into the mean.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.config.task import Resize
from pipeline.core.images.area import area_mean, cells
from pipeline.core.images.decode import Picture, decode
from pipeline.core.images.jpeg import Header
from pipeline.core.raw.unreadable import UnreadableImage

METHOD = 1  # to be raised by whoever changes a prepared pixel: pictures are then made again
# decoded pixels an output pixel: at least 57 dB to the full decode on pictures of 1 bit a pixel
RATIO = 2.5
DETAILED = 2.0  # bits a pixel
Source = bytes | Path | np.ndarray

cv2.setNumThreads(0)  # its own threads gain nothing on one picture and fight the workers


def load_resized(source: Source, size: int, resize: Resize) -> np.ndarray:
    """The picture as a network gets it: uint8 (size, size, resize.channels), RGB order, as if
    prepared and read back.

    source: an encoded file's bytes or path, or an array (h, w[, 3]) of RGB. UnreadableImage says
    why there is none.
    """
    return load_sizes(source, (size,), resize)[size]


def load_sizes(source: Source, sizes: Iterable[int], resize: Resize) -> dict[int, np.ndarray]:
    """The same at several sizes."""
    return {
        size: read_back(to_jpeg(pixels, resize), resize.channels)
        for size, pixels in resized(read(source), sizes, resize)[0].items()
    }


def read(source: Source) -> bytes | np.ndarray:
    """What `decode` takes."""
    if not isinstance(source, Path):
        return source
    from pipeline.core.raw.read import read_file

    return read_file(source)


def resized(
    data: bytes | np.ndarray, sizes: Iterable[int], resize: Resize
) -> tuple[dict[int, np.ndarray], Picture]:
    """Pixels at each size, before JPEG: uint8 (size, size) for gray, (size, size, 3) BGR; and the
    picture they are of.

    A gray file stays one channel where the specification has three: its JPEG reads back as three
    equal ones.
    """
    made, picture, chosen = {}, None, None
    for size in sorted(sizes, reverse=True):
        target = 0 if resize.exact else max(size, resize.largest)
        if picture is None or (picture.note.startswith("jpeg") and target != chosen):
            choose = partial(scale_for, target=target, resize=resize)
            picture, chosen = decode(data, resize.channels == 1, choose), target
        made[size] = fitted(picture, size, resize)
    return made, picture


def scale_for(header: Header, file_bytes: int, target: int, resize: Resize) -> int:
    """The denominator of a JPEG's scale for outputs of up to `target` pixels a side; a target of 0
    wants all of it."""
    sides = sorted((header.width, header.height))
    if target == 0 or file_bytes * 8 > DETAILED * sides[0] * sides[1]:
        return 1
    if resize.fit == "long":
        sides = [sides[1]]  # both sides shrink by as much as the long one
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or sides[0] >= RATIO * scale * target)


def fitted(picture: Picture, size: int, resize: Resize) -> np.ndarray:
    """The picture at size x size by the specification's fit."""
    height, width = picture.height, picture.width
    if resize.fit == "square":
        return scaled(picture, (0, height, size), (0, width, size))
    if resize.fit == "short":
        side = min(height, width)
        return scaled(picture, (height - side, side, size), (width - side, side, size))
    side = max(height, width)
    rows, columns = max(1, height * size // side), max(1, width * size // side)
    inner = scaled(picture, (0, height, rows), (0, width, columns))
    out = np.full((size, size, *inner.shape[2:]), resize.pad, np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    out[top : top + rows, left : left + columns] = inner
    return out


def scaled(
    picture: Picture, down: tuple[int, int, int], across: tuple[int, int, int]
) -> np.ndarray:
    """Part of a picture at rows x columns. down, across: (twice the margin left out at the start,
    pixels, cells).

    Sides that shrink are averaged; sides that grow are interpolated afterwards.
    """
    (top, height, rows), (left, width, columns) = down, across
    cells_down = cells(min(rows, height), height, top, picture.scale)
    cells_across = cells(min(columns, width), width, left, picture.scale)
    pixels = area_mean(picture.pixels, cells_down, cells_across)
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
        raise UnreadableImage("damaged: the prepared JPEG is no picture")
    return pixels[:, :, None] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
