"""DICOM pixels as a display would show them, in 8 bits.

Rescale (modality LUT), then the first VOI LUT or window, then MONOCHROME1 inverted. The window maps
to 0..255 (PS3.3 C.11.2). Without one, 8-bit values stay as they are and deeper ones are stretched
from the smallest to the largest, padding values apart. YBR and palette colours become BGR. Several
frames: the first.
"""

import importlib.util
import io
import logging
import warnings
import zlib

import numpy as np

from pipeline.core.images.decoding import header_limits as claims
from pipeline.core.images.decoding.pixels import blocks, looked_up, narrow, stretch
from pipeline.core.raw.unreadable import MAX_BYTES, UnreadableImage, check_sides

DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
# Which of pydicom's plugins decodes which compressed transfer syntax, and the package that it
# needs; always the same one, so that the pixels do not depend on what else is installed.
DECODERS = {
    "1.2.840.10008.1.2.5": ("pydicom", "pydicom"),  # RLE
    "1.2.840.10008.1.2.4.50": ("pillow", "pillow"),  # JPEG baseline
    JPEG_EXTENDED: ("pillow", "pillow"),  # of 8 bits; `extended_pixels` takes those of 12
    "1.2.840.10008.1.2.4.57": ("gdcm", "python-gdcm"),  # JPEG lossless
    "1.2.840.10008.1.2.4.70": ("gdcm", "python-gdcm"),  # the same, first-order prediction
    "1.2.840.10008.1.2.4.80": ("gdcm", "python-gdcm"),  # JPEG-LS
    "1.2.840.10008.1.2.4.81": ("gdcm", "python-gdcm"),  # JPEG-LS, near-lossless
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "pylibjpeg-openjpeg"),  # JPEG 2000
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.201": ("pylibjpeg", "pylibjpeg-openjpeg"),  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": ("pylibjpeg", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("pylibjpeg", "pylibjpeg-openjpeg"),
}
# The module that each package gives.
MODULES = {
    "pydicom": "pydicom",
    "pillow": "PIL",
    "python-gdcm": "gdcm",
    "pylibjpeg-openjpeg": "openjpeg",
}
IMAGE_GROUP = 0x0028  # of the attributes that describe the pixels
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
CUT_SHORT = ("less than expected", "Unexpected end", "truncated", "No bytes")  # pydicom's words
# Its words for a sound file that no decoder here reads.
NOT_READ = ("does not support", "precision of 6 or 7", "missing dependencies", "no plugins")
# pydicom's warnings go into the reason, not to the terminal
logging.getLogger("pydicom").setLevel(logging.ERROR)


def decode_dicom(data: bytes) -> tuple[np.ndarray, str]:
    """(uint8 (h, w) or (h, w, 3) BGR, note). UnreadableImage gives the reason where there is no
    image."""
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        check_deflated(data)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            if any("End of file reached" in str(warning.message) for warning in heard):
                raise UnreadableImage("truncated: the DICOM ends early")
            drop_empty(dataset)
            check_dicom(dataset)
            return displayed(dataset, stored_values(dataset))
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
        if "'NoneType' object" in text:  # of GDCM, which gives nothing where it cannot decode
            text = "the decoder gives up"
        kind = "damaged"
        if any(words in text for words in CUT_SHORT):
            kind = "truncated"
        elif any(words in text for words in NOT_READ):
            kind = "unreadable"
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


def drop_empty(dataset) -> None:
    """Remove the elements without a value: an empty optional attribute says what a missing one
    says."""
    for tag in list(dataset.keys()):
        value = dataset.get_item(tag).value  # as stored, before pydicom reads a meaning into it
        padded = isinstance(value, bytes) and tag.group == IMAGE_GROUP and not value.strip(b" ")
        if value is None or padded or (hasattr(value, "__len__") and not len(value)):
            del dataset[tag]


def stored_values(dataset) -> np.ndarray:
    """The samples of the first frame, decompressed, by the decoder of its transfer syntax."""
    from pydicom.pixels import pixel_array

    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) if has_meta(dataset) else ""
    if syntax not in DECODERS:
        return pixel_array(dataset, index=0)

    # A compressed frame says its own sides; a decoder would believe those, not the dataset's.
    frame = first_frame(dataset)
    sides = claims.codestream_sides(frame)
    if sides and sides != (dataset.Columns, dataset.Rows):
        raise UnreadableImage(
            f"damaged: DICOM: it says {dataset.Columns} x {dataset.Rows}, and the compressed image "
            f"in it {sides[0]} x {sides[1]}"
        )
    plugin, package = DECODERS[syntax]
    deep = syntax == JPEG_EXTENDED and dataset.BitsStored > 8
    if deep:
        package = "python-gdcm"
    if importlib.util.find_spec(MODULES[package]) is None:
        raise UnreadableImage(f"unreadable: DICOM: this compression needs the package {package}")
    if deep:
        return extended_pixels(dataset, frame)
    return pixel_array(dataset, index=0, decoding_plugin=plugin)


def has_meta(dataset) -> bool:
    """True where the file says how it is encoded."""
    return getattr(dataset, "file_meta", None) is not None


def first_frame(dataset) -> bytes:
    """The first compressed frame."""
    from pydicom.encaps import get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    return get_frame(dataset.PixelData, 0, number_of_frames=frames)


def extended_pixels(dataset, frame: bytes) -> np.ndarray:
    """A gray JPEG of 12 bits, which pydicom has no decoder for, by GDCM's own image."""
    import gdcm

    if dataset.SamplesPerPixel != 1:
        raise UnreadableImage("unreadable: DICOM: a colour JPEG of 12 bits a sample")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())

    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    syntax = gdcm.TransferSyntax.GetTSType(JPEG_EXTENDED)
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    stored = dataset.BitsStored
    signed = int(dataset.get("PixelRepresentation", 0))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stored, stored - 1, signed))
    samples = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM gives bytes as text
    values = np.frombuffer(samples, np.int16 if signed else np.uint16)
    return values.reshape(dataset.Rows, dataset.Columns)


def check_dicom(dataset) -> None:
    """Raise UnreadableImage when there are no pixels, or too many."""
    if not any(name in dataset for name in PIXELS):
        raise UnreadableImage("no pixels: the DICOM has no pixel data")
    for name in ("Rows", "Columns"):
        if not isinstance(dataset.get(name), int):
            raise UnreadableImage(f"no pixels: the DICOM does not say its {name}")
    check_sides(dataset.Columns, dataset.Rows, int(dataset.get("NumberOfFrames") or 1))
    sample = int(dataset.get("BitsAllocated", 16)) * int(dataset.get("SamplesPerPixel", 1)) / 8
    size = int(dataset.Columns * dataset.Rows * sample)
    if size > MAX_BYTES:
        raise UnreadableImage(f"too large: {size:,} bytes of pixels")


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
