"""Losses that are a mean over entries: focal loss and cross-entropy, of logits.

Called as all losses of `core.losses`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.losses import checks


class EntryLoss(nn.Module):
    """Base of both: labels in [0, 1], the mean over the entries that count."""

    def __init__(self) -> None:
        super().__init__()
        self.late_checks = checks.LateChecks(soft=True)

    def forward(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """A float32 scalar; 0 if no entry counts. In several processes, in training mode, that of
        the global batch."""
        # In float32 at least, from here to the end.
        h, y, mask = checks.batch_columns(scores, labels, mask, self.training)
        h, y, valid = self.admit(h, y, mask)
        value = self.reduce(h, y, valid)
        self.judge(h, y, value)
        return value.float()

    def reduce(self, h: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
        """The mean of the loss over the entries that count: h, y, valid (B, K) -> scalar."""
        raise NotImplementedError

    @torch.compiler.disable
    def admit(
        self, h: Tensor, y: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `checks.admit`; outside a compiled graph, since it reads values."""
        return checks.admit(h, y, mask, soft=True)

    @torch.compiler.disable
    def judge(self, h: Tensor, y: Tensor, value: Tensor) -> None:
        """NotFinite for scores that are not finite; on an accelerator at a later call, with wrong
        labels."""
        if checks.read_at_once(h):
            checks.check_scores(h, value)
        else:
            self.late_checks.judge(y, value)


class Focal(EntryLoss):
    """Focal loss -α̂_t (1 - p_t)^γ̂ log p_t of logits (paper §4.1), mean over the entries that
    count.

    alpha  α̂ in [0, 1]: weight of positives; negatives weigh 1 - α̂
    gamma  γ̂ ≥ 0
    A label between 0 and 1 mixes the two cases in that proportion.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} is not in [0, 1]")
        if not 0 <= gamma < torch.inf:
            raise ValueError(f"gamma={gamma} is negative or not finite")
        self.alpha = alpha
        self.gamma = gamma

    def reduce(self, h: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
        # Logarithms of p and 1 - p straight from the score: log(1 - sigmoid(h)) is -inf from h = 17
        # on in float32.
        log_p = F.logsigmoid(h)
        log_q = F.logsigmoid(-h)
        # exp(γ̂ log q), not q^γ̂: its gradient at q = 0 is 0 for every γ̂ > 0.
        positive = -self.alpha * torch.exp(self.gamma * log_q) * log_p
        negative = -(1 - self.alpha) * torch.exp(self.gamma * log_p) * log_q
        return mean_of(y * positive + (1 - y) * negative, valid)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}"


class CrossEntropy(EntryLoss):
    """Binary cross-entropy of logits, mean over the entries that count.

    Labels lie in [0, 1]; smoothed ones are allowed.
    """

    def reduce(self, h: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
        # torch's own mean is one operation less than the masked one.
        if valid is None:
            return F.binary_cross_entropy_with_logits(h, y)
        return mean_of(F.binary_cross_entropy_with_logits(h, y, reduction="none"), valid)


def mean_of(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the entries that count; 0 if none does."""
    if valid is None:
        return values.mean()
    return (values * valid).sum() / valid.sum().clamp(min=1)
