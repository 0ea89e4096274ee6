"""TFRecord and .npy images: what TensorFlow's own format description says, written by hand here
and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.raw import tfrecords
from pipeline.core.raw.read import read_source
from pipeline.core.raw.unreadable import UnreadableImage
from tests.cases.tfrecords import example, tfrecord


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.binary(max_size=300),
    st.booleans(),
)
def test_examples_are_read_back(tmp_path_factory, numbers, blob, compact):
    path = tmp_path_factory.mktemp("r") / "a.tfrecords"
    made = example({"label": numbers, "image": [blob], "other": [b"x"]}, compact)
    path.write_bytes(tfrecord(b"", made, made))
    starts = list(tfrecords.record_starts(path))
    assert starts == [0, 16, 32 + len(made)]
    for start in starts[1:]:
        assert tfrecords.parse_example(path, start, ("label", "image")) == {
            "label": numbers,
            "image": [blob],
        }
    assert tfrecords.parse_example(path, 0, ("label",)) == {}


def test_gray_pixels_come_as_a_square_and_jpegs_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (299, 299), dtype=np.uint8)
    jpeg = b"\xff\xd8\xff" + b"\0" * 6  # nine bytes: a square number, and still no pixels
    (tmp_path / "t.tfrecords").write_bytes(
        tfrecord(example({"image": [pixels.tobytes()]}), example({"image": [jpeg]}))
    )
    first, second = tfrecords.record_starts(tmp_path / "t.tfrecords")
    assert np.array_equal(read_source(tmp_path, f"t.tfrecords::{first}"), pixels)
    assert read_source(tmp_path, f"t.tfrecords::{second}") == jpeg


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tfrecord(b"x" * 50)[:40], "cut short"),
        (b"\xff" * 40, "leaves the file"),
        (tfrecord(b"\xff" * 30), "no tf.train.Example"),
        (tfrecord(example({"label": [1]})), "no feature 'image'"),
    ],
)
def test_what_is_no_tfrecord_says_so(tmp_path, content, reason):
    (tmp_path / "t.tfrecord").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_source(tmp_path, "t.tfrecord::0")


def test_rows_of_npy_files(tmp_path):
    stack = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 1)
    np.save(tmp_path / "s.npy", stack)
    assert np.array_equal(read_source(tmp_path, "s.npy::1"), stack[1])
    with pytest.raises(UnreadableImage, match="no row 2"):
        read_source(tmp_path, "s.npy::2")
    with pytest.raises(UnreadableImage, match="is not a number"):
        read_source(tmp_path, "s.npy::x")


def test_an_npy_file_that_needs_pickle_is_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_source(tmp_path, "o.npy::0")
