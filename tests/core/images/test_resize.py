"""The resize specification: exactness, one decode for every size, and equal pixels in training and
at inference."""

import io
from itertools import product

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.task import Resize
from pipeline.core.images import area
from pipeline.core.images.area import area_mean, cells
from pipeline.core.images.decoding import jpeg
from pipeline.core.images.decoding.decode import decode
from pipeline.core.images.prepared import prepare_one, stamp_of
from pipeline.core.images.resize import resized, scale_for, to_jpeg
from pipeline.core.images.views import read_prepared_image
from pipeline.core.raw.unreadable import UnreadableImage
from tests.cases.network_input import network_input

FITS = ("square", "short", "long")


def photograph(height: int, width: int, gray: bool = False, quality: int = 90) -> bytes:
    """A JPEG with fine and coarse structure, about one bit a pixel."""
    rng = np.random.default_rng(height * width)
    out = np.zeros((height, width, 3), np.float32)
    for octave in (4, 8, 16, 32, 64, 128):
        noise = rng.standard_normal((octave, octave, 3)).astype(np.float32)
        out += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / octave**0.9
    pixels = np.clip(128 + 110 * out, 0, 255).astype(np.uint8)
    pixels = pixels[:, :, 0] if gray else pixels
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


LARGE = photograph(1203, 1801)
SMALL = photograph(130, 97)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((first.astype(float) - second) ** 2), 1e-12))


def test_exact_is_the_mean_of_the_full_decode():
    full = cv2.imdecode(np.frombuffer(LARGE, np.uint8), cv2.IMREAD_COLOR)
    made, image = resized(LARGE, (96, 200), Resize(fit="square", exact=True, largest=96))
    assert image.scale == 1
    for size in (96, 200):
        assert np.array_equal(made[size], area_mean(full, cells(size, 1203), cells(size, 1801)))


@pytest.mark.parametrize("fit, channels", list(product(FITS, (1, 3))))
def test_a_scaled_decode_keeps_55_db(fit, channels):
    quick, image = resized(LARGE, (64, 112), Resize(fit=fit, channels=channels, largest=112))
    exact, _ = resized(LARGE, (64, 112), Resize(fit=fit, channels=channels, exact=True))
    assert image.scale > 1
    for size in (64, 112):
        assert psnr(quick[size], exact[size]) > 55


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("sides", [(90, 131), (131, 90), (40, 40), (1, 50), (70, 3)])
def test_shape_and_geometry(fit, sides):
    """A black image with a white centre stays centred; padding has its own level."""
    pixels = np.zeros(sides, np.uint8)
    made = resized(pixels, (64,), Resize(fit=fit, channels=1, pad=77))[0][64]
    assert made.shape == (64, 64)
    short, long = sorted(sides)
    padded = (made == 77).mean()
    assert padded == (1 - max(1, short * 64 // long) / 64 if fit == "long" else 0)
    assert (
        np.array_equal(made[::-1, ::-1] == 77, made == 77) or (64 - max(1, short * 64 // long)) % 2
    )


def test_short_takes_the_centre():
    pixels = np.zeros((60, 100), np.uint8)
    pixels[:, 20:80] = 200
    assert (resized(pixels, (30,), Resize(fit="short", channels=1))[0][30] == 200).all()
    # An odd margin: the crop begins and ends in the middle of a pixel.
    pixels = np.zeros((60, 101), np.uint8)
    pixels[:, 20:81] = 200
    assert (resized(pixels, (60,), Resize(fit="short", channels=1))[0][60] == 200).all()


def test_long_is_the_organisers_arithmetic():
    """CheXpert's own helper makes 262 x 320 of 2320 x 2828; its small set, short side 320, is
    another scale."""
    resize = Resize(fit="long", channels=1, pad=0)
    made = resized(np.full((2320, 2828), 9, np.uint8), (320,), resize)[0][320]
    assert ((made == 9).any(axis=1).sum(), (made == 9).any(axis=0).sum()) == (262, 320)


SOURCES = {
    "large colour": LARGE,
    "large gray": photograph(1160, 1414, gray=True),
    "small": SMALL,
    "png": cv2.imencode(
        ".png", np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    )[1].tobytes(),
    "array": np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8),
}


@pytest.mark.parametrize("fit, channels, kind", list(product(FITS, (1, 3), SOURCES)))
def test_inference_sees_the_pixels_that_training_saw(fit, channels, kind, tmp_path):
    """Prepared at three sizes and read as training reads; against one size from the raw file,
    anywhere."""
    resize = Resize(fit=fit, channels=channels, largest=128)
    source = SOURCES[kind]
    for size, pixels in resized(source, (48, 128, 200), resize)[0].items():
        path = tmp_path / f"{size}.jpg"
        path.write_bytes(to_jpeg(pixels, resize))
        trained = read_prepared_image(PreparedImage(path), channels)
        assert trained.shape == (size, size, channels)
        assert np.array_equal(network_input(source, size, resize), trained)


def test_prepare_writes_what_inference_makes(tmp_path):
    (tmp_path / "x.jpg").write_bytes(LARGE)
    for size in (48, 64):
        (tmp_path / "images" / str(size)).mkdir(parents=True)
    resize = Resize(fit="short", channels=3)
    job = ("a", "x.jpg", stamp_of(tmp_path, "x.jpg"))
    prepare_one(job, tmp_path, tmp_path / "images", (48, 64), resize)
    for size in (48, 64):
        path = tmp_path / "images" / str(size) / "a.jpg"
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.array_equal(network_input(LARGE, size, resize), stored)


@pytest.mark.parametrize("kind", SOURCES)
def test_without_numba_and_simplejpeg_the_pixels_are_the_same(kind, monkeypatch):
    fast = resized(SOURCES[kind], (48, 128), Resize(fit="short"))[0]
    monkeypatch.setattr(area, "kernel", lambda: None)
    monkeypatch.setattr(jpeg, "strict_decoder", lambda: None)
    slow = resized(SOURCES[kind], (48, 128), Resize(fit="short"))[0]
    assert all(np.array_equal(fast[size], slow[size]) for size in fast)


def header(height: int, width: int) -> jpeg.Header:
    return jpeg.Header(height, width, 3, 1, 0)


@pytest.mark.parametrize(
    "sides, target, bits, fit, scale",
    [
        ((4000, 6000), 768, 1.0, "square", 2),
        ((4000, 6000), 384, 1.0, "square", 4),
        ((4000, 6000), 200, 1.0, "short", 8),
        ((4000, 6000), 0, 1.0, "square", 1),
        ((4000, 6000), 768, 2.5, "square", 1),
        ((1080, 1920), 768, 1.0, "square", 1),
        ((2320, 2828), 320, 1.0, "square", 2),
        ((1000, 4000), 768, 1.0, "square", 1),
        ((1000, 4000), 768, 1.0, "long", 2),
    ],
)
def test_scale(sides, target, bits, fit, scale):
    size = int(bits * sides[0] * sides[1] / 8)
    assert scale_for(header(*sides), size, target, Resize(fit=fit)) == scale


def test_upright_before_anything_else():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(LARGE)).save(file, "JPEG", quality=95, exif=exif)
    made, image = resized(file.getvalue(), (64,), Resize(fit="long", channels=1))
    assert (image.width, image.height) == (1203, 1801)
    assert (made[64][:, 0] == 0).all() and made[64][0].any()
    assert decode(file.getvalue()).pixels.shape == (1801, 1203, 3)


def test_what_cannot_be_read_raises():
    for source in (b"text", np.zeros((3, 0), np.uint8)):
        with pytest.raises(UnreadableImage):
            resized(source, (32,), Resize())
