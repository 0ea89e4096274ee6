"""CODA and CODASCA in three processes: against their equations in one process, against the global
batch where the two are one, and what leaves a process."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from pipeline.core.coda import CODA
from pipeline.core.losses import AUCMargin
from pipeline.core.losses.global_batch import own_batch

SITES = 3
ROWS = 16
STEPS = 24
PRIOR = 0.3
# Every kind: local steps a round, control variates, the prior.
KINDS = {
    "every step": (1, False, PRIOR),
    "rounds of 4": (4, False, "batch"),
    "control variates": (4, True, "batch"),
    "alone": (0, False, "batch"),
}


def site_batch(step: int, site: int) -> tuple[Tensor, Tensor]:
    """A site's own rows: its features are shifted, its share of positives its own."""
    generator = torch.Generator().manual_seed(100 * step + site)
    x = torch.randn(ROWS, 4, generator=generator) + 0.5 * site
    y = (torch.rand(ROWS, generator=generator) < 0.2 + 0.2 * site).float()
    y[0], y[1] = 1, 0
    return x, y


def network(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    first = [nn.BatchNorm1d(4)] if norm else []
    return nn.Sequential(*first, nn.Linear(4, 1))


def made(kind: str, norm: bool = False) -> tuple[nn.Module, AUCMargin, CODA]:
    every, control, prior = KINDS[kind]
    net = network(norm)
    loss = AUCMargin(margin=0.8, prior=prior)
    settings = dict(lr=0.2, gamma=0.05, weight_decay=1e-3)
    optimizer = CODA(net.parameters(), loss, every, control, **settings)
    optimizer.share(net)
    return net, loss, optimizer


def train(site: int, steps: range, parts) -> None:
    net, loss, optimizer = parts
    for step in steps:
        x, y = site_batch(step, site)
        optimizer.zero_grad()
        with own_batch():
            loss(net(x)[:, 0], y).backward()
        optimizer.step()


def ends(net: nn.Module, loss: AUCMargin) -> Tensor:
    values = [*net.state_dict().values(), loss.a, loss.b, loss.alpha]
    return torch.cat([value.detach().float().flatten() for value in values])


def by_hand(kind: str) -> list[Tensor]:
    """Equations 1 to 3 for all sites in one process, in float64: w, bias, a, b, α of each."""
    every, control, prior = KINDS[kind]
    start = [value.detach().double() for value in network().parameters()]
    zero = torch.zeros(1, dtype=torch.float64)
    now = [[*start, zero, zero, zero] for _ in range(SITES)]
    c = [[torch.zeros_like(value) for value in now[0]] for _ in range(SITES)]
    common = [torch.zeros_like(value) for value in now[0]]
    sums = [[torch.zeros_like(value) for value in now[0]] for _ in range(SITES)]
    for step in range(STEPS):
        for k in range(SITES):
            x, y = (part.double() for part in site_batch(step, k))
            free = [value.clone().requires_grad_() for value in now[k]]
            h = (x @ free[0].T + free[1])[:, 0]
            p = y.mean() if prior == "batch" else torch.tensor(prior, dtype=torch.float64)
            a, b, alpha = free[2:]
            value = (1 - p) * (h - a) ** 2 * y + p * (h - b) ** 2 * (1 - y)
            value = value + 2 * alpha * (p * (1 - p) * 0.8 + p * h * (1 - y) - (1 - p) * h * y)
            g = torch.autograd.grad((value - p * (1 - p) * alpha**2).mean(), free)
            sums[k] = [total + one for total, one in zip(sums[k], g)]
            if control:
                g = [one - mine + all_ for one, mine, all_ in zip(g, c[k], common)]
            for number in range(2):
                w = now[k][number]
                pulled = g[number] + 0.05 * (w - start[number])
                now[k][number] = w - 0.2 * pulled - 1e-3 * 0.2 * w
            now[k][2] = now[k][2] - 0.2 * g[2]
            now[k][3] = now[k][3] - 0.2 * g[3]
            now[k][4] = (now[k][4] + 0.2 * g[4]).clamp(min=0)
        if every and (step + 1) % every == 0:
            means = [sum(values) / SITES for values in zip(*now)]
            now = [list(means) for _ in range(SITES)]
            c = [[total / every for total in totals] for totals in sums]
            common = [sum(values) / SITES for values in zip(*c)]
            sums = [[torch.zeros_like(value) for value in means] for _ in range(SITES)]
    return [torch.cat([value.flatten() for value in values]) for values in now]


def work(site: int, folder: str) -> None:
    """One of three sites: every kind, a cut, a stage, and a record of all that is sent."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=site, world_size=SITES)
    results: dict[str, object] = {}
    for kind in KINDS:
        parts = made(kind)
        train(site, range(STEPS), parts)
        results[kind] = ends(parts[0], parts[1])

    # Cut in the middle of a round, and gone on from what is kept.
    first = made("control variates")
    train(site, range(10), first)
    again = made("control variates")
    again[0].load_state_dict(first[0].state_dict())
    again[2].load_state_dict(first[2].state_dict())
    train(site, range(10, STEPS), again)
    results["cut"] = ends(again[0], again[1])

    # BatchNorm's statistics, and a stage of PPD-SG.
    net, loss, optimizer = parts = made("rounds of 4", norm=True)
    train(site, range(8), parts)
    results["statistics"] = ends(net, loss)
    iterates = net[1].weight.detach().clone()
    x, y = site_batch(99, site)
    with torch.no_grad():
        batches = [(net.eval()(x)[:, 0], y)]
    net.train()
    optimizer.next_stage(restart=True, batches=batches)
    results["stage"] = ends(net, loss)
    results["restarted"] = not torch.equal(iterates, net[1].weight)
    results["class scores"] = batches[0]
    train(site, range(1), parts)
    try:
        optimizer.next_stage(restart=True, batches=batches)
    except RuntimeError as error:
        results["mid-round"] = str(error)

    results["sent"] = everything_sent(site)
    optimizer.finish()
    results["finished"] = ends(net, loss)
    other, _, its = made("rounds of 4")
    with torch.no_grad():
        other[0].weight.add_(0.1 * site)
    try:
        its.require_same_start()
    except ValueError as error:
        results["different"] = str(error)
    torch.save(results, Path(folder) / f"{site}.pt")
    dist.destroy_process_group()


def everything_sent(site: int) -> dict:
    """Every call of torch.distributed that takes a tensor or an object, during two rounds."""
    sent: list[tuple[str, Tensor]] = []
    kept = {}
    net, loss, optimizer = parts = made("control variates", norm=True)
    for name in dir(dist):
        function = getattr(dist, name)
        if not callable(function) or isinstance(function, type) or name.startswith("_"):
            continue
        if name in ("is_available", "is_initialized", "get_world_size", "get_rank"):
            continue
        kept[name] = function

        def recorded(*arguments, name=name, function=function, **more):
            sent.append((name, arguments[0].clone()))
            return function(*arguments, **more)

        setattr(dist, name, recorded)
    states = []
    plain = optimizer.exchange

    def exchange() -> None:
        own = [total / optimizer.every for total in optimizer.variates["sums"]]
        statistics = [net[0].running_mean, net[0].running_var]
        values = [*net.parameters(), loss.a, loss.b, loss.alpha, *statistics, *own]
        states.append(torch.cat([value.detach().flatten() for value in values]))
        plain()

    optimizer.exchange = exchange
    train(site, range(8), parts)
    for name, function in kept.items():
        setattr(dist, name, function)
    return {
        "calls": [name for name, _ in sent],
        "tensors": [one for _, one in sent],
        "states": states,
    }


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("sites")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=SITES)
    return [torch.load(folder / f"{site}.pt") for site in range(SITES)]


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_are_those_of_the_equations(processes, kind):
    for result, expected in zip(processes, by_hand(kind)):
        torch.testing.assert_close(result[kind].double(), expected, rtol=1e-4, atol=1e-5)
    same = all(torch.equal(result[kind], processes[0][kind]) for result in processes)
    assert same == (kind != "alone")


def test_a_round_of_one_step_is_the_global_batch_where_the_prior_is_given(processes):
    net, loss, optimizer = made("every step")
    for step in range(STEPS):
        parts = [site_batch(step, site) for site in range(SITES)]
        x, y = (torch.cat(columns) for columns in zip(*parts))
        optimizer.zero_grad()
        loss(net(x)[:, 0], y).backward()
        optimizer.step()
    torch.testing.assert_close(processes[0]["every step"], ends(net, loss), rtol=1e-4, atol=1e-5)


def test_a_site_cut_in_mid_round_goes_on_bit_for_bit(processes):
    for result in processes:
        assert torch.equal(result["cut"], result["control variates"])


def test_statistics_and_stages_are_shared(processes):
    for result in processes[1:]:
        assert torch.equal(result["statistics"], processes[0]["statistics"])
        assert torch.equal(result["stage"], processes[0]["stage"])
        assert torch.equal(result["finished"], processes[0]["finished"])
    # α, the last value, is the mean of the sites' saddles of their own class means.
    saddles = []
    for result in processes:
        h, y = result["class scores"]
        saddles.append((0.8 - h[y == 1].mean() + h[y == 0].mean()).clamp(min=0))
        assert result["restarted"] and "a stage ends with a round" in result["mid-round"]
    assert processes[0]["stage"][-1].item() == pytest.approx(sum(saddles).item() / SITES, rel=1e-5)


def test_nothing_of_an_image_or_a_row_leaves_a_process(processes):
    """In two rounds of four steps each, two all-reduces of one vector: weights, a, b, α,
    statistics, and the means of the round's gradients; its length knows of no row."""
    for result in processes:
        sent = result["sent"]
        assert sent["calls"] == ["all_reduce", "all_reduce"]
        for tensor, state in zip(sent["tensors"], sent["states"], strict=True):
            weights = 4 + 1 + 2 * 4  # and BatchNorm's own
            assert tensor.shape == (weights + 3 + 8 + weights + 3,)
            torch.testing.assert_close(tensor.sort().values, state.sort().values)


def test_wrong_use_is_an_error(processes):
    assert all("begin with different weights" in result["different"] for result in processes)
    net = network()
    for settings, message in (
        (dict(every=-1), "every=-1"),
        (dict(every=0, control=True), "every=0 has none"),
        (dict(momentum=0.9), "momentum=0.9 has a buffer"),
    ):
        with pytest.raises(ValueError, match=message):
            CODA(net.parameters(), AUCMargin(), **settings)
    with pytest.raises(RuntimeError, match="no closure"):
        CODA(net.parameters(), AUCMargin()).step(lambda: None)
