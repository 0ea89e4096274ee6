"""Any image file as a uint8 array, or UnreadableImage with the reason.

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

from pipeline.core.images.decoding import header_limits as claims
from pipeline.core.images.decoding.jpeg import (
    ORIENTATION,
    START,
    Header,
    decode_jpeg,
    read_jpeg_header,
    tiff_tags,
)
from pipeline.core.images.decoding.pixels import eight_bit, upright
from pipeline.core.raw.unreadable import MAX_BYTES, UnreadableImage

PNG = b"\x89PNG\r\n\x1a\n"
PNG_CHECKED = (b"IHDR", b"PLTE", b"IDAT")  # the chunks that make the image
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BY_PILLOW = {
    "GIF": b"GIF8",
    "BMP": b"BM",
    "PNM": b"P",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  ",
    "JPEG 2000 codestream": b"\xff\x4f\xff\x51",
    "WebP": b"RIFF",
    "QOI": b"qoif",
}
# Of these, the headers that Pillow believes before this module sees a size, or that have a bound.
CLAIMS = {
    "JPEG 2000": claims.check_jpeg2000_claim,
    "JPEG 2000 codestream": claims.check_jpeg2000_claim,
    "WebP": claims.check_webp_claim,
    "QOI": claims.check_qoi_claim,
}
PILLOW_NAMES = ("PNG", "GIF", "BMP", "PPM", "JPEG2000", "WEBP", "QOI", "TIFF", "JPEG")
SEPARATED = 5  # TIFF's photometric interpretation of CMYK
PLANES = 2  # its planar configuration of one channel after the other
GRAY_MODES = ("1", "L", "LA", "La")
WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class DecodedImage(NamedTuple):
    """An upright image: pixels at 1 / scale of width x height (its sides rounded up), and how it
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
) -> DecodedImage:
    """The image in an encoded file, or in an array (h, w[, c]) as HDF5 sets hold it.

    gray: return one channel (luma of ITU-R BT.601); otherwise gray files stay gray and others
    become BGR. choose(header, bytes): the scale, 1, 2, 4 or 8, at which a JPEG may be decoded.
    UnreadableImage gives the reason where there is no image.
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


def decode_any_jpeg(data: bytes, gray: bool, choose: Callable[[Header, int], int]) -> DecodedImage:
    """A JPEG at the scale that `choose` allows, turned upright."""
    header = read_jpeg_header(data)
    claims.check_claim(header.width, header.height, len(data), claims.JPEG)
    if header.components == 4:
        # OpenCV takes every CMYK for Adobe's inverted one.
        return finished(*decode_pillow(data), gray)

    # Gray files cost 1.5 times as much when they are read as colour.
    scale = choose(header, len(data))
    stored = decode_jpeg(data, header, gray or header.components == 1, scale)
    pixels = upright(stored, header.orientation)

    # From orientation 5 on, the image lies on its side.
    sides = (header.width, header.height)
    if header.orientation >= 5:
        sides = (header.height, header.width)
    note = "jpeg" if scale == 1 else f"jpeg 1/{scale}"
    if header.orientation > 1:
        note += f" exif {header.orientation}"
    return DecodedImage(pixels, *sides, scale, note)


def decode_other(data: bytes, gray: bool) -> DecodedImage:
    """Everything that is not a JPEG, by its first bytes."""
    # DICOM first: its preamble may pass for a TIFF. Some files begin without one, at group 2 or 8.
    bare = data[:2] in (b"\x08\x00", b"\x02\x00") and data[3:4] == b"\x00"
    if data[128:132] == b"DICM" or bare:
        # pydicom is imported only where DICOM comes
        from pipeline.core.images.decoding.dicom import decode_dicom

        return finished(*decode_dicom(data), gray)
    if data[:8] == PNG:
        return finished(*decode_png(data), gray)
    if data[:4] in TIFF:
        return finished(*decode_tiff(data), gray)
    for kind, check in CLAIMS.items():
        if data.startswith(BY_PILLOW[kind]):
            check(data)
    if any(data.startswith(magic) for magic in BY_PILLOW.values()):
        return finished(*decode_pillow(data), gray)
    raise UnreadableImage(f"not an image of a kind that is read (begins with {data[:8]!r})")


def finished(pixels: np.ndarray, note: str, gray: bool) -> DecodedImage:
    """An image decoded at full size, converted to gray where asked."""
    if gray and pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    height, width = pixels.shape[:2]
    return DecodedImage(pixels, width, height, 1, note)


def decode_png(data: bytes) -> tuple[np.ndarray, str]:
    """PNG of any depth and colour type, the whole file checked; the first image of an animated
    one."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableImage("truncated: the PNG ends within its header")
    claims.check_png_claim(data)
    depth = data[24]
    colour_type = data[25]
    orientation = check_png(data)
    if orientation is None:
        return decode_pillow(data)

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImage("damaged: the PNG decoder gives up")
    if pixels.ndim == 3:
        # Gray with alpha comes as four channels; and eight_bit takes RGB.
        pixels = pixels[:, :, 0] if colour_type in (0, 4) else pixels[:, :, 2::-1]
    note = "png 16 bit" if depth == 16 else "png"
    return upright(eight_bit(pixels, "PNG"), orientation), note


