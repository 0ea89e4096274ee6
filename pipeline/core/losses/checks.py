"""What the losses refuse, warn of and count: shapes, labels, scores, and who may optimise α.

On the CPU a batch is judged at once. On an accelerator reading a value would hold the host until
the network's forward pass is done, so a `Tally` of extremes is kept there, copied without waiting,
and judged at a later call: a wrong label is reported a few steps late there, but reported, by its
value.
"""

import math
import warnings

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

WIDE = (torch.float32, torch.float64)


class NotFinite(ValueError):
    """Scores, or the loss of them, are NaN or infinite: a training that diverged."""


def read_at_once(tensor: Tensor) -> bool:
    """Whether the host can read the tensor without waiting for an accelerator."""
    return tensor.device.type == "cpu"


def as_columns(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    num_labels: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(B,) or (B, K) -> (B, K); scores at least float32, labels in the dtype of the scores.

    ValueError where the shapes differ (no broadcasting), K is not `num_labels`, or the scores are
    no real numbers.
    """
    shape = scores.shape
    if not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype}, not floating point")
    if len(shape) not in (1, 2):
        raise ValueError(f"scores have shape {tuple(shape)}, neither (B,) nor (B, K)")
    for name, other in (("labels", labels), ("mask", mask)):
        if other is not None and other.shape != shape:
            raise ValueError(f"{name} have shape {tuple(other.shape)}, scores {tuple(shape)}")
    columns = 1 if len(shape) == 1 else shape[1]
    if num_labels is not None and columns != num_labels:
        raise ValueError(
            f"scores of shape {tuple(shape)} are for {columns} labels, the loss for {num_labels}"
        )
    h = scores if scores.dtype in WIDE else scores.float()
    y = labels.to(device=h.device, dtype=h.dtype)
    if len(shape) == 2:
        return h, y, mask
    return h[:, None], y[:, None], None if mask is None else mask[:, None]


def entries(y: Tensor, mask: Tensor | None) -> Tensor:
    """Which entries count, (B, K) of 0 and 1 in the dtype of y: those not NaN and, if there is a
    mask, 1 in it."""
    valid = ~torch.isnan(y)
    return (valid if mask is None else valid & boolean(mask)).to(y.dtype)


def boolean(mask: Tensor) -> Tensor:
    """The mask as bool; ValueError for a number other than 0 and 1 (a weight, say)."""
    if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError(
            "the mask holds numbers other than 0 and 1: it says which entries count, not how much"
        )
    return mask.bool()


def check_labels(y: Tensor, soft: bool) -> None:
    """ValueError naming a label outside {0, 1}, or outside [0, 1] where soft ones are meant. (B,
    K), no NaN left."""
    wrong = (y < 0) | (y > 1) if soft else (y != 0) & (y != 1)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(f"{wrong_label(y[row, column].item(), soft)} (row {row}, column {column})")


def wrong_label(value: float, soft: bool) -> str:
    """The message that names the value and the way out."""
    meant = "between 0 and 1" if soft else "0 or 1 (an AUC loss takes no soft labels)"
    return f"label {value:g} is not {meant}: leave an entry out with NaN or the mask"


def check_scores(h: Tensor, value: Tensor) -> None:
    """NotFinite naming the first score that is NaN or infinite, if that is why the loss is. h (B,
    K)"""
    if math.isfinite(value.item()):
        return
    wrong = ~torch.isfinite(h.detach())
    if bool(wrong.any()):  # else finite scores were too large to square
        row, column = wrong.nonzero()[0].tolist()
        raise NotFinite(
            f"{int(wrong.sum())} of {h.numel()} scores are not finite: {h[row, column].item()} "
            f"(row {row}, column {column})"
        )


class Tally:
    """Lowest values so far of a few numbers on an accelerator, readable without waiting for it,
    some steps late."""

    def __init__(self, length: int, device: torch.device) -> None:
        self.least = torch.full((length,), torch.inf, dtype=torch.float64, device=device)
        self.mirror = torch.full(
            (length,), torch.inf, dtype=torch.float64, pin_memory=device.type == "cuda"
        )

    def note(self, values: Tensor) -> None:
        """Take in (length,) values."""
        torch.minimum(self.least, values, out=self.least)
        self.mirror.copy_(self.least, non_blocking=True)

    def read(self) -> list[float]:
        """What has arrived on the host."""
        return self.mirror.tolist()


def extremes(y: Tensor, value: Tensor, soft: bool) -> Tensor:
    """For a Tally, (3,): the lowest wrong label below 0, minus the highest above, and 0 for a loss
    not finite."""
    wrong = torch.where((y < 0) | (y > 1) if soft else (y != 0) & (y != 1), y, 0.0)
    wrong = torch.cat([wrong.flatten(), wrong.new_zeros(1)])  # a batch may be empty
    return torch.stack([wrong.amin(), -wrong.amax(), torch.isfinite(value).to(y.dtype)]).double()


def judge_extremes(lowest: float, minus_highest: float, finite: float, soft: bool) -> None:
    """ValueError for what `extremes` noted."""
    if lowest < 0 or 0 < -minus_highest < math.inf:
        raise ValueError(
            f"{wrong_label(lowest if lowest < 0 else -minus_highest, soft)} (in one of the last "
            "batches)"
        )
    if finite == 0:
        raise NotFinite(
            "the loss of one of the last batches is not finite: scores are NaN, infinite or too "
            "large"
        )


def warn_once(told: set[str], key: str, message: str) -> None:
    """A warning the first time its key comes up."""
    if key not in told:
        told.add(key)
        warnings.warn(message, stacklevel=2)


def refuse_to_minimise(optimizer: Optimizer, *_: object) -> None:
    """Before any optimizer's step: RuntimeError if it would minimise an α, which must ascend.

    Minimised, α runs away from the saddle and the ranking turns over: training AUC near 0.
    """
    if getattr(optimizer, "ascends_alpha", False):
        return
    for group in optimizer.param_groups:
        if any(hasattr(parameter, "ascends") for parameter in group["params"]):
            raise RuntimeError(
                f"{type(optimizer).__name__} was given the α of an AUC loss and would minimise it: "
                "leave α out, and train with PESG(network.parameters(), loss=loss)"
            )


register_optimizer_step_pre_hook(refuse_to_minimise)
