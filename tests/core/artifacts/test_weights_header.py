"""Weights: no changed byte of a file, of its header or its data, is used without a word."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pipeline.core.artifacts.provenance import check_data, read_weights_header
from pipeline.core.networks.image import fill_network, read_tensors, save_weights
from pipeline.core.runtime.errors import UserError

HEADER = {"target": "melanoma/b3/fold0", "labels": ["a"], "epoch": 3, "nested": {"x": [1, None]}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "finetuned.safetensors"
    torch.manual_seed(0)
    save_weights(path, nn.Linear(3, 2), HEADER)
    return path


def read_all(path):
    """The header and the tensors, as every stage reads them."""
    header = read_weights_header(path)
    check_data(path)
    return header, read_tensors(path)


@settings(deadline=None)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_no_changed_byte_is_used(weights, tmp_path_factory, place, byte, cut):
    data = bytearray(weights.read_bytes())
    at = min(int(place * len(data)), len(data) - 1)
    if cut:
        del data[at:]
    else:
        data[at] = byte
    path = tmp_path_factory.mktemp("weights") / "finetuned.safetensors"
    path.write_bytes(data)
    try:
        header, tensors = read_all(path)
    except UserError:
        return
    expected, before = read_all(weights)
    # What is left is white space, or the name of a checksum.
    assert {key: header.get(key) for key in expected} == expected
    assert all(torch.equal(tensors[name], before[name]) for name in before)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_a_header_that_nobody_wrote_is_one_line(tmp_path, text):
    path = tmp_path / "finetuned.safetensors"
    save_file({"w": torch.zeros(2)}, path, {"pipeline": text})
    with pytest.raises(UserError, match="no weights file of this pipeline"):
        read_weights_header(path)


@pytest.mark.parametrize(
    "other", [nn.Linear(4, 2), nn.Linear(3, 2, bias=False), nn.Bilinear(2, 2, 2)]
)
def test_another_networks_weights_are_one_line(weights, other):
    with pytest.raises(UserError, match="not the weights of this mlp"):
        fill_network(other, weights, "mlp")


def test_a_pipe_is_refused(tmp_path):
    path = tmp_path / "finetuned.safetensors"
    os.mkfifo(path)
    for read in (read_weights_header, read_tensors):
        with pytest.raises(UserError, match="is a pipe"):
            read(path)
