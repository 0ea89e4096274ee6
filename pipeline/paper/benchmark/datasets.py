"""The paper's benchmarks, read from their own downloads, and the imbalance of §4.1.

    cifar10    $DATA/cifar10/raw/cifar-10-batches-py/{data_batch_1..5,test_batch}
    cifar100   $DATA/cifar100/raw/cifar-100-python/{train,test}
    stl10      $DATA/stl10/raw/stl10_binary/{train,test}_{X,y}.bin
    cats_dogs  $DATA/cats_dogs/raw/train/{cat,dog}.N.jpg    Kaggle's labelled part; its test set has
                                                            no labels

The lower half of the class ids is negative, the upper half positive; positives are then dropped at
random until their part of the training set is `imratio`. The test set stays whole.
"""

import math
import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from pipeline.core.artifacts.paths import raw_folder
from pipeline.core.runtime.errors import UserError

# What a CIFAR file may build: arrays and the bytes inside them. Anything else in a pickle could run
# code.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    # numpy 1 and 2 name the same functions differently.
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}
# Of the 12,500 numbers of each class: 20,000 training and 5,000 test images.
CATS_DOGS_TEST_FROM = 10_000
CATS_DOGS_SIDE = (32, 32)
# Training images, their classes, test images, their classes, where the files are not the originals.
Content = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]


@dataclass(frozen=True)
class Benchmark:
    """Images (N, 3, S, S) uint8 and binary labels (N,) int64; `note` says where the files are not
    the originals."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    note: str = ""


class ArraysOnly(pickle.Unpickler):
    """An unpickler that builds numpy arrays and plain containers, and refuses everything else by
    name."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ALLOWED:
            raise UserError(
                f"{getattr(self, 'path', 'pickle')}: holds {module}.{name}; only numpy arrays are "
                "read"
            )
        return super().find_class(module, name)


def read_pickle(path: Path, key: bytes) -> dict:
    """A CIFAR file as a dict that holds b"data" and `key`; a UserError for any other file."""
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; unpack the data set's own archive into "
            f"{path.parent.parent}"
        )
    with path.open("rb") as file:
        reader = ArraysOnly(file, encoding="bytes")
        reader.path = path
        try:
            content = reader.load()
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001  damaged pickles end in almost any of them
            raise UserError(f"{path}: this is not a whole CIFAR file ({error})") from None
    for needed in (b"data", key):
        if not isinstance(content, dict) or needed not in content:
            raise UserError(f"{path}: this is not a CIFAR file: it has no key {needed.decode()!r}")
    return content


def cifar(folder: Path, train: list[str], test: str, key: bytes) -> Content:
    """CIFAR-10 or CIFAR-100; `key` is where the files hold the class ids."""
    parts = [read_pickle(folder / name, key) for name in train]
    pixels = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32)
    classes = np.concatenate([np.asarray(part[key]) for part in parts])

    tested = read_pickle(folder / test, key)
    test_pixels = tested[b"data"].reshape(-1, 3, 32, 32)
    names = tested.get(b"filenames", [])
    note = "JPEG copy" if names and names[0].endswith(b".jpg") else ""
    return pixels, classes, test_pixels, np.asarray(tested[key]), note


def cifar10(raw: Path) -> Content:
    train = [f"data_batch_{number}" for number in range(1, 6)]
    return cifar(raw / "cifar-10-batches-py", train, "test_batch", b"labels")


def cifar100(raw: Path) -> Content:
    return cifar(raw / "cifar-100-python", ["train"], "test", b"fine_labels")


def stl10(raw: Path) -> Content:
    """STL-10's binary files: uint8, column-major, labels 1 to 10."""
    folder = raw / "stl10_binary"

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        for path in (folder / f"{name}_X.bin", folder / f"{name}_y.bin"):
            if not path.is_file():
                raise UserError(
                    f"{path}: there is no such file; unpack stl10_binary.tar.gz into {raw}"
                )
        labels = np.fromfile(folder / f"{name}_y.bin", np.uint8).astype(np.int64) - 1
        pixels = np.fromfile(folder / f"{name}_X.bin", np.uint8)
        if pixels.size != labels.size * 3 * 96 * 96:
            raise UserError(
                f"{folder}/{name}_X.bin: {pixels.size} bytes for {labels.size} labels of 27,648 "
                "bytes"
            )
        return np.ascontiguousarray(pixels.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2)), labels

    images, classes = part("train")
    note = "" if len(images) == 5000 else f"JPEG copy, {len(images):,} of the 5,000 training images"
    return images, classes, *part("test"), note


