"""Partial AUC by distributionally robust losses over pairs, with a state for each training row
(Zhu, Li, Wang, Wu, Yang: When AUC meets DRO, ICML 2022).

L_ij is the loss of the pair of a positive i and a negative j, n+ and n- are the classes' sizes:

(1) SOPA     F = 1/n+ Σ_i min_s { s + 1/(β n-) Σ_j max(0, L_ij - s) }
(2) SOPA-s   F = 1/n+ Σ_i λ log( 1/n- Σ_j exp(L_ij/λ) )
(3) SOTA-s   F = λ' log( 1/n+ Σ_i ( 1/n- Σ_j exp(L_ij/λ) )^(λ/λ') )

(1) is each positive's mean over its β n- worst negatives (CVaR): the area at false positive rates
up to β. (2) is its soft form: λ → ∞ gives the mean over all pairs, λ → 0 the worst. (3) is soft in
both classes. A batch has few of a row's pairs, so each row keeps a state between its batches; with
means over the batch's B+ and B- images of the two classes, and the rate r,

(4) SOPA     p_ij = 1[L_ij > s_i] / β, then s_i ← s_i + r (mean_j 1[L_ij > s_i] - β)
(5) SOPA-s   u_i ← (1-r) u_i + r mean_j exp(L_ij/λ), then p_ij = exp(L_ij/λ) / u_i
(6) SOTA-s   u_i as in (5), v ← (1-r) v + r mean_i u_i^(λ/λ'),
             then p_ij = u_i^(λ/λ' - 1) exp(L_ij/λ) / v

and ∇F is estimated by the mean over pairs of p_ij ∇L_ij. u and v are kept as logarithms: exp(L/λ)
overflows float32 from L/λ = 88.8 on. A row met for the first time begins at what its batch says,
with the gradient of (1), (2) or (3) of that batch (the paper begins at 0, which makes the first
weights of (5) 1/r times too large). r in (4) is the paper's step for s divided by β.

The other orientation, true positive rates from 1 - β on (ISIC 2024: β = 0.2), is the same with the
classes swapped and the scores negated, which leaves every L_ij as it is: then the negatives have
the states, and the worst positives count.
"""

import math

import torch
from torch import Tensor, nn

from pipeline.core.losses import checks
from pipeline.core.losses.global_batch import gather, process_count
from pipeline.core.losses.pairwise import loss_of_pair

FORMS = ("sopa", "sopa_s", "sota_s")
# Those that never rise with h_i - h_j, so that the worst pairs are those of the hardest images.
FALLING = ("squared_hinge", "logistic")


