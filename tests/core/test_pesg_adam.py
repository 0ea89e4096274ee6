"""PESG in AdamW's direction: torch's AdamW where nothing else acts, the pull beside it, the dual as
without it, and a run cut anywhere."""

import numpy as np
import pytest
import torch

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.pesg import PESG
from pipeline.core.training import checkpoint
from tests.cases.pesg import batch, network


def train(net, loss, optimizer, steps, stages=()):
    for t in steps:
        if t in stages:
            optimizer.next_stage()
        x, y = (torch.from_numpy(part).to(next(net.parameters()).dtype) for part in batch(t))
        optimizer.zero_grad()
        loss(net(x)[:, 0], y).backward()
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_without_gamma_and_loss_it_is_torchs_adamw(decay):
    results = []
    for make, option in ((PESG, dict(adam=True)), (torch.optim.AdamW, {})):
        net = network().double()
        groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.002}]
        train(net, CrossEntropy(), make(groups, lr=0.01, weight_decay=decay, **option), range(40))
        results.append(list(net.parameters()))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_pull_is_beside_the_direction():
    v = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = PESG([v], lr=0.1, gamma=0.3, weight_decay=0.02, adam=True)
    expected = np.array([1.0, -2.0])
    reference = expected.copy()
    iterates = []
    mean = square = np.zeros(2)
    for t in range(1, 31):
        gradient = np.array([np.sin(t), 0.5])
        v.grad = torch.from_numpy(gradient)
        if t == 15:
            optimizer.next_stage()
            reference = np.mean(iterates, axis=0)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        direction = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        step = direction + 0.3 * (expected - reference) + 0.02 * expected
        expected = expected - 0.1 * step
        iterates.append(expected)
    np.testing.assert_allclose(v.detach().numpy(), expected, rtol=1e-12)


def test_the_dual_takes_its_gradient_at_its_own_rate():
    """One step from the start: a, b and α move by 0.3 times their gradients, the weights by lr."""
    net = network().double()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    loss = AUCMargin().double()
    optimizer = PESG(net.parameters(), loss, lr=1e-3, dual_lr=0.3, adam=True)
    assert [group.get("lr_scale", 1) for group in optimizer.param_groups] == [1, 300, 300]
    x, y = (torch.from_numpy(part) for part in batch(0))
    loss(net(x)[:, 0], y).backward()
    gradients = [part.grad.clone() for part in (loss.a, loss.b, loss.alpha)]
    optimizer.step()
    expected = [-0.3 * gradients[0], -0.3 * gradients[1], (0.3 * gradients[2]).clamp(min=0)]
    for ours, theirs in zip((loss.a, loss.b, loss.alpha), expected):
        torch.testing.assert_close(ours.detach(), theirs)
    moved = torch.cat([(a - b).flatten() for a, b in zip(net.parameters(), before)]).abs()
    assert (moved > 0.9e-3).any() and (moved < 1.001e-3).all()


def test_momentum_beside_it_is_an_error():
    with pytest.raises(ValueError, match=r"momentum=0\.9 beside adam"):
        PESG([torch.zeros(1, requires_grad=True)], momentum=0.9, adam=True)


@pytest.mark.parametrize("cut", [1, 9, 13])
def test_a_cut_run_ends_as_the_uncut_one(tmp_path, cut):
    def start():
        net = network()
        loss = AUCMargin()
        return net, loss, PESG(net.parameters(), loss, lr=1e-2, gamma=0.3, dual_lr=0.1, adam=True)

    uncut = start()
    train(*uncut, range(20), stages=(10,))
    first = start()
    train(*first, range(cut), stages=(10,))
    state = {"network": first[0].state_dict(), "optimizer": first[2].state_dict()}
    checkpoint.save_checkpoint(tmp_path, "finetuned", state)
    state = checkpoint.load_checkpoint(tmp_path, "finetuned")
    second = start()
    second[0].load_state_dict(state["network"])
    second[2].load_state_dict(state["optimizer"])
    train(*second, range(cut, 20), stages=(10,))
    for ours, theirs in zip(uncut[0].parameters(), second[0].parameters()):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_of_before_adam_goes_on():
    net = network()
    optimizer = PESG(net.parameters(), lr=0.1, gamma=0.1)
    train(net, CrossEntropy(), optimizer, range(3))
    old = optimizer.state_dict()
    for group in old["param_groups"]:
        del group["adam"]
    again = PESG(net.parameters(), lr=0.1, gamma=0.1)
    again.load_state_dict(old)
    train(net, CrossEntropy(), again, range(3, 5))
