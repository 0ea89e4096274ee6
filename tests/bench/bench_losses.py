"""How long a loss takes, forward and backward, beside torch's binary cross-entropy with logits and
LibAUC's loss.

    python -m tests.bench.bench_losses

One thread, batches of 32, 128 and 4,096 with 1 and 5 labels. Every round takes the fastest of three
calls of each loss, in turn (calls one by one, so that a time slice lost to another process falls on
few of them, and warm, whatever ran before); the table shows medians over rounds of times and of the
ratios within a round. LibAUC's loss takes one label: five calls stand for five.

What bounds them: at these sizes not memory (80 KiB of scores are read in 2 µs) but the number of
operations, 1 to 2 µs each on one thread. An autograd function of four inputs that does nothing
takes about as long as the whole of BCE; the AUC losses add some thirty operations for values,
gradients and checks.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal
from tests.bench.rounds import interleaved, show

SIZES = (32, 128, 4096)
LABELS = (1, 5)
BASE = "BCE with logits (torch)"


def losses(labels: int, device: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What to time, by name."""
    named = {
        BASE: F.binary_cross_entropy_with_logits,
        "AUCMargin": AUCMargin(labels),
        "AUCMargin l2": AUCMargin(labels, margin=0.01, normalize="l2"),
        "AUCMargin closed form": AUCMargin(labels, dual="closed_form"),
        "AUCSquare": AUCSquare(labels),
        "Focal": Focal(),
        "CrossEntropy": CrossEntropy(),
    }
    for loss in named.values():
        if isinstance(loss, torch.nn.Module):
            loss.to(device)
    theirs = libauc_loss(labels, device)
    return named if theirs is None else {**named, "LibAUC AUCM": theirs}


def libauc_loss(labels: int, device: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The authors' loss, once per label; None where it is not installed."""
    try:
        from libauc.losses import AUCMLoss
    except ImportError:
        return None
    each = [AUCMLoss(device=torch.device(device)) for _ in range(labels)]
    return lambda scores, y: sum(loss(scores[:, k], y[:, k]) for k, loss in enumerate(each)).mean()


def timer(
    loss: Callable[[Tensor, Tensor], Tensor], scores: Tensor, y: Tensor
) -> Callable[[], float]:
    """A function that runs the loss and its backward three times and gives the seconds of the
    fastest."""
    leaves = [scores]
    if isinstance(loss, AUCMargin) and loss.dual == "sgd":
        leaves += [loss.a, loss.b, loss.alpha]

    def once() -> float:
        for leaf in leaves:
            leaf.grad = None
        begun = time.perf_counter()
        loss(scores, y).backward()
        if scores.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return lambda: min(once() for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for size in SIZES:
        for labels in LABELS:
            scores = torch.randn(size, labels, device=args.device, requires_grad=True)
            y = (torch.rand(size, labels, device=args.device) < 0.2).float()
            y[0] = 1
            y[1] = 0
            named = losses(labels, args.device)
            timers = {name: timer(loss, scores, y) for name, loss in named.items()}
            kib = scores.nbytes / 1024
            title = f"B = {size}, K = {labels}, {args.device}: {kib:.1f} KiB of scores"
            show(title, interleaved(timers, args.rounds), BASE, unit=1e6, suffix="µs")


if __name__ == "__main__":
    main()
