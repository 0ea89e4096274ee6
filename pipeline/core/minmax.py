"""The min-max form of the AUC losses (paper eq. 4 and 8): its value and, in closed form, all its gradients.

One pass over the scores gives both, so that autograd records one node instead of thirty. With y in {0, 1}, the mean
over the N entries of one label is

    F = (1-p)(h-a)² 1[y=1] + p(h-b)² 1[y=0] - p(1-p)α² + 2α(p(1-p)m + p h 1[y=0] - (1-p) h 1[y=1])

and, writing d = h - a for positives and h - b for negatives, e = p - y, c = |e| (that is 1-p for positives, p for
negatives), it reads F = mean(c d²) + 2α mean(e h) + p(1-p)(2αm - α²).
"""
from typing import NamedTuple

import torch
from torch import Tensor


class Gradients(NamedTuple):
    """∂/∂h (N, K), ∂/∂a, ∂/∂b, ∂/∂α (K,) of weight Σ_k F_k."""
    h: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor


def count(h: Tensor, y: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Positives and negatives of each label, (K,) each; entries with valid = 0 are in neither."""
    positives = y.sum(0)
    return positives, (h.shape[0] if valid is None else valid.sum(0)) - positives


def min_max(h: Tensor, y: Tensor, valid: Tensor | None, a: Tensor, b: Tensor, alpha: Tensor, prior: Tensor | None,
            margin: Tensor, weight: float = 1.0) -> tuple[Tensor, Gradients]:
    """F of each label, (K,), and the gradients of weight Σ_k F_k, in the dtype of h.

    h, y    (N, K) scores and labels in {0, 1}; valid (N, K) of 0 and 1, or None when every entry counts. y is 0 and h
            finite where valid is 0.
    prior   (K,) p, or None for p = N+/N of these entries (then E F is (1 - 1/N) times the true prior's)
    A label with no positive or no negative has value 0 and gradients 0, exactly.
    """
    positives, negatives = count(h, y, valid)
    n = (positives + negatives).clamp_(min=1)
    p = positives / n if prior is None else prior
    both = ((positives > 0) & (negatives > 0)).to(h.dtype)
    weight = both * weight
    pq = p * (1 - p)

    d = h - torch.where(y > 0, a, b)
    e = p - y if valid is None else (p - y) * valid
    cd = e.abs() * d
    sum_cd_pos = (cd * y).sum(0)
    sum_cd_neg = cd.sum(0) - sum_cd_pos
    # Σ e h from residuals: the same number as (e * h).sum(0), without its cancellation when all scores are far from 0.
    mean_eh = (sum_cd_neg - sum_cd_pos + p * negatives * b - (1 - p) * positives * a) / n

    value = (cd * d).sum(0) / n + alpha * (2 * mean_eh + pq * (2 * margin - alpha))
    scale = 2 * weight / n
    return value * both, Gradients(h=torch.addcmul(cd, alpha, e) * scale,
                                   a=-scale * sum_cd_pos,
                                   b=-scale * sum_cd_neg,
                                   alpha=2 * weight * (mean_eh + pq * (margin - alpha)))


class MinMax(torch.autograd.Function):
    """Mean of F over the K labels as one float32 scalar that carries the gradients above."""

    @staticmethod
    def forward(ctx, h, a, b, alpha, y, valid, prior, margin):
        value, gradients = min_max(h, y, valid, a, b, alpha, prior, margin, weight=1 / h.shape[1])
        ctx.save_for_backward(*gradients)
        return value.mean().float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        # Inputs that need no gradient (a, b and α in closed form) cost nothing.
        given = (grad * g if need else None for g, need in zip(ctx.saved_tensors, ctx.needs_input_grad))
        return *given, None, None, None, None


def class_means(h: Tensor, y: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """μ+, μ-, N+, N- of each label, (K,) each; a mean over nothing is 0."""
    positives, negatives = count(h, y, valid)
    chosen = y if valid is None else valid
    sum_pos = (h * y).sum(0)
    sum_neg = (h * (1 - y)).sum(0) if valid is None else (h * (chosen - y)).sum(0)
    return sum_pos / positives.clamp(min=1), sum_neg / negatives.clamp(min=1), positives, negatives


def margin_loss(h: Tensor, y: Tensor, valid: Tensor | None, margin: Tensor, hinge: bool = True) -> Tensor:
    """A_M = V+ + V- + max(0, m - μ+ + μ-)² of each label (eq. 6); without the hinge A_S (eq. 5). (K,)"""
    mean_pos, mean_neg, positives, negatives = class_means(h, y, valid)
    d2 = (h - torch.where(y > 0, mean_pos, mean_neg)) ** 2
    d2 = d2 if valid is None else d2 * valid
    variance_pos = (d2 * y).sum(0) / positives.clamp(min=1)
    variance_neg = (d2 * (1 - y)).sum(0) / negatives.clamp(min=1)
    gap = margin - mean_pos + mean_neg
    return variance_pos + variance_neg + (gap.clamp(min=0) if hinge else gap) ** 2
