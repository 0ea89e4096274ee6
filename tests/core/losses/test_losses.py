"""The AUC losses against their definitions: every identity in float64."""

from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from pipeline.core.losses import AUCMargin, AUCSquare
from pipeline.core.losses.minmax import make_batch, margin_loss, min_max
from pipeline.core.metrics import auc
from tests.cases.auc import a_m, batches, double, duals, equation_8, margins, priors, saddle

often = settings(max_examples=150, deadline=None)
TIGHT = dict(rtol=1e-10, atol=1e-10)


def f_and_gradients(h, y, a, b, alpha, p, m):
    """min_max on one label's numpy arrays: F, ∂h, ∂a, ∂b, ∂α as numpy."""
    h, y = torch.from_numpy(h)[:, None], torch.from_numpy(y)[:, None]
    numbers = [torch.tensor([float(v)], dtype=torch.float64) for v in (a, b, alpha)]
    prior = None if p is None else torch.tensor([p], dtype=torch.float64)
    value, gradients = min_max(
        h, make_batch(y), *numbers, prior, torch.tensor([m], dtype=torch.float64)
    )
    return (
        value.item(),
        gradients.h[:, 0].numpy(),
        gradients.a.item(),
        gradients.b.item(),
        gradients.alpha.item(),
    )


def scale_of(h, *others):
    """Size of the terms that F sums, for an absolute tolerance."""
    return 1 + (np.abs(h).max() + sum(abs(o) for o in others)) ** 2


@often
@given(batches(), duals, duals, duals, priors, margins)
def test_value_is_equation_8(batch, a, b, alpha, p, m):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    value = f_and_gradients(h, y, a, b, alpha, p, m)[0]
    expected = equation_8(h, y, a, b, alpha, y.mean() if p is None else p, m)
    assert abs(value - expected) <= 1e-13 * scale_of(h, a, b, alpha, m)


@often
@given(batches(), duals, duals, duals, priors, margins)
def test_gradients_are_those_written_out(batch, a, b, alpha, p, m):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    _, dh, da, db, dalpha = f_and_gradients(h, y, a, b, alpha, p, m)
    n = len(h)
    q = y.mean() if p is None else p
    np.testing.assert_allclose(
        dh,
        2 / n * np.where(y == 1, (1 - q) * (h - a - alpha), q * (h - b + alpha)),
        rtol=1e-10,
        atol=1e-14 * scale_of(h, a, b, alpha),
    )
    if p is None:  # with p = N+/N they are functions of the class means
        mean_pos = h[y == 1].mean()
        mean_neg = h[y == 0].mean()
        tolerance = dict(rel=1e-10, abs=1e-13 * scale_of(h, a, b, alpha, m))
        assert da == pytest.approx(-2 * q * (1 - q) * (mean_pos - a), **tolerance)
        assert db == pytest.approx(-2 * q * (1 - q) * (mean_neg - b), **tolerance)
        assert dalpha == pytest.approx(
            2 * q * (1 - q) * (m + mean_neg - mean_pos - alpha), **tolerance
        )


@often
@given(batches(), duals, duals, duals, priors, margins)
def test_gradients_are_differences_of_equation_8(batch, a, b, alpha, p, m):
    h = batch[0][:, 0] - batch[0][:, 0].mean()
    y = batch[1][:, 0]
    _, dh, *rest = f_and_gradients(h, y, a, b, alpha, p, m)
    q = y.mean() if p is None else p
    at = np.array([h[0], a, b, alpha])

    def f(x):
        return equation_8(np.concatenate([x[:1], h[1:]]), y, *x[1:], q, m)

    for i, gradient in enumerate(
        [dh[0], *rest]
    ):  # F is quadratic in each: a central difference is exact
        step = np.zeros(4)
        step[i] = 1.0
        assert gradient == pytest.approx(
            (f(at + step) - f(at - step)) / 2, rel=1e-10, abs=1e-12 * scale_of(h, *at, m)
        )


@often
@given(batches(), margins, st.booleans())
def test_theorem_1(batch, m, hinge):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    p, (a, b, alpha) = y.mean(), saddle(h, y, m, hinge)
    value, dh, da, db, dalpha = f_and_gradients(h, y, a, b, alpha, None, m)
    tolerance = 1e-12 * scale_of(h, m)
    assert value == pytest.approx(p * (1 - p) * a_m(h, y, m, hinge), rel=1e-10, abs=tolerance)
    assert abs(da) <= tolerance and abs(db) <= tolerance
    assert (
        dalpha == pytest.approx(0, abs=tolerance) if alpha > 0 or not hinge else dalpha <= tolerance
    )

    (scores,) = double(
        h[:, None]
    )  # envelope: at the saddle the scores' gradient is that of p(1-p) A_M
    labels = make_batch(torch.from_numpy(y)[:, None])
    (
        p * (1 - p) * margin_loss(scores, labels, torch.tensor(m, dtype=torch.float64), hinge)
    ).backward()
    np.testing.assert_allclose(dh, scores.grad[:, 0], rtol=1e-10, atol=tolerance)


