"""DICOM as a display shows it, against values worked out by hand and pydicom's own VOI
functions."""

import base64
import io
import struct

import numpy as np
import pytest

from pipeline.core.images.decode import decode
from pipeline.core.raw.unreadable import UnreadableImage

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

# (300 * y + 17 * x * x) % 4096 for y < 8, x < 12, written by CharLS
JPEG_LS = base64.b64decode(
    "/9j/9wALDAAIAAwBAREA/9oACAEBAAAAALCyml1laDqLd+Sdl9N+ALGJmNTsK48BZAPwAhFWAFgAWMDJoPEUizNQ/hPipFWKteYst2EaVxnn6J0U"
    "4qhVPGDGc5EFSZR+EbJKKkVLpewXEQZSGKfZGSRioFQ4XLxuv4nzAPoi5ISTknbLVu2HyTRdnyRUj5Jg/9k="
)


def made(values: np.ndarray, stored: int = 12, **tags) -> Dataset:
    """A dataset of one image; tags override."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 3 if values.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = values.itemsize * 8
    dataset.BitsStored = stored
    dataset.HighBit = stored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(dataset: Dataset) -> np.ndarray:
    return decode(written(dataset)).pixels


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


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


def test_jpeg_ls():
    y, x = np.mgrid[0:8, 0:12]
    values = ((300 * y + 17 * x * x) % 4096).astype(np.uint16)
    dataset = made(values)
    dataset.PixelData = pydicom.encaps.encapsulate([JPEG_LS])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    assert np.array_equal(shown(dataset), shown(made(values)))


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
