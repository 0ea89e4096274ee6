"""Batch score normalisation (paper §4.1, §5.1): what is done to a batch's scores before an AUC loss
sees them.

Part of the loss, hence of training only: a score at inference must not depend on which images share
its batch.

    none        h
    l2          h / ‖h‖, the norm over the batch, label by label (the paper)
    l2*sqrt_b   h √N / ‖h‖: the same direction, but a scale that does not depend on the batch size
    sigmoid     1 / (1 + exp(-h)) (the authors' later notebooks)
"""

import torch
from torch import Tensor

# The names a recipe may use are listed a second time in config/run.py, which does not import torch;
# a test compares the two.
NORMALIZERS = ("none", "l2", "l2*sqrt_b", "sigmoid")


def normalize(h: Tensor, n: int | Tensor, how: str) -> Tensor:
    """(B, K) scores, normalised label by label; differentiable. Entries left out are 0, n entries
    count.

    Scores that are all 0 have no direction: they stay 0 and their gradient passes unchanged, so
    that a classifier that starts at 0 can leave it.
    """
    if how == "none":
        return h
    if how == "sigmoid":
        return torch.sigmoid(h)
    return Direction.apply(h, n**0.5 if how == "l2*sqrt_b" else 1.0)


class Direction(torch.autograd.Function):
    """u = s h / ‖h‖ of every column of (B, K), and its gradient (g - u (u·g) / s²) s / ‖h‖, in six
    operations."""

    @staticmethod
    def forward(ctx, h, s):
        # In float64, where the square of any float32 score still fits.
        norm = torch.linalg.vector_norm(h, dim=0, dtype=torch.float64) / s
        norm = torch.where(norm > 0, norm, 1.0).to(h.dtype)
        # A norm of 0 was made 1 above: u = h = 0, and below the gradient passes unchanged.
        u = h / norm
        ctx.save_for_backward(u, norm)
        ctx.s = s
        return u

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        # What points along u would only change the norm, which u has lost: it is taken out.
        u, norm = ctx.saved_tensors
        along = (u * g).sum(0).div_(ctx.s**2)
        return torch.addcmul(g, u, along, value=-1).div_(norm), None


def reach(positives: float | Tensor, negatives: float | Tensor, how: str) -> float | Tensor:
    """The largest μ+ - μ- that normalised scores can have, of the shape of the counts; inf where it
    has no bound.

    For unit norm it is ‖(1/N+, …, -1/N-, …)‖ = √(1/N+ + 1/N-), reached by scores constant within
    each class: 1.004 for 1 positive in 128, 0.177 for 64. A margin above it can never be met: α
    stays above 0 and the hinge never acts. Under the sigmoid the bound, 1, is approached and never
    reached.
    """
    # `0 * positives +` gives the constant the counts' own shape, dtype and device.
    if how == "none":
        return 0 * positives + torch.inf
    if how == "sigmoid":
        return 0 * positives + 1.0
    bound = (1 / positives + 1 / negatives) ** 0.5
    if how == "l2":
        return bound
    return bound * (positives + negatives) ** 0.5
