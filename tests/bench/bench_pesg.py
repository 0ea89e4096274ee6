"""How long a PESG step takes beside torch's SGD, and LibAUC's PESG where it is installed.

    python -m tests.bench.bench_pesg

On the parameters of densenet121 (6.95 M) and tf_efficientnet_b0 (4.0 M). Every round times each
optimizer once, in turn; the table shows medians of times and of the ratios within a round.
"""

import argparse
import time
from collections.abc import Callable

import torch

from pipeline.core.losses import AUCMargin
from pipeline.core.networks.image import import_timm
from pipeline.core.pesg import PESG
from tests.bench.rounds import interleaved, show

NETWORKS = ("densenet121", "tf_efficientnet_b0")
BASE = "SGD momentum foreach"


def parameters(network: str, device: str) -> list[torch.nn.Parameter]:
    """A network's trainable parameters with a gradient each."""
    model = import_timm().create_model(network, num_classes=1).to(device)
    leaves = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
    for leaf in leaves:
        leaf.grad = torch.randn_like(leaf) * 1e-3
    return leaves


def optimizers(network: str, device: str) -> dict[str, Callable[[], object]]:
    """The steps to time, each on its own copy of the parameters."""

    def own() -> list[torch.nn.Parameter]:
        return parameters(network, device)

    def sgd(**kind: bool) -> Callable[[], object]:
        return torch.optim.SGD(own(), lr=1e-3, momentum=0.9, **kind).step

    loss = AUCMargin().to(device)
    steps = {
        BASE: sgd(foreach=True),
        # Against itself: how far from 1 this machine's noise goes.
        "SGD momentum foreach (again)": sgd(foreach=True),
        "SGD momentum fused": sgd(fused=True),
        "PESG gamma": PESG(own(), loss=loss, lr=1e-3, gamma=1 / 500).step,
        "PESG gamma decay": PESG(own(), loss=loss, lr=1e-3, gamma=1 / 500, weight_decay=1e-5).step,
        "PESG gamma momentum": PESG(own(), loss=loss, lr=1e-3, gamma=1 / 500, momentum=0.9).step,
        "PESG plain": PESG(own(), loss=loss, lr=1e-3).step,
    }
    libauc = libauc_step(own())
    return steps if libauc is None else {**steps, "LibAUC PESG": libauc}


def libauc_step(leaves: list[torch.nn.Parameter]) -> Callable[[], object] | None:
    """The step of the authors' optimizer (no momentum, no clipping that acts), None where it is not
    installed."""
    try:
        from libauc.losses import AUCMLoss
        from libauc.optimizers import PESG as AUTHORS
    except ImportError:
        return None
    device = leaves[0].device
    return AUTHORS(
        leaves,
        loss_fn=AUCMLoss(device=device),
        lr=1e-3,
        momentum=0,
        epoch_decay=2e-3,
        weight_decay=0,
        verbose=False,
        device=device,
    ).step


def two_triads(count: int, device: str) -> Callable[[], object]:
    """Reads four and writes two streams of `count` floats, once through: the least memory traffic
    of a step with γ."""
    x, y, z = (torch.zeros(count, device=device) for _ in range(3))
    return lambda: (torch.add(x, y, alpha=0.5, out=z), torch.add(y, z, alpha=0.5, out=x))


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    for network in NETWORKS:
        steps = optimizers(network, args.device)
        count = sum(p.numel() for p in parameters(network, "cpu"))
        steps["two triads (bound of PESG gamma)"] = two_triads(count, args.device)
        timers = {name: lambda step=step: timed(step, args.device) for name, step in steps.items()}
        machine = f"{args.device}, {torch.get_num_threads()} threads"
        title = f"{network}: {count / 1e6:.2f} M parameters, {machine}"
        show(title, interleaved(timers, args.rounds), BASE, unit=1e3, suffix="ms")


if __name__ == "__main__":
    main()