def cats_dogs(raw: Path) -> Content:
    """Cats (0) and dogs (1) at 32 x 32; of each, the images numbered from 10,000 are the test
    set."""

    def number(path: Path) -> int:
        return int(path.name.split(".")[1])

    paths = sorted((raw / "train").glob("*.jpg"), key=lambda path: (path.name[:3], number(path)))
    if not paths:
        raise UserError(f"{raw}/train: there is no cat.N.jpg or dog.N.jpg; unpack train.zip there")
    originals = [read_image(path) for path in paths]
    note = "JPEG copy at 32 px" if originals[0].shape[:2] == CATS_DOGS_SIDE else ""
    small = [cv2.resize(image, CATS_DOGS_SIDE, interpolation=cv2.INTER_AREA) for image in originals]
    # OpenCV reads BGR, (H, W, 3).
    images = np.ascontiguousarray(np.stack(small)[..., ::-1].transpose(0, 3, 1, 2))
    classes = np.array([path.name.startswith("dog") for path in paths]).astype(np.int64)
    test = np.array([number(path) >= CATS_DOGS_TEST_FROM for path in paths])
    return images[~test], classes[~test], images[test], classes[test], note


def read_image(path: Path) -> np.ndarray:
    """uint8 (H, W, 3), BGR."""
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path}: this is not a readable image")
    return image


# Name -> reader, number of classes.
READERS = {
    "cats_dogs": (cats_dogs, 2),
    "cifar10": (cifar10, 10),
    "stl10": (stl10, 10),
    "cifar100": (cifar100, 100),
}


@lru_cache(maxsize=4)
def read(name: str) -> Benchmark:
    """A benchmark with binary labels: 1 for the upper half of the class ids."""
    reader, classes = READERS[name]
    train_images, train_classes, test_images, test_classes, note = reader(raw_folder(name))
    positive = [(ids >= classes // 2).astype(np.int64) for ids in (train_classes, test_classes)]
    return Benchmark(name, train_images, positive[0], test_images, positive[1], note)


def imbalance(labels: np.ndarray, imratio: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, removed) row numbers: all negatives and as many positives as make N+ / N = imratio
    (rounded up).

    CIFAR-10 at 1 % keeps 253 of 25,000 positives. `removed` are the positives left out. Seeded by
    `seed` alone.
    """
    negative = np.flatnonzero(labels == 0)
    positive = np.flatnonzero(labels == 1)
    # Rounded before the ceiling: 126 * 0.1 / 0.9 is 14.000000000000002.
    wanted = math.ceil(round(len(negative) * imratio / (1 - imratio), 9))
    if wanted > len(positive):
        raise UserError(
            f"imratio {imratio}: {wanted} positives needed beside {len(negative)} negatives, "
            f"there are {len(positive)}"
        )
    order = np.random.default_rng(seed).permutation(positive)
    kept = np.concatenate([negative, order[:wanted]])
    return np.sort(kept), np.sort(order[wanted:])


def hold_out(labels: np.ndarray, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) positions in `labels`, `part` of each class (rounded) in the
    second."""
    generator = np.random.default_rng([seed, 1])
    held = []
    for label in (0, 1):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held.append(rows[: round(part * len(rows))])
    validation = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def flip_labels(
    labels: np.ndarray, removed: np.ndarray, part: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """§5.2's noisy data. Returns (rows to flip to positive, removed positives to add as negatives).

    `part` of the negatives (labels == 0, positions in `labels`) and `part` of the removed
    positives, at random.
    """
    generator = np.random.default_rng([seed, 2])
    negative = np.flatnonzero(labels == 0)
    flipped = generator.choice(negative, round(part * len(negative)), replace=False)
    added = generator.choice(removed, round(part * len(removed)), replace=False)
    return np.sort(flipped), np.sort(added)
