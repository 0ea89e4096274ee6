"""Masks: COCO's text against an encoder of our own, and what is no mask."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competitions import chexpert
from pipeline.core.raw.masks import as_mask, read_masks
from pipeline.core.runtime.errors import UserError


def coded(mask: np.ndarray) -> dict:
    """A mask (h, w) in COCO's form."""
    flat = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    text = ""
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return {"size": list(mask.shape), "counts": text}


@pytest.mark.parametrize(("size", "counts"), [((2320, 2828), "PVWX6"), ((2022, 2021), "nefl3")])
def test_empty_masks_of_the_organiser(size, counts):
    # one run of 0, as long as the image
    assert as_mask({"size": size, "counts": counts}).ends.tolist() == [size[0] * size[1]]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    part=st.floats(0, 1),
    seed=st.integers(0, 1000),
    as_list=st.booleans(),
)
def test_every_pixel_is_found_where_it_is(height, width, part, seed, as_list):
    generator = np.random.default_rng(seed)
    truth = np.repeat(generator.random((height, width)) < part, generator.integers(1, 9), axis=0)
    form = coded(truth)
    mask = as_mask(form)
    if as_list:
        mask = as_mask({**form, "counts": np.diff(mask.ends, prepend=0).tolist()})
    assert mask.share == pytest.approx(truth.mean())
    rows, columns = np.indices(truth.shape)
    found = [
        mask.covers((column + 0.5) / truth.shape[1], (row + 0.5) / truth.shape[0])
        for row, column in zip(rows.ravel(), columns.ravel(), strict=True)
    ]
    assert np.array_equal(np.reshape(found, truth.shape), truth)


def test_beyond_the_image_nothing_is_covered():
    mask = as_mask(coded(np.ones((3, 5), bool)))
    assert mask.covers(0, 0) and mask.covers(0.999, 0.999)
    assert not any(mask.covers(x, y) for x, y in [(-0.01, 0.5), (1, 0.5), (0.5, 1.2), (0.5, -1)])


@pytest.mark.parametrize(
    "form",
    [
        {"size": [2, 2]},
        {"size": [2, 2], "counts": "5"},
        {"size": [2, 2], "counts": [1, -1, 4]},
        {"size": [2, 2], "counts": "4P"},
        {"size": [2, 2], "counts": "é"},
        {"size": "ab", "counts": [4]},
        7,
    ],
)
def test_what_is_no_mask_is_named(tmp_path, form):
    path = tmp_path / "masks.json"
    path.write_text(json.dumps({"patient1": {"Edema": form}}))
    with pytest.raises(UserError, match=r"masks\.json: patient1: Edema: not a mask"):
        read_masks(path)


def test_chexpert_reads_chexlocalize_as_it_is_given_out(tmp_path):
    assert chexpert.masks(tmp_path) == {}
    drawn = np.zeros((10, 20), bool)
    drawn[2:5, 4:8] = True
    image = {"Edema": coded(drawn), "Cardiomegaly": coded(np.zeros((10, 20), bool))}
    folder = tmp_path / "CheXlocalize"
    folder.mkdir()
    path = folder / "gt_segmentations_val.json"
    path.write_text(json.dumps({"patient64541_study1_view1_frontal": image}))
    masks = chexpert.masks(tmp_path)
    assert list(masks) == ["valid_patient64541_study1_view1_frontal"]
    (own,) = masks.values()
    assert list(own) == ["Edema"] and own["Edema"].share == 12 / 200
