"""Masks of findings as run lengths, read without ever making an image of them.

A mask is {"size": [height, width], "counts": ...}: the pixels column by column, as lengths of runs
of 0 and 1 in turn, 0 first; COCO's form, which CheXlocalize uses. Counts are a list of lengths, or
text: the fourth and later lengths less the last but one before them, each number in groups of five
bits, the lowest first, as characters from "0" on; 32 is added where another group follows, and the
sign is the last group's highest bit.
"""

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.artifacts.files import read_json
from pipeline.core.runtime.errors import UserError


class Mask(NamedTuple):
    """The pixels of a finding: height and width of its image, and where runs end, column by column,
    those of pixels outside and inside in turn."""

    height: int
    width: int
    ends: np.ndarray

    @property
    def share(self) -> float:
        """The part of the image that is inside, 0 to 1."""
        lengths = np.diff(self.ends, prepend=0)
        return float(lengths[1::2].sum() / (self.height * self.width))

    def covers(self, x: float, y: float) -> bool:
        """Whether the pixel at (x, y), parts of width and height, is inside; none is beyond
        [0, 1)."""
        if not (0 <= x < 1 and 0 <= y < 1):
            return False
        column = int(x * self.width)
        row = int(y * self.height)
        run = np.searchsorted(self.ends, column * self.height + row, side="right")
        return bool(run % 2)


def read_masks(path: Path) -> dict[str, dict[str, Mask]]:
    """image -> finding -> Mask, of a JSON file {image: {finding: {"size", "counts"}}}; findings
    without a pixel are left out."""
    masks: dict[str, dict[str, Mask]] = {}
    for image, findings in read_json(path).items():
        if not isinstance(findings, Mapping):
            raise UserError(f"{path}: {image}: {findings!r:.40} is not a mask for each finding")
        for finding, coded in findings.items():
            try:
                mask = as_mask(coded)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{path}: {image}: {finding}: not a mask ({reason})") from None
            if mask.share:
                masks.setdefault(image, {})[finding] = mask
    return masks


def as_mask(coded: Mapping) -> Mask:
    """A mask from its size and counts; ValueError where they do not fit."""
    height, width = map(int, coded["size"])
    counts = coded["counts"]
    lengths = run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if min(lengths, default=-1) < 0 or sum(lengths) != height * width:
        raise ValueError(f"runs of {sum(lengths)} pixels in {height} x {width}")
    return Mask(height, width, np.array(list(accumulate(lengths)), np.int64))


def run_lengths(text: str) -> list[int]:
    """The lengths that COCO's text holds; ValueError where it ends within a number.

    >>> run_lengths("01N")
    [0, 1, -2]
    """
    lengths: list[int] = []
    value = 0
    bits = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{letter!r} in counts")
        value |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << bits
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = 0
        bits = 0
    if bits:
        raise ValueError("counts end within a number")
    return lengths
