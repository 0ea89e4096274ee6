"""Losses over the pairs of a batch: one positive, one negative each; all of them, or only the pairs
of the hardest images, which is what a partial AUC counts.

With t = h_i - h_j for a positive i and a negative j, the loss of a label is the mean over its pairs
of one of (Cortes and Mohri 2003; Charoenphakdee et al. 2019 for the barrier)

    square          (m - t)²             n operations, by class means and variances
    squared_hinge   max(0, m - t)²       n log n, by sorting, carried sums (Rust, Hocking 2023)
    logistic        log(1 + exp(-t))     n+ · n-
    barrier_hinge   max(r - s(r + t), max(s(t - r), r - t)), s = 10, r = m        n+ · n-

The square loss equals p(1-p)⁻¹ times AUC square's min-max form at its inner optimum (paper eq. 5);
the squared hinge over pairs is *not* AUC margin, which hinges only the difference of class means.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.losses import checks

SURROGATES = ("square", "squared_hinge", "logistic", "barrier_hinge")
BARRIER_SLOPE = 10.0  # s: how steeply a pair is punished beyond the barrier


class Pairwise(nn.Module):
    """The mean of a pairwise loss over the pairs of each label, and over the labels.

    surrogate          the loss of one pair, see above
    margin             m > 0; the logistic loss has none
    hardest_negatives  share in (0, 1] of each label's negatives, those that score highest, whose
                       pairs count: below 1 the partial AUC at false positive rates up to that share
    hardest_positives  share of the positives, those that score lowest: 0.2 is the partial AUC at
                       true positive rates from 0.8 on (ISIC 2024); both below 1: the two-way
                       partial AUC
    num_labels         K

    Shares are of the batch and rounded up to whole images, so the estimate is of a batch's partial
    AUC, not of the training set's: a batch should hold several positives (class-aware sampling).
    A label without positives or negatives adds an exact 0, is warned of once and counted in
    `one_class`. In several processes the pairs are those of the global batch.
    """

    def __init__(
        self,
        surrogate: str = "squared_hinge",
        margin: float = 1.0,
        hardest_negatives: float = 1.0,
        hardest_positives: float = 1.0,
        num_labels: int = 1,
    ) -> None:
        super().__init__()
        checks.check_count("num_labels", num_labels)
        checks.check_choice("surrogate", surrogate, SURROGATES)
        checks.check_positive("margin", margin)
        checks.check_part("hardest_negatives", hardest_negatives)
        checks.check_part("hardest_positives", hardest_positives)
        self.surrogate = surrogate
        self.margin = margin
        self.hardest_negatives = hardest_negatives
        self.hardest_positives = hardest_positives
        self.num_labels = num_labels
        self.judge = checks.PairChecks(num_labels)

    def forward(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scores (B,) or (B, K), labels of 0, 1, NaN -> a float32 scalar."""
        raw, y, mask = checks.batch_columns(scores, labels, mask, self.training, self.num_labels)
        h, y, valid = checks.admit_hard(raw, y, mask)
        # Which images' pairs count, (B, K) of 0 and 1.
        positive = hardest(-h.detach(), valid * y, self.hardest_positives)
        negative = hardest(h.detach(), valid * (1 - y), self.hardest_negatives)

        # The mean over pairs of each label that has any, (K,); 0 for the others.
        value = self.over_pairs(h, positive, negative)
        live = (positive.sum(0) > 0) & (negative.sum(0) > 0)
        loss = torch.where(live, value, 0.0).mean().float()
        self.judge(raw, y, valid, loss)
        return loss

    def over_pairs(self, h: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """(K,) means over the pairs of chosen positives and negatives, (B, K) of 0 and 1 each."""
        if self.surrogate == "square":
            return squared_pairs(h, positive, negative, self.margin)
        if self.surrogate == "squared_hinge":
            return squared_hinge(h, positive, negative, self.margin)
        return all_pairs(self.surrogate, self.margin, h, positive, negative)

    @property
    def one_class(self) -> Tensor:
        """(2, K): in how many training batches each label had no positive, no negative."""
        return self.judge.one_class

    def extra_repr(self) -> str:
        return (
            f"{self.surrogate!r}, margin={self.margin}, hardest_negatives="
            f"{self.hardest_negatives}, hardest_positives={self.hardest_positives}"
        )


def hardest(hardness: Tensor, of_class: Tensor, share: float) -> Tensor:
    """The share (rounded up) of a class's images that are hardest, (B, K) of 0 and 1.

    Of equal images the earlier one counts, so exactly that many are chosen.
    """
    if share == 1:
        return of_class
    wanted = torch.ceil(share * of_class.sum(0))
    hardness = torch.where(of_class > 0, hardness, -torch.inf)
    order = hardness.argsort(dim=0, descending=True, stable=True)
    rank = order.argsort(dim=0)
    return of_class * (rank < wanted)


def squared_pairs(h: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """(K,): mean over pairs of (m - t)² = V+ + V- + (m - μ+ + μ-)², by eq. 5 of the paper."""
    mean_pos, variance_pos = class_moments(h, positive)
    mean_neg, variance_neg = class_moments(h, negative)
    return variance_pos + variance_neg + (margin - mean_pos + mean_neg).square()


def class_moments(h: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (K,) of the chosen scores; 0 where none is chosen."""
    count = chosen.sum(0).clamp(min=1)
    mean = (chosen * h).sum(0) / count
    variance = (chosen * (h - mean).square()).sum(0) / count
    return mean, variance


def squared_hinge(h: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """(K,): mean over pairs of max(0, m - t)² in n log n.

    A negative j hurts a positive i when z_j = h_j + m exceeds h_i. With the negatives sorted by z,
    those are the first c of them, and Σ (z_j - h_i)² = S2 - 2 h_i S1 + c h_i² with the running sums
    S1 of z and S2 of z². Sums are float64 of centred scores: three large terms cancel there.
    """
    with torch.no_grad():
        centre = h.mean(0)
    wide = (h - centre).double()
    # Negatives by falling z, all other images behind them at -inf.
    z = torch.where(negative > 0, wide + margin, -torch.inf)
    order = z.argsort(dim=0, descending=True)
    z = z.gather(0, order)
    counted = torch.where(torch.isfinite(z), z, 0.0)
    nothing = counted.new_zeros(1, counted.shape[1])
    sums = torch.cat([nothing, counted.cumsum(0)])
    squares = torch.cat([nothing, counted.square().cumsum(0)])

    # How many negatives exceed each image; searchsorted wants rows that rise.
    with torch.no_grad():
        rising = (-z).T.contiguous()
        hurting = torch.searchsorted(rising, (-wide).T.contiguous()).T
    of_image = squares.gather(0, hurting) - 2 * wide * sums.gather(0, hurting)
    of_image = of_image + hurting * wide.square()
    pairs = (positive.sum(0) * negative.sum(0)).clamp(min=1)
    return ((positive * of_image).sum(0) / pairs).to(h.dtype)


def loss_of_pair(surrogate: str, margin: float, t: Tensor) -> Tensor:
    """A surrogate of differences t, elementwise; see the module's docstring."""
    if surrogate == "square":
        return (margin - t).square()
    if surrogate == "squared_hinge":
        return (margin - t).clamp(min=0).square()
    if surrogate == "logistic":
        return F.softplus(-t)  # log(1 + exp(-t)) overflows in float32 from t = -88.8 on
    beyond = torch.maximum(BARRIER_SLOPE * (t - margin), margin - t)
    return torch.maximum(margin - BARRIER_SLOPE * (margin + t), beyond)


def all_pairs(
    surrogate: str, margin: float, h: Tensor, positive: Tensor, negative: Tensor
) -> Tensor:
    """(K,): mean over pairs of an elementwise loss, by the (B, B) differences of one label after
    the other: 1 MB a label at 512 images."""
    means = []
    for k in range(h.shape[1]):
        pairs = positive[:, k, None] * negative[:, k]
        losses = loss_of_pair(surrogate, margin, h[:, k, None] - h[:, k])
        # where, not a product alone: an infinite loss of a pair that does not count is no NaN
        means.append(torch.where(pairs > 0, losses, 0.0).sum() / pairs.sum().clamp(min=1))
    return torch.stack(means)