@often
@given(batches(), margins, duals, duals, duals, duals)
def test_saddle_is_a_saddle(batch, m, da, db, dalpha, other):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    p, (a, b, alpha) = y.mean(), saddle(h, y, m)
    best = equation_8(h, y, a, b, alpha, p, m)
    slack = 1e-12 * scale_of(h, m, da, db)
    assert equation_8(h, y, a + da, b + db, alpha, p, m) >= best - slack
    assert equation_8(h, y, a, b, abs(other) + max(0.0, dalpha), p, m) <= best + slack


@often
@given(batches(most=25))
def test_equation_5_over_all_pairs(batch):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    pairs = np.mean(
        [(1 - positive + negative) ** 2 for positive in h[y == 1] for negative in h[y == 0]]
    )
    assert a_m(h, y, 1.0, hinge=False) == pytest.approx(pairs, rel=1e-10)
    p = y.mean()
    value = f_and_gradients(h, y, *saddle(h, y, 1.0, hinge=False), None, 1.0)[0]
    assert value == pytest.approx(p * (1 - p) * pairs, rel=1e-10, abs=1e-12 * scale_of(h))


def test_unconstrained_minimum_of_the_square_loss_is_the_pairwise_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (rng.random(60) < 0.3).astype(float)

    def pairwise(w):
        h = x @ w
        return np.mean((1 - h[y == 1][:, None] + h[y == 0][None]) ** 2)

    def min_max_form(
        w,
    ):  # max over α of min over a, b, by stationarity: two steps from anywhere reach it
        h = x @ w
        return f_and_gradients(h, y, *saddle(h, y, 1.0, hinge=False), None, 1.0)[0]

    p = y.mean()
    by_pairs = minimize(pairwise, np.zeros(3), tol=1e-14)
    by_form = minimize(min_max_form, np.zeros(3), tol=1e-14)
    assert by_form.fun == pytest.approx(p * (1 - p) * by_pairs.fun, rel=1e-10)
    np.testing.assert_allclose(by_form.x, by_pairs.x, atol=1e-5)


@often
@given(batches(), duals, duals, duals, priors, margins, st.floats(-50, 50), st.floats(0.1, 10))
def test_invariances(batch, a, b, alpha, p, m, shift, s):
    h = batch[0][:, 0]
    y = batch[1][:, 0]
    value = f_and_gradients(h, y, a, b, alpha, p, m)[0]
    slack = 1e-11 * scale_of(h, a, b, alpha, m, shift)
    if p is None:  # a given prior is the batch's in expectation only, and so is the invariance
        assert f_and_gradients(h + shift, y, a + shift, b + shift, alpha, p, m)[0] == pytest.approx(
            value, abs=slack
        )
    scaled = f_and_gradients(s * h, y, s * a, s * b, s * alpha, p, s * m)[0]
    assert scaled == pytest.approx(s**2 * value, abs=slack * s**2)
    swapped = f_and_gradients(-h, 1 - y, -b, -a, alpha, None if p is None else 1 - p, m)[0]
    assert swapped == pytest.approx(value, abs=slack)


def test_float32_keeps_the_shift_invariance():
    """Scores far from 0: F from residuals loses nothing beyond the scores' own rounding."""
    h = torch.randn(512, 1, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(512) % 10 == 0).float()[:, None]
    at = [torch.tensor([v]) for v in (0.5, -0.5, 0.7)]
    near, _ = min_max(h, make_batch(y), *at, None, torch.tensor([1.0]))
    far_h = (h + 4096).clone()
    far, _ = min_max(
        far_h, make_batch(y), at[0] + 4096, at[1] + 4096, at[2], None, torch.tensor([1.0])
    )
    exact, _ = min_max(
        far_h.double() - 4096,
        make_batch(y.double()),
        *(t.double() for t in at),
        None,
        torch.tensor([1.0], dtype=torch.float64),
    )
    assert far.item() == pytest.approx(exact.item(), rel=2e-6)
    assert near.item() == pytest.approx(far.item(), rel=1e-3)


@pytest.mark.parametrize("size", [2, 5, 32])
def test_batch_prior_is_one_minus_1_over_b_of_the_true_prior_in_expectation(size):
    """Exactly, by summing over all batches of a population with one positive and one negative
    score."""
    p = 0.23
    high = 0.7
    low = -0.4
    a = 0.3
    b = 0.1
    alpha = 0.5
    m = 0.8
    batch_prior = np.zeros(5)
    true_prior = np.zeros(5)
    for positives in range(size + 1):
        weight = comb(size, positives) * p**positives * (1 - p) ** (size - positives)
        y = np.array([1.0] * positives + [0.0] * (size - positives))
        h = np.where(y == 1, high, low)
        _, dh, *rest = f_and_gradients(h, y, a, b, alpha, None, m)
        batch_prior += weight * np.array([dh[y == 1].sum(), dh[y == 0].sum(), *rest])
        for label, score in (
            (1.0, high),
            (0.0, low),
        ):  # the true prior's expectation, entry by entry
            share = weight * (y == label).mean()
            c, sign = (1 - p, -1) if label else (p, 1)
            gradient_h = 2 * c * (score - (a if label else b) + sign * alpha)
            true_prior += share * np.array(
                [
                    gradient_h * label,
                    gradient_h * (1 - label),
                    -2 * c * (score - a) * label,
                    -2 * c * (score - b) * (1 - label),
                    2 * (p * (1 - p) * (m - alpha) + sign * c * score),
                ]
            )
    np.testing.assert_allclose(batch_prior, (1 - 1 / size) * true_prior, **TIGHT)