def check_png(data: bytes) -> int | None:
    """Walk the chunks to the end, check the sums of those that make the image, and return the EXIF
    orientation.

    None where OpenCV reads otherwise: an animation, or a file cut short after its image.
    """
    position = 8
    orientation = 1
    pixels = False
    while position + 12 <= len(data):
        # A chunk: length (4 bytes), kind (4), body, checksum of kind and body (4).
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise UnreadableImage("truncated: the PNG ends early")
        body = data[position + 8 : end - 4]
        if kind == b"IEND":
            if not pixels:
                raise UnreadableImage("no pixels: the PNG has no image data")
            return orientation

        checksum = int.from_bytes(data[end - 4 : end], "big")
        if kind in PNG_CHECKED and zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise UnreadableImage(f"damaged: the checksum of the PNG's {kind.decode()} is wrong")
        if kind == b"acTL":
            return None
        if kind == b"IDAT":
            pixels = True
        if kind == b"eXIf":
            orientation = valid_orientation(tiff_tags(body, (ORIENTATION,)))
        position = end
    return None


def valid_orientation(tags: dict[int, int]) -> int:
    """The EXIF orientation among TIFF tags; 1, upright, where there is none or it is wrong."""
    value = tags.get(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def decode_tiff(data: bytes) -> tuple[np.ndarray, str]:
    """TIFF: 16-bit colour by OpenCV (Pillow cuts it to 8 bits), the others, CMYK among them, by
    Pillow."""
    claims.check_tiff_claim(data)
    wanted = (claims.BITS, ORIENTATION, claims.SAMPLES, claims.PHOTOMETRIC, claims.PLANAR)
    tags = tiff_tags(data, wanted)
    deep_colour = tags.get(claims.BITS) == 16 and tags.get(claims.SAMPLES, 1) >= 3
    separated = tags.get(claims.PHOTOMETRIC) == SEPARATED
    if deep_colour and separated and tags.get(claims.PLANAR) == PLANES:
        # Pillow takes its samples for 8 bits.
        raise UnreadableImage("unreadable: a CMYK TIFF of 16 bits in four planes")
    if not deep_colour or separated:
        return decode_pillow(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImage("damaged: the TIFF decoder gives up")
    pixels = eight_bit(pixels[:, :, 2::-1], "TIFF")
    return upright(pixels, valid_orientation(tags)), "tiff 16 bit"


def decode_pillow(data: bytes) -> tuple[np.ndarray, str]:
    """The first frame by Pillow, size checked before anything is decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=PILLOW_NAMES) as image:
                claims.check_plain_claim(image.format, *image.size, data)
                note = image.format.lower() + (" 16 bit" if image.mode in WIDE_MODES else "")
                image.load()
                return pillow_pixels(ImageOps.exif_transpose(image)), note
    except UnidentifiedImageError:
        if data[:4] in TIFF and tiff_tags(data, (claims.WIDTH,)):
            raise UnreadableImage("unreadable: a TIFF of a kind that is not read") from None
        raise UnreadableImage(
            f"damaged: its header makes no sense (begins with {data[:8]!r})"
        ) from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too large: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError) as error:
        kind = "truncated" if "truncated" in str(error).lower() else "damaged"
        if "unknown raw mode" in str(error):
            kind = "unreadable"
        raise UnreadableImage(f"{kind}: {' '.join(str(error).split())[:120]}") from None


def pillow_pixels(image) -> np.ndarray:
    """A loaded Pillow image as uint8 gray or BGR."""
    if image.mode in GRAY_MODES:
        return np.asarray(image.convert("L"))
    if image.mode not in WIDE_MODES:
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])

    # Pillow holds 16-bit gray in 32 bits; anything else that is wide is stretched.
    values = np.asarray(image)
    whole = values.dtype.kind != "f" and values.size
    if whole and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)
    return eight_bit(values, "image")
