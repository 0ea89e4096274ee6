"""DICOM as a display shows it, against values worked out by hand and pydicom's own VOI
functions."""

import base64
import struct

import numpy as np
import pytest

from pipeline.core.images.decoding import dicom
from pipeline.core.images.decoding.decode import decode
from pipeline.core.raw.unreadable import UnreadableImage

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from tests.cases.dicoms import RAMP, made, written  # noqa: E402

Y, X = np.mgrid[0:8, 0:12]
STEEP = ((300 * Y + 17 * X * X) % 4096).astype(np.uint16)
SMOOTH = (200 * Y + 100 * X).astype(np.uint16)
# Each of them by an encoder that is none of the decoders here: CharLS, liblj92, libjpeg-turbo.
JPEG_LS = base64.b64decode(
    "/9j/9wALDAAIAAwBAREA/9oACAEBAAAAALCyml1laDqLd+Sdl9N+ALGJmNTsK48BZAPwAhFWAFgAWMDJoPEUizNQ/hPipFWKteYst2EaVxnn6J0U"
    "4qhVPGDGc5EFSZR+EbJKKkVLpewXEQZSGKfZGSRioFQ4XLxuv4nzAPoi5ISTknbLVu2HyTRdnyRUj5Jg/9k="
)
JPEG_LS_NEAR = base64.b64decode(  # at most 2 off
    "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAMChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgADAEBEQD/+AANAf//"
    "ABgATQEiAED/2gAIAQEAAgAAoLFZDLb2k6/L4/6LvEGi0irrzKWGS5Xi8XiGlMGz0kKjFdLxeLxDSlzV4RlLk9Pb"
    "49o1S1q6IihyeXt7fESpY0ckJOWvL29vaJUrZOX5MWPL09vaSlUxcPiRyeHsADvA/9k="
)
LOSSLESS = base64.b64decode(
    "/9j/xAAZAAEBAQEBAQAAAAAAAAAAAAAICQcMBQb/wwALDAAIAAwBABEA/9oACAEAAAYAAOf/APR+z1Xd0yu26/6Q"
    "1DrLSxLJZLJZLJZLJZLJZLUsSyWSyWSyWSyWSyWS1LEslkslkslkslkslktSxLJZLJZLJZLJZLJZLUsSyWSyWSyW"
    "SyWSyWS1LEslkslkslkslkslktSxLJZLJZLJZLJZLJbglf/Z"
)
TWELVE_BITS = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQH/wQALDAAIAAwBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADf/EACEQAAAE"
    "BQUAAAAAAAAAAAAAAAAMKUcGCAoLZThUVmZ0/9oACAEBAAA/AAM+xwkcLSAkFwZjfBggqMUkpHCRBlgSC3zG9fhT"
    "BD//2Q=="
)


def shown(dataset: Dataset) -> np.ndarray:
    return decode(written(dataset)).pixels


def test_without_a_window_deep_values_go_from_smallest_to_largest():
    assert np.array_equal(shown(made(RAMP)), np.floor(RAMP / 4095 * 255 + 0.5))
    values = RAMP // 4 + 700
    assert shown(made(values)).min() == 0 and shown(made(values)).max() == 255


