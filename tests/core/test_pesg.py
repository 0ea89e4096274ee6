"""PESG against a plain reading of Algorithm 1, and against torch's SGD where the two are the
same."""

import copy

import numpy as np
import pytest
import torch

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG
from tests.cases.pesg import X, Y, batch, network


def algorithm_1(steps, stages, eta, gamma, decay, m, dual_too, hinge=True):
    """The paper's Algorithm 1 on a linear model, in numpy; v = (w, a, b) is one vector."""
    v = np.concatenate([np.full(6, 0.1), [0.0, 0.0]])
    alpha = 0.0
    reference = v.copy()
    iterates = []
    regularized = np.concatenate([np.ones(6), np.full(2, float(dual_too))])
    for t in range(steps):
        if t in stages:
            reference, iterates, eta = np.mean(iterates, axis=0), [], eta / 3
        x, y = batch(t)
        p, n, (w, a, b) = y.mean(), len(y), (v[:6], v[6], v[7])
        h = x @ w
        dh = 2 / n * np.where(y == 1, (1 - p) * (h - a - alpha), p * (h - b + alpha))
        da = -2 / n * np.sum((1 - p) * (h - a) * y)
        db = -2 / n * np.sum(p * (h - b) * (1 - y))
        dalpha = (
            2 * (p * (1 - p) * m + np.mean(p * h * (1 - y) - (1 - p) * h * y))
            - 2 * p * (1 - p) * alpha
        )
        gradient = np.concatenate([x.T @ dh, [da, db]])
        v = (
            v
            - eta * (gradient + gamma * regularized * (v - reference))
            - decay * eta * regularized * v
        )
        alpha = max(0.0, alpha + eta * dalpha) if hinge else alpha + eta * dalpha
        iterates.append(v)
    return np.concatenate([v, [alpha]])


@pytest.mark.parametrize("dual_too", [False, True])
@pytest.mark.parametrize(("gamma", "decay"), [(0.0, 0.0), (1 / 500, 0.0), (0.5, 1e-2), (0.0, 1e-2)])
@pytest.mark.parametrize("hinge", [True, False])
def test_algorithm_1_for_200_steps(gamma, decay, dual_too, hinge):
    m = 0.7 if hinge else 1.0
    stages = (60, 150)
    w = torch.full((6,), 0.1, dtype=torch.float64, requires_grad=True)
    loss = (AUCMargin(margin=m) if hinge else AUCSquare()).double()
    optimizer = PESG(
        [w], loss=loss, lr=0.3, gamma=gamma, weight_decay=decay, regularize_dual=dual_too
    )
    lr = 0.3
    for t in range(200):
        if t in stages:
            lr /= 3
            optimizer.next_stage(lr=lr)
        x, y = (torch.from_numpy(part) for part in batch(t))
        optimizer.zero_grad()
        loss(x @ w, y).backward()
        optimizer.step()
    ours = np.concatenate([w.detach().numpy(), [loss.a.item(), loss.b.item(), loss.alpha.item()]])
    expected = algorithm_1(200, stages, 0.3, gamma, decay, m, dual_too, hinge)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
    assert np.abs(expected[:6] - 0.1).max() > 0.05  # it went somewhere


def run(net, loss, optimizer, steps, scheduler=None):
    for t in steps:
        x, y = (torch.from_numpy(part).float() for part in batch(t))
        optimizer.zero_grad()
        loss(net(x)[:, 0], y).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scheduled", [False, True])
def test_without_gamma_and_loss_it_is_sgd_bit_for_bit(momentum, scheduled):
    results = []
    for make in (PESG, torch.optim.SGD):
        net = network()
        groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.02}]
        optimizer = make(groups, lr=0.1, momentum=momentum)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30) if scheduled else None
        results.append(run(net, CrossEntropy(), optimizer, range(30), scheduler))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_is_sgds(momentum):
    results = []
    for make in (PESG, torch.optim.SGD):
        net = network().double()
        optimizer = make(net.parameters(), lr=0.1, weight_decay=0.05, momentum=momentum)
        for t in range(30):
            x, y = (torch.from_numpy(part) for part in batch(t))
            optimizer.zero_grad()
            CrossEntropy()(net(x)[:, 0], y).backward()
            optimizer.step()
        results.append(list(net.parameters()))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_momentum_is_torchs_and_takes_in_the_pull():
    v = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = PESG([v], lr=0.1, gamma=0.3, weight_decay=0.02, momentum=0.8)
    expected = np.array([1.0, -2.0])
    reference = np.array([1.0, -2.0])
    buffer = np.zeros(2)
    for t in range(20):
        gradient = np.array([np.sin(t), 0.5])
        v.grad = torch.from_numpy(gradient)
        optimizer.step()
        buffer = 0.8 * buffer + gradient + 0.3 * (expected - reference) + 0.02 * expected
        expected = expected - 0.1 * buffer
    np.testing.assert_allclose(v.detach().numpy(), expected, rtol=1e-12)


