"""Weights of entries, softmax over classes, and sums over columns, against torch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.core.losses import ClassCrossEntropy, CrossEntropy, Focal, Part, Sum

RNG = np.random.default_rng(0)
S = torch.from_numpy(RNG.normal(size=(12, 4)).astype(np.float32))
Y = torch.from_numpy((RNG.random((12, 4)) < 0.4).astype(np.float32))
W = torch.from_numpy(RNG.random((12, 4)).astype(np.float32))


def test_weighted_cross_entropy_is_torchs_over_the_sum_of_weights():
    expected = F.binary_cross_entropy_with_logits(S, Y, weight=W, reduction="sum") / W.sum()
    torch.testing.assert_close(CrossEntropy()(S, Y, weights=W), expected)


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal()])
def test_a_weight_of_0_is_a_label_left_out_and_equal_weights_are_none(loss):
    gone = W < 0.5
    masked = loss(S, torch.where(gone, torch.nan, Y))
    torch.testing.assert_close(loss(S, Y, weights=(~gone).float()), masked)
    torch.testing.assert_close(loss(S, Y, weights=torch.full_like(W, 0.01)), loss(S, Y))
    assert loss(S, Y, weights=torch.zeros_like(W)) == 0


def test_classes_are_torchs_cross_entropy_with_rows_left_out():
    chosen = torch.from_numpy(RNG.integers(0, 4, 12))
    labels = F.one_hot(chosen, 4).float()
    labels[::3] = torch.nan
    known = torch.arange(12) % 3 > 0
    expected = F.cross_entropy(S[known], chosen[known])
    torch.testing.assert_close(ClassCrossEntropy()(S, labels), expected)
    soft = torch.softmax(W, 1)
    torch.testing.assert_close(ClassCrossEntropy()(S, soft), F.cross_entropy(S, soft))
    row_weights = W[:, :1].expand(-1, 4)
    expected = (F.cross_entropy(S, soft, reduction="none") * W[:, 0]).sum() / W[:, 0].sum()
    torch.testing.assert_close(ClassCrossEntropy()(S, soft, weights=row_weights), expected)


def test_a_sum_is_of_its_parts():
    labels = Y.clone()
    labels[:, 1:] = torch.softmax(S[:, :3], 1)
    labels[2] = torch.nan
    loss = Sum([Part(CrossEntropy(), 1, 1.0), Part(ClassCrossEntropy(), 3, 0.25)])
    expected = CrossEntropy()(S[:, :1], labels[:, :1], weights=W[:, :1])
    expected = expected + 0.25 * ClassCrossEntropy()(S[:, 1:], labels[:, 1:], weights=W[:, 1:])
    torch.testing.assert_close(loss(S, labels, weights=W), expected)
    assert not loss.state_dict()
