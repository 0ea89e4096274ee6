"""Partial AUC losses against double loops over pairs in float64, their row states against plain
numbers instead of logarithms, and what must not move a state."""

import math

import numpy as np
import pytest
import torch

from pipeline.core.config import Finetune
from pipeline.core.losses import Pairwise, PartialAUC
from pipeline.core.losses.checks import NotFinite, OneClassWarning
from pipeline.core.losses.partial import FALLING
from pipeline.core.metrics import auc, partial_auc
from pipeline.core.runtime.errors import UserError

# What makes each form, in both orientations.
KINDS = {
    "sopa": dict(form="sopa", hardest_negatives=0.3),
    "sopa, positives": dict(form="sopa", hardest_positives=0.2),
    "sopa_s": dict(form="sopa_s", temperature_negatives=0.5),
    "sopa_s, positives": dict(form="sopa_s", temperature_positives=0.7),
    "sota_s": dict(form="sota_s", temperature_negatives=0.6, temperature_positives=1.5),
}


def batch(seed: int, n: int = 23, labels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 scores and labels (n, K), both classes in every column."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(n, labels, generator=generator, dtype=torch.float64)
    y = (torch.rand(n, labels, generator=generator) < 0.35).double()
    y[0] = 1
    y[1] = 0
    return h, y


def pair_losses(surrogate: str, margin: float, first, second) -> torch.Tensor:
    """L of every pair, written a second time: rows are those with a state."""
    rows = []
    for one in first:
        differences = torch.stack([one - other for other in second])
        if surrogate == "logistic":
            rows.append(torch.log1p(torch.exp(-differences)))
        else:
            rows.append(torch.relu(margin - differences) ** 2)
    return torch.stack(rows)


def oriented(kind: dict, h: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of the class with states and of the other; swapped: scores negated."""
    swapped = kind["form"] != "sota_s" and (
        "hardest_positives" in kind or "temperature_positives" in kind
    )
    return (-h[y == 0], -h[y == 1]) if swapped else (h[y == 1], h[y == 0])


def brute_force(kind: dict, surrogate: str, margin: float, h, y) -> torch.Tensor:
    """Equations 1 to 3 of one label, by loops; the minimum over s by trying every breakpoint."""
    losses = pair_losses(surrogate, margin, *oriented(kind, h, y))
    if kind["form"] == "sopa":
        share = kind.get("hardest_negatives", kind.get("hardest_positives"))
        terms = []
        for row in losses:
            tries = [s + torch.relu(row - s).mean() / share for s in row]
            terms.append(tries[int(torch.stack(tries).argmin())])
        return torch.stack(terms).mean()
    if kind["form"] == "sopa_s":
        t = kind.get("temperature_negatives", kind.get("temperature_positives"))
        return (t * torch.log(torch.exp(losses / t).mean(1))).mean()
    t, outer = kind["temperature_negatives"], kind["temperature_positives"]
    inner = torch.exp(losses / t).mean(1)
    return outer * torch.log((inner ** (t / outer)).mean())


def value_and_gradient(function, h: torch.Tensor) -> tuple[float, torch.Tensor]:
    h = h.clone().requires_grad_()
    value = function(h)
    value.backward()
    return value.item(), h.grad


@pytest.mark.parametrize("surrogate", FALLING)
@pytest.mark.parametrize("name", KINDS)
def test_value_and_gradient_of_a_batch_are_those_of_the_equations(name, surrogate):
    kind = KINDS[name]
    for seed in range(4):
        h, y = batch(seed)
        loss = PartialAUC(23, 1, surrogate=surrogate, margin=0.7, **kind).eval()
        value, gradient = value_and_gradient(lambda h, y=y, loss=loss: loss(h, y), h)
        expected, expected_gradient = value_and_gradient(
            lambda h, y=y: brute_force(kind, surrogate, 0.7, h, y), h
        )
        assert value == pytest.approx(expected, rel=1e-6)  # returned as float32
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_the_first_step_on_all_rows_is_the_step_of_the_equations(name):
    """Every row's state begins at what the batch says, and the batch is the whole set here."""
    kind = KINDS[name]
    h, y = batch(9)
    loss = PartialAUC(23, margin=0.7, **kind)
    value, gradient = value_and_gradient(lambda h: loss(h, y, rows=torch.arange(23)), h)
    expected, expected_gradient = value_and_gradient(
        lambda h: brute_force(kind, "squared_hinge", 0.7, h, y), h
    )
    assert value == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)


class PlainStates:
    """Equations 4 to 6 with u and v as plain numbers, row after row, for one label."""

    def __init__(self, kind: dict, rate: float) -> None:
        self.kind = kind
        self.rate = rate
        self.of_row: dict[int, float] = {}
        self.v = None

    def step(self, h, y, rows) -> tuple[float, torch.Tensor]:
        """The value, and the gradient as a sum over pairs of p_ij ∇L_ij."""
        kind = self.kind
        h = h.clone().requires_grad_()
        first, second = oriented(kind, h, y)
        if len(first) == 0 or len(second) == 0:
            return 0.0, torch.zeros_like(h)
        swapped = len(first) == int((y == 0).sum()) and torch.equal(first, -h[y == 0])
        of_class = rows[y == (0 if swapped else 1)].tolist()
        losses = pair_losses("squared_hinge", 1.0, first, second)
        values, weights = self.sopa(losses.detach(), of_class)
        if kind["form"] != "sopa":
            values, weights = self.soft(losses.detach(), of_class)
        (weights * losses).mean().backward()
        return values, h.grad

    def copies(self, of_class: list[int]) -> dict[int, list[int]]:
        return {
            row: [place for place, one in enumerate(of_class) if one == row] for row in of_class
        }

    def sopa(self, losses, of_class) -> tuple[float, torch.Tensor]:
        if self.kind["form"] != "sopa":
            return 0.0, losses
        share = self.kind.get("hardest_negatives", self.kind.get("hardest_positives"))
        k = math.ceil(share * losses.shape[1])
        fresh = [sorted(row.tolist(), reverse=True)[k - 1] for row in losses]
        s = [self.of_row.get(row, fresh[place]) for place, row in enumerate(of_class)]
        s = torch.tensor(s, dtype=torch.float64)[:, None]
        weights = (losses > s).double() / share
        for place, row in enumerate(of_class):
            if row not in self.of_row:  # the k-th largest carries what the greater ones leave
                at = losses[place] == s[place]
                left = share * losses.shape[1] - (losses[place] > s[place]).double().sum()
                weights[place][at] = left.double() / share / at.sum()
        for row, places in self.copies(of_class).items():
            moved = s[:, 0] + self.rate * ((losses > s).double().mean(1) - share)
            self.of_row[row] = moved[places].mean().item()
        terms = s[:, 0] + torch.relu(losses - s).mean(1) / share
        return terms.mean().item(), weights

    def soft(self, losses, of_class) -> tuple[float, torch.Tensor]:
        kind = self.kind
        two_way = kind["form"] == "sota_s"
        t = kind.get("temperature_negatives") or kind["temperature_positives"]
        exponentials = torch.exp(losses / t)
        for row, places in self.copies(of_class).items():
            fresh = exponentials[places].mean().item()
            old = self.of_row.get(row, fresh)
            self.of_row[row] = (1 - self.rate) * old + self.rate * fresh
        u = torch.tensor([self.of_row[row] for row in of_class], dtype=torch.float64)
        if not two_way:
            return (t * u.log()).mean().item(), exponentials / u[:, None]
        outer = kind["temperature_positives"]
        fresh = (u ** (t / outer)).mean().item()
        self.v = fresh if self.v is None else (1 - self.rate) * self.v + self.rate * fresh
        weights = u[:, None] ** (t / outer - 1) * exponentials / self.v
        return outer * math.log(self.v), weights


@pytest.mark.parametrize("name", KINDS)
def test_states_follow_the_equations_over_many_steps(name):
    """Batches of 12 of 40 rows with two labels; labels left out, and batches of one class."""
    kind = KINDS[name]
    generator = torch.Generator().manual_seed(3)
    all_scores, all_labels = batch(1, 40, labels=2)
    all_labels[5:9, 1] = torch.nan
    loss = PartialAUC(40, 2, rate=0.3, **kind)
    plain = [PlainStates(kind, 0.3) for _ in range(2)]
    for step in range(40):
        rows = torch.randperm(40, generator=generator)[:12]
        if step % 7 == 3:
            rows = torch.nonzero(all_labels[:, 0] == step % 2)[:9, 0]
        noise = 0.3 * torch.randn(len(rows), 2, generator=generator, dtype=torch.float64)
        h = all_scores[rows] + noise
        y = all_labels[rows]
        if step % 7 == 3:
            with pytest.warns(OneClassWarning) if step == 3 else no_check():
                value, gradient = value_and_gradient(lambda h, y=y, r=rows: loss(h, y, rows=r), h)
        else:
            value, gradient = value_and_gradient(lambda h, y=y, r=rows: loss(h, y, rows=r), h)
        expected, expected_gradient = 0.0, torch.zeros_like(h)
        for k, states in enumerate(plain):
            known = ~torch.isnan(y[:, k])
            part, grad = states.step(h[known, k], y[known, k], rows[known])
            expected += part / 2
            expected_gradient[known, k] = grad / 2
        assert value == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
    for k, states in enumerate(plain):
        found = loss.state[:, k] if kind["form"] == "sopa" else loss.state[:, k].exp()
        for row in range(40):
            if row in states.of_row:
                assert found[row].item() == pytest.approx(states.of_row[row], rel=1e-9)
            else:
                assert torch.isnan(found[row])


class no_check:  # noqa: N801  # a context that checks nothing, beside pytest.warns
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


@pytest.mark.parametrize("name", ["sopa", "sopa_s", "sota_s"])
def test_a_row_that_comes_twice_moves_once_by_its_copies_mean(name):
    kind = KINDS[name]
    loss = PartialAUC(12, rate=0.4, **kind)
    plain = PlainStates(kind, 0.4)
    for seed in range(5):
        h, y = batch(seed, 12)
        y = batch(0, 12)[1]
        rows = torch.arange(12)
        positive = torch.nonzero(y[:, 0] == 1)[:, 0]
        rows[positive[1]] = positive[0]  # the same row, other scores
        value, _ = value_and_gradient(lambda h, y=y, r=rows: loss(h, y, rows=r), h)
        assert value == pytest.approx(plain.step(h[:, 0], y[:, 0], rows)[0], rel=1e-6)
    found = loss.state[:, 0] if kind["form"] == "sopa" else loss.state[:, 0].exp()
    for row, expected in plain.of_row.items():
        assert found[row].item() == pytest.approx(expected, rel=1e-9)


def test_the_exact_form_is_the_mean_over_the_hardest():
    """Where β n is whole, equation 1 is the plain mean over the pairs of the hardest images."""
    h, y = batch(2, 30)
    y = (torch.arange(30)[:, None] < 10).double()
    for share in (dict(hardest_negatives=0.25), dict(hardest_positives=0.2)):
        robust = PartialAUC(30, form="sopa", **share).eval()(h, y)
        assert robust.item() == pytest.approx(Pairwise(**share)(h, y).item(), rel=1e-6)


def test_both_orientations_are_one_after_swapping_classes_and_signs():
    h, y = batch(4)
    pairs = [("sopa", "hardest", 0.3), ("sopa_s", "temperature", 0.8)]
    for form, what, value in pairs:
        low = PartialAUC(23, form=form, **{name_of(what, "negatives"): value})
        high = PartialAUC(23, form=form, **{name_of(what, "positives"): value})
        for _ in range(3):
            first, first_gradient = value_and_gradient(lambda h, m=low: steps(m, h, y), h)
            second, second_gradient = value_and_gradient(lambda h, m=high: steps(m, h, 1 - y), -h)
            assert first == second
            torch.testing.assert_close(first_gradient, -second_gradient, rtol=0, atol=0)
        torch.testing.assert_close(low.state, high.state, rtol=0, atol=0, equal_nan=True)


def name_of(what: str, side: str) -> str:
    return f"{what}_{side}"


def steps(loss: PartialAUC, h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return loss(h, y, rows=torch.arange(len(h)))


def test_temperatures_go_from_all_pairs_to_the_worst():
    h, y = batch(5)
    losses = pair_losses("squared_hinge", 1.0, h[y == 1], h[y == 0])
    soft = PartialAUC(23, temperature_negatives=1e6).eval()
    assert soft(h, y).item() == pytest.approx(losses.mean().item(), rel=1e-4)
    hard = PartialAUC(23, temperature_negatives=1e-4).eval()
    assert hard(h, y).item() == pytest.approx(losses.max(1).values.mean().item(), rel=1e-3)
    # λ' = λ: one expectation over all pairs inside the logarithm.
    both = PartialAUC(23, form="sota_s", temperature_negatives=2.0, temperature_positives=2.0)
    expected = 2 * math.log(torch.exp(losses / 2).mean().item())
    assert both.eval()(h, y).item() == pytest.approx(expected, rel=1e-6)


def test_large_losses_do_not_overflow():
    """(1 + 300)² / 0.1 = 906,010, where float32's exp ends at 88.7 and float64's at 709.8."""
    h = torch.tensor([[-300.0], [0.0], [0.0]], requires_grad=True)
    y = torch.tensor([[1.0], [0.0], [0.0]])
    for kind in (
        dict(temperature_negatives=0.1),
        dict(temperature_positives=0.1),
        dict(form="sota_s", temperature_negatives=0.1, temperature_positives=0.2),
    ):
        loss = PartialAUC(3, **kind)
        for _ in range(2):
            h.grad = None
            value = loss(h, y, rows=torch.arange(3))
            value.backward()
            assert value.item() == pytest.approx(301.0**2, rel=1e-6)
            assert h.grad[0].item() == pytest.approx(-2 * 301, rel=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_only_a_training_step_moves_a_state(name):
    h, y = batch(6)
    rows = torch.arange(23)
    loss = PartialAUC(23, **KINDS[name])
    loss(h.clone().requires_grad_(), y, rows=rows).backward()
    before = {key: value.clone() for key, value in loss.state_dict().items()}

    # Evaluation, no_grad, and scores without a gradient; none of them needs rows.
    loss.eval()
    shown = loss((2 * h).requires_grad_(), y)
    loss.train()
    with torch.no_grad():
        assert loss((2 * h).requires_grad_(), y) == shown
        assert loss((2 * h).requires_grad_(), y, rows=rows) == shown
    assert loss(2 * h, y) == shown
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)

    # The state is all there is: another loss goes on from it, bit for bit.
    again = PartialAUC(23, **KINDS[name])
    again.load_state_dict(before)
    for number in range(3):
        scores = [((2 + number) * h).requires_grad_() for _ in range(2)]
        values = [one(s, y, rows=rows) for one, s in zip((loss, again), scores)]
        assert values[0] == values[1]
        for value in values:
            value.backward()
        assert torch.equal(scores[0].grad, scores[1].grad)
    assert torch.equal(loss.state.nan_to_num(), again.state.nan_to_num())


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_a_diverged_batch_leaves_the_states_as_they_were(name, label):
    h, y = batch(7)
    loss = PartialAUC(23, **KINDS[name])
    steps(loss, h.clone().requires_grad_(), y)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    h[int(torch.nonzero(y[:, 0] == label)[0])] = torch.nan
    with pytest.raises(NotFinite, match="1 of 23 scores are not finite"):
        steps(loss, h.requires_grad_(), y)
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)


def test_a_mask_leaves_entries_out():
    h, y = batch(8)
    mask = torch.rand(23, 1, generator=torch.Generator().manual_seed(0)) < 0.7
    mask[:2] = True
    kept = mask[:, 0]
    for kind in KINDS.values():
        loss = PartialAUC(23, **kind).eval()
        assert loss(h, y, mask).item() == pytest.approx(loss(h[kept], y[kept]).item(), rel=1e-6)


def test_half_precision_scores_are_widened():
    h, y = batch(10)
    loss = PartialAUC(23, temperature_negatives=0.2).eval()
    exact = loss(h.bfloat16().float(), y)
    assert loss(h.bfloat16(), y) == exact and exact.dtype == torch.float32


def mixture() -> tuple[torch.Tensor, torch.Tensor]:
    """200 positives and 400 negatives in the plane; most positives lie to the right, a fifth of
    them above and to the left."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    x[:160, 0] += 2.5
    x[160:200] += (-1, 1.5)
    return torch.from_numpy(x), (torch.arange(600) < 200).double()


def trained(loss: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The scores of a linear model after 300 steps on all rows."""
    w = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.25)
    more = {"rows": torch.arange(len(x))} if isinstance(loss, PartialAUC) else {}
    for _ in range(300):
        optimizer.zero_grad()
        loss(x @ w, y, **more).backward()
        optimizer.step()
    return (x @ w).detach()