class PartialAUC(nn.Module):
    """A loss of the partial AUC, called as loss(scores, labels, mask=None, rows=None).

    rows                  how many training rows there are
    num_labels            K; every label has states of its own, and the loss is the mean over labels
    form                  "sopa", "sopa_s" or "sota_s": equations 1, 2, 3
    surrogate, margin     the loss of one pair, "squared_hinge" or "logistic"; see `pairwise.py`
    hardest_negatives     β of SOPA in (0, 1): false positive rates up to β
    hardest_positives     β of SOPA for true positive rates from 1 - β on; one of the two is below 1
    temperature_negatives λ > 0 of SOPA-s and SOTA-s: the smaller, the harder the negatives
    temperature_positives λ' > 0 of SOTA-s; alone in SOPA-s: the positives' λ, classes swapped
    rate                  r in (0, 1]

    In training mode, with gradients, `rows` (B,) int64 are the rows' numbers in the training set:
    each call is one step and moves the states once; a row that comes twice in a batch moves once,
    by the mean over its copies. In evaluation, under no_grad and for scores without a gradient
    nothing is moved or needed: the value is equation 1, 2 or 3 of the batch alone. The states are
    in `state_dict`. In several processes the pairs are those of the global batch, and every process
    keeps the states of all rows. A label without positives or negatives in a batch adds an exact 0,
    is warned of once and counted in `one_class`.
    """

    per_row = True  # asked by the training loop, which then gives the rows

    def __init__(
        self,
        rows: int,
        num_labels: int = 1,
        form: str = "sopa_s",
        surrogate: str = "squared_hinge",
        margin: float = 1.0,
        hardest_negatives: float = 1.0,
        hardest_positives: float = 1.0,
        temperature_negatives: float | None = None,
        temperature_positives: float | None = None,
        rate: float = 0.5,
    ) -> None:
        super().__init__()
        checks.check_choice("form", form, FORMS)
        checks.check_choice("surrogate", surrogate, FALLING)
        checks.check_count("rows", rows)
        checks.check_count("num_labels", num_labels)
        checks.check_positive("margin", margin)
        checks.check_part("rate", rate)
        self.num_labels = num_labels
        self.form = form
        self.surrogate = surrogate
        self.margin = margin
        self.rate = rate
        self.judge = checks.PairChecks(num_labels)

        # Which class is soft or cut, and by how much; the other one has the states.
        shares = hardest_negatives, hardest_positives
        temperatures = temperature_negatives, temperature_positives
        if form == "sopa":
            self.swapped, self.share = one_share(*shares)
            require_neutral(temperatures, (None, None), "sopa takes a share, not a temperature")
        else:
            self.swapped, self.inner, self.outer = soft_classes(form, *temperatures)
            require_neutral(shares, (1, 1), f"{form} takes temperatures, not a share")

        # s, or log u; NaN for a row that no batch has had. float64, since 0.4 million rows are
        # 3 MB and the mean over many batches should not round.
        unknown = torch.full((rows, num_labels), torch.nan, dtype=torch.float64)
        self.register_buffer("state", unknown)
        if form == "sota_s":
            self.register_buffer("overall", unknown[0].clone())  # log v

    def forward(
        self,
        scores: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Scores (B,) or (B, K), labels of 0, 1, NaN, row numbers (B,) -> a float32 scalar."""
        learning = self.training and scores.requires_grad and torch.is_grad_enabled()
        if learning:
            rows = self.global_rows(rows, scores)
        raw, y, mask = checks.batch_columns(scores, labels, mask, self.training, self.num_labels)
        h, y, valid = checks.admit_hard(raw, y, mask)

        # All pairs (i, j) of a row with a state and one of the other class, (B, B, K).
        sign = -1 if self.swapped else 1
        signed = sign * h
        positive = (valid * y).bool()
        negative = (valid * (1 - y)).bool()
        first, second = (negative, positive) if self.swapped else (positive, negative)
        pairs = first[:, None] & second[None]
        losses = loss_of_pair(self.surrogate, self.margin, signed[:, None] - signed[None])

        # F as the states estimate it, and its gradient by the weights.
        with torch.no_grad():
            weights, value = self.weigh(losses.double(), pairs, rows if learning else None)
        count = pairs.sum((0, 1)).clamp(min=1)
        weighted = (weights.to(h.dtype) * losses).sum((0, 1)) / count
        loss = (value + weighted - weighted.detach()).mean().float()
        self.judge(raw, y, valid, loss)
        return loss

    def global_rows(self, rows: Tensor | None, scores: Tensor) -> Tensor:
        """The rows of the global batch, on the scores' device; ValueError for what are none."""
        if rows is None:
            raise ValueError("in training this loss needs rows=, the batch's row numbers")
        if rows.shape != scores.shape[:1] or rows.is_floating_point():
            raise ValueError(
                f"rows are {rows.dtype} of shape {tuple(rows.shape)}, not {len(scores)} integers"
            )
        if checks.read_at_once(rows) and len(rows):
            lowest, highest = rows.min().item(), rows.max().item()
            if lowest < 0 or highest >= len(self.state):
                wrong = lowest if lowest < 0 else highest
                raise ValueError(f"row {wrong} is not one of the {len(self.state)} training rows")
        rows = rows.to(scores.device, torch.int64)
        return gather(rows)[0] if process_count() > 1 else rows

    def weigh(self, losses: Tensor, pairs: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """p (B, B, K), 0 for what is no pair, and F (K,), 0 for a label without pairs; moves the
        states of `rows`, where they are given."""
        has_pairs = pairs.any(1)
        if self.form == "sopa":
            weights, of_row = self.weigh_tail(losses, pairs, rows)
            value = mean_where(of_row, has_pairs, 0)
        else:
            weights, value = self.weigh_softly(losses, pairs, rows)
        live = has_pairs.any(0)
        return torch.where(pairs, weights, 0.0), torch.where(live, value, 0.0)

    def weigh_tail(
        self, losses: Tensor, pairs: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Equation 4: p, and the terms of equation 1 (B, K)."""
        fresh = upper_quantile(losses, pairs, self.share)
        known = fresh * torch.nan if rows is None else self.state[rows]
        s = torch.where(torch.isnan(known), fresh, known)
        exceeds = pairs & (losses > s[:, None])
        # At the batch's own quantile the loss that lies there carries what the greater ones leave
        # of β n, so that the gradient is that of equation 1: of 4 pairs none exceeds the quantile.
        level = pairs & (losses == s[:, None]) & torch.isnan(known)[:, None]
        left = self.share * pairs.sum(1).double() - exceeds.sum(1)
        weights = exceeds + level * (left / level.sum(1).clamp(min=1))[:, None]
        excess = mean_where((losses - s[:, None]).clamp(min=0), pairs, 1)
        if rows is not None:
            moved = s + self.rate * (mean_where(exceeds.double(), pairs, 1) - self.share)
            moved = moved + 0 * excess  # a NaN score exceeds nothing, and would pass for a low one
            self.move(rows, mean_where(moved[None], row_copies(rows, pairs), 1), pairs)
        return weights / self.share, s + excess / self.share

    def weigh_softly(
        self, losses: Tensor, pairs: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Equations 5 and 6: p, and F (K,)."""
        scaled = losses / self.inner
        log_u = log_mean_exp(scaled, pairs, 1)
        if rows is not None:
            fresh = log_mean_exp(log_u[None], row_copies(rows, pairs), 1)
            log_u = self.moving(self.state[rows], fresh)
            self.move(rows, log_u, pairs)
        has_pairs = pairs.any(1)
        if self.outer is None:
            return torch.exp(scaled - log_u[:, None]), self.inner * mean_where(log_u, has_pairs, 0)

        # Equation 6, with everything but the last step in logarithms.
        power = self.inner / self.outer
        log_v = log_mean_exp(power * log_u, has_pairs, 0)
        if rows is not None:
            settled = torch.isfinite(log_v)  # -inf for a label without pairs
            log_v = self.moving(self.overall, log_v)
            self.overall.copy_(torch.where(settled, log_v, self.overall))
        weights = torch.exp((power - 1) * log_u[:, None] + scaled - log_v)
        return weights, self.outer * log_v

    def moving(self, old: Tensor, fresh: Tensor) -> Tensor:
        """log((1-r) exp(old) + r exp(fresh)); `fresh` where old is not known."""
        keep = math.log1p(-self.rate) if self.rate < 1 else -math.inf
        mixed = torch.logaddexp(old + keep, fresh + math.log(self.rate))
        return torch.where(torch.isnan(old), fresh, mixed)

    def move(self, rows: Tensor, moved: Tensor, pairs: Tensor) -> None:
        """Set the states of rows that had a pair, if all the new ones are finite: a diverged batch,
        which raises, leaves nothing behind."""
        took_part = row_copies(rows, pairs).any(1)
        settled = took_part & (torch.isfinite(moved) | ~took_part).all()
        # Copies of a row have equal values, so it does not matter which is written last.
        self.state[rows] = torch.where(settled, moved, self.state[rows])

    @property
    def one_class(self) -> Tensor:
        """(2, K): in how many training batches each label had no positive, no negative."""
        return self.judge.one_class

    def extra_repr(self) -> str:
        side = "positives" if self.swapped else "negatives"
        how = f"hardest {self.share:g} of {side}" if self.form == "sopa" else f"λ={self.inner:g}"
        if self.form == "sopa_s":
            how += f" of {side}"
        if self.form == "sota_s":
            how += f", λ'={self.outer:g}"
        return f"{self.form!r}, {self.surrogate!r}, margin={self.margin}, {how}, rate={self.rate}"


def one_share(hardest_negatives: float, hardest_positives: float) -> tuple[bool, float]:
    """(swapped, β) of SOPA; ValueError unless exactly one share is below 1."""
    checks.check_part("hardest_negatives", hardest_negatives)
    checks.check_part("hardest_positives", hardest_positives)
    if (hardest_negatives < 1) == (hardest_positives < 1):
        raise ValueError(
            f"sopa cuts one class: one of hardest_negatives={hardest_negatives:g} and "
            f"hardest_positives={hardest_positives:g} has to be below 1"
        )
    swapped = hardest_positives < 1
    return swapped, hardest_positives if swapped else hardest_negatives


def soft_classes(
    form: str, negatives: float | None, positives: float | None
) -> tuple[bool, float, float | None]:
    """(swapped, λ, λ' or None) of SOPA-s and SOTA-s; ValueError for a temperature too few or too
    many."""
    given = [value for value in (negatives, positives) if value is not None]
    for value in given:
        checks.check_positive("temperature", value)
    if form == "sota_s":
        if len(given) < 2:
            raise ValueError("sota_s takes temperature_negatives and temperature_positives")
        return False, negatives, positives
    if len(given) != 1:
        raise ValueError("sopa_s takes one of temperature_negatives and temperature_positives")
    return negatives is None, given[0], None


def require_neutral(values: tuple, neutral: tuple, message: str) -> None:
    """ValueError where an argument that would do nothing was given."""
    if values != neutral:
        raise ValueError(message)


def row_copies(rows: Tensor, pairs: Tensor) -> Tensor:
    """(B, B, K): whether i' is a copy of row i that has a pair; i itself is one."""
    return (rows[:, None] == rows[None])[:, :, None] & pairs.any(1)[None]


def mean_where(values: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """The mean of the chosen values over one dimension, 0 where none is."""
    total = torch.where(chosen, values, 0.0).sum(dim)
    return total / chosen.sum(dim).clamp(min=1)


def log_mean_exp(values: Tensor, chosen: Tensor, dim: int) -> Tensor:
    """The logarithm of the mean of exp over the chosen values, -inf where none is."""
    total = torch.where(chosen, values, -torch.inf).logsumexp(dim)
    return total - chosen.sum(dim).clamp(min=1).to(values.dtype).log()


def upper_quantile(losses: Tensor, pairs: Tensor, share: float) -> Tensor:
    """(B, K): the ⌈β n⌉-th largest loss of each row's n pairs, a minimiser of equation 1; 0
    without pairs."""
    count = pairs.sum(1)
    falling = torch.where(pairs, losses, -torch.inf).sort(dim=1, descending=True).values
    place = (torch.ceil(share * count.double()).long() - 1).clamp(min=0)
    found = falling.gather(1, place[:, None]).squeeze(1)
    return torch.where(count > 0, found, 0.0)
