"""Checks that all losses share: shapes, labels and scores, warnings of batches that teach nothing,
and the guard that keeps α away from optimizers that would minimise it.

On the CPU a batch is checked at once. On an accelerator reading a value would hold the host until
the network's forward pass is done, so `LateChecks` keeps the extremes there, copies them without
waiting, and checks them at a later call: a wrong label is reported a few steps late, but reported,
by its value.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from pipeline.core.losses.global_batch import gather, global_batch, process_count

# Dtypes that the losses compute in; scores of any other are converted to float32.
WIDE = (torch.float32, torch.float64)


class NotFinite(ValueError):
    """Scores, or the loss of them, are NaN or infinite: a training that diverged."""


class OneClassWarning(UserWarning):
    """A batch had no positive or no negative of some label, which adds 0 to an AUC loss."""


# --- when a loss is made: its arguments ---


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """ValueError that lists the choices where the value is none of them."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is none of {', '.join(choices)}")


def check_count(name: str, count: int) -> None:
    """ValueError below 1."""
    if count < 1:
        raise ValueError(f"{name}={count} is less than 1")


def check_positive(name: str, value: float) -> None:
    """ValueError unless 0 < value < infinity."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name}={value:g} is not positive and finite")


def check_part(name: str, value: float) -> None:
    """ValueError outside (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{name}={value:g} is not in (0, 1]")


# --- on the way in: shapes, the global batch, entries that count, labels ---


def read_at_once(tensor: Tensor) -> bool:
    """True where the host can read the tensor without waiting for an accelerator."""
    return tensor.device.type == "cpu"


def batch_columns(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    training: bool,
    num_labels: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`as_columns`; in training mode with several processes, those of the global batch.

    There the mask has become NaN labels, and None is returned for it.
    """
    h, y, mask = as_columns(scores, labels, mask, num_labels)
    if not training or process_count() == 1:
        return h, y, mask
    # The mask travels as NaN labels, so that one exchange carries all three.
    if mask is not None:
        y = torch.where(boolean(mask), y, torch.nan)
    h, y = global_batch(h, y)
    return h, y, None


def batch_weights(weights: Tensor, scores: Tensor, training: bool) -> Tensor:
    """Weights of the entries as (B, K) in at least float32, in training mode those of all
    processes; ValueError where their shape is not that of the scores."""
    _, w, _ = as_columns(scores.detach(), weights, None)
    if not training or process_count() == 1:
        return w
    return gather(w.contiguous())[0]


def as_columns(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor | None,
    num_labels: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(B,) or (B, K) -> (B, K); scores at least float32, labels in the dtype of the scores.

    ValueError where the shapes differ (no broadcasting), K is not `num_labels`, or the scores are
    not of a floating dtype.
    """
    shape = scores.shape
    if not scores.is_floating_point():
        raise ValueError(f"scores are {scores.dtype}, not floating point")
    if len(shape) not in (1, 2):
        raise ValueError(f"scores have shape {tuple(shape)}, neither (B,) nor (B, K)")
    # No broadcasting: (N,) against (N, 1) would make N x N pairs, as LibAUC's focal loss does.
    for name, other in (("labels", labels), ("mask", mask)):
        if other is not None and other.shape != shape:
            raise ValueError(f"{name} have shape {tuple(other.shape)}, scores {tuple(shape)}")
    columns = 1 if len(shape) == 1 else shape[1]
    if num_labels is not None and columns != num_labels:
        raise ValueError(
            f"scores of shape {tuple(shape)} are for {columns} labels, the loss for {num_labels}"
        )
    # Half precision has 3 digits; sums over a batch need more, whatever autocast says.
    h = scores if scores.dtype in WIDE else scores.float()
    y = labels.to(device=h.device, dtype=h.dtype)
    if len(shape) == 2:
        return h, y, mask
    return h[:, None], y[:, None], None if mask is None else mask[:, None]


def admit(
    h: Tensor, y: Tensor, mask: Tensor | None, soft: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores and labels with 0 where they do not count, and which entries count (None: all).

    h, y and mask are (B, K); `soft` admits labels between 0 and 1. On the CPU a wrong label is a
    ValueError here; an infinite one passes as hard where no entry is left out, and the caller has
    to check it.
    """
    on_host = read_at_once(h)
    # The usual batch, all labels valid, is recognised by one or two operations.
    if on_host and mask is None and all_valid(y, soft):
        return h, y, None
    # Replaced, not multiplied by 0: 0 times a NaN or infinite score is NaN.
    valid = entries(y, mask)
    counted = valid > 0
    h = torch.where(counted, h, 0.0)
    y = torch.where(counted, y, 0.0)
    if on_host:
        check_labels(y, soft)
    return h, y, valid


def admit_hard(h: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`admit` of labels of 0 and 1, all of them checked on the CPU, with the entries that count
    written out."""
    h, y, valid = admit(h, y, mask, soft=False)
    if valid is None:
        check_labels(y, soft=False)
        valid = torch.ones_like(y)
    return h, y, valid


def all_valid(y: Tensor, soft: bool) -> bool:
    """True when no label is NaN or wrong; hard labels of infinity pass too (inf² = inf)."""
    if not soft:
        return torch.equal(y * y, y)
    # A comparison with NaN is False, so NaN passes neither.
    return len(y) > 0 and y.min().item() >= 0 and y.max().item() <= 1


def entries(y: Tensor, mask: Tensor | None) -> Tensor:
    """Which entries count, (B, K) of 0 and 1 in the dtype of y: not NaN, and 1 in the mask."""
    valid = ~torch.isnan(y)
    if mask is not None:
        valid = valid & boolean(mask)
    return valid.to(y.dtype)


def boolean(mask: Tensor) -> Tensor:
    """The mask as bool; ValueError for a number other than 0 and 1 (a weight, say)."""
    if mask.dtype != torch.bool and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError(
            "the mask holds numbers other than 0 and 1: it says which entries count, not how much"
        )
    return mask.bool()


def wrong_labels(y: Tensor, soft: bool) -> Tensor:
    """bool (B, K), True for a label outside {0, 1}, or outside [0, 1] where soft ones are meant."""
    if soft:
        return (y < 0) | (y > 1)
    return (y != 0) & (y != 1)


def check_labels(y: Tensor, soft: bool) -> None:
    """ValueError that names the first wrong label of (B, K); NaN must have been replaced."""
    wrong = wrong_labels(y, soft)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(f"{wrong_label(y[row, column].item(), soft)} (row {row}, column {column})")


def wrong_label(value: float, soft: bool) -> str:
    """The message that names the value and the way out."""
    meant = "between 0 and 1" if soft else "0 or 1 (an AUC loss takes no soft labels)"
    return f"label {value:g} is not {meant}: leave an entry out with NaN or the mask"


# --- on the way out: scores that are not finite, at once or late ---


def check_scores(h: Tensor, value: Tensor) -> None:
    """NotFinite that names the first NaN or infinite score of h (B, K), if the loss is so too."""
    if math.isfinite(value.item()):
        return
    wrong = ~torch.isfinite(h.detach())
    # Without one, finite scores were too large to square; the caller sees the loss itself.
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise NotFinite(
            f"{int(wrong.sum())} of {h.numel()} scores are not finite: {h[row, column].item()} "
            f"(row {row}, column {column})"
        )


class Tally:
    """Lowest values so far of a few numbers on an accelerator, read without waiting for it.

    least   (length,) float64 on the device
    mirror  its copy on the host, some steps old
    """

    def __init__(self, length: int, device: torch.device) -> None:
        self.least = torch.full((length,), torch.inf, dtype=torch.float64, device=device)
        # Only a copy into pinned memory does not hold the host.
        self.mirror = torch.full(
            (length,), torch.inf, dtype=torch.float64, pin_memory=device.type == "cuda"
        )

    def note(self, values: Tensor) -> None:
        """Take in (length,) values."""
        torch.minimum(self.least, values, out=self.least)
        self.mirror.copy_(self.least, non_blocking=True)

    def read(self) -> list[float]:
        """The lowest values that have arrived on the host; inf before any has."""
        return self.mirror.tolist()


class LateChecks:
    """The checks of one loss on an accelerator: each call judges batches of earlier calls.

    soft     whether labels between 0 and 1 are meant
    numbers  how many further numbers of a batch the caller wants back, their lowest values so far
    """

    def __init__(self, soft: bool, numbers: int = 0) -> None:
        self.soft = soft
        self.numbers = numbers
        self.tally: Tally | None = None

    def judge(self, y: Tensor, value: Tensor, numbers: Tensor | None = None) -> list[float]:
        """Raise for what earlier batches had wrong, and note this one: y (B, K), its loss, numbers.

        Returns the lowest of the `numbers` in earlier batches. ValueError for a wrong label,
        NotFinite for a loss that was NaN or infinite.
        """
        if self.tally is None or self.tally.least.device != y.device:
            self.tally = Tally(self.numbers + 3, y.device)
        # What has arrived of earlier batches, and then this batch's own part.
        *earlier, lowest, minus_highest, finite = self.tally.read()
        judge_extremes(lowest, minus_highest, finite, self.soft)
        noted = extremes(y, value.detach(), self.soft)
        if numbers is not None:
            noted = torch.cat([numbers, noted])
        self.tally.note(noted)
        return earlier


def extremes(y: Tensor, value: Tensor, soft: bool) -> Tensor:
    """For a Tally, float64 (3,): the lowest wrong label below 0, minus the highest wrong label,
    and 0 for a loss that is not finite (1 else)."""
    # All as lowest values, so that one running minimum keeps the three.
    wrong = torch.where(wrong_labels(y, soft), y, 0.0)
    # One 0 more, since a batch may be empty and has no minimum then.
    wrong = torch.cat([wrong.flatten(), wrong.new_zeros(1)])
    return torch.stack([wrong.amin(), -wrong.amax(), torch.isfinite(value).to(y.dtype)]).double()


def judge_extremes(lowest: float, minus_highest: float, finite: float, soft: bool) -> None:
    """ValueError or NotFinite for what `extremes` noted; inf means that nothing has arrived."""
    if lowest < 0 or 0 < -minus_highest < math.inf:
        value = lowest if lowest < 0 else -minus_highest
        raise ValueError(f"{wrong_label(value, soft)} (in one of the last batches)")
    if finite == 0:
        raise NotFinite(
            "the loss of one of the last batches is not finite: scores are NaN, infinite or too "
            "large"
        )


# --- warnings, once each ---


def warn_once(
    warned: set[str], key: str, message: str, category: type[Warning] = UserWarning
) -> None:
    """Warn the first time that the key comes up."""
    if key not in warned:
        warned.add(key)
        warnings.warn(message, category, stacklevel=3)


def warn_of_one_class(warned: set[str], label: int, kind: str) -> None:
    """Warn that a batch had no `kind` ("positive" or "negative") of this label."""
    warn_once(
        warned,
        f"{kind} {label}",
        f"label {label} had no {kind} in a batch: it adds 0 to the loss there (warned of once; "
        "loss.last['one_class'] counts such batches)",
        OneClassWarning,
    )


def warn_of_margin(warned: set[str], label: int, excess: float, normalize: str) -> None:
    """Warn that the margin lies `excess` above what normalised scores can reach."""
    warn_once(
        warned,
        "margin",
        f"label {label}: the margin is out of reach, {excess:.4g} above the largest distance that "
        f"normalize={normalize!r} leaves between the class means of a batch: α never gets to 0 "
        "and the hinge never acts",
    )


class PairChecks(nn.Module):
    """What a loss over pairs says of a batch that it has computed: NotFinite for scores that are
    not finite, a warning, once, of a label without a class.

    one_class  (2, K): in how many training batches each label had no positive, no negative
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.warned: set[str] = set()
        self.late_checks = LateChecks(soft=False, numbers=2 * labels)
        self.register_buffer("one_class", torch.zeros(2, labels, dtype=torch.int64))

    @torch.compiler.disable
    def forward(self, h: Tensor, y: Tensor, valid: Tensor, loss: Tensor) -> None:
        """Judge scores, labels and entries that count, (B, K) each, and the loss of them."""
        of_class = torch.stack([(valid * y).sum(0), (valid * (1 - y)).sum(0)])
        counts = of_class.flatten().double()
        if read_at_once(h):
            check_scores(h, loss)
            lowest = counts.tolist()
        else:
            lowest = self.late_checks.judge(y, loss, counts)
        if self.training:
            self.one_class += of_class == 0
        labels = y.shape[1]
        for label in range(labels):
            if lowest[label] == 0:
                warn_of_one_class(self.warned, label, "positive")
            if lowest[labels + label] == 0:
                warn_of_one_class(self.warned, label, "negative")


# --- α ascends ---


def refuse_to_minimise(optimizer: Optimizer, *_: object) -> None:
    """Before any optimizer's step: RuntimeError if it would minimise an α, which must ascend.

    Minimised, α runs away from the saddle and the ranking turns over: training AUC near 0.
    """
    # PESG says of itself that it ascends.
    if getattr(optimizer, "ascends_alpha", False):
        return
    for group in optimizer.param_groups:
        if any(hasattr(parameter, "ascends") for parameter in group["params"]):
            raise RuntimeError(
                f"{type(optimizer).__name__} was given the α of an AUC loss and would minimise it: "
                "leave α out, and train with PESG(network.parameters(), loss=loss)"
            )


# Every optimizer of the process asks it, since any of them may be given α.
register_optimizer_step_pre_hook(refuse_to_minimise)
