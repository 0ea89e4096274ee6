"""DICOM pixels as a display would show them, in 8 bits.

Rescale (modality LUT), then the first VOI LUT or window, then MONOCHROME1 inverted. The window maps
to 0..255 (PS3.3 C.11.2). Without one, 8-bit values stay as they are and deeper ones are stretched
from the smallest to the largest, padding values apart. YBR and palette colours become BGR. Several
frames: the first.
"""

import io
import logging
import warnings
import zlib

import numpy as np

from pipeline.core.images.pixels import blocks, looked_up, narrow, stretch
from pipeline.core.raw.unreadable import MAX_BYTES, UnreadableImage, check_sides

DEFLATED = "1.2.840.10008.1.2.1.99"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
CUT_SHORT = ("less than expected", "Unexpected end", "truncated", "No bytes")  # pydicom's words
# pydicom's warnings go into the reason, not to the terminal
logging.getLogger("pydicom").setLevel(logging.ERROR)


def decode_dicom(data: bytes) -> tuple[np.ndarray, str]:
    """(uint8 (h, w) or (h, w, 3) BGR, note). UnreadableImage gives the reason where there is no
    image."""
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.pixels import pixel_array

    try:
        check_deflated(data)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            if any("End of file reached" in str(warning.message) for warning in heard):
                raise UnreadableImage("truncated: the DICOM ends early")
            check_dicom(dataset)
            return displayed(dataset, pixel_array(dataset, index=0))
    except (
        InvalidDicomError,
        BytesLengthException,
        AttributeError,
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        NotImplementedError,
        IndexError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        text = " ".join(str(error).split())
        kind = "truncated" if any(words in text for words in CUT_SHORT) else "damaged"
        raise UnreadableImage(f"{kind}: DICOM: {text[:160]}") from None


def check_deflated(data: bytes) -> None:
    """Raise UnreadableImage for a deflated file that unpacks to more than MAX_BYTES; pydicom would
    unpack all of it."""
    if DEFLATED.encode() not in data[:1024]:
        return
    from pydicom.filereader import read_preamble, _read_file_meta_info  # noqa: I001

    file = io.BytesIO(data)
    read_preamble(file, force=True)
    _read_file_meta_info(file)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(unpacker.decompress(file.read(), MAX_BYTES + 1)) > MAX_BYTES:
        raise UnreadableImage("too large: the deflated DICOM unpacks to more than 1 GiB")


def check_dicom(dataset) -> None:
    """Raise UnreadableImage when there are no pixels, or too many."""
    if not any(name in dataset for name in PIXELS):
        raise UnreadableImage("no pixels: the DICOM has no pixel data")
    for name in ("Rows", "Columns"):
        if not isinstance(dataset.get(name), int):
            raise UnreadableImage(f"no pixels: the DICOM does not say its {name}")
    check_sides(dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1))


def displayed(dataset, values: np.ndarray) -> tuple[np.ndarray, str]:
    """Samples as a display shows them: (uint8 gray or BGR, note)."""
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        colours = values if values.dtype == np.uint8 else narrow(values.astype(np.uint16))
        return np.ascontiguousarray(colours[:, :, 2::-1]), "dicom colour"
    gray, note = gray_levels(dataset, values)
    if photometric == "MONOCHROME1":  # its smallest value is white
        return 255 - gray, f"{note} inverted"
    return gray, note


def gray_levels(dataset, values: np.ndarray) -> tuple[np.ndarray, str]:
    """One channel as 0..255, before MONOCHROME1 is inverted."""
    if values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        return windowed(dataset, values, values)

    # Integers of up to 16 bits go through a table of all their values, so that rescale and window
    # are computed for 65,536 values rather than for every pixel.
    limits = np.iinfo(values.dtype)
    possible = np.arange(limits.min, limits.max + 1).astype(values.dtype)
    present = np.zeros(len(possible), bool)
    for rows in blocks(values):
        present[values[rows].astype(np.int64) - limits.min] = True
    table, note = windowed(dataset, possible, possible[present])
    table = np.roll(table, limits.min)  # a negative value then finds its place from the end
    return looked_up(values, table), note


def windowed(dataset, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, str]:
    """(0..255 for stored values, note): by VOI LUT, by window, as they are, or from the smallest to
    the largest `present`."""
    from pydicom.pixels import apply_modality_lut

    levels = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        return voi_table(dataset, levels), "dicom voi lut"
    centre = first(dataset.get("WindowCenter"))
    width = first(dataset.get("WindowWidth"))
    if centre is not None and width is not None and width > 0:
        shape = str(dataset.get("VOILUTFunction", "LINEAR"))
        return window(levels, centre, width, shape), "dicom window"
    if int(dataset.get("BitsStored", 16)) == 8 and not rescaled(dataset):
        return np.clip(levels, 0, 255).astype(np.uint8), "dicom 8 bit"

    # No window: the range of the values that occur, without those that only pad.
    padding = dataset.get("PixelPaddingValue")
    real = present[present != padding] if isinstance(padding, int) else present
    shown = apply_modality_lut(real if len(real) else present, dataset)
    return stretch(np.clip(levels, shown.min(), shown.max())), "dicom min to max"


def rescaled(dataset) -> bool:
    """True when values are not the stored ones."""
    return bool(dataset.get("ModalityLUTSequence")) or "RescaleSlope" in dataset


def first(value) -> float | None:
    """The first of one or several values, None when there is none or it is not a number."""
    if value is None or value == "":
        return None
    try:
        return float(value) if isinstance(value, (str, int, float)) else float(value[0])
    except (TypeError, ValueError, IndexError):
        return None


def window(values: np.ndarray, centre: float, width: float, shape: str) -> np.ndarray:
    """0..255 by the VOI function LINEAR, LINEAR_EXACT or SIGMOID of PS3.3 C.11.2."""
    values = values.astype(np.float64)
    if shape == "SIGMOID":
        level = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    elif shape == "LINEAR_EXACT":
        level = (values - centre) / width + 0.5
    elif width <= 1:
        level = values > centre - 0.5
    else:
        level = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.floor(np.clip(level, 0, 1) * 255 + 0.5).astype(np.uint8)


def voi_table(dataset, values: np.ndarray) -> np.ndarray:
    """0..255 by the first VOI LUT."""
    from pydicom.pixels import apply_voi

    table = dataset.VOILUTSequence[0]
    largest = (1 << int(table.LUTDescriptor[2])) - 1
    levels = apply_voi(values.astype(np.int64), dataset, index=0)
    return np.floor(np.clip(levels / largest, 0, 1) * 255 + 0.5).astype(np.uint8)
