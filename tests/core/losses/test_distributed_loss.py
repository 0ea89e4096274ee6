"""Two gloo processes of batch B are one process of batch 2B; references and duals are the same on
both at all steps."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal, Pairwise, PartialAUC
from pipeline.core.losses.global_batch import global_batch
from pipeline.core.pesg import PESG

STEPS = 50
SIZE = 24
BOUNDARY = 30
ROWS = 100  # of the training set, where a loss has a state for each
KINDS = {
    "margin": lambda: AUCMargin(2, margin=[0.5, 1.0]),
    "square": lambda: AUCSquare(2),
    "closed form": lambda: AUCMargin(2, dual="closed_form"),
    "l2": lambda: AUCMargin(2, margin=0.2, normalize="l2"),
    "cross-entropy": CrossEntropy,
    "focal": Focal,
    "pairs": lambda: Pairwise("squared_hinge", hardest_negatives=0.5, num_labels=2),
    "exact": lambda: PartialAUC(ROWS, 2, form="sopa", hardest_positives=0.4),
    "soft": lambda: PartialAUC(ROWS, 2, surrogate="logistic", temperature_negatives=1.0),
    "two-way": lambda: PartialAUC(
        ROWS,
        2,
        form="sota_s",
        surrogate="logistic",
        temperature_negatives=1.0,
        temperature_positives=2.0,
    ),
    "sigmoid, prior": lambda: AUCMargin(2, margin=0.5, normalize="sigmoid", prior=0.2),
}


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ELU(), torch.nn.Linear(16, 2))


def whole_batch(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """2B rows whose positives lie mostly in the first half (at times all of them), NaN labels, and
    a mask."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(2 * SIZE, 5, generator=generator)
    rate = torch.where(torch.arange(2 * SIZE) < SIZE, 0.4, 0.0 if step % 3 == 0 else 0.1)[:, None]
    y = (torch.rand(2 * SIZE, 2, generator=generator) < rate).float()
    y[0] = 1
    y[1] = 0
    y[5, 1] = torch.nan
    return x, y, torch.rand(2 * SIZE, 2, generator=generator) < 0.9


def training_rows(step: int) -> torch.Tensor:
    """Which of the training set's rows the 2B are, one of them twice: once in each process."""
    numbers = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step))[: 2 * SIZE]
    numbers[-1] = numbers[0]
    return numbers


def rows(step: int, rank: int | None) -> slice:
    """This process's rows: halves, and at every fifth step parts of different sizes. None: all."""
    cut = SIZE + (7 if step % 5 == 4 else 0)
    return slice(None) if rank is None else (slice(0, cut), slice(cut, None))[rank]


def train(kind: str, rank: int | None) -> dict[str, torch.Tensor]:
    """50 steps; losses of every step, and the weights, references and duals at the end."""
    net = network()
    loss = KINDS[kind]()
    model = net if rank is None else torch.nn.parallel.DistributedDataParallel(net)
    optimizer = PESG(net.parameters(), loss=loss, lr=0.3, gamma=0.05)
    torch.manual_seed(100 + (rank or 0))  # what a process draws for itself may differ
    values = []
    for step in range(STEPS):
        if step == BOUNDARY:
            optimizer.next_stage(lr=0.1)
        x, y, mask = (part[rows(step, rank)] for part in whole_batch(step))
        optimizer.zero_grad()
        more = {}
        if isinstance(loss, PartialAUC):
            more["rows"] = training_rows(step)[rows(step, rank)]
        value = loss(model(x), y, mask if step % 2 else None, **more)
        value.backward()
        optimizer.step()
        values.append(value.detach())
        if rank is not None:
            assert_same_on_both(loss, optimizer, net)
    return {
        "loss": torch.stack(values),
        "weights": torch.cat([p.detach().flatten() for p in net.parameters()]),
        "references": torch.cat(
            [optimizer.state[p]["reference"].flatten() for p in net.parameters()]
        ),
        "duals": duals(loss),
        "one_class": getattr(loss, "one_class", torch.zeros(0)),
    }


def duals(loss) -> torch.Tensor:
    """a, b, α in one row, or the states of all rows; nothing for a loss that has neither."""
    if isinstance(loss, PartialAUC):
        kept = [value.flatten().double() for value in loss.state_dict().values()]
        return torch.cat(kept).nan_to_num().float()
    return (
        torch.cat([loss.a, loss.b, loss.alpha]).detach() if hasattr(loss, "a") else torch.zeros(0)
    )


def assert_same_on_both(loss, optimizer, net) -> None:
    """Bit for bit."""
    state = [
        optimizer.state[p][name].flatten()
        for p in net.parameters()
        for name in ("reference", "mean")
    ]
    own = torch.cat([duals(loss), *state, *(p.flatten() for p in net.parameters())]).detach()
    both = [torch.empty_like(own) for _ in range(2)]
    dist.all_gather(both, own)
    assert torch.equal(*both), loss


def work(rank: int, folder: str) -> None:
    """One of two processes: every kind of loss, then what gather does on its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {kind: train(kind, rank) for kind in KINDS}
    scores = (torch.arange(3.0 + rank) + 10 * rank)[
        :, None
    ].requires_grad_()  # 3 rows here, 4 there
    everyone, labels = global_batch(scores, torch.full((3 + rank, 1), float(rank)))
    (everyone[:, 0] * torch.arange(7.0)).sum().backward()
    loss = AUCMargin().eval()
    alone = loss(
        scores[:2, 0] * 0, torch.tensor([1.0, 0.0])
    )  # in eval mode a process may call the loss by itself
    if rank == 0:
        loss(scores[:2, 0], torch.tensor([1.0, 0.0]))
    results["gather"] = {
        "everyone": everyone.detach(),
        "labels": labels,
        "gradient": scores.grad,
        "alone": alone.detach(),
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    """What the two processes ended with."""
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.filterwarnings("ignore:label .:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_are_one_of_twice_the_batch(processes, kind):
    alone = train(kind, None)
    for result in processes:
        for name, expected in alone.items():
            torch.testing.assert_close(result[kind][name], expected, rtol=2e-6, atol=1e-6)
    assert (
        alone["weights"] - torch.cat([p.flatten() for p in network().parameters()])
    ).abs().max() > 0.01


def test_gather(processes):
    for rank, result in enumerate(processes):
        found = result["gather"]
        assert found["everyone"][:, 0].tolist() == [0, 1, 2, 10, 11, 12, 13]
        assert found["labels"][:, 0].tolist() == [0, 0, 0, 1, 1, 1, 1]
        # as DistributedDataParallel averages over 2 processes, each gives twice its part
        assert found["gradient"][:, 0].tolist() == [[0, 2, 4], [6, 8, 10, 12]][rank]
        assert found["alone"] == 0