def example(*positives: float, fourth: float = 0.6, fifth: float = 0.6) -> float:
    """AUC of one example of Table 6: 25 samples, 22 of them negative, 15 of these below every
    positive."""
    negatives = [fourth, fifth, 0.47, 0.47, 0.45, 0.43, 0.42] + [0.1] * 15
    return auc(np.array([*positives, *negatives]), np.array([1] * 3 + [0] * 22))


def test_table_6():
    assert example(0.9, 0.8, 0.7) == 1
    assert example(0.9, 0.41, 0.7, fifth=0.49) == pytest.approx(59 / 66, abs=1e-12)
    assert example(0.9, 0.41, 0.40, fourth=0.49, fifth=0.48) == pytest.approx(52 / 66, abs=1e-12)


def directions(loss, score: float, label: float, a: float, b: float) -> float:
    """B or C of Appendix E: ∂F/∂h over 2 N (1-p) or 2 N p, at α's optimum for these a, b; p =
    1/2."""
    loss = loss.double()
    with torch.no_grad():
        loss.a.fill_(a), loss.b.fill_(b)
        short = loss.margin - a + b
        loss.alpha.copy_(short.clamp(min=0) if loss.hinge else short)
    (scores,) = double([score, 0.0])
    loss(scores, torch.tensor([label, 1 - label])).backward()
    return scores.grad[0].item() * 2 / (2 * 0.5)


@pytest.mark.parametrize(
    ("loss", "score", "label", "a", "b", "expected"),
    [
        (AUCSquare(prior=0.5), 1.0, 1.0, 0.5, -0.5, 0.5),  # E.1: an easy positive is pushed down
        (AUCSquare(prior=0.5), -1.0, 0.0, 0.5, -0.5, -0.5),  # E.1: an easy negative is pushed up
        (
            AUCMargin(prior=0.5, margin=1.0),
            0.75,
            1.0,
            1.0,
            -0.5,
            -0.25,
        ),  # E.2, α = 0: to the class mean from below
        (AUCMargin(prior=0.5, margin=1.0), 1.25, 1.0, 1.0, -0.5, 0.25),  # … and from above
        (AUCMargin(prior=0.5, margin=1.0), 0.25, 1.0, 0.0, -0.5, -0.25),  # E.2, α > 0
        (AUCSquare(prior=0.5), 0.25, 0.0, 0.25, -0.5, 1.0),  # E.3: a noisy label, full force
        (AUCMargin(prior=0.5, margin=0.8), 0.25, 0.0, 0.25, -0.5, 0.8),  # E.4: C = m …
        (AUCMargin(prior=0.5, margin=0.3), 0.25, 0.0, 0.25, -0.5, 0.75),  # … but not below .75
    ],
)
def test_appendix_e(loss, score, label, a, b, expected):
    assert directions(loss, score, label, a, b) == pytest.approx(expected, abs=1e-12)


def test_appendix_e_updates():
    """The weights that Appendix E prints after one step of 0.1 along the sign of B or C (1 along
    B's sign)."""
    assert 1 - 0.1 * np.sign(
        directions(AUCSquare(prior=0.5), 1.0, 1.0, 0.5, -0.5)
    ) * 1 == pytest.approx(0.9)
    w = 1 - 0.1 * np.sign(directions(AUCMargin(prior=0.5), 0.25, 1.0, 0.0, -0.5)) * 0.25
    assert (w, w * 0.25) == pytest.approx((1.025, 0.25625))


@settings(max_examples=25, deadline=None)
@given(batches(), margins, duals, duals, st.floats(0, 2))
def test_parity_with_libauc(batch, m, a, b, alpha):
    losses = pytest.importorskip("libauc.losses", reason="libauc is a development requirement")
    theirs = losses.AUCMLoss(margin=m, device=torch.device("cpu"))
    ours = AUCMargin(margin=m)
    for loss in (theirs, ours):
        with torch.no_grad():
            loss.a.fill_(a), loss.b.fill_(b), loss.alpha.fill_(alpha)
    h = batch[0] - batch[0].mean()
    h = h / max(1.0, np.abs(h).max())
    results = []
    for loss in (theirs, ours):
        scores = torch.tensor(h, dtype=torch.float32, requires_grad=True)
        value = loss(scores, torch.tensor(batch[1], dtype=torch.float32))
        value.sum().backward()
        grads = [v.grad.reshape(-1) for v in (scores, loss.a, loss.b, loss.alpha)]
        results.append(torch.cat([value.detach().reshape(-1), *grads]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)
