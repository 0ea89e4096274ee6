"""What the losses refuse, warn of and count: labels, scores, shapes, and who may optimise α.

On the CPU a batch is judged at once. On an accelerator reading a value would hold the host until the network's forward
pass is done, so counts are kept there, copied without waiting, and judged at a later call: a wrong label is then
reported a few steps late, but always reported and by its value.
"""
import warnings

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

WIDE = (torch.float32, torch.float64)


def as_columns(scores: Tensor, labels: Tensor, mask: Tensor | None, num_labels: int | None = None,
               ) -> tuple[Tensor, Tensor, Tensor | None]:
    """(B,) or (B, K) -> (B, K); scores at least float32, labels in the dtype of the scores.

    ValueError where the shapes differ (no broadcasting), K is not `num_labels`, or the scores are no real numbers.
    """
    if not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype}, not floating point")
    if scores.dim() not in (1, 2):
        raise ValueError(f"scores have shape {tuple(scores.shape)}, neither (B,) nor (B, K)")
    if labels.shape != scores.shape:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, scores {tuple(scores.shape)}")
    if mask is not None and mask.shape != scores.shape:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, scores {tuple(scores.shape)}")
    labels_given = 1 if scores.dim() == 1 else scores.shape[1]
    if num_labels is not None and labels_given != num_labels:
        raise ValueError(f"scores of shape {tuple(scores.shape)} are {labels_given} labels, the loss has {num_labels}")
    h = scores if scores.dtype in WIDE else scores.float()
    y = labels.to(device=h.device, dtype=h.dtype)
    if scores.dim() == 2:
        return h, y, mask
    return h[:, None], y[:, None], None if mask is None else mask[:, None]


def entries(y: Tensor, mask: Tensor | None) -> Tensor | None:
    """Which entries count, (B, K) of 0 and 1 in the dtype of y: not NaN, and True in the mask. None = every one."""
    if mask is None and y.device.type == "cpu" and not bool(torch.isnan(y.sum())):
        return None
    valid = ~torch.isnan(y)
    if mask is not None:
        valid = valid & boolean(mask)
    return valid.to(y.dtype)


def boolean(mask: Tensor) -> Tensor:
    """The mask as bool; ValueError for a number other than 0 and 1 (a weight, say)."""
    if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("the mask holds numbers other than 0 and 1: it says which entries count, not how much")
    return mask.bool()


def check_labels(y: Tensor, soft: bool) -> None:
    """ValueError naming a label outside {0, 1}, or outside [0, 1] where soft ones are meant. (B, K), no NaN left."""
    wrong = (y < 0) | (y > 1) if soft else (y != 0) & (y != 1)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(bad_label(y[row, column].item(), soft) + f" (row {row}, label {column})")


def bad_label(value: float, soft: bool) -> str:
    """The message that names the value and the way out."""
    if soft:
        return f"label {value:g} is not between 0 and 1; leave an entry out with NaN or the mask"
    return f"label {value:g} is not 0 or 1: an AUC loss takes hard labels; leave an entry out with NaN or the mask"


def check_scores(h: Tensor) -> None:
    """ValueError naming the first score that is NaN or infinite. (B, K)"""
    if bool(torch.isfinite(h.detach().sum())):
        return
    wrong = ~torch.isfinite(h.detach())
    if bool(wrong.any()):  # otherwise the sum overflowed, the scores did not
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(f"{int(wrong.sum())} of {h.numel()} scores are not finite: {h[row, column].item()} "
                         f"(row {row}, label {column})")


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
            raise RuntimeError(f"{type(optimizer).__name__} was given the α of an AUC loss and would minimise it: "
                               "leave α out, and train with PESG(net.parameters(), loss=loss)")


register_optimizer_step_pre_hook(refuse_to_minimise)