@pytest.mark.parametrize("name", KINDS)
def test_training_lowers_the_equation_below_where_all_pairs_lead(name):
    x, y = mixture()
    loss = PartialAUC(600, surrogate="logistic", **KINDS[name])
    own = trained(loss, x, y)
    others = trained(Pairwise("logistic"), x, y)
    loss.eval()
    assert loss(own, y) < loss(others, y) - 0.01


def test_training_for_high_sensitivity_gains_there_and_pays_elsewhere():
    x, y = mixture()
    many = trained(Pairwise("logistic"), x, y).numpy()
    soft = PartialAUC(600, surrogate="logistic", temperature_positives=0.5)
    few = trained(soft, x, y).numpy()
    assert partial_auc(few, y.numpy()) > partial_auc(many, y.numpy()) + 0.003
    assert auc(few, y.numpy()) < auc(many, y.numpy())


def test_wrong_use_is_an_error():
    h, y = batch(0)
    h.requires_grad_()
    made = PartialAUC(23, temperature_negatives=1.0)
    for make, message in (
        (lambda: PartialAUC(23, form="sopas"), "form='sopas' is none of"),
        (lambda: PartialAUC(23, temperature_negatives=1.0, surrogate="square"), "'square'"),
        (lambda: PartialAUC(0, temperature_negatives=1.0), "rows=0"),
        (lambda: PartialAUC(23, temperature_negatives=0.0), "temperature=0 is not positive"),
        (lambda: PartialAUC(23, temperature_negatives=1.0, rate=0.0), "rate=0"),
        (lambda: PartialAUC(23), "sopa_s takes one of"),
        (lambda: PartialAUC(23, form="sopa"), "sopa cuts one class"),
        (lambda: PartialAUC(23, form="sopa", hardest_negatives=0.0), "hardest_negatives=0"),
        (
            lambda: PartialAUC(23, form="sopa", hardest_negatives=0.1, hardest_positives=0.2),
            "sopa cuts one class",
        ),
        (
            lambda: PartialAUC(23, form="sopa", hardest_negatives=0.1, temperature_negatives=1.0),
            "sopa takes a share, not a temperature",
        ),
        (
            lambda: PartialAUC(23, temperature_negatives=1.0, hardest_negatives=0.5),
            "sopa_s takes temperatures, not a share",
        ),
        (
            lambda: PartialAUC(23, form="sota_s", temperature_negatives=1.0),
            "sota_s takes temperature_negatives and temperature_positives",
        ),
        (lambda: made(h, y), "needs rows="),
        (lambda: made(h, y, rows=torch.arange(22)), r"shape \(22,\), not 23 integers"),
        (lambda: made(h, y, rows=torch.zeros(23)), "not 23 integers"),
        (lambda: made(h, y, rows=torch.arange(1, 24)), "row 23 is not one of the 23"),
        (lambda: made(h, y, rows=torch.arange(-1, 22)), "row -1 is not one of the 23"),
        (lambda: made(h, torch.where(y == 1, 0.5, y), rows=torch.arange(23)), r"label 0\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(RuntimeError, match="size mismatch"):
        made.load_state_dict(PartialAUC(22, temperature_negatives=1.0).state_dict())
    assert torch.isnan(made.state).all()


def test_recipes_name_what_they_lack_and_what_would_do_nothing():
    for fields, message in (
        (dict(loss="sopa"), "shares of the hardest images of one class, for 'sopa'"),
        (dict(loss="sopa_s"), "loss='sopa_s' takes 1 of temperature_negatives and"),
        (dict(loss="sota_s", temperature_positives=1.0), "takes 2 of .*, not 1"),
        (dict(loss="aucm", temperature_positives=1.0), "takes 0 of"),
        (dict(loss="sopa_s", temperature_positives=-1.0), "is not above 0"),
        (dict(loss="sopa_s", temperature_positives=1.0, normalize="l2"), "normalize='none'"),
        (dict(loss="sopa", hardest_positives=0.2, surrogate="square"), "surrogate='square'"),
        (dict(loss="sopa", hardest_positives=0.2, state_rate=0.0), "state_rate=0"),
        (dict(loss="sopa", hardest_positives=0.2, hardest_negatives=0.2), "of one class"),
    ):
        with pytest.raises(UserError, match=message):
            Finetune(**fields)
