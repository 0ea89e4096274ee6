"""The AUC losses: AUC margin (paper eq. 8) and AUC square (eq. 4).

The mathematics is in `minmax.py`, the checks in `checks.py`; how the losses are called: see
`core.losses`.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline.core.losses import checks
from pipeline.core.losses.minmax import Batch, MinMax, class_means, make_batch, margin_loss
from pipeline.core.losses.normalize import NORMALIZERS, normalize, reach


class AUCMargin(nn.Module):
    """The AUC margin loss in min-max form: min over (w, a, b), max over α ≥ 0 of the mean of F
    (paper eq. 7, 8).

    num_labels  K; every label has its own a, b, α, m and p, and the loss is the mean of F over the
                K labels. The divisor is always K: a label without positives or without negatives in
                the batch adds an exact 0, is warned of once, counted in `last`, and does not change
                what the other labels weigh.
    margin      m > 0, one value or one per label
    prior       p = Pr(y = 1): "batch" (N+/N of each batch; in expectation (1 - 1/B) times the
                true-prior gradient), one value or one per label
    normalize   "none", "l2" (the paper's batch score normalisation), "l2*sqrt_b", "sigmoid": see
                `losses/normalize.py`
    dual        "sgd": a, b, α are variables, moved by PESG (Algorithm 1)
                "closed_form": a, b are running class means and α = max(0, m - a + b), their optimum
                (Theorem 1)
    memory      closed form only: how much of the class sums outlives a batch; 0.9 averages about
                ten batches

    In several processes the loss is that of the global batch (in training mode; every process must
    call it). α is a buffer: it is in `state_dict` and moves with `.to()`, but `parameters()` does
    not yield it, and an optimizer other than PESG that is given it raises at its first step. After
    backward, `a.grad`, `b.grad` and `alpha.grad` are the partial derivatives of the loss, none of
    them negated. Cost: some thirty small operations; on a CPU 4 to 5 times binary cross-entropy for
    32 to 4,096 entries, where passing four gradients through autograd is already once
    (tests/bench/bench_losses.py).
    """

    hinge = True  # α ≥ 0

    def __init__(
        self,
        num_labels: int = 1,
        margin: float | Sequence[float] | Tensor = 1.0,
        prior: str | float | Sequence[float] | Tensor = "batch",
        normalize: str = "none",
        dual: str = "sgd",
        memory: float = 0.9,
    ) -> None:
        super().__init__()
        # A wrong argument is an error here: LibAUC's takes `imratio` and overwrites it in silence.
        if dual not in ("sgd", "closed_form"):
            raise ValueError(f"dual={dual!r} is neither 'sgd' nor 'closed_form'")
        normalize = "l2*sqrt_b" if normalize == "l2·√B" else normalize  # as mathematics writes it
        checks.check_choice("normalize", normalize, NORMALIZERS)
        checks.check_count("num_labels", num_labels)
        if not 0 <= memory < 1:
            raise ValueError(f"memory={memory} is not in [0, 1)")
        self.num_labels = num_labels
        self.normalize = normalize
        self.dual = dual
        self.memory = memory

        # What the caller gives is not saved: a checkpoint holds what training has changed.
        margins = per_label("margin", margin, num_labels, torch.inf)
        self.register_buffer("margin", margins, persistent=False)
        of_batch = isinstance(prior, str) and prior == "batch"
        priors = None if of_batch else per_label("prior", prior, num_labels, 1.0)
        self.register_buffer("prior", priors, persistent=False)
        self.make_dual()

        # Of each label, in how many training batches it had no positive (row 0), no negative (1).
        self.register_buffer("one_class", torch.zeros(2, num_labels, dtype=torch.int64))
        self.warned: set[str] = set()
        self.seen: tuple[Tensor, Batch] | None = None
        self.late_checks = checks.LateChecks(soft=False, numbers=3 * num_labels)

    def make_dual(self) -> None:
        """a, b, α of shape (K,), all starting at 0."""
        a, b, alpha = (torch.zeros(self.num_labels) for _ in range(3))
        # α is a buffer that has a gradient. As a parameter any optimizer would find and minimise
        # it, which turns the ranking over: a training AUC of 0.0001 was measured.
        if self.dual == "sgd":
            self.a = nn.Parameter(a)
            self.b = nn.Parameter(b)
            self.register_buffer("alpha", alpha.requires_grad_())
            self.alpha.ascends = True
            return

        # In closed form nothing descends or ascends: `remember` sets all three.
        self.register_buffer("a", a)
        self.register_buffer("b", b)
        self.register_buffer("alpha", alpha)
        # How many entries the running means a (row 0) and b (row 1) weigh.
        self.register_buffer("remembered", torch.zeros(2, self.num_labels))

    def _apply(self, fn, recurse: bool = True):
        """Move α in place: PESG holds this very tensor, and a moved copy would not be a leaf."""
        # torch would put another tensor into the buffer; here its data change and it stays itself.
        alpha = self._buffers.pop("alpha")
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers["alpha"] = alpha
        with torch.no_grad():
            alpha.data = fn(alpha.data)
            if alpha.grad is not None:
                alpha.grad = fn(alpha.grad)
        return self

    def forward(self, scores: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean over labels of the mean of F over entries, a float32 scalar."""
        # The global batch, the entries of it that count, and their scores normalised.
        raw, y, mask = checks.batch_columns(scores, labels, mask, self.training, self.num_labels)
        admitted, batch = self.admit(raw, y, mask)
        h = normalize(admitted, batch.n, self.normalize)

        # The value of F, which carries its gradients. In closed form a, b and α are set first: at
        # their optimum ∂F/∂h is p(1-p) times the gradient of A_M (Theorem 1).
        if self.dual == "closed_form" and self.training:
            self.remember(h.detach(), batch)
        a, b, alpha, margin, prior = self.variables(h.dtype)
        value = MinMax.apply(h, a, b, alpha, batch, prior, margin)

        # Errors and warnings; what `last` shows is computed only when it is asked for.
        judged = value
        if self.normalize == "sigmoid":
            # A sigmoid turns an infinite score into a finite one; 0 · inf is NaN.
            judged = value + 0 * admitted.detach().sum()
        self.judge(raw, batch, judged)
        self.seen = h.detach(), batch
        return value

    def variables(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """a, b, α, m and p (None: the batch's) in the dtype the loss computes in."""
        # `to` of the same dtype would be one more operation on the path of every batch.
        a = self.a
        b = self.b
        alpha = self.alpha
        if a.dtype != dtype:
            a = a.to(dtype)
            b = b.to(dtype)
            alpha = alpha.to(dtype)
        prior = None if self.prior is None else self.prior.to(dtype)
        return a, b, alpha, self.margin.to(dtype), prior

    @torch.compiler.disable
    def admit(self, h: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Batch]:
        """Scores with 0 where they do not count, and the labels' batch; see `checks.admit`."""
        h, y, valid = checks.admit(h, y, mask, soft=False)
        batch = make_batch(y, valid)
        # An infinite label passed so far; no label that has both classes can have one.
        if valid is None and batch.live is not None:
            checks.check_labels(y, soft=False)
        return h, batch

    @torch.compiler.disable
    def judge(self, h: Tensor, batch: Batch, value: Tensor) -> None:
        """NotFinite for scores that are not finite; count batches of one class, and warn once of
        them and of a margin out of reach.

        On an accelerator scores, counts and wrong labels are judged when they have reached the
        host: at a later call.
        """
        # Of training alone: a batch of one class is one that teaches nothing.
        if self.training and batch.live is not None:
            self.one_class += torch.stack([batch.positives == 0, batch.negatives == 0])
        if not checks.read_at_once(h):
            counts = self.late_checks.judge(batch.y, value, self.counts(batch).flatten())
            k = self.num_labels
            self.warn(counts[:k], counts[k : 2 * k], counts[2 * k :])
            return

        # Counts are read only where they can lead to a warning.
        checks.check_scores(h, value)
        bounded = self.hinge and self.normalize != "none"
        if batch.live is not None or (bounded and "margin" not in self.warned):
            self.warn(*self.counts(batch).tolist())

    def counts(self, batch: Batch) -> Tensor:
        """(3, K) float64: N+, N-, and how far the margin lies within reach (negative: it cannot be
        met)."""
        room = reach(batch.positives, batch.negatives, self.normalize) - self.margin
        return torch.stack([batch.positives.double(), batch.negatives.double(), room.double()])

    def warn(self, positives: list[float], negatives: list[float], rooms: list[float]) -> None:
        """Warn, once each, of labels without a positive or a negative, and of a margin out of
        reach; a row of `counts` each."""
        for label in range(self.num_labels):
            if positives[label] == 0:
                checks.warn_of_one_class(self.warned, label, "positive")
            if negatives[label] == 0:
                checks.warn_of_one_class(self.warned, label, "negative")
            room = rooms[label]
            # The sigmoid's bound is approached and never reached.
            out_of_reach = room < 0 or (room == 0 and self.normalize == "sigmoid")
            if self.hinge and out_of_reach:
                checks.warn_of_margin(self.warned, label, abs(room), self.normalize)

    @torch.no_grad()
    def remember(self, h: Tensor, batch: Batch) -> None:
        """a, b <- class means over the batches remembered, α <- max(0, m - a + b): the saddle of
        Theorem 1."""
        if checks.read_at_once(h):
            # Before a NaN gets into what is remembered.
            checks.check_scores(h, h.sum())

        # a (k = 0) and b (k = 1): means over entries, not over batches, so that a batch with one
        # positive moves a less than one with ten, and one with none leaves it where it is.
        means = class_means(h, batch)
        duals = (self.a, self.b)
        entries = (batch.positives, batch.negatives)
        for k in range(2):
            total = self.remembered[k].mul_(self.memory).add_(entries[k])
            duals[k].add_((means[k] - duals[k]) * (entries[k] / total.clamp(min=1e-30)))
        self.alpha.copy_((self.margin - self.a + self.b).clamp(min=0))

    @torch.no_grad()
    def restart(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """a, b ← class means over all the batches (scores, labels), α ← max(0, m - a + b): the
        saddle of Theorem 1, whatever they were before.

        PPD-SG begins a stage with that α (Liu et al. 2020, Algorithm 1); a and b, which it averages
        with the weights, are set to their optimum as well. A label without both classes keeps its
        own. In several processes over the global batches, and every process must call it.
        """
        totals, entries = torch.zeros(2, 2, self.num_labels, dtype=torch.float64)
        for scores, labels in batches:
            raw, y, mask = checks.batch_columns(scores, labels, None, True, self.num_labels)
            admitted, batch = self.admit(raw, y, mask)
            means = class_means(normalize(admitted, batch.n, self.normalize), batch)
            counts = torch.stack([batch.positives, batch.negatives]).double().cpu()
            totals += counts * torch.stack(means).double().cpu()
            entries += counts
        if not bool(torch.isfinite(totals).all()):
            raise checks.NotFinite("scores are not finite where a stage begins")
        means = (totals / entries.clamp(min=1)).to(self.a)
        known = (entries > 0).all(0).to(self.a.device)
        self.a.copy_(torch.where(known, means[0], self.a))
        self.b.copy_(torch.where(known, means[1], self.b))
        short = self.margin.to(self.a) - self.a + self.b
        saddle = short.clamp(min=0) if self.hinge else short
        self.alpha.copy_(torch.where(known, saddle, self.alpha))

    @property
    def last(self) -> dict[str, Tensor]:
        """What to log of the last batch, (K,) each, computed when asked for, on the scores' device:

        a_m        A_M of eq. 6 (A_S of eq. 5 for the square loss)
        gap        μ+ - μ-; reach: the largest gap the normaliser allows, to read beside the margin
        a, b, alpha  as they are now
        positives, negatives  counts; one_class: how many batches so far lacked a class
        """
        if self.seen is None:
            raise RuntimeError("loss.last before the first batch")
        h, batch = self.seen
        mean_pos, mean_neg = class_means(h, batch)
        return {
            "a_m": margin_loss(h, batch, self.margin, self.hinge).float(),
            "gap": mean_pos - mean_neg,
            "reach": reach(batch.positives, batch.negatives, self.normalize),
            "a": self.a.detach().clone(),
            "b": self.b.detach().clone(),
            "alpha": self.alpha.detach().clone(),
            "positives": batch.positives,
            "negatives": batch.negatives,
            "one_class": self.one_class.sum(0),
        }

    def extra_repr(self) -> str:
        prior = "batch" if self.prior is None else self.prior.tolist()
        return (
            f"num_labels={self.num_labels}, margin={self.margin.tolist()}, prior={prior}, "
            f"normalize={self.normalize!r}, dual={self.dual!r}"
        )


class AUCSquare(AUCMargin):
    """The AUC square loss in min-max form (paper eq. 3, 4): m = 1 and α of either sign.

    The arguments are those of AUCMargin.
    """

    hinge = False

    def __init__(
        self,
        num_labels: int = 1,
        prior: str | float | Sequence[float] | Tensor = "batch",
        normalize: str = "none",
    ) -> None:
        super().__init__(num_labels, margin=1.0, prior=prior, normalize=normalize)


def per_label(
    name: str, value: float | Sequence[float] | Tensor, num_labels: int, top: float
) -> Tensor:
    """One value or one per label as float64 (K,), each above 0 and below `top`; ValueError
    otherwise."""
    values = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    if len(values) not in (1, num_labels):
        raise ValueError(f"{name} has {len(values)} values for {num_labels} labels")
    for each in values.tolist():
        if not 0 < each < top:
            raise ValueError(f"{name}={each:g} is not between 0 and {top:g}")
    return values.expand(num_labels).clone()
