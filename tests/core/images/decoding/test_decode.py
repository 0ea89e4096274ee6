"""Every kind of image file against an independent reader (Pillow), damage of every kind, and
bombs."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.core.images.decoding import jpeg
from pipeline.core.images.decoding.decode import decode
from pipeline.core.images.decoding.jpeg import decode_jpeg, read_jpeg_header
from pipeline.core.raw.unreadable import UnreadableImage


def photograph(height: int = 90, width: int = 131) -> np.ndarray:
    """A smooth RGB image without symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x * y) % 251], axis=2).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    """Upright pixels: gray (h, w) where the file is gray, else BGR."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))[:, :, ::-1]


RGB = Image.fromarray(photograph())
FILES = {
    "jpeg": saved(RGB, "JPEG", quality=90),
    "jpeg gray": saved(RGB.convert("L"), "JPEG"),
    "jpeg progressive": saved(RGB, "JPEG", progressive=True),
    "jpeg 4:4:4": saved(RGB, "JPEG", subsampling=0),
    "jpeg stored as RGB": saved(RGB, "JPEG", keep_rgb=True),
    "jpeg CMYK, Adobe's": saved(RGB.convert("CMYK"), "JPEG"),
    "png": saved(RGB, "PNG"),
    "png gray": saved(RGB.convert("L"), "PNG"),
    "png 1 bit": saved(RGB.convert("1"), "PNG"),
    "png palette": saved(RGB.quantize(17), "PNG"),
    "png palette, transparent": saved(RGB.quantize(17), "PNG", transparency=3),
    "png gray alpha": saved(RGB.convert("LA"), "PNG"),
    "png alpha": saved(Image.fromarray(np.dstack([photograph(), photograph()[:, :, :1]])), "PNG"),
    "png animated": saved(
        RGB, "PNG", save_all=True, append_images=[RGB.rotate(90).resize(RGB.size)]
    ),
    "tiff": saved(RGB, "TIFF"),
    "tiff gray, LZW": saved(RGB.convert("L"), "TIFF", compression="tiff_lzw"),
    "tiff JPEG": saved(RGB, "TIFF", compression="jpeg"),
    "tiff CMYK": saved(RGB.convert("CMYK"), "TIFF"),
    "tiff of two pages": saved(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)]),
    "bmp": saved(RGB, "BMP"),
    "gif": saved(RGB.quantize(30), "GIF"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "jpeg 2000": saved(RGB, "JPEG2000"),
    "ppm": saved(RGB, "PPM"),
}


@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_those_of_an_independent_reader(kind):
    image = decode(FILES[kind])
    wanted = by_pillow(FILES[kind])
    assert image.pixels.dtype == np.uint8 and image.pixels.flags.c_contiguous
    assert (image.width, image.height, image.scale) == (131, 90, 1)
    assert np.array_equal(image.pixels, wanted)


@pytest.mark.parametrize("kind", FILES)
def test_gray_is_luma(kind):
    gray = decode(FILES[kind], gray=True).pixels
    image = Image.open(io.BytesIO(FILES[kind]))
    if image.format == "JPEG":
        image.draft("L", image.size)  # the stored luma itself
    colours = (
        by_pillow(FILES[kind]) if image.mode not in ("L", "LA") else np.asarray(image.convert("L"))
    )
    luma = colours @ [0.114, 0.587, 0.299] if colours.ndim == 3 else colours
    assert gray.shape == (90, 131)
    assert np.abs(gray - luma).max() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(RGB, kind, exif=exif)
    image = decode(data)
    assert np.array_equal(image.pixels, by_pillow(data))
    assert (image.width, image.height) == ((131, 90) if orientation < 5 else (90, 131))


def sixteen(values: np.ndarray, kind: str) -> bytes:
    done, data = cv2.imencode(f".{kind}", values)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize(
    "top, full", [(65535, 65535), (4096, 65535), (4095, 4095), (300, 4095), (255, 255)]
)
def test_sixteen_bits_become_eight(kind, top, full):
    values = np.linspace(0, top, 60 * 70).round().astype(np.uint16).reshape(60, 70)
    assert np.array_equal(
        decode(sixteen(values, kind)).pixels, (values * 255.0 / full + 0.5).astype(np.uint8)
    )


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_of_colour(kind):
    values = photograph().astype(np.uint16) * 257
    assert np.array_equal(decode(sixteen(values, kind)).pixels, photograph())


def test_arrays_as_hdf5_sets_hold_them():
    assert np.array_equal(decode(photograph()).pixels, photograph()[:, :, ::-1])
    assert np.array_equal(decode(photograph()[:, :, :1]).pixels, photograph()[:, :, 0])
    assert np.array_equal(decode(np.array([[0.0, 1.0], [0.5, 0.25]])).pixels, [[0, 255], [128, 64]])
    for wrong in (
        np.zeros((2, 3, 4, 5), np.uint8),
        np.zeros((0, 5), np.uint8),
        np.array([[np.nan, 1.0]]),
        np.zeros((4, 4), "U3"),
    ):
        with pytest.raises(UnreadableImage):
            decode(wrong)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg gray", "jpeg progressive", "jpeg 4:4:4", "jpeg stored as RGB"]
)
def test_both_jpeg_decoders_give_the_same_pixels(kind, scale, monkeypatch):
    pytest.importorskip("simplejpeg")
    data = FILES[kind]
    header = read_jpeg_header(data)
    fast = [decode_jpeg(data, header, gray, scale) for gray in (True, False)]
    monkeypatch.setattr(jpeg, "strict_decoder", lambda: None)
    for gray, pixels in zip((True, False), fast):
        assert np.array_equal(decode_jpeg(data, header, gray, scale), pixels)
        assert pixels.shape[:2] == (-(-90 // scale), -(-131 // scale))


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as raised:
        decode(data)
    return str(raised.value)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def resized_header(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header claims other sides."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


BAD = {
    "empty": (b"", "empty"),
    "text": (b"image_id,file\n1,2\n", "not an image"),
    "html": (b"<html><body>404</body></html>", "not an image"),
    "zeros": (bytes(5000), "not an image"),
    "jpeg cut in half": (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "truncated"),
    "jpeg cut in its header": (FILES["jpeg"][:100], "truncated"),
    "jpeg, first bytes only": (FILES["jpeg"][:3], "truncated"),
    "jpeg, zeros in the middle": (
        FILES["jpeg"][:1500] + bytes(1100) + FILES["jpeg"][2600:],
        "damaged",
    ),
    "jpeg without rows": (resized_header(FILES["jpeg"], 131, 0), "no pixels"),
    "jpeg bomb": (resized_header(FILES["jpeg"], 65500, 65500), "too large"),
    "jpeg of 12 bits": (
        FILES["jpeg"].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"),
        "a JPEG of 12 bits",
    ),
    "jpeg, lossless": (FILES["jpeg"].replace(b"\xff\xc0", b"\xff\xc3"), "a JPEG of a kind"),
    "jpeg of 2,000 scans": (
        FILES["jpeg progressive"][:-2]
        + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 2000
        + b"\xff\xd9",
        "too large",
    ),
    "png cut in half": (FILES["png"][: len(FILES["png"]) // 2], "truncated"),
    "png, one byte wrong": (FILES["png"][:200] + b"\x99" + FILES["png"][201:], "damaged"),
    "png without data": (png_of(10, 10), "no pixels"),
    "png bomb": (png_of(60000, 60000, chunk(b"IDAT", zlib.compress(bytes(10000)))), "too large"),
    "png that unpacks to less": (
        png_of(50, 50, chunk(b"IDAT", zlib.compress(bytes(10)))),
        "damaged",
    ),
    "tiff cut in half": (FILES["tiff"][: len(FILES["tiff"]) // 2], "truncated"),
    "gif bomb": (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b"\x2c"
        + bytes(9)
        + b"\x02\x00\x3b",
        "too large",
    ),
    "tiff bomb": (
        struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<H", 5)
        + b"".join(
            struct.pack("<HHII", tag, 4, 1, value)
            for tag, value in ((256, 200000), (257, 200000), (258, 16), (273, 8), (277, 3))
        )
        + bytes(4),
        "too large",
    ),
    "webp cut": (FILES["webp"][:60], ""),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_image_says_why(name):
    data, start = BAD[name]
    assert reason(data).startswith(start)


def test_a_jpeg_that_lacks_only_its_end_marker_is_whole():
    assert np.array_equal(decode(FILES["jpeg"][:-2]).pixels, decode(FILES["jpeg"]).pixels)


def test_trailing_bytes_do_no_harm():
    assert np.array_equal(decode(FILES["jpeg"] + b"\0" * 77).pixels, decode(FILES["jpeg"]).pixels)


@pytest.mark.parametrize("height, width", [(1, 50_000), (50_000, 1), (1, 1)])
def test_strips_and_dots(height, width):
    values = (np.arange(height * width) % 256).astype(np.uint8).reshape(height, width)
    assert np.array_equal(decode(sixteen(values, "png")).pixels, values)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(set(FILES) - {"jpeg 2000"})), st.data())
def test_damage_never_gets_past(kind, data):
    """Whatever bytes are changed or missing: an image of the claimed size, or UnreadableImage;
    nothing else."""
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        image = decode(content)
    except UnreadableImage as unreadable:
        assert str(unreadable)
    else:
        assert image.pixels.shape[:2] == (image.height, image.width)