def test_momentum_with_a_gradient_of_another_layout_and_with_several_dtypes():
    """The same numbers whatever order they lie in, as from a channels_last network with a hand-made
    gradient."""
    torch.manual_seed(0)
    start = torch.randn(4, 3, 2, 2)
    gradient = torch.randn(4, 3, 2, 2)
    plain = torch.nn.Parameter(start.clone())
    turned = torch.nn.Parameter(start.to(memory_format=torch.channels_last))
    double = torch.nn.Parameter(start.double())
    optimizer = PESG([plain, double, turned], lr=0.1, gamma=0.1, momentum=0.9)
    for _ in range(4):
        for parameter in (plain, double, turned):
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
    assert turned.stride() != turned.grad.stride()
    assert torch.equal(plain, turned.contiguous())
    torch.testing.assert_close(plain, double.float())


def test_many_small_and_some_large_tensors_move_alike():
    """Whatever is updated together, every tensor gets the same arithmetic."""
    torch.manual_seed(0)
    parts = [torch.randn(n) for n in (3, 400_000, 5, 1, 300_000, 7)]
    together = [torch.nn.Parameter(p.clone()) for p in parts]
    alone = [torch.nn.Parameter(p.clone()) for p in parts]
    optimizers = [
        PESG(together, lr=0.1, gamma=0.1, weight_decay=1e-3),
        *(PESG([p], lr=0.1, gamma=0.1, weight_decay=1e-3) for p in alone),
    ]
    for t in range(3):
        for one, other in zip(together, alone):
            one.grad = torch.full_like(one, np.sin(t))
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(together, alone))


@pytest.mark.parametrize("make", [AUCMargin, AUCSquare])
def test_alpha_ascends_and_stays_above_0_only_for_the_margin_loss(make):
    loss = make()
    optimizer = PESG([torch.zeros(1, requires_grad=True)], loss=loss, lr=0.5)
    scores = torch.tensor([5.0, 0.0])  # far apart: ∂F/∂α = (1 - 5 - α) / 2 < 0
    y = torch.tensor([1.0, 0.0])
    for _ in range(20):
        optimizer.zero_grad()
        loss(scores, y).backward()
        optimizer.step()
    assert loss.alpha.item() == (0.0 if make is AUCMargin else pytest.approx(-4, abs=0.1))
    scores = torch.tensor([0.0, 5.0])
    optimizer.zero_grad()
    loss(scores, y).backward()
    assert loss.alpha.grad > 0
    before = loss.alpha.item()
    optimizer.step()
    assert loss.alpha > before


def frozen_run(frozen, steps, boundaries):
    """A weight whose gradient is absent at the steps in `frozen`; its reference after every stage,
    and the reading."""
    v = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    optimizer = PESG([v, other], lr=0.1, gamma=0.2)
    value = reference = np.array([1.0])
    iterates = []
    for t in range(steps):
        if t in boundaries:
            optimizer.next_stage()
            reference, iterates = np.mean(iterates, axis=0), []
        v.grad = None if t in frozen else torch.tensor([np.cos(t)])
        other.grad = torch.ones_like(other)
        optimizer.step()
        if t not in frozen:
            value = value - 0.1 * (np.cos(t) + 0.2 * (value - reference))
        iterates.append(value)
    return v.item(), value.item()


@pytest.mark.parametrize(
    "frozen", [set(), set(range(7)), {3, 4, 5, 8}, set(range(10, 20)), set(range(5, 25)), {0, 29}]
)
def test_the_mean_counts_the_steps_in_which_a_weight_stood_still(frozen):
    ours, expected = frozen_run(frozen, 30, (10, 20))
    assert ours == pytest.approx(expected, rel=1e-12)


def test_a_stage_without_steps_changes_no_reference():
    results = []
    for twice in (False, True):
        net = network()
        loss = AUCMargin()
        optimizer = PESG(net.parameters(), loss=loss, lr=0.1, gamma=0.5)
        run(net, loss, optimizer, range(10))
        optimizer.next_stage()
        if twice:
            optimizer.next_stage()
        results.append(run(net, loss, optimizer, range(10, 20)))
    assert all(torch.equal(one, two) for one, two in zip(*results))


def test_next_stage_sets_the_rate_and_keeps_ratios():
    net = network()
    loss = AUCMargin()
    groups = [
        {"params": net[0].parameters(), "lr": 0.4},
        {"params": net[2].parameters(), "lr": 0.1},
    ]
    optimizer = PESG(groups, loss=loss, lr=0.2)
    optimizer.next_stage(lr=0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.05, 0.1, 0.1])
    optimizer.next_stage()
    assert optimizer.param_groups[0]["lr"] == 0.2


