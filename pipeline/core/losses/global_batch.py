"""The global batch: scores and labels of every process, with gradients to this process's own part.

Convention: as DistributedDataParallel, which averages parameter gradients over processes. Every
process computes the same loss of the same global batch, so each has its own part of ∂loss/∂scores
already; times the number of processes, the average over processes is the gradient that one process
would have had. No communication backward.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

# Losses look at this process's batch alone, see `own_batch`.
ALONE = [False]


@contextlib.contextmanager
def own_batch() -> Iterator[None]:
    """Inside, losses see this process's batch alone and send nothing: sites that share no images
    (`core/coda.py`)."""
    before = ALONE[0]
    ALONE[0] = True
    try:
        yield
    finally:
        ALONE[0] = before


def process_count() -> int:
    """Number of processes whose batches a loss sees, 1 without a process group."""
    if not ALONE[0] and dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def gather(local: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes in rank order, and where this process's begin.

    The number of rows may differ between processes; the other dimensions may not.
    """
    # How many rows each process has.
    sizes = torch.empty(process_count(), dtype=torch.int64, device=local.device)
    dist.all_gather_into_tensor(sizes, torch.tensor([len(local)], device=local.device))
    sizes = sizes.tolist()
    longest = max(sizes)
    start = sum(sizes[: dist.get_rank()])
    # all_gather wants equal sizes: shorter parts are padded, and cut again afterwards.
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local
    parts = local.new_empty(len(sizes) * longest, *local.shape[1:])
    dist.all_gather_into_tensor(parts, padded)
    if min(sizes) == longest:
        return parts, start
    cut = [part[:size] for part, size in zip(parts.split(longest), sizes)]
    return torch.cat(cut), start


class GlobalScores(torch.autograd.Function):
    """Scores of every process, whose gradient goes to the rows from `start` that are this
    process's."""

    @staticmethod
    def forward(ctx, local, everyone, start):
        ctx.start = start
        ctx.size = len(local)
        ctx.processes = process_count()
        return everyone.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad[ctx.start : ctx.start + ctx.size] * ctx.processes, None, None


def global_batch(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, K) scores and labels of this process -> (N, K) of all, in the dtype of the scores; NaN
    labels stay NaN."""
    # Scores and labels travel as one tensor: one exchange, not two.
    everyone, start = gather(torch.cat([scores.detach(), labels.to(scores.dtype)], dim=1))
    everyones_scores, everyones_labels = everyone.chunk(2, dim=1)
    return GlobalScores.apply(scores, everyones_scores, start), everyones_labels
