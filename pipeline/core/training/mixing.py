"""Mixup and CutMix (Zhang et al., 2018; Yun et al., 2019) of a batch, for losses that are a mean
over labels.

One share λ and one box for the whole batch, drawn from (seed, step) alone: nothing to save, and the
same in every process. Image i is mixed with image i + B/2 of its batch of B. The loss becomes,
entry by entry,

    λ w_i ℓ(s, y_i) + (1 - λ) w_j ℓ(s, y_j)  =  w ℓ(s, y),    w = λ w_i + (1 - λ) w_j
                                                              y = (λ w_i y_i + (1 - λ) w_j y_j) / w

for any loss that is linear in the label, with weight 0 where a label is unknown: what is known of
one image counts, whatever is unknown of the other.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.runtime.errors import UserError

STREAM = 1  # apart from the other draws of (seed, step)


@dataclass(frozen=True)
class Mixing:
    """How a phase mixes its batches.

    seed            of the phase
    mixup, cutmix   alpha of Beta(alpha, alpha), from which λ is drawn; 0 = not this one. With both,
                    each step takes one of them, as likely as not
    """

    seed: int
    mixup: float
    cutmix: float

    def require_even(self, batch_size: int, processes: int) -> None:
        """Raise a UserError where an image's partner would be in another process."""
        # Process r of n has the images r, r + n, ...: i + B/2 is among them where n divides B/2.
        if processes > 1 and batch_size % (2 * processes):
            raise UserError(
                f"batch_size={batch_size}: mixup and cutmix pair the images of a process, so "
                f"{processes} processes need a multiple of {2 * processes}"
            )

    def __call__(
        self,
        step: int,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, S, S, C), targets (B, K) with NaN for unknown, and weights (B, K), mixed."""
        rng = np.random.default_rng((self.seed, step, STREAM))
        is_cutmix = self.cutmix > 0 and (self.mixup == 0 or rng.random() < 0.5)
        alpha = self.cutmix if is_cutmix else self.mixup
        share = float(rng.beta(alpha, alpha))
        half = len(inputs) // 2
        if is_cutmix:
            top, bottom, left, right = box(rng, inputs.shape[1], inputs.shape[2], share)
            inputs = with_box(inputs, half, top, bottom, left, right)
            # The share of the image that is left: at the border the box is cut.
            share = 1 - (bottom - top) * (right - left) / (inputs.shape[1] * inputs.shape[2])
        else:
            images = inputs.float()
            inputs = share * images + (1 - share) * images.roll(-half, 0)
        return inputs, *mixed_targets(targets, weights, half, share)


def box(
    rng: np.random.Generator, height: int, width: int, share: float
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of 1 - share of the area around a uniform centre, cut at
    the border."""
    side = (1 - share) ** 0.5
    rows = int(height * side)
    columns = int(width * side)
    y = int(rng.integers(height))
    x = int(rng.integers(width))
    top, bottom = max(y - rows // 2, 0), min(y + (rows + 1) // 2, height)
    left, right = max(x - columns // 2, 0), min(x + (columns + 1) // 2, width)
    return top, bottom, left, right


def with_box(
    images: torch.Tensor, half: int, top: int, bottom: int, left: int, right: int
) -> torch.Tensor:
    """(B, S, S, C) with that box of each image taken from the image half a batch on."""
    mixed = images.clone()
    mixed[:, top:bottom, left:right] = images.roll(-half, 0)[:, top:bottom, left:right]
    return mixed


def mixed_targets(
    targets: torch.Tensor, weights: torch.Tensor | None, half: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(targets, weights), (B, K) each: NaN and 0 where neither image's label is known."""
    # An unknown label has weight 0, and some value that is not NaN: 0 times NaN would be NaN.
    known = ~targets.isnan()
    weights = known.float() if weights is None else weights * known
    values = targets.nan_to_num(0.0)
    first = share * weights
    second = (1 - share) * weights.roll(-half, 0)
    total = first + second
    # Clamped, since a mean of ones may round to more than 1; NaN (0 / 0) stays NaN.
    mixed = (first * values + second * values.roll(-half, 0)) / total
    return mixed.clamp(0, 1), total
