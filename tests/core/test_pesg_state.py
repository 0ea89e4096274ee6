"""A run cut anywhere and resumed is the uncut run, bit for bit; and PESG under mixed precision with
a scaler."""

import io

import pytest
import torch

from pipeline.core.losses import AUCMargin, AUCSquare
from pipeline.core.pesg import PESG
from pipeline.core.training import checkpoint
from tests.cases.pesg import batch, network

STEPS = 36
BOUNDARIES = (11, 25)
UNFREEZE = 17
MAKES = {
    "margin": AUCMargin,
    "square": AUCSquare,
    "closed form": lambda: AUCMargin(dual="closed_form"),
    "prior, l2": lambda: AUCMargin(margin=0.3, prior=0.3, normalize="l2"),
}


def start(make, momentum, dual_too):
    """Network, loss, optimizer with two groups, scheduler; the first layer begins frozen."""
    net = network()
    loss = make()
    net[0].weight.requires_grad_(False)
    groups = [
        {"params": net[0].parameters(), "gamma": 0.1},
        {"params": net[2].parameters(), "lr": 0.05},
    ]
    optimizer = PESG(
        groups,
        loss=loss,
        lr=0.1,
        gamma=0.3,
        weight_decay=1e-3,
        momentum=momentum,
        regularize_dual=dual_too,
    )
    return net, loss, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)


def go_on(net, loss, optimizer, scheduler, steps):
    for t in steps:
        net[0].weight.requires_grad_(t >= UNFREEZE)
        if t in BOUNDARIES:
            optimizer.next_stage()
        x, y = (torch.from_numpy(part).float() for part in batch(t))
        optimizer.zero_grad()
        loss(net(x)[:, 0], y).backward()
        optimizer.step()
        scheduler.step()


def everything(net, loss, optimizer):
    """All numbers that a run ends with."""
    state = optimizer.state_dict()
    tensors = [*net.state_dict().values(), *loss.state_dict().values()]
    for entry in state["state"].values():
        tensors += [torch.as_tensor(value) for _, value in sorted(entry.items())]
    return [
        *tensors,
        torch.tensor(
            [[g["lr"], g["stage_step"]] for g in state["param_groups"]], dtype=torch.float64
        ),
    ]


@pytest.mark.filterwarnings("ignore:label .:UserWarning")
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize(("momentum", "dual_too"), [(0.0, False), (0.9, True)])
def test_cut_anywhere_and_resumed(make, momentum, dual_too):
    whole = start(make, momentum, dual_too)
    go_on(*whole, range(STEPS))
    for cut in range(0, STEPS + 1, 1 if make is AUCMargin and momentum == 0 else 7):
        first = start(make, momentum, dual_too)
        go_on(*first, range(cut))
        file = io.BytesIO()
        torch.save(
            {
                "net": first[0].state_dict(),
                "pesg": first[2].state_dict(),
                "rate": first[3].state_dict(),
            },
            file,
        )
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        torch.manual_seed(99)
        second = start(make, momentum, dual_too)
        for part in second[0].parameters():
            part.data.normal_()
        second[0].load_state_dict(saved["net"])
        second[2].load_state_dict(saved["pesg"])
        second[3].load_state_dict(saved["rate"])
        go_on(*second, range(cut, STEPS))
        for ours, expected in zip(everything(*second[:3]), everything(*whole[:3]), strict=True):
            assert torch.equal(ours, expected), cut


def test_a_saved_state_is_a_snapshot_and_survives_loading():
    first = start(AUCMargin, 0.5, False)
    go_on(*first, range(20))
    saved = first[2].state_dict()
    weights = {name: value.clone() for name, value in first[0].state_dict().items()}
    go_on(*first, range(20, 30))
    for _ in range(2):  # the second load finds what the first found
        other = start(AUCMargin, 0.5, False)
        other[0].load_state_dict(weights)
        other[2].load_state_dict(saved)
        go_on(*other, range(20, 30))
        for ours, expected in zip(everything(*other[:3]), everything(*first[:3]), strict=True):
            assert torch.equal(ours, expected)


