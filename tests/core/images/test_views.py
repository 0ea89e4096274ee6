"""Views and random views of prepared images."""

import numpy as np
import pytest

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.batches import TrainingBatches
from pipeline.core.images.views import affine, all_views, read_prepared_image, view_matrices, warp
from pipeline.core.runtime.errors import UserError

SKIN = Augment(flip=True, rotate=180, scale=0.1, translate=0.05)


def noise(size: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 33])
def test_first_eight_views_are_the_eight_symmetries_exactly(size, channels):
    image = noise(size, channels)
    views = all_views(image, view_matrices(8, size, SKIN))
    expected = [
        np.rot90(image[:, ::-1] if flip else image, turn)
        for flip in (False, True)
        for turn in range(4)
    ]
    found = {view.tobytes() for view in views}
    assert found == {np.ascontiguousarray(view).tobytes() for view in expected}
    assert np.array_equal(views[0], image)


def test_without_flips_the_first_view_is_the_image_and_the_others_differ_a_little():
    image = np.full((64, 64, 1), 30, np.uint8)
    image[20:44, 20:44] = 200
    views = all_views(image, view_matrices(6, 64, Augment(rotate=10, translate=0.05, scale=0.05)))
    assert np.array_equal(views[0], image)
    for view in views[1:]:
        assert not np.array_equal(view, image)
        assert np.abs(view.astype(int) - image).mean() < 15


def test_views_are_a_prefix_of_more_views():
    few = view_matrices(4, 48, SKIN)
    many = view_matrices(30, 48, SKIN)
    assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=False))
    assert len({m.tobytes() for m in many}) == 30


def test_affine_moves_points_as_it_says():
    matrix = affine(101, shift=(0.1, -0.2))
    assert np.allclose(matrix @ [50, 50, 1], [60.1, 29.8])
    assert np.allclose(affine(101, angle=90) @ [100, 50, 1], [50, 100])
    assert np.allclose(affine(101, scale=2) @ [60, 50, 1], [70, 50])
    assert np.allclose(affine(101, flip=True) @ [0, 7, 1], [100, 7])


def test_warp_mirrors_what_lies_outside():
    image = np.full((32, 32, 3), 77, np.uint8)
    out = np.empty_like(image)
    warp(image, affine(32, angle=45, scale=0.3), out)
    assert (out == 77).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "view",
    [
        dict(angle=7, scale=1.03, shear=2, shift=(0.01, 0.02), flip=True),
        dict(angle=160),
        dict(angle=45, scale=0.25),
        dict(shift=(0.3, -0.3)),
        dict(scale=1.5),
        dict(angle=30, scale=0.02),
    ],
)
def test_warp_is_bilinear_in_the_mirrored_image(channels, view):
    """Against the definition, pixel by pixel; one gray level of rounding, where weights are of 1/32
    pixel two."""
    size = 40
    row, column = np.mgrid[:size, :size]
    image = np.stack(
        [127 + 120 * np.sin(row / 5 + c) * np.cos(column / 7) for c in range(channels)], -1
    )
    image = image.round().astype(np.uint8)
    matrix = affine(size, **view)
    out = np.empty_like(image)
    warp(image, matrix, out)
    x, y = np.linalg.inv(matrix[:, :2]) @ (np.stack([column.ravel(), row.ravel()]) - matrix[:, 2:])

    def fold(i: np.ndarray) -> np.ndarray:
        return np.abs((i + size - 1) % (2 * size - 2) - (size - 1))  # 0 1 2 … size-1 … 2 1 0 1 2 …

    left = np.floor(x).astype(int)
    top = np.floor(y).astype(int)
    expected = sum(
        ((1 - abs(x - left - i)) * (1 - abs(y - top - j)))[:, None]
        * image[fold(top + j), fold(left + i)]
        for i in (0, 1)
        for j in (0, 1)
    )
    assert np.abs(out.reshape(-1, channels) - expected).max() <= 2


@pytest.fixture
def images(tmp_path):
    cv2 = pytest.importorskip("cv2")
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), noise(32, 3, number))
    return list(map(PreparedImage, paths))


def test_a_random_view_depends_on_seed_epoch_and_image_only(images):
    data = TrainingBatches(images, 32, 3, SKIN, seed=5)
    first, _ = data[(3, np.array([0, 1, 2]))]
    again, _ = data[(3, np.array([2, 0, 1]))]
    assert (first[2] == again[0]).all() and (first[0] == again[1]).all()
    other_epoch, _ = data[(4, np.array([0]))]
    assert (other_epoch[0] != first[0]).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_photometric_views_repeat_too(images, channels):
    data = TrainingBatches(
        images, 32, channels, Augment(photometric=1.0, holes=2, hole_size=0.2), seed=1
    )
    first = data[(0, np.array([1]))][0]
    again = data[(0, np.array([1]))][0]
    assert (first == again).all() and first.shape == (1, 32, 32, channels)
    assert (data[(1, np.array([1]))][0] != first).any()


def test_colours_are_rgb(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "red.png"
    cv2.imwrite(
        str(path), np.full((8, 8, 3), (0, 0, 255), np.uint8)
    )  # OpenCV writes blue, green, red
    assert (read_prepared_image(PreparedImage(path), 3)[0, 0] == (255, 0, 0)).all()


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match="gone"):
        read_prepared_image(PreparedImage(tmp_path / "gone.jpg"), 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("side", [64, 97])
def test_both_decoders_give_the_same_pixels(tmp_path, monkeypatch, channels, stored, side):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("simplejpeg")
    path = tmp_path / "noise.jpg"
    cv2.imwrite(
        str(path), cv2.GaussianBlur(noise(side, stored), (5, 5), 0), [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    ours = read_prepared_image(PreparedImage(path), channels)
    monkeypatch.setattr("pipeline.core.images.views.strict_decoder", lambda: None)
    assert np.array_equal(
        ours, read_prepared_image(PreparedImage(path), channels)
    ) and ours.shape == (
        side,
        side,
        channels,
    )


def test_a_prepared_jpeg_that_was_cut_off_is_named(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("simplejpeg")
    path = tmp_path / "cut.jpg"
    path.write_bytes(cv2.imencode(".jpg", noise(64, 3))[1].tobytes()[:1500])
    with pytest.raises(UserError, match=r"cut\.jpg"):
        read_prepared_image(PreparedImage(path), 3)
