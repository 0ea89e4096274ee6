"""Whether a new image is like those of the training set: its size, its brightness, its view.

A network answers on any picture, also on one of a kind that it never saw. An image is called far
where its width, height or brightness lies outside what the central 99 % of the training images
have, or where it shows another view: its perceptual hash is less likely than that of 99.5 % of
them. The hash's 256 bits are taken as independent, each with the share of ones that the training
images have; for chest radiographs, which are laid out alike, that tells a lateral view or another
organ, for photographs of lesions, which have no up, next to nothing. All is read from images.csv.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

CENTRAL = (0.005, 0.995)  # quantiles of the training images between which an image is not far
RANGES = ("width", "height", "brightness")
KINDS = {"width": "size", "height": "size", "brightness": "brightness"}
VIEW = "view"
HASHES_COMPARED = 20_000  # hashes that are compared: 41 MB as float64


@dataclass(frozen=True)
class TrainingImages:
    """What the training images are like.

    ranges  name -> (low, high); names that images.csv does not have are left out
    ones    (256,) share of ones of each bit of the hash, None without hashes
    least   the log likelihood of a hash below which an image is far
    """

    ranges: Mapping[str, tuple[float, float]]
    ones: np.ndarray | None = None
    least: float = -np.inf

    @property
    def known(self) -> list[str]:
        """What can be compared: "size", "brightness", "view"."""
        names = dict.fromkeys(KINDS[name] for name in self.ranges)
        return [*names, *([VIEW] if self.ones is not None else [])]

    def far(self, measured: Mapping[str, float | str]) -> list[str]:
        """Of an image's width, height, brightness and phash, what is far: "size", "brightness",
        "view"."""
        kinds = []
        for name, (low, high) in self.ranges.items():
            if not low <= measured[name] <= high:
                kinds.append(KINDS[name])
        if self.ones is not None:
            bits = hash_bits(pd.Series([measured["phash"]]))
            if log_likelihood(bits, self.ones)[0] < self.least:
                kinds.append(VIEW)
        return list(dict.fromkeys(kinds))


def known_images(images: pd.DataFrame) -> TrainingImages:
    """What the rows of images.csv that are no test rows are like."""
    rows = images[images["split"] != "test"]
    ranges = {}
    for name in RANGES:
        if name in rows and rows[name].notna().any():
            values = rows[name].astype(float)
            low = values.quantile(CENTRAL[0], interpolation="lower")
            high = values.quantile(CENTRAL[1], interpolation="higher")
            ranges[name] = (float(low), float(high))
    hashes = rows["phash"].dropna() if "phash" in rows else pd.Series([], dtype="str")
    if not len(hashes):
        return TrainingImages(ranges)
    bits = hash_bits(hashes.sample(min(len(hashes), HASHES_COMPARED), random_state=0))
    # As if two more images had been seen, one of each value: no bit is ever impossible. A training
    # image is judged by the others alone, as a new one will be: s ones among n, without its own.
    count = bits.sum(axis=0, dtype=np.int64)
    ones = (count + 1) / (len(bits) + 2)
    of_others = np.where(bits, count, len(bits) - count) / (len(bits) + 1)
    least = float(np.quantile(np.log(of_others).sum(axis=1), CENTRAL[0]))
    return TrainingImages(ranges, ones, least)


def hash_bits(hashes: pd.Series) -> np.ndarray:
    """uint8 (n, 256) of perceptual hashes of 64 hexadecimal digits."""
    content = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8)
    return np.unpackbits(content.reshape(len(hashes), -1), axis=1)


def log_likelihood(bits: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """(n,) of bits (n, 256) that are independent, with the shares of ones (256,)."""
    return bits @ np.log(ones) + (1 - bits) @ np.log1p(-ones)