def test_a_group_added_later_joins_the_stage():
    results = []
    for later in (False, True):
        first, second = (torch.tensor([1.0], requires_grad=True) for _ in range(2))
        optimizer = PESG([first] if later else [first, second], lr=0.1, gamma=0.3)
        for t in range(12):
            first.grad = torch.ones(1)
            second.grad = torch.ones(1) if t >= 4 else None
            if later and t == 4:
                optimizer.add_param_group({"params": [second]})
            if t == 8:
                optimizer.next_stage()
            optimizer.step()
        results.append((first.item(), second.item()))
    assert results[0] == results[1]


def test_a_schedule_moves_every_group():
    net = network()
    loss = AUCMargin()
    optimizer = PESG(net.parameters(), loss=loss, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    run(net, loss, optimizer, range(5), scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == [0.025] * 3


def test_closure_and_zero_grad():
    net = network()
    loss = AUCMargin()
    optimizer = PESG(net.parameters(), loss=loss, lr=0.02)
    x, y = (torch.from_numpy(part).float() for part in batch(0))

    def closure():
        optimizer.zero_grad()
        value = loss(net(x)[:, 0], y)
        value.backward()
        return value

    first = optimizer.step(closure)
    assert loss.a != 0 and loss.alpha > 0 and optimizer.step(closure) != first
    optimizer.zero_grad()
    assert loss.alpha.grad is None and loss.a.grad is None


@pytest.mark.parametrize(
    "wrong",
    [
        dict(lr=-1),
        dict(gamma=-1),
        dict(weight_decay=-1),
        dict(momentum=-0.1),
        dict(lr=float("nan")),
    ],
)
def test_wrong_values_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PESG([torch.zeros(1, requires_grad=True)], **wrong)


def test_decay_beyond_1_raises():
    v = torch.ones(1, requires_grad=True)
    v.grad = torch.ones(1)
    with pytest.raises(ValueError, match="weight_decay"):
        PESG([v], lr=2.0, weight_decay=0.5).step()


@pytest.mark.parametrize(
    ("make", "lr"),
    [
        (AUCMargin, 0.5),
        (AUCSquare, 0.5),
        (lambda: AUCMargin(dual="closed_form"), 0.5),
        (
            lambda: AUCMargin(normalize="l2", margin=0.3),
            5.0,
        ),  # scores of size 1/√32: smaller gradients
        (lambda: AUCMargin(normalize="l2*sqrt_b"), 0.5),
        (lambda: AUCMargin(prior=float(Y.mean())), 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore:label .:UserWarning")
def test_it_learns_to_rank(make, lr):
    net = network()
    loss = make()
    optimizer = PESG(net.parameters(), loss=loss, lr=lr, gamma=1 / 500)
    run(net, loss, optimizer, range(200))
    optimizer.next_stage(lr=lr / 5)
    run(net, loss, optimizer, range(200, 300))
    scores = net(torch.from_numpy(X).float())[:, 0].detach().numpy()
    assert auc(scores, Y) > 0.85


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dual", ["sgd", "closed_form"])
def test_cuda_is_the_cpu(dual):
    results = []
    for device in ("cpu", "cuda"):
        net = network().double().to(device)
        loss = AUCMargin(dual=dual, normalize="l2*sqrt_b").double()
        optimizer = PESG(net.parameters(), loss=loss, lr=0.1, gamma=0.1)
        loss.to(device)  # after the optimizer was made: it still holds the same a, b, α
        for t in range(40):
            if t == 20:
                optimizer.next_stage(lr=0.05)
            x, y = (torch.from_numpy(part).to(device) for part in batch(t))
            optimizer.zero_grad()
            loss(net(x)[:, 0], y).backward()
            optimizer.step()
        results.append(
            [value.detach().cpu() for value in (*net.parameters(), loss.a, loss.b, loss.alpha)]
        )
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_deep_copies_go_their_own_way_alike():
    net = network()
    loss = AUCMargin()
    optimizer = PESG(net.parameters(), loss=loss, lr=0.1, gamma=0.2, momentum=0.5)
    run(net, loss, optimizer, range(15))
    twin = copy.deepcopy((net, loss, optimizer))
    assert twin[2].loss is twin[1] and twin[2].param_groups[-1]["params"][0] is twin[1].alpha
    before = [p.clone() for p in twin[0].parameters()]
    ours = run(net, loss, optimizer, range(15, 30))
    assert all(torch.equal(p, q) for p, q in zip(before, twin[0].parameters()))
    assert all(torch.equal(p, q) for p, q in zip(ours, run(*twin, range(15, 30))))
    assert torch.equal(loss.alpha, twin[1].alpha)
