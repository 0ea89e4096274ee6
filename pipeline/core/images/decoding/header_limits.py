"""What the header of an image file claims, held against the file before a decoder believes it.

A decoder allocates what the header asks for. Each check raises UnreadableImage where the sides are
too large for memory, or where the file is too short to hold so many pixels even when all of them
are alike.
"""

import math
import struct

from pipeline.core.images.decoding.jpeg import tiff_tags
from pipeline.core.raw.unreadable import UnreadableImage, check_sides

# Bytes that a byte of deflated data gives at most: 258 for two bits.
DEFLATE = 1032
# Pixels a byte of a JPEG gives at most: each block of 8 x 8 has a bit of its own.
JPEG = 512
# Pixels a byte of QOI gives at most: the longest run.
QOI = 62

# TIFF: tags, and how many bytes a byte gives at most under the compressions that have a bound.
WIDTH = 256
HEIGHT = 257
BITS = 258  # a sample
COMPRESSION = 259
PHOTOMETRIC = 262
SAMPLES = 277  # a pixel
PLANAR = 284
TIFF_EXPANDS = {1: 1, 8: DEFLATE, 32773: 64, 32946: DEFLATE}

BMP_PLAIN = (0, 3)  # BMP's compressions that are none

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {
    0xC4,
    0xC8,
    0xCC,
}  # start of frame: JPEG's and JPEG-LS's
MOST_TILES = 65535  # of a JPEG 2000 image, by its standard


def check_claim(width: int, height: int, held: float, most: float) -> None:
    """Raise UnreadableImage for sides that are out of bounds, or more pixels than `held` bytes
    give, at `most` pixels a byte."""
    check_sides(width, height)
    if width * height > most * held:
        raise UnreadableImage(
            f"truncated: {held:,} bytes of image data cannot hold {width} x {height} pixels"
        )


def check_png_claim(data: bytes) -> None:
    """A PNG of at least its header: the sum of its IDAT chunks against the sides."""
    width, height, depth, colour_type = struct.unpack_from(">IIBB", data, 16)
    check_sides(width, height)
    held = 0
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"IDAT", b"fdAT"):
            held += min(length, len(data) - position - 12)
        position += 12 + length
    bits = depth * PNG_SAMPLES.get(colour_type, 1)
    if held:  # a PNG without data is told as such by whoever reads its chunks
        check_claim(width, height, held, DEFLATE * 8 / max(1, bits))


def check_tiff_claim(data: bytes) -> None:
    """A TIFF whose compression has a bound: the length of the file against the sides."""
    tags = tiff_tags(data, (WIDTH, HEIGHT, BITS, COMPRESSION, SAMPLES))
    width = tags.get(WIDTH, 0)
    height = tags.get(HEIGHT, 0)
    check_sides(width, height)
    expands = TIFF_EXPANDS.get(tags.get(COMPRESSION, 1))
    if expands:
        bits = tags.get(BITS, 1) * tags.get(SAMPLES, 1)
        check_claim(width, height, len(data), expands * 8 / max(1, bits))


def check_plain_claim(kind: str, width: int, height: int, data: bytes) -> None:
    """A PNM or BMP, by Pillow's name of its kind: uncompressed, a pixel takes a bit at least."""
    plain = kind == "PPM" or (kind == "BMP" and data[30] in BMP_PLAIN)
    check_claim(width, height, len(data), 8 if plain else math.inf)


def check_webp_claim(data: bytes) -> None:
    """A WebP: its sides alone, since one colour takes no bytes; Pillow allocates when it opens
    one."""
    if len(data) < 30 or data[8:12] != b"WEBP":
        return
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width = 1 + (bits & 0x3FFF)
        height = 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    check_sides(width, height)


def check_qoi_claim(data: bytes) -> None:
    """A QOI: its length against the sides."""
    if len(data) >= 14:
        width, height = struct.unpack_from(">II", data, 4)
        check_claim(width, height, len(data), QOI)


def check_jpeg2000_claim(data: bytes) -> None:
    """A JPEG 2000, in its box or bare: its sides and tiles, since one colour takes no bytes."""
    sides = codestream_sides(data)
    if sides:
        check_sides(*sides)


def codestream_sides(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG, JPEG-LS or JPEG 2000 stream claims; None where it is none.

    UnreadableImage for a JPEG 2000 of more tiles than its standard allows, each of which costs
    memory.
    """
    place = data.find(b"\xff\x4f\xff\x51")
    if place >= 0 and data[:2] != b"\xff\xd8":
        return jpeg2000_sides(data, place)
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            return None
        if marker == 0xFF:
            position += 1
            continue
        if marker in FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def jpeg2000_sides(data: bytes, place: int) -> tuple[int, int] | None:
    """(width, height) of the SIZ segment of the JPEG 2000 codestream that begins at `place`."""
    if place + 40 > len(data):
        return None
    # Right and bottom edge, left and top edge, then the same of the tiles: sides and first corner.
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", data, place + 8)
    width = right - left
    height = bottom - top
    if tile_width and tile_height:
        tiles = -(-width // tile_width) * -(-height // tile_height)
        if tiles > MOST_TILES:
            raise UnreadableImage(f"too large: a JPEG 2000 of {tiles:,} tiles")
    return width, height
