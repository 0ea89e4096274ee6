"""What is far from the training images, against images whose kind is known."""

import numpy as np
import pandas as pd
import pytest

from pipeline.deploy.likeness import hash_bits, known_images, log_likelihood

RNG = np.random.default_rng(0)


def hashes(ones: np.ndarray, count: int) -> list[str]:
    """Hashes whose bits are one with these shares (256,)."""
    bits = RNG.random((count, 256)) < ones
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def images(count: int, ones: np.ndarray, **columns) -> pd.DataFrame:
    made = {
        "split": "train",
        "width": np.arange(count) + 1000,
        "height": 800,
        "brightness": np.linspace(50, 150, count),
        "phash": hashes(ones, count),
    }
    return pd.DataFrame(made | columns)


ALIKE = np.where(RNG.random(256) < 0.5, 0.1, 0.9)


def measured(**changes) -> dict:
    given = {"width": 1200, "height": 800, "brightness": 100.0, "phash": hashes(ALIKE, 1)[0]}
    return given | changes


def test_ranges_are_the_central_part():
    training = known_images(images(1000, ALIKE))
    assert training.known == ["size", "brightness", "view"]
    assert training.ranges["width"] == (1004, 1995) and training.ranges["height"] == (800, 800)
    assert training.far(measured()) == []
    assert training.far(measured(width=1003)) == ["size"]
    assert training.far(measured(width=5, height=5)) == ["size"]
    assert training.far(measured(brightness=250.0)) == ["brightness"]


def test_another_view_is_far_and_its_like_is_not():
    training = known_images(images(500, ALIKE))
    same = [training.far(measured(phash=one)) for one in hashes(ALIKE, 400)]
    assert sum(map(bool, same)) <= 10  # half a per cent are meant to be
    other = [training.far(measured(phash=one)) for one in hashes(1 - ALIKE, 100)]
    assert all(far == ["view"] for far in other)


def test_images_without_a_layout_are_not_called_far():
    """Of photographs that have no up every bit is one half the time; also where they are few."""
    half = np.full(256, 0.5)
    for count in (40, 500):
        training = known_images(images(count, half))
        far = [training.far(measured(width=1020, phash=one)) for one in hashes(half, 300)]
        assert sum("view" in kinds for kinds in far) <= 300 * (3 / count + 0.01)


def test_the_likelihood_of_independent_bits():
    bits = hash_bits(pd.Series(["80" + "00" * 31, "ff" * 32]))
    assert bits[0].tolist() == [1] + [0] * 255 and bits[1].all()
    ones = np.full(256, 0.25)
    expected = [np.log(0.25) + 255 * np.log(0.75), 256 * np.log(0.25)]
    assert log_likelihood(bits, ones) == pytest.approx(expected)


def test_what_images_csv_does_not_have_is_not_compared():
    table = images(50, ALIKE).drop(columns=["brightness", "phash"])
    training = known_images(table)
    assert training.known == ["size"] and training.far(measured(width=1)) == ["size"]
    table["split"] = ["test"] * 25 + ["train"] * 25  # test images say nothing of training
    assert known_images(table).ranges["width"][0] == 1025
