"""Any picture file as a uint8 array, or UnreadableImage with the reason.

What comes out, whatever goes in: gray (h, w) or colour (h, w, 3) in OpenCV's order (blue, green,
red), 8 bits, turned upright by EXIF. Where files leave a choice:
    alpha                   dropped: the colours as stored
    several frames, pages   the first
    16 bits                 taken for 8, 12 or 16, whichever is the least that holds the largest
                            value; 0 to 255 then
    floating point          smallest to largest value becomes 0 to 255
    CMYK                    converted without a colour profile; profiles are ignored throughout
    DICOM                   `dicom.py`
JPEG, by far the most common, is decoded at a reduced scale where the caller allows it. OpenCV and
numpy read JPEG, PNG and 16-bit TIFF; Pillow (which timm needs anyway) the rest; pydicom and h5py
are imported only when such a file comes.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.core.images.jpeg import START, Header, decode_jpeg, read_jpeg_header, tiff_tags
from pipeline.core.images.pixels import eight_bit, upright
from pipeline.core.raw.unreadable import MAX_BYTES, UnreadableImage, check_size

PNG = b"\x89PNG\r\n\x1a\n"
BY_PILLOW = {
    "GIF": b"GIF8",
    "BMP": b"BM",
    "PNM": b"P",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  ",
    "JPEG 2000 codestream": b"\xff\x4f\xff\x51",
    "WebP": b"RIFF",
    "QOI": b"qoif",
}
PILLOW_NAMES = ("PNG", "GIF", "BMP", "PPM", "JPEG2000", "WEBP", "QOI", "TIFF", "JPEG")
GRAY_MODES = ("1", "L", "LA", "La")
WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class Picture(NamedTuple):
    """An upright picture: pixels at 1 / scale of width x height (its sides rounded up), and how it
    was decoded.

    pixels: uint8 (h, w) or (h, w, 3) BGR. note: e.g. "jpeg 1/2", "png 16 bit", "dicom window".
    """

    pixels: np.ndarray
    width: int
    height: int
    scale: int
    note: str


def full_scale(_header: Header, _size: int) -> int:
    """The choice of those who want every pixel."""
    return 1


def decode(
    data: bytes | np.ndarray, gray: bool = False, choose: Callable[[Header, int], int] = full_scale
) -> Picture:
    """The picture in an encoded file, or in an array (h, w[, c]) as HDF5 sets hold it.

    gray: give one channel (luma of ITU-R BT.601); otherwise gray files stay gray and others become
    BGR. choose(header, bytes): the scale, 1, 2, 4 or 8, at which a JPEG may be decoded.
    UnreadableImage says what is wrong.
    """
    if isinstance(data, np.ndarray):
        return finished(eight_bit(data, "array"), "array", gray)
    if not data:
        raise UnreadableImage("empty: 0 bytes")
    if len(data) > MAX_BYTES:
        raise UnreadableImage(f"too large: {len(data):,} bytes")
    try:
        if data[:3] == START + b"\xff":
            return decode_any_jpeg(data, gray, choose)
        return decode_other(data, gray)
    except MemoryError:
        raise UnreadableImage("too large: memory ran out") from None
    except (cv2.error, struct.error, zlib.error) as error:
        raise UnreadableImage(f"damaged: {' '.join(str(error).split())[:120]}") from None


def decode_any_jpeg(data: bytes, gray: bool, choose: Callable[[Header, int], int]) -> Picture:
    header = read_jpeg_header(data)
    check_size(header.width, header.height)
    if header.components == 4:
        return finished(
            *decode_pillow(data), gray
        )  # OpenCV takes every CMYK for Adobe's inverted one
    scale = choose(header, len(data))
    pixels = upright(
        decode_jpeg(data, header, gray or header.components == 1, scale), header.orientation
    )
    sides = (
        (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    )
    note = ("jpeg" if scale == 1 else f"jpeg 1/{scale}") + (
        f" exif {header.orientation}" * (header.orientation > 1)
    )
    return Picture(pixels, *sides, scale, note)


def decode_other(data: bytes, gray: bool) -> Picture:
    """Everything that is no JPEG, by its first bytes; DICOM first, whose preamble may pass for a
    TIFF."""
    if data[128:132] == b"DICM" or (
        data[:2] in (b"\x08\x00", b"\x02\x00") and data[3:4] == b"\x00"
    ):
        from pipeline.core.images.dicom import (
            decode_dicom,
        )  # pydicom is imported only where DICOM comes

        return finished(*decode_dicom(data), gray)
    if data[:8] == PNG:
        return finished(*decode_png(data), gray)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return finished(*decode_tiff(data), gray)
    if any(data.startswith(magic) for magic in BY_PILLOW.values()):
        return finished(*decode_pillow(data), gray)
    raise UnreadableImage(f"not an image of a kind that is read (begins with {data[:8]!r})")


def finished(pixels: np.ndarray, note: str, gray: bool) -> Picture:
    """A picture decoded at full size, made gray where asked."""
    if gray and pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    height, width = pixels.shape[:2]
    return Picture(pixels, width, height, 1, note)


def decode_png(data: bytes) -> tuple[np.ndarray, str]:
    """PNG of any depth and colour type, the whole file checked; the first picture of an animated
    one."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImage("truncated: the PNG ends within its header")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    check_size(width, height)
    orientation = check_png(data)
    if orientation is None:
        return decode_pillow(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImage("damaged: the PNG decoder gives up")
    if pixels.ndim == 3:  # gray with alpha comes as four channels, and eight_bit takes RGB
        pixels = pixels[:, :, 0] if data[25] in (0, 4) else pixels[:, :, 2::-1]
    note = "png 16 bit" if depth == 16 else "png"
    return upright(eight_bit(pixels, "PNG"), orientation), note


def check_png(data: bytes) -> int | None:
    """Walk the chunks to the end, checking the sums of those that make the picture; gives the EXIF
    orientation.

    None for what OpenCV has another opinion on: an animation, or a file cut short after its
    picture.
    """
    position, orientation, pixels = 8, 1, False
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise UnreadableImage("truncated: the PNG ends early")
        if kind == b"IEND":
            if not pixels:
                raise UnreadableImage("no pixels: the PNG has no picture data")
            return orientation
        body = data[position + 8 : end - 4]
        if kind in (b"IHDR", b"PLTE", b"IDAT") and zlib.crc32(
            body, zlib.crc32(kind)
        ) != int.from_bytes(data[end - 4 : end], "big"):
            raise UnreadableImage(f"damaged: the checksum of the PNG's {kind.decode()} is wrong")
        if kind == b"acTL":
            return None
        pixels = pixels or kind == b"IDAT"
        if kind == b"eXIf":
            value = tiff_tags(body, (0x0112,)).get(0x0112, 1)
            orientation = value if 1 <= value <= 8 else 1
        position = end
    return None


def decode_tiff(data: bytes) -> tuple[np.ndarray, str]:
    """TIFF: 16-bit samples by OpenCV (Pillow cuts colour to 8), the others by Pillow."""
    tags = tiff_tags(data, (256, 257, 258, 262, 274, 277))
    if tags.get(258) != 16 or tags.get(277, 1) < 3:
        return decode_pillow(data)
    check_size(tags.get(256, 0), tags.get(257, 0))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImage("damaged: the TIFF decoder gives up")
    orientation = tags.get(274, 1)
    pixels = eight_bit(pixels[:, :, 2::-1], "TIFF")
    return upright(pixels, orientation if 1 <= orientation <= 8 else 1), "tiff 16 bit"


def decode_pillow(data: bytes) -> tuple[np.ndarray, str]:
    """The first frame by Pillow, size checked before anything is decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=PILLOW_NAMES) as image:
                check_size(*image.size)
                note = image.format.lower() + (" 16 bit" if image.mode in WIDE_MODES else "")
                image.load()
                return pillow_pixels(ImageOps.exif_transpose(image)), note
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"damaged: its header makes no sense (begins with {data[:8]!r})"
        ) from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError) as error:
        what = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise UnreadableImage(f"{what}: {' '.join(str(error).split())[:120]}") from None


def pillow_pixels(image) -> np.ndarray:
    """A loaded Pillow image as uint8 gray or BGR."""
    if image.mode in GRAY_MODES:
        return np.asarray(image.convert("L"))
    if image.mode in WIDE_MODES:
        values = np.asarray(image)
        narrow_enough = (
            values.dtype.kind != "f" and values.size and values.min() >= 0 and values.max() <= 65535
        )
        return eight_bit(values.astype(np.uint16) if narrow_enough else values, "image")
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
