"""Losses over pairs against a loop over pairs in float64: values, gradients, shares of the hardest,
ties, entries left out, large scores."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config import Finetune
from pipeline.core.config.run import SURROGATES as CONFIGURED
from pipeline.core.losses import Pairwise
from pipeline.core.losses.checks import NotFinite, OneClassWarning
from pipeline.core.losses.minmax import class_means, make_batch, min_max
from pipeline.core.losses.pairwise import SURROGATES, squared_pairs
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.recipe import make_loss


def of_one_pair(surrogate: str, t, m: float):
    """The formulas of the module's docstring, written a second time, for a tensor of one number."""
    if surrogate == "square":
        return (m - t) ** 2
    if surrogate == "squared_hinge":
        return torch.relu(m - t) ** 2
    if surrogate == "logistic":
        return torch.log1p(torch.exp(-t))
    return torch.stack([10 * (-m - t) + m, 10 * (t - m), m - t]).max()


def brute_force(surrogate, h, y, m=1.0, negatives=1.0, positives=1.0):
    """The mean over pairs of one label by a double loop; shares by sorting a list."""
    up = [i for i in range(len(y)) if y[i] == 1]
    down = [i for i in range(len(y)) if y[i] == 0]
    up = sorted(up, key=lambda i: (h[i].item(), i))[: math.ceil(positives * len(up))]
    down = sorted(down, key=lambda i: (-h[i].item(), i))[: math.ceil(negatives * len(down))]
    return torch.stack([of_one_pair(surrogate, h[i] - h[j], m) for i in up for j in down]).mean()


def batch(seed: int, n: int = 23) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, generator=generator, dtype=torch.float64)
    y = (torch.rand(n, generator=generator) < 0.3).double()
    y[0] = 1
    y[1] = 0
    return h, y


def value_and_gradient(function, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = h.clone().requires_grad_()
    value = function(h)
    value.backward()
    return value.detach().double(), h.grad


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.2), (0.5, 0.4)])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_value_and_gradient_are_those_of_the_double_loop(surrogate, shares):
    for seed in range(5):
        h, y = batch(seed)
        loss = Pairwise(surrogate, 0.7, *shares)
        value, gradient = value_and_gradient(lambda h, y=y, loss=loss: loss(h, y), h)
        expected, expected_gradient = value_and_gradient(
            lambda h, y=y: brute_force(surrogate, h, y, 0.7, *shares), h
        )
        assert value == pytest.approx(expected.item(), rel=1e-6)  # returned as float32
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(-3, 3), min_size=2, max_size=14),
    labels=st.lists(st.booleans(), min_size=14, max_size=14),
    surrogate=st.sampled_from(SURROGATES),
)
def test_ties_are_counted_as_the_loop_counts_them(scores, labels, surrogate):
    h = torch.tensor(scores, dtype=torch.float64)
    y = torch.tensor(labels[: len(scores)], dtype=torch.float64)
    if 0 < y.sum() < len(y):
        expected = brute_force(surrogate, h, y, 1.0, 0.5, 0.5)
        assert Pairwise(surrogate, 1.0, 0.5, 0.5)(h, y).item() == pytest.approx(expected.item())


def test_the_square_is_auc_square_at_its_inner_optimum():
    """min over a, b and max over α of AUC square is p(1-p) times the mean over pairs (eq. 5)."""
    h, y = batch(3, 40)
    h, y = h[:, None], y[:, None]
    labels = make_batch(y)
    p = y.mean()
    a, b = class_means(h, labels)
    margin = torch.ones(1, dtype=torch.float64)
    saddle, _ = min_max(h, labels, a, b, margin - a + b, None, margin)
    pairs = squared_pairs(h, y, 1 - y, 1.0)
    assert abs(saddle.item() - (p * (1 - p) * pairs).item()) < 1e-10
    found = Pairwise("square")(h, y).item()  # a float32
    assert found == pytest.approx(pairs.item())


def test_large_scores_do_not_cancel():
    """Three terms of 1e12 would leave nothing of a loss near 1 in float32; centred sums do."""
    h, y = batch(4)
    shifted = (h + 1e6).float()
    expected = brute_force("squared_hinge", shifted.double(), y)
    assert Pairwise("squared_hinge")(shifted, y).item() == pytest.approx(expected.item(), rel=1e-5)
    # log(1 + exp(200)) is infinite in float32.
    far = torch.tensor([-200.0, 0.0])
    assert Pairwise("logistic")(far, torch.tensor([1.0, 0.0])).item() == pytest.approx(200)


def test_labels_are_averaged_and_entries_left_out():
    h = torch.stack([batch(5)[0], batch(6)[0], batch(7)[0]], dim=1)
    y = torch.stack([batch(5)[1], batch(6)[1], torch.zeros(23)], dim=1)
    mask = torch.rand(23, 3, generator=torch.Generator().manual_seed(1)) < 0.8
    mask[:2] = True
    y[4, 1] = torch.nan
    loss = Pairwise("squared_hinge", num_labels=3)
    with pytest.warns(OneClassWarning, match="label 2 had no positive"):
        value = loss(h, y, mask)
    assert loss.one_class.tolist() == [[0, 0, 1], [0, 0, 0]]
    expected = 0.0
    for k in range(2):
        counts = mask[:, k] & ~torch.isnan(y[:, k])
        expected += brute_force("squared_hinge", h[counts, k], y[counts, k]).item() / 3
    assert value.item() == pytest.approx(expected)


def test_a_label_of_one_class_has_no_gradient():
    h = torch.randn(6, dtype=torch.float64, requires_grad=True)
    with pytest.warns(OneClassWarning):
        Pairwise("squared_hinge")(h, torch.ones(6)).backward()
    assert torch.equal(h.grad, torch.zeros(6))


def test_wrong_use_is_an_error():
    h, y = batch(0)
    with pytest.raises(ValueError, match="surrogate='hinge' is none of"):
        Pairwise("hinge")
    with pytest.raises(ValueError, match="hardest_positives=0 is not in"):
        Pairwise(hardest_positives=0)
    with pytest.raises(ValueError, match=r"label 0\.5 is not 0 or 1"):
        Pairwise()(h, torch.where(y == 1, 0.5, y))
    with pytest.raises(NotFinite, match="1 of 23 scores are not finite"):
        Pairwise()(torch.where(torch.arange(23) == 1, torch.nan, h), y)


def test_the_recipe_makes_it_and_refuses_fields_that_would_do_nothing():
    assert CONFIGURED == SURROGATES
    recipe = Finetune(loss="pairwise", surrogate="logistic", margin=0.5, hardest_positives=0.2)
    assert make_loss(recipe, 3, 10).extra_repr() == (
        "'logistic', margin=0.5, hardest_negatives=1.0, hardest_positives=0.2"
    )
    with pytest.raises(UserError, match="loss='pairwise' takes normalize='none'"):
        Finetune(loss="pairwise", normalize="l2")
    with pytest.raises(UserError, match="shares of the hardest images need"):
        Finetune(loss="aucm", hardest_positives=0.2)
