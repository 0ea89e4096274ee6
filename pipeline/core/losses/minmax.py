"""The min-max form of the AUC losses (paper eq. 4 and 8): its value and, in closed form, all its
gradients.

With y in {0, 1}, the mean over the N entries of one label of

    F = (1-p)(h-a)² 1[y=1] + p(h-b)² 1[y=0] - p(1-p)α² + 2α(p(1-p)m + p h 1[y=0] - (1-p) h 1[y=1])

Writing d = h - a for positives and h - b for negatives, e = p - y, and c = |e| (1-p for positives,
p for negatives):

    mean F = mean(c d²) + 2α t + p(1-p)α²     with  t = mean(e h) + p(1-p)(m - α)
    ∂/∂h = (2/N)(c d + α e)    ∂/∂a = -(2/N) Σ_{y=1} c d    ∂/∂b = -(2/N) Σ_{y=0} c d    ∂/∂α = 2t

Value and gradients come from one pass over the scores, so that autograd records one node instead of
thirty.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Labels of N entries and K labels, and how many count.

    y          (N, K) in {0, 1}, in the dtype of the scores; 0 where valid is 0
    valid      (N, K) of 0 and 1, or None when every entry counts
    positives  (K,) N+
    n          N+ + N-, at least 1: a number when every entry counts, else (K,)
    live       (K,) of 0 and 1: 1 for labels with both classes; None when all have
    """

    y: Tensor
    valid: Tensor | None
    positives: Tensor
    n: int | Tensor
    live: Tensor | None

    @property
    def negatives(self) -> Tensor:
        entries = len(self.y) if self.valid is None else self.valid.sum(0)
        return entries - self.positives


class Gradients(NamedTuple):
    """∂/∂h (N, K); ∂/∂a, ∂/∂b, ∂/∂α (K,)."""

    h: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor


def make_batch(y: Tensor, valid: Tensor | None = None) -> Batch:
    """Counts of (N, K) labels in {0, 1}. Nothing is read back from an accelerator: there `live` is
    never None."""
    positives = y.sum(0)
    if valid is None:
        entries = len(y)
        n = max(entries, 1)
        # The usual batch: every entry counts and every label has both classes.
        if y.device.type == "cpu" and all(0 < positive < n for positive in positives.tolist()):
            return Batch(y, None, positives, n, None)
    else:
        entries = valid.sum(0)
        n = entries.clamp(min=1)
    live = (positives > 0) & (entries - positives > 0)
    return Batch(y, valid, positives, n, live.to(y.dtype))


def min_max(
    h: Tensor,
    batch: Batch,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    prior: Tensor | None,
    margin: Tensor,
    weight: float = 1.0,
) -> tuple[Tensor, Gradients]:
    """weight · F of each label, (K,), and the gradients of their sum over labels, in the dtype of
    h.

    h       (N, K) scores, finite (also where they do not count)
    a, b, alpha, margin  (K,) in the dtype of h
    prior   p, (K,), or None for p = N+/N of these entries (in expectation (1 - 1/N) times the true
            prior's gradient)
    A label with no positive or no negative has value 0 and gradients 0, exactly.
    """
    y = batch.y
    n = batch.n
    scale = 2 * weight / n
    p = batch.positives / n if prior is None else prior
    # p(1 - p), and 0 for a label of one class, as everything of such a label will be.
    pq = torch.addcmul(p, p, p, value=-1)
    if batch.live is not None:
        pq = pq * batch.live

    # Residuals d: exactly h - b at y = 0 and h - a at y = 1.
    d = h - torch.lerp(b, a, y)
    # From here on e and cd are 2 weight / n times what the module's docstring calls e and c d. In
    # place where it can be, which spares a new tensor each time.
    e = (p - y).mul_(scale)
    for part in (batch.valid, batch.live):
        if part is not None:
            e = e.mul_(part)
    cd = e.abs().mul_(d)
    positive_cd = (cd * y).sum(0)
    negative_cd = cd.sum(0) - positive_cd

    # mean(e h) by way of d: the same number, without its cancellation when all scores lie far from
    # 0. What d has taken away is p N- b - (1 - p) N+ a; with p of this very batch both factors are
    # n p(1 - p), and it joins the margin as b - a.
    if prior is None:
        short = (margin - a).add_(b).sub_(alpha)
        two_t = torch.addcmul(negative_cd - positive_cd, pq, short, value=2 * weight)
    else:
        mean_e_centre = scale * (p * batch.negatives * b - (1 - p) * batch.positives * a)
        if batch.live is not None:
            mean_e_centre = mean_e_centre * batch.live
        two_t = negative_cd - positive_cd + mean_e_centre + 2 * weight * pq * (margin - alpha)

    # The value: 2α t + p(1-p)α², and half of Σ c d², since c d carries a factor of 2. Then the
    # gradients, ∂/∂h = c d + α e among them.
    dual_part = alpha * torch.add(two_t, pq * alpha, alpha=weight)
    value = torch.add(dual_part, (cd * d).sum(0), alpha=0.5)
    gradient_h = cd.addcmul_(alpha, e)
    return value, Gradients(gradient_h, positive_cd.neg_(), negative_cd.neg_(), two_t)


class MinMax(torch.autograd.Function):
    """Mean of F over the K labels as one float32 scalar that carries the gradients above."""

    @staticmethod
    def forward(ctx, h, a, b, alpha, batch, prior, margin):
        # The gradients are ready with the value; backward only multiplies them.
        value, gradients = min_max(h, batch, a, b, alpha, prior, margin, weight=1 / h.shape[1])
        ctx.save_for_backward(*gradients)
        return value.sum().float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        # a, b and α need no gradient when they are given in closed form.
        gradients = [
            grad * gradient if needed else None
            for gradient, needed in zip(ctx.saved_tensors, ctx.needs_input_grad)
        ]
        return *gradients, None, None, None


def class_means(h: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """μ+ and μ- of each label, (K,) each; a mean over nothing is 0."""
    negative = (1 if batch.valid is None else batch.valid) - batch.y
    mean_pos = (h * batch.y).sum(0) / batch.positives.clamp(min=1)
    mean_neg = (h * negative).sum(0) / batch.negatives.clamp(min=1)
    return mean_pos, mean_neg


def margin_loss(h: Tensor, batch: Batch, margin: Tensor | float, hinge: bool = True) -> Tensor:
    """A_M = V+ + V- + max(0, m - μ+ + μ-)² of each label (eq. 6); without the hinge A_S (eq. 5).
    (K,)"""
    # Each score's distance from its own class mean, squared; entries that do not count have y = 0
    # and are left out by `class_means`.
    mean_pos, mean_neg = class_means(h, batch)
    squares = (h - torch.lerp(mean_neg, mean_pos, batch.y)) ** 2
    variance_pos, variance_neg = class_means(squares, batch)
    short = margin - mean_pos + mean_neg
    if hinge:
        short = short.clamp(min=0)
    return variance_pos + variance_neg + short**2
