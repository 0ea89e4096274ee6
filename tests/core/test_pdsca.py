"""PDSCA against its equations written out in float64, against PESG where the two are one, and what
a validation must not change."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.pdsca import PDSCA
from pipeline.core.pesg import PESG
from tests.cases.pesg import batch, network


def tensors(step: int) -> tuple[Tensor, Tensor]:
    x, y = batch(step)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def train(net: nn.Module, loss: AUCMargin, optimizer: PDSCA, steps: range, between=None) -> None:
    for step in steps:
        x, y = tensors(step)
        optimizer.zero_grad()
        optimizer.inner_loss(net(x)[:, 0], y).backward()
        optimizer.look_ahead()
        loss(net(x)[:, 0], y).backward()
        optimizer.step()
        if between:
            between(step)


def made(**changes) -> tuple[nn.Module, AUCMargin, PDSCA]:
    net = network()
    loss = AUCMargin(margin=0.7)
    settings = dict(lr=0.2, inner_lr=0.3, gamma=0.1, weight_decay=1e-3) | changes
    return net, loss, PDSCA(net.parameters(), loss, **settings)


def by_hand(steps: int, keep_ahead: float, keep: float) -> list[Tensor]:
    """Equations 2 to 4 in float64, with the pull to the first weights (γ = 0.1, λ = 1e-3)."""
    net = network().double()
    loss = AUCMargin(margin=0.7)
    names = [name for name, _ in net.named_parameters()]
    v = [value.detach().clone() for value in net.parameters()]
    duals = [torch.zeros(1, dtype=torch.float64) for _ in range(3)]
    start, u, z = [value.clone() for value in v], None, None

    def scores(weights: list[Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, weights)), x.double())[:, 0]

    for step in range(steps):
        x, y = tensors(step)
        w = [value.clone().requires_grad_() for value in v]
        inner = torch.autograd.grad(cross_entropy_of(scores(w, x), y.double()), w)
        fresh = [value - 0.3 * g for value, g in zip(v, inner)]
        u = (
            fresh
            if u is None
            else [keep_ahead * old + (1 - keep_ahead) * new for old, new in zip(u, fresh)]
        )
        ahead = [value.clone().requires_grad_() for value in (*u, *duals)]
        value = equation_8(scores(ahead[:-3], x), y.double(), *ahead[-3:], loss.margin)
        g = torch.autograd.grad(value, ahead)
        primal = g[:-1]
        z = primal if z is None else [keep * old + (1 - keep) * new for old, new in zip(z, primal)]
        parts = zip(v, z, start)
        v = [w - 0.2 * (d + 0.1 * (w - r)) - 1e-3 * 0.2 * w for w, d, r in parts]
        a, b = (duals[k] - 0.2 * z[len(v) + k] for k in range(2))
        duals = [a, b, (duals[2] + 0.2 * g[-1]).clamp(min=0)]
    return [*v, *duals]


def cross_entropy_of(h: Tensor, y: Tensor) -> Tensor:
    return -(y * torch.log(torch.sigmoid(h)) + (1 - y) * torch.log(1 - torch.sigmoid(h))).mean()


def equation_8(h, y, a, b, alpha, m):
    p = y.mean()
    positive, negative = y, 1 - y
    square = (1 - p) * (h - a) ** 2 * positive + p * (h - b) ** 2 * negative
    linear = p * (1 - p) * m + p * h * negative - (1 - p) * h * positive
    return (square - p * (1 - p) * alpha**2 + 2 * alpha * linear).mean()


@pytest.mark.parametrize(("keep_ahead", "keep"), [(0.0, 0.0), (0.1, 0.1), (0.8, 0.6)])
def test_steps_are_those_of_the_equations(keep_ahead, keep):
    net, loss, optimizer = made(keep_ahead=keep_ahead, keep=keep)
    train(net, loss, optimizer, range(25))
    expected = by_hand(25, keep_ahead, keep)
    found = [*net.parameters(), loss.a, loss.b, loss.alpha]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach().double(), other, rtol=1e-4, atol=1e-6)


def test_without_a_step_ahead_and_averages_it_is_pesg_bit_for_bit():
    net, loss, optimizer = made(inner_lr=0.0, keep_ahead=0.0, keep=0.0)
    train(net, loss, optimizer, range(10))
    optimizer.next_stage(lr=0.05)
    train(net, loss, optimizer, range(10, 20))
    other, its_loss = network(), AUCMargin(margin=0.7)
    pesg = PESG(other.parameters(), its_loss, lr=0.2, gamma=0.1, weight_decay=1e-3)
    for step in range(20):
        if step == 10:
            pesg.next_stage(lr=0.05)
        x, y = tensors(step)
        pesg.zero_grad()
        its_loss(other(x)[:, 0], y).backward()
        pesg.step()
    pairs = zip([*net.parameters(), loss.alpha], [*other.parameters(), its_loss.alpha])
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_validation_changes_nothing():
    plain = made()
    train(*plain, range(12))
    validated = made()
    x, y = tensors(99)

    def validate(_step: int) -> None:
        net, loss, _ = validated
        net.eval(), loss.eval()
        with torch.no_grad():
            loss(net(x)[:, 0], y)
            CrossEntropy()(net(x)[:, 0], y)
        net.train(), loss.train()

    train(*validated, range(12), between=validate)
    pairs = zip(plain[0].parameters(), validated[0].parameters())
    assert all(torch.equal(one, two) for one, two in pairs)


def test_the_state_is_all_that_a_cut_run_needs():
    net, loss, optimizer = made()
    train(net, loss, optimizer, range(20))
    first = made()
    train(*first, range(9))
    again = made()
    again[0].load_state_dict(first[0].state_dict())
    again[2].load_state_dict(copy.deepcopy(first[2].state_dict()))
    train(*again, range(9, 20))
    pairs = zip([*net.parameters(), loss.alpha], [*again[0].parameters(), again[1].alpha])
    assert all(torch.equal(one, two) for one, two in pairs)
    # A copy goes on alone.
    twin = copy.deepcopy(again[2])
    assert twin.inner_ratio == again[2].inner_ratio and twin.is_ahead is False


def test_wrong_use_is_an_error():
    net, loss, optimizer = made()
    x, y = tensors(0)
    loss(net(x)[:, 0], y).backward()
    with pytest.raises(RuntimeError, match=r"look_ahead\(\), .* comes before step"):
        optimizer.step()
    optimizer.look_ahead()
    with pytest.raises(RuntimeError, match="twice"):
        optimizer.look_ahead()
    with pytest.raises(RuntimeError, match="of no step"):
        optimizer.state_dict()
    with pytest.raises(RuntimeError, match="takes no closure"):
        optimizer.step(lambda: loss(net(x)[:, 0], y))
    for changes, message in (
        (dict(inner_lr=-1.0), "inner_lr=-1"),
        (dict(keep=1.0), "keep=1"),
        (dict(keep_ahead=-0.1), "keep_ahead=-0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**changes)
