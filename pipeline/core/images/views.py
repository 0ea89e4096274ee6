"""Views of prepared images: random ones in training, fixed ones at test time, all uint8.

All randomness is a function of (seed, epoch, image), so a batch is the same whichever worker makes
it and whether or not the run was interrupted before it; there is no random state to save. Geometry
(flip, rotation, shear, scale, shift) is one affine warp; images stay uint8, and gray ones one
channel, until the device, where they are normalised: a batch of bytes is four to six times cheaper
to hand over than one of floats. Photometric changes are albumentations'.
"""

import math
from functools import lru_cache

import cv2
import numpy as np

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.decoding.jpeg import strict_decoder

cv2.setNumThreads(0)  # its own threads gain nothing on one image and fight the loader's workers


def read_prepared_image(prepared: PreparedImage, channels: int) -> np.ndarray:
    """A prepared image as uint8 (H, W, channels), RGB order. UserError when it is missing, not what
    was written or not an image."""
    image = decoded(prepared.read(), channels)
    if image is None:
        raise prepared.fault("not a whole image")
    return image.reshape(*image.shape[:2], channels)


def decoded(data: bytes, channels: int) -> np.ndarray | None:
    """Pixels, RGB or gray, or None for what is not a whole image."""
    # JPEGs by simplejpeg where it is installed: the same pixels as OpenCV's in 0.85 of its time,
    # and an error instead of a gray band where data are cut off.
    if data.startswith(b"\xff\xd8") and strict_decoder():
        try:
            return strict_decoder()(data, "GRAY" if channels == 1 else "RGB")
        except ValueError:
            return None
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    return cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data else None


# Geometry: one affine matrix a view, one warp.