def test_monochrome1_is_inverted():
    upside = shown(made(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(upside, 255 - shown(made(RAMP)))


def test_eight_bits_stay():
    values = (RAMP % 200 + 20).astype(np.uint8)
    assert np.array_equal(shown(made(values, 8)), values)


def test_padding_is_no_value():
    values = RAMP // 8 + 1000
    values[0, :8] = 0
    wanted = np.floor(np.clip((values - 1001.0) / 510, 0, 1) * 255 + 0.5)
    assert np.array_equal(shown(made(values, PixelPaddingValue=0)), wanted)


@pytest.mark.parametrize("centre, width", [(2000, 1000), (100, 4000), (2048.5, 4096), (1000, 1)])
@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_are_pydicoms(centre, width, shape):
    from pydicom.pixels import apply_voi_lut

    dataset = made(RAMP, WindowCenter=centre, WindowWidth=width, VOILUTFunction=shape)
    wanted = apply_voi_lut(RAMP, dataset) / 4095 * 255
    assert np.abs(shown(dataset) - wanted).max() <= 0.5 + 1e-9


def test_the_first_of_several_windows_counts():
    several = made(RAMP, WindowCenter=[2000, 50], WindowWidth=[1000, 10])
    assert np.array_equal(shown(several), shown(made(RAMP, WindowCenter=2000, WindowWidth=1000)))


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_is_none(width):
    assert np.array_equal(
        shown(made(RAMP, WindowCenter=2000, WindowWidth=width)), shown(made(RAMP))
    )


def test_signed_values_and_rescale_come_before_the_window():
    values = RAMP.astype(np.int16) - 2048
    dataset = made(values, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=40, WindowWidth=400)
    level = np.clip((values * 2.0 - 10 - 39.5) / 399 + 0.5, 0, 1)
    assert np.array_equal(shown(dataset), np.floor(level * 255 + 0.5))


def test_voi_table():
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = ((255 - np.arange(4096) // 16) * 257).astype("<u2").tobytes()
    table["LUTData"].VR = "OW"
    dataset = made(RAMP, VOILUTSequence=Sequence([table]), WindowCenter=1, WindowWidth=2)
    assert np.array_equal(shown(dataset), 255 - RAMP // 16)


def test_colour_is_bgr():
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(shown(made(values, 8)), values[:, :, ::-1])


def test_ybr_becomes_bgr():
    ybr = np.zeros((10, 12, 3), np.uint8)
    ybr[:] = (81, 91, 240)  # full-range YCbCr of R = 81 + 1.402 * 112, and so on
    pixels = shown(made(ybr, 8, PhotometricInterpretation="YBR_FULL"))
    wanted = np.array([81 + 1.772 * -37, 81 - 0.344136 * -37 - 0.714136 * 112, 81 + 1.402 * 112])
    assert np.abs(pixels[0, 0] - wanted).max() < 1


def test_palette():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tags = {}
    for colour, shift in (("Red", 0), ("Green", 50), ("Blue", 100)):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = (
            ((np.arange(256) + shift) % 256 * 257).astype("<u2").tobytes()
        )
    pixels = shown(made(values, 8, PhotometricInterpretation="PALETTE COLOR", **tags))
    assert np.array_equal(
        pixels, np.stack([values + np.uint8(shift) for shift in (100, 50, 0)], axis=2)
    )


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_syntaxes_give_the_same(syntax):
    dataset = made(RAMP)
    dataset.compress(syntax)
    assert np.array_equal(shown(dataset), shown(made(RAMP)))


def compressed(frame: bytes, syntax: str, values: np.ndarray, **tags) -> Dataset:
    """A dataset with one compressed frame, of these values."""
    dataset = made(values, **tags)
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


@pytest.mark.parametrize(
    "frame, syntax, values, off",
    [
        (JPEG_LS, uid.JPEGLSLossless, STEEP, 0),
        (JPEG_LS_NEAR, uid.JPEGLSNearLossless, STEEP, 2),
        (LOSSLESS, uid.JPEGLossless, STEEP, 0),
        (LOSSLESS, uid.JPEGLosslessSV1, STEEP, 0),
        (TWELVE_BITS, uid.JPEGExtended12Bit, SMOOTH, 0),
    ],
)
def test_jpegs_of_twelve_bits(frame, syntax, values, off):
    # A window as wide as the values are: the levels differ by no more than the samples.
    window = dict(WindowCenter=2048, WindowWidth=4096)
    pixels = shown(compressed(frame, syntax, values, **window)).astype(int)
    assert np.abs(pixels - shown(made(values, **window))).max() <= np.ceil(off / 16)


@pytest.mark.parametrize(
    "syntax, package",
    [
        (uid.JPEGLosslessSV1, "python-gdcm"),
        (uid.JPEGExtended12Bit, "python-gdcm"),
        (uid.JPEG2000Lossless, "pylibjpeg-openjpeg"),
    ],
)
def test_a_decoder_that_is_not_installed_is_named(monkeypatch, syntax, package):
    monkeypatch.setitem(dicom.MODULES, package, "not_installed_here")
    frame = compressed(LOSSLESS, syntax, STEEP)
    assert reason(written(frame)).endswith(f"needs the package {package}")


EMPTY = (
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "ModalityLUTSequence"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue", "NumberOfFrames"),
    *("PixelAspectRatio", "ICCProfile", "PatientName", "StudyDate", "ReferencedImageSequence"),
)


def test_an_empty_attribute_is_an_absent_one():
    for name in EMPTY:
        assert np.array_equal(shown(made(RAMP, **{name: None})), shown(made(RAMP))), name
    assert np.array_equal(shown(made(RAMP, **dict.fromkeys(EMPTY))), shown(made(RAMP)))


def test_deflated_and_without_preamble():
    dataset = made(RAMP)
    bare = written(dataset)[132:]
    assert np.array_equal(decode(bare).pixels, shown(dataset))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert np.array_equal(shown(dataset), shown(made(RAMP)))


def test_several_frames_give_the_first():
    both = made(np.concatenate([RAMP, RAMP[::-1]]))
    both.Rows = 64
    both.NumberOfFrames = 2
    assert np.array_equal(shown(both), shown(made(RAMP)))


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as raised:
        decode(data)
    return str(raised.value)


def test_what_gives_no_image_says_why():
    whole = made(RAMP)
    assert reason(written(whole)[:2000]).startswith("truncated")
    for name in ("PixelData", "Rows", "Columns"):
        dataset = made(RAMP)
        delattr(dataset, name)
        assert reason(written(dataset)).startswith("no pixels")
    assert reason(written(made(RAMP, Rows=60000, Columns=60000))).startswith("too large")
    jpeg = made(RAMP)
    jpeg.compress(JPEG2000Lossless)
    content = written(jpeg)
    place = content.index(b"\xff\x4f\xff\x51")
    assert reason(content[: place + 40] + bytes(len(content) - place - 40)).startswith(
        ("damaged", "truncated")
    )
    assert reason(bytes(128) + b"DICM").startswith("no pixels")
    assert reason(bytes(128) + b"DICM" + struct.pack("<HH", 2, 0)).startswith(
        ("no pixels", "damaged", "truncated")
    )
