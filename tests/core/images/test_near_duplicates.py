"""Perceptual hashes: what survives, what turns with the image, and the search against brute
force."""

import os
from pathlib import Path

import cv2
import numba
import numpy as np
import pytest
from numba.core import caching
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.core.images.decoding.pixels import upright
from pipeline.core.images.near_duplicates import NEAR_BITS, compiled, near_duplicates, turns
from pipeline.core.images.phash import DIGITS, perceptual_hash

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


def bits(phash: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(phash), np.uint8))


def scenes(count: int, side: int = 96) -> list[np.ndarray]:
    """Random gray images with structure at every scale, as images of real things have."""
    rng = np.random.default_rng(count)
    images = []
    for _ in range(count):
        scene = sum(
            cv2.resize(
                rng.standard_normal((octave, octave)).astype(np.float32),
                (side + 20, side),
                interpolation=cv2.INTER_CUBIC,
            )
            / octave
            for octave in (4, 8, 16, 32, 64)
        )
        images.append(np.clip(128 + 200 * scene, 0, 255).astype(np.uint8))
    return images


def copies_of(scene: np.ndarray, orientation: int) -> list[np.ndarray]:
    """Re-encoded, half and double the size, another brightness, turned and re-encoded."""

    def again(pixels: np.ndarray, quality: int) -> np.ndarray:
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)

    return [
        again(scene, 50),
        cv2.resize(scene, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        cv2.resize(scene, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
        cv2.convertScaleAbs(scene, alpha=0.9, beta=8),
        upright(again(scene, 75), orientation),
    ]


def found_copies(originals: list[np.ndarray]) -> tuple[float, int]:
    """The share of five copies each that hang together with their original, and the pairs of two
    originals."""
    count = len(originals)
    copies = [copy for i, scene in enumerate(originals) for copy in copies_of(scene, 1 + i % 8)]
    pairs = near_duplicates([perceptual_hash(image) for image in originals + copies])
    group = [*range(count), *(i for i in range(count) for _ in range(5))]
    edges = coo_matrix(
        (np.ones(len(pairs)), tuple(np.array(pairs).T)), shape=(len(group), len(group))
    )
    component = connected_components(edges, directed=False)[1]
    found = [component[j] == component[group[j]] for j in range(count, len(group))]
    return np.mean(found), sum(group[i] != group[j] for i, j in pairs)


def near_by_force(hashes: list[str]) -> set[tuple[int, int]]:
    """Every pair that is near in some turn."""
    grids = np.stack([bits(phash) for phash in hashes]).reshape(-1, 16, 16)
    flat = grids.reshape(len(grids), -1).astype(int)
    found = set()
    for turned in turns(grids):
        turned = turned.reshape(len(grids), -1).astype(int)
        distance = (turned[:, None, :] != flat[None, :, :]).sum(axis=2)
        found |= {
            (int(min(i, j)), int(max(i, j)))
            for i, j in np.argwhere(distance <= NEAR_BITS)
            if i != j
        }
    return found


def test_the_search_finds_what_brute_force_finds():
    """Random hashes, each with copies of 0 to 40 changed bits, some of them turned."""
    rng = np.random.default_rng(5)
    hashes = []
    for _ in range(12):
        grid = rng.integers(0, 2, (1, 16, 16), dtype=np.uint8)
        for turned in turns(grid):
            flipped = turned.reshape(-1).copy()
            flipped[rng.choice(np.arange(1, 256), rng.integers(0, 41), replace=False)] ^= 1
            hashes.append(np.packbits(flipped).tobytes().hex())
    found = near_duplicates(hashes)
    assert set(found) == near_by_force(hashes)
    assert len(found) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_hash_turns_with_its_image(orientation):
    for scene in scenes(6):
        turned = bits(perceptual_hash(upright(scene, orientation)))
        distances = [
            (turned != view.reshape(-1)).sum()
            for view in turns(bits(perceptual_hash(scene)).reshape(1, 16, 16))
        ]
        assert min(distances) <= 4


def test_copies_are_found_and_others_are_not():
    assert found_copies(scenes(60)) == (1.0, 0)


@pytest.mark.parametrize("folder", ["chexpert", "melanoma"])
def test_copies_of_real_images_are_found(folder):
    files = sorted((SHARED / folder).rglob("*.jpg"))[::12][:80]
    if not files:
        pytest.skip(f"no real images in {SHARED / folder}")
    share, wrong = found_copies([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])
    assert share == 1 and wrong == 0


def test_many_equal_hashes_are_a_star():
    blank = perceptual_hash(np.zeros((50, 50), np.uint8))
    assert len(blank) == DIGITS and set(blank) == {"0"}
    assert near_duplicates([blank] * 2000) == [(0, i) for i in range(1, 2000)]
    assert near_duplicates([]) == []


def test_colour_and_gray_of_one_image_are_near():
    scene = scenes(1)[0]
    colour = cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR)
    assert perceptual_hash(colour) == perceptual_hash(scene)


@pytest.mark.skipif(not (SHARED / "chexpert").is_dir(), reason=f"no real images in {SHARED}")
def test_the_known_duplicate_among_real_x_rays():
    """One pair of the thousand is the same image."""
    files = sorted((SHARED / "chexpert").rglob("*.jpg"))
    hashes = [perceptual_hash(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)) for file in files]
    pairs = near_duplicates(hashes)
    assert [files[i].read_bytes() == files[j].read_bytes() for i, j in pairs] == [True]


def test_without_a_folder_to_keep_it_in_code_is_compiled_all_the_same(monkeypatch):
    # As where neither the code's folder nor the user's own can be written to.
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])

    def double(x):
        return 2 * x

    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(double)
    assert compiled(double)(21) == 42
