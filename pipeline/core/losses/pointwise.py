"""Losses that are a mean over entries: focal loss and cross-entropy, of logits. Called as those of
`core.losses`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.losses import checks as guards
from pipeline.core.losses.global_batch import global_batch, process_count


class EntryLoss(nn.Module):
    """What focal loss and cross-entropy share: labels in [0, 1], the mean over the entries that
    count."""

    def __init__(self) -> None:
        super().__init__()
        self.tally: guards.Tally | None = None

    def forward(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """A float32 scalar; 0 if no entry counts. In several processes, in training mode, that of
        the global batch."""
        h, y, mask = guards.as_columns(scores, labels, mask)
        if self.training and process_count() > 1:
            h, y, mask = (
                *global_batch(
                    h, y if mask is None else torch.where(guards.boolean(mask), y, torch.nan)
                ),
                None,
            )
        h, y, valid = self.admit(h, y, mask)
        value = self.reduce(h, y, valid)
        self.judge(h, y, value)
        return value.float()

    @torch.compiler.disable
    def admit(
        self, h: Tensor, y: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores and labels with 0 where they do not count, and which do (None: all); wrong labels
        raise on the CPU."""
        on_host = guards.read_at_once(h)
        if (
            on_host and mask is None and len(y) and y.min().item() >= 0 and y.max().item() <= 1
        ):  # NaN passes neither
            return h, y, None
        valid = guards.entries(y, mask)
        h, y = torch.where(valid > 0, h, 0.0), torch.where(valid > 0, y, 0.0)
        if on_host:
            guards.check_labels(y, soft=True)
        return h, y, valid

    @torch.compiler.disable
    def judge(self, h: Tensor, y: Tensor, value: Tensor) -> None:
        """Refuse scores that are not finite; on an accelerator, at a later call, wrong labels
        too."""
        if guards.read_at_once(h):
            guards.check_scores(h, value)
            return
        if self.tally is None or self.tally.least.device != h.device:
            self.tally = guards.Tally(3, h.device)
        guards.judge_extremes(*self.tally.read(), soft=True)
        self.tally.note(guards.extremes(y, value.detach(), soft=True))


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
        self.alpha, self.gamma = alpha, gamma

    def reduce(self, h: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
        log_p, log_q = F.logsigmoid(h), F.logsigmoid(-h)
        # exp(γ̂ log q), not q^γ̂: its gradient at q = 0 is 0 for every γ̂ > 0.
        positive = -self.alpha * torch.exp(self.gamma * log_q) * log_p
        negative = -(1 - self.alpha) * torch.exp(self.gamma * log_p) * log_q
        return mean_of(y * positive + (1 - y) * negative, valid)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}"


class CrossEntropy(EntryLoss):
    """Binary cross-entropy of logits, mean over the entries that count; labels in [0, 1] (smoothed
    ones too)."""

    def reduce(self, h: Tensor, y: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None:
            return F.binary_cross_entropy_with_logits(h, y)
        return mean_of(F.binary_cross_entropy_with_logits(h, y, reduction="none"), valid)


def mean_of(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the entries that count; 0 if none does."""
    return values.mean() if valid is None else (values * valid).sum() / valid.sum().clamp(min=1)