def scaled_run(scaler, autocast=None, steps=25, poison=()):
    """A run under a GradScaler; at the steps in `poison` a gradient overflows."""
    net = network()
    loss = AUCMargin()
    optimizer = PESG(net.parameters(), loss=loss, lr=0.3, gamma=0.1)
    for t in range(steps):
        x, y = (torch.from_numpy(part).float() for part in batch(t))
        optimizer.zero_grad()
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            value = loss(net(x)[:, 0], y)
        scaler.scale(value).backward()
        if t in poison:
            net[0].weight.grad[0, 0] = torch.inf
        before = [v.clone() for v in (*net.parameters(), loss.a, loss.b, loss.alpha)]
        scaler.step(optimizer)
        scaler.update()
        after = [*net.parameters(), loss.a, loss.b, loss.alpha]
        assert all(torch.equal(u, v) for u, v in zip(before, after)) == (t in poison)
    return [v.detach().clone() for v in after]


def test_a_scaler_changes_nothing_and_skips_alpha_too():
    """The scale is a power of two, so unscaled gradients are exact, those of a, b and α
    included."""
    plain = scaled_run(torch.amp.GradScaler("cpu", enabled=False))
    scaled = scaled_run(torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=5))
    assert all(torch.equal(u, v) for u, v in zip(plain, scaled))
    scaled_run(torch.amp.GradScaler("cpu", init_scale=2.0**12), poison=(3, 7))


def test_unscaling_by_hand_first_is_the_same():
    results = []
    for by_hand in (False, True):
        net = network()
        loss = AUCMargin()
        optimizer = PESG(net.parameters(), loss=loss, lr=0.3)
        scaler = torch.amp.GradScaler("cpu")
        x, y = (torch.from_numpy(part).float() for part in batch(0))
        scaler.scale(loss(net(x)[:, 0], y)).backward()
        if by_hand:
            scaler.unscale_(optimizer)
            assert 0 < loss.alpha.grad < 1
        scaler.step(optimizer)
        results.append((loss.a.item(), loss.alpha.item()))
    assert results[0] == results[1] and results[0][1] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scaled", [False, True])
def test_half_precision_stays_near_single(dtype, scaled):
    single = scaled_run(torch.amp.GradScaler("cpu", enabled=False))
    half = scaled_run(
        torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**10), autocast=dtype
    )
    for u, v in zip(single, half):
        torch.testing.assert_close(u, v, rtol=0.05, atol=0.02)


def test_accumulated_micro_batches_add_up():
    """Gradients of a, b and α accumulate over backward passes as those of the weights do."""
    net = network()
    loss = AUCMargin()
    optimizer = PESG(net.parameters(), loss=loss, lr=0.3)
    with torch.no_grad():
        loss.alpha.fill_(0.4)
    gradients = []
    for t in range(2):
        x, y = (torch.from_numpy(part).float() for part in batch(t))
        optimizer.zero_grad()
        loss(net(x)[:, 0], y).backward()
        gradients.append(loss.alpha.grad.clone())
    optimizer.zero_grad()
    for t in range(2):
        x, y = (torch.from_numpy(part).float() for part in batch(t))
        (loss(net(x)[:, 0], y) / 2).backward()
    torch.testing.assert_close(loss.alpha.grad, sum(gradients) / 2)


def test_cut_through_a_checkpoint_on_disk_with_momentum_and_weights_in_channels_last_order(
    tmp_path,
):
    """A file holds its tensors row by row; the buffers must come back in the order of the
    weights."""

    def made() -> tuple:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3),
            torch.nn.ELU(),
            torch.nn.Conv2d(8, 4, 3),
            torch.nn.Flatten(),
            torch.nn.Linear(64, 1),
        ).to(memory_format=torch.channels_last)
        loss = AUCMargin()
        return net, loss, PESG(net.parameters(), loss=loss, lr=0.1, gamma=0.01, momentum=0.9)

    def go(net, loss, optimizer, steps) -> None:
        for step in steps:
            x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss(
                net(x.to(memory_format=torch.channels_last))[:, 0],
                (torch.arange(16) % 4 == 0).float(),
            ).backward()
            optimizer.step()

    whole = made()
    first = made()
    second = made()
    go(*whole, range(10))
    go(*first, range(5))
    checkpoint.save_checkpoint(
        tmp_path, "finetuned", {"net": first[0].state_dict(), "pesg": first[2].state_dict()}
    )
    saved = checkpoint.load_checkpoint(tmp_path, "finetuned")
    second[0].load_state_dict(saved["net"])
    second[2].load_state_dict(saved["pesg"])
    go(*second, range(5, 10))
    assert all(torch.equal(p, q) for p, q in zip(whole[0].parameters(), second[0].parameters()))
