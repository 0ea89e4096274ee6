"""Undersampling of negatives, drawn anew for each epoch."""

import numpy as np
import pytest

from pipeline.core.runtime.errors import UserError
from pipeline.core.training.batch_order import BatchOrder

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((1000, 2)) < 0.03).astype(np.float32)
TARGETS[RNG.random(TARGETS.shape) < 0.1] = np.nan
POSITIVE = np.flatnonzero((TARGETS > 0.5).any(axis=1))


def order(**changes) -> BatchOrder:
    values = dict(targets=TARGETS, batch_size=1, epochs=3, seed=4, negatives=3.0)
    return BatchOrder(**values | changes)


@pytest.mark.parametrize("negatives", [1.0, 3.0, 0.5])
def test_an_epoch_has_every_positive_once_and_so_many_others(negatives):
    count = len(POSITIVE) + round(negatives * len(POSITIVE))
    made = order(negatives=negatives)
    assert made.steps_per_epoch == count
    epochs = [np.concatenate(made.epoch_batches(epoch)) for epoch in (0, 1)]
    for images in epochs:
        assert len(np.unique(images)) == len(images) == count
        assert np.isin(POSITIVE, images).all()
    others = [set(images) - set(POSITIVE) for images in epochs]
    assert others[0] != others[1]


def test_no_more_negatives_than_there_are_and_all_without_the_field():
    assert order(negatives=1000.0).steps_per_epoch == len(TARGETS)
    assert order(negatives=0.0).steps_per_epoch == len(TARGETS)


def test_a_cut_run_draws_the_same_negatives():
    made = order(batch_size=8)
    every = made.remaining_keys(0, 0, 1)
    rest = made.remaining_keys(25, 0, 1)
    assert len(every) == made.steps_per_epoch * 3
    assert all((a[1] == b[1]).all() for a, b in zip(every[25:], rest, strict=True))


def test_without_a_positive_there_is_nothing_to_draw_by():
    with pytest.raises(UserError, match="no training image has a positive label"):
        order(targets=np.zeros((10, 1), np.float32)).epoch_batches(0)