def affine(
    size: int,
    angle: float = 0.0,
    scale: float = 1.0,
    shear: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> np.ndarray:
    """The (2, 3) matrix that flips, shears, scales and rotates about the centre of a size x size
    image, then shifts.

    Angles in degrees, shift (x, y) as parts of the side. Maps source to destination pixels.
    """
    turn = math.radians(angle)
    slope = math.tan(math.radians(shear))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shearing = np.array([[1.0, slope], [0.0, 1.0]])
    mirror = np.diag([-1.0 if flip else 1.0, 1.0])
    linear = scale * rotation @ shearing @ mirror

    # About the centre: move it to the origin, turn, move it back, then shift.
    centre = np.full(2, (size - 1) / 2)
    return np.column_stack([linear, centre - linear @ centre + np.asarray(shift) * size])


def warp(image: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Write the warped image into `out`, uint8 (S, S, C); what lies outside is mirrored in."""
    # OpenCV warps four channels in 0.55 times the time of three, to the same values, so colour
    # goes there and back.
    size = out.shape[0]
    colour = out.shape[2] == 3
    source = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if colour else image

    # It is slow wherever it has to look outside, so the mirror images are put there first; a view
    # from far away would need a border of many images, and goes without.
    edge = pixels_outside(size, matrix)
    if 0 < edge <= size:
        source = cv2.copyMakeBorder(source, edge, edge, edge, edge, cv2.BORDER_REFLECT_101)
        matrix = np.column_stack([matrix[:, :2], matrix @ (-edge, -edge, 1)])

    warped = cv2.warpAffine(
        source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if colour:
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)
    else:
        out[:] = warped[:, :, None]


def pixels_outside(size: int, matrix: np.ndarray) -> int:
    """Pixels by which a view of a size x size image reaches beyond its edges, with 2 to spare; 0 if
    it does not."""
    # A parallelogram reaches furthest at its corners; 2 more for what interpolation looks at.
    last = size - 1
    corners = np.array([[0, 0, 1], [last, 0, 1], [0, last, 1], [last, last, 1]])
    seen = corners @ cv2.invertAffineTransform(matrix).T
    beyond = max(-seen.min(), seen.max() - last)
    return math.ceil(beyond) + 2 if beyond > 1e-6 else 0


# Training: one random view.


def random_affine(size: int, augment: Augment, rng: np.random.Generator) -> np.ndarray | None:
    """A matrix drawn from the ranges of `augment`, or None where nothing moves."""
    # A mirror image alone needs no interpolation and loses nothing: it comes with any view.
    flip = augment.flip and rng.random() < 0.5
    if rng.random() >= augment.probability:
        return affine(size, flip=flip) if flip else None

    # The order of the draws is part of every trained result.
    angle = rng.uniform(-augment.rotate, augment.rotate)
    shear = rng.uniform(-augment.shear, augment.shear)
    shift = tuple(rng.uniform(-augment.translate, augment.translate, 2))
    scale = rng.uniform(1 - augment.scale, 1 + augment.scale)
    return affine(size, angle, scale, shear, shift, flip)


def cut_holes(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> None:
    """Coarse dropout, in place: `holes` black squares of `hole_size` of the side."""
    size = image.shape[0]
    side = max(1, round(augment.hole_size * size))
    for top, left in rng.integers(0, size - side + 1, (augment.holes, 2)):
        image[top : top + side, left : left + side] = 0


@lru_cache(maxsize=8)
def photometric(probability: float, channels: int):
    """Brightness, contrast, colour, blur or noise, and local contrast, each with this probability
    (albumentations)."""
    import albumentations as A  # here since it takes 1.3 s to import and most runs do without

    colour = [A.HueSaturationValue(10, 20, 10, p=probability)] if channels == 3 else []
    return A.Compose(
        [
            A.RandomBrightnessContrast(0.2, 0.2, p=probability),
            *colour,
            A.OneOf([A.GaussianBlur((3, 5)), A.GaussNoise((0.02, 0.1))], p=probability),
            A.CLAHE(clip_limit=4.0, p=probability),
        ]
    )


def augmented(
    image: np.ndarray, augment: Augment, rng: np.random.Generator, out: np.ndarray
) -> None:
    """Write a random view of an image into `out`; both uint8 (S, S, C)."""
    # Geometry.
    matrix = random_affine(out.shape[0], augment, rng)
    if matrix is None:
        out[:] = image
    else:
        warp(image, matrix, out)

    # Light and colour; albumentations gets its seed from the image's own stream.
    if augment.photometric:
        transform = photometric(augment.photometric, out.shape[2])
        transform.set_random_seed(int(rng.integers(2**31)))
        out[:] = transform(image=out)["image"].reshape(out.shape)

    # Last, so that a hole is black and square whatever came before.
    if augment.holes and rng.random() < augment.probability:
        cut_holes(out, augment, rng)


# Test time: the same views for every image.


def halton(index: int, base: int) -> float:
    """The index-th number of the van der Corput sequence in [0, 1): evenly spread however many are
    taken.

    >>> [halton(i, 2) for i in range(1, 4)]
    [0.5, 0.25, 0.75]
    """
    # The digits of the index in that base, mirrored at the point: 6 = 110 becomes .011 = 3/8.
    value = 0.0
    part = 1.0
    while index:
        part /= base
        value += part * (index % base)
        index //= base
    return value


def view_matrices(count: int, size: int, augment: Augment) -> list[np.ndarray]:
    """The first `count` test-time views as (2, 3) matrices; view 0 is the image itself.

    First the symmetries that training used (all eight where it flips and turns by 90 degrees or
    more, the mirror image where it only flips), then the same under small turns, scales and shifts,
    spread over half the training ranges by a Halton sequence.
    """
    turns = (0, 90, 180, 270) if augment.flip and augment.rotate >= 90 else (0,)
    flips = (False, True) if augment.flip else (False,)
    symmetries = [(turn, flip) for flip in flips for turn in turns]

    # View v does not depend on the count: eight views are the first eight of thirty.
    views = []
    for view in range(count):
        turn, flip = symmetries[view % len(symmetries)]
        if view < len(symmetries):
            views.append(affine(size, turn, flip=flip))
            continue
        # Co-prime bases, so that the four movements do not follow one another.
        angle, grow, right, down = (halton(view, base) - 0.5 for base in (2, 3, 5, 7))
        # Half the range, but at most 15 degrees either way: the symmetries turn by the rest.
        turn += angle * min(augment.rotate, 30)
        shift = (right * augment.translate, down * augment.translate)
        views.append(affine(size, turn, 1 + grow * augment.scale, 0.0, shift, flip))
    return views


def all_views(image: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Every view of one decoded image (S, S, C): uint8 (V, S, S, C)."""
    identity = np.eye(2, 3)
    views = np.empty((len(matrices), *image.shape), np.uint8)
    for out, matrix in zip(views, matrices, strict=True):
        if np.array_equal(matrix, identity):
            out[:] = image
        else:
            warp(image, matrix, out)
    return views
