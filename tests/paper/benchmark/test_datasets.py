"""The benchmarks: their own layouts read back, hostile pickles refused, the paper's imbalance."""

import os
import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.runtime.errors import UserError
from pipeline.paper.benchmark import datasets
from tests.cases.benchmarks import write_cifar


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty DATA root; benchmarks already read are forgotten."""
    monkeypatch.setenv("DATA", str(tmp_path))
    datasets.read.cache_clear()
    yield tmp_path
    datasets.read.cache_clear()


def colours(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels (N, 3, 32, 32) and class ids that go round."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return pixels, np.arange(count) % classes


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar10_reads_pickles_of_every_age(data, protocol):
    pixels, ids = colours(60, 10)
    folder = data / "cifar10/raw/cifar-10-batches-py"
    for part in range(5):
        write_cifar(
            folder, f"data_batch_{part + 1}", pixels[part::5], ids[part::5], b"labels", protocol
        )
    write_cifar(folder, "test_batch", pixels[:20], ids[:20], b"labels", protocol)
    benchmark = datasets.read("cifar10")
    assert np.array_equal(
        benchmark.train_images, np.concatenate([pixels[part::5] for part in range(5)])
    )
    assert np.array_equal(benchmark.test_labels, ids[:20] >= 5)
    assert benchmark.note == ""


def test_cifar100_uses_the_fine_labels(data):
    pixels, ids = colours(200, 100)
    folder = data / "cifar100/raw/cifar-100-python"
    write_cifar(folder, "train", pixels, ids, b"fine_labels", 2)
    write_cifar(folder, "test", pixels[:100], ids[:100], b"fine_labels", 2)
    assert datasets.read("cifar100").train_labels.sum() == 100


class Runs:
    """Pickled, this would run a command when loaded."""

    def __reduce__(self):
        return os.system, ("touch /tmp/should_not_exist_paper_pickle",)


def test_a_pickle_that_runs_code_is_refused_by_name(tmp_path):
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Runs()}))
    with pytest.raises(UserError, match=r"test_batch: holds (posix|nt|os)\.system"):
        datasets.read_pickle(tmp_path / "test_batch", b"labels")
    assert not os.path.exists("/tmp/should_not_exist_paper_pickle")  # noqa: PTH110


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", pickle.dumps([1, 2]), pickle.dumps({b"data": 1})[:-3]]
)
def test_a_file_that_is_not_a_cifar_file_is_named(tmp_path, content):
    (tmp_path / "train").write_bytes(content)
    with pytest.raises(UserError, match="train: this is no"):
        datasets.read_pickle(tmp_path / "train", b"labels")


def test_stl10_is_column_major_and_a_short_file_is_an_error(data):
    folder = data / "stl10/raw/stl10_binary"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 3, 96, 96), dtype=np.uint8)
    ids = np.arange(20) % 10
    for part in ("train", "test"):
        pixels.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")
        (ids + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    benchmark = datasets.read("stl10")
    assert np.array_equal(benchmark.train_images, pixels)
    assert np.array_equal(benchmark.train_labels, ids >= 5)
    assert "20 of the 5,000" in benchmark.note
    datasets.read.cache_clear()
    (folder / "train_X.bin").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"train_X.bin: 100 bytes for 20 labels"):
        datasets.read("stl10")


def test_cats_and_dogs_are_labelled_and_split_by_number(data):
    folder = data / "cats_dogs/raw/train"
    folder.mkdir(parents=True)
    for kind, red in (("cat", 0), ("dog", 255)):
        for number in (0, 9999, 10000, 12499):
            image = np.full((40, 50, 3), (0, 0, red), np.uint8)
            cv2.imwrite(str(folder / f"{kind}.{number}.jpg"), image)
    benchmark = datasets.read("cats_dogs")
    assert benchmark.train_images.shape == benchmark.test_images.shape == (4, 3, 32, 32)
    assert np.array_equal(benchmark.train_labels, benchmark.train_images[:, 0].mean((1, 2)) > 200)
    (folder / "cat.1.jpg").write_bytes(b"not an image")
    datasets.read.cache_clear()
    with pytest.raises(UserError, match=r"cat.1.jpg: this is not a readable image"):
        datasets.read("cats_dogs")


@pytest.mark.parametrize(("imratio", "expected"), [(0.01, 253), (0.1, 2778), (0.5, 25_000)])
def test_cifar10_keeps_the_papers_number_of_positives(imratio, expected):
    labels = np.repeat([0, 1], 25_000)
    kept, removed = datasets.imbalance(labels, imratio, seed=3)
    assert labels[kept].sum() == expected
    assert len(removed) == 25_000 - expected


@given(
    negatives=st.integers(5, 400),
    positives=st.integers(5, 400),
    imratio=st.floats(0.005, 0.5),
    seed=st.integers(0, 99),
)
def test_imbalance_keeps_every_negative_and_the_asked_part(negatives, positives, imratio, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1], [negatives, positives]))
    if negatives * imratio / (1 - imratio) > positives:
        return
    kept, removed = datasets.imbalance(labels, imratio, seed)
    count = labels[kept].sum()
    assert (labels[kept] == 0).sum() == negatives
    assert labels[removed].all()
    assert np.array_equal(np.sort(np.concatenate([kept, removed])), np.arange(len(labels)))
    assert count / len(kept) >= imratio - 1e-9
    assert (count - 1) / (len(kept) - 1) < imratio + 1e-9


def test_seeds_give_other_positives_and_the_same_seed_the_same():
    labels = np.repeat([0, 1], 1000)
    first, again, other = (datasets.imbalance(labels, 0.1, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_positives_than_there_are_is_an_error():
    with pytest.raises(
        UserError, match=r"imratio 0.4: 67 positives needed beside 100 negatives, there are 10"
    ):
        datasets.imbalance(np.repeat([0, 1], [100, 10]), 0.4, 0)


def test_hold_out_takes_its_part_of_each_class():
    labels = np.repeat([0, 1], [1000, 100])
    training, validation = datasets.hold_out(labels, 0.1, seed=0)
    assert not np.intersect1d(training, validation).size
    assert np.bincount(labels[validation]).tolist() == [100, 10]
    assert np.bincount(labels[training]).tolist() == [900, 90]


def test_flipped_labels_are_negatives_and_added_ones_are_removed_positives():
    labels = np.repeat([0, 1], [1000, 10])
    removed = np.arange(5000, 5400)
    flipped, added = datasets.flip_labels(labels, removed, 0.05, seed=0)
    assert len(flipped) == 50
    assert not labels[flipped].any()
    assert len(added) == 20
    assert np.isin(added, removed).all()
