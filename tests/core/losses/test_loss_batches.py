"""The losses as called: several labels, masks, normalisers, precisions, closed-form dual, focal and
cross-entropy."""

import contextlib
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal
from pipeline.core.losses.checks import OneClassWarning
from pipeline.core.losses.minmax import class_means, make_batch
from pipeline.core.losses.normalize import NORMALIZERS, normalize, reach
from tests.cases.auc import a_m, batches, double, equation_8, saddle

often = settings(max_examples=60, deadline=None)
AUC_LOSSES = [AUCMargin, AUCSquare]
ALL_LOSSES = [*AUC_LOSSES, lambda _: Focal(), lambda _: CrossEntropy()]
pytestmark = pytest.mark.filterwarnings("ignore:label .:UserWarning")


def case(n=64, labels=3, rate=0.3, seed=0, dtype=torch.float64):
    """Scores that require a gradient, and labels."""
    generator = torch.Generator().manual_seed(seed)
    scores = (
        torch.randn(n, labels, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    )
    return scores, (torch.rand(n, labels, generator=generator) < rate).to(dtype)


def with_dual(loss, a, b, alpha):
    """The loss in float64 with these duals."""
    loss = loss.double()
    with torch.no_grad():
        for name, value in (("a", a), ("b", b), ("alpha", alpha)):
            getattr(loss, name).copy_(torch.as_tensor(value))
    return loss


@often
@given(batches(labels=3), st.sampled_from(["batch", [0.1, 0.5, 0.9]]))
def test_several_labels_are_the_mean_of_each(batch, prior):
    h, y = batch
    m = [0.5, 1.0, 1.5]
    duals = ([0.3, -0.2, 0.1], [0.1, 0.4, -0.1], [0.6, 0.0, 1.1])
    together = with_dual(AUCMargin(3, margin=m, prior=prior), *duals)
    (scores,) = double(h)
    value = together(scores, torch.from_numpy(y))
    value.backward()
    p = y.mean(0) if prior == "batch" else prior
    parts = [equation_8(h[:, k], y[:, k], *(d[k] for d in duals), p[k], m[k]) for k in range(3)]
    assert value.item() == pytest.approx(np.mean(parts), rel=1e-5, abs=1e-5)
    for k in range(3):
        own_prior = prior if prior == "batch" else prior[k]
        alone = with_dual(AUCMargin(margin=m[k], prior=own_prior), *(d[k] for d in duals))
        (column,) = double(h[:, k])
        alone(column, torch.from_numpy(y[:, k])).backward()
        np.testing.assert_allclose(scores.grad[:, k], column.grad / 3, rtol=1e-10, atol=1e-12)
        for name in ("a", "b", "alpha"):
            expected = getattr(alone, name).grad.item() / 3
            assert getattr(together, name).grad[k].item() == pytest.approx(
                expected, rel=1e-10, abs=1e-10
            )


@pytest.mark.parametrize("make", ALL_LOSSES)
@pytest.mark.parametrize("labels", [1, 3])
def test_mask_and_nan_labels_are_the_entries_removed(make, labels):
    scores, y = case(labels=labels)
    keep = torch.rand(64, labels, generator=torch.Generator().manual_seed(1)) < 0.6
    keep[:2] = True
    y[0] = 1
    y[1] = 0
    marked = torch.where(keep, y, torch.nan)
    spoilt = torch.where(keep, y, -1.0)
    results = []
    for given_labels, mask in (
        (marked, None),
        (spoilt, keep),
        (spoilt, keep.float()),
        (marked, keep),
    ):
        loss = make(labels).double()
        value = loss(scores, given_labels, mask)
        results.append((value, torch.autograd.grad(value, scores)[0]))
    expected = 0.0
    for k in range(labels):  # label by label on the rows that are left
        rows = keep[:, k]
        part = make(1).double()(scores[rows, k], y[rows, k])
        share = 1 / labels if make in AUC_LOSSES else (rows.sum() / keep.sum()).item()
        expected = expected + part.double() * share
    gradient = torch.autograd.grad(expected, scores)[0]
    for value, found in results:
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)
        torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-9)
        assert (found[~keep] == 0).all()


@pytest.mark.parametrize("how", NORMALIZERS)
@pytest.mark.parametrize("make", ALL_LOSSES)
def test_what_is_masked_may_be_nan(make, how):
    scores, y = case()
    scores.data[3:6] = torch.nan
    y[3:6] = torch.nan
    loss = make(3) if make not in AUC_LOSSES else make(3, normalize=how)
    value = loss(scores, y)
    value.backward()
    assert (
        torch.isfinite(value)
        and torch.isfinite(scores.grad).all()
        and (scores.grad[3:6] == 0).all()
    )


@pytest.mark.parametrize("make", ALL_LOSSES)
def test_nothing_to_learn_from_is_an_exact_zero(make):
    for scores, y in (case(n=0), case()):
        value = make(3)(scores, torch.full_like(y, torch.nan))
        value.backward()
        assert value.item() == 0 and (scores.grad == 0).all()


@pytest.mark.parametrize("prior", ["batch", 0.2])
@pytest.mark.parametrize("only", [0.0, 1.0])
@pytest.mark.parametrize("dual", ["sgd", "closed_form"])
def test_a_label_of_one_class_adds_an_exact_zero(prior, only, dual):
    scores, y = case()
    y[:, 1] = only
    loss = AUCMargin(3, prior=prior, dual=dual).double()
    value = loss(scores, y)
    value.backward()
    assert (scores.grad[:, 1] == 0).all() and (scores.grad[:, 0] != 0).all()
    if dual == "sgd":
        assert loss.a.grad[1] == loss.b.grad[1] == loss.alpha.grad[1] == 0
    others = AUCMargin(2, prior=prior, dual=dual).double()(scores[:, [0, 2]], y[:, [0, 2]])
    assert value.item() == pytest.approx(others.item() * 2 / 3, rel=1e-6)
    assert loss.last["one_class"].tolist() == [0, 1, 0]


@often
@given(batches(labels=2), st.sampled_from(NORMALIZERS))
def test_normalisers(batch, how):
    h = torch.from_numpy(batch[0])
    made = normalize(h, len(h), how)
    if (h == 0).all(0).any():
        return  # no direction: see test_scores_all_zero_can_leave_zero
    expected = {
        "none": h,
        "l2": h / h.norm(dim=0),
        "sigmoid": 1 / (1 + torch.exp(-h)),
        "l2*sqrt_b": h / h.square().mean(0).sqrt(),
    }[how]
    torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-14)
    scores = h.clone().requires_grad_()
    if how != "none" and (h.abs().max() < 50).item():
        assert torch.autograd.gradcheck(lambda x: normalize(x, len(h), how), scores, atol=1e-6)


@often
@given(batches(), st.sampled_from(["l2", "l2*sqrt_b", "sigmoid"]))
def test_reach_is_never_exceeded_and_is_met(batch, how):
    h = torch.from_numpy(batch[0])
    y = torch.from_numpy(batch[1])
    labels = make_batch(y)
    mean_pos, mean_neg = class_means(normalize(h, len(h), how), labels)
    bound = reach(labels.positives, labels.negatives, how)
    assert (mean_pos - mean_neg <= bound + 1e-12).all()
    best = torch.where(y > 0, 1 / labels.positives, -1 / labels.negatives) * (
        1e3 if how == "sigmoid" else 1
    )
    mean_pos, mean_neg = class_means(normalize(best, len(h), how), labels)
    assert (mean_pos - mean_neg).item() == pytest.approx(bound.item(), rel=1e-6)


def test_reach_of_the_papers_batches():
    assert [round(reach(k, 128 - k, "l2"), 3) for k in (1, 13, 64)] == [1.004, 0.293, 0.177]


def test_scores_all_zero_can_leave_zero():
    for how in NORMALIZERS:
        scores = torch.zeros(8, requires_grad=True)
        y = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
        AUCMargin(margin=0.1, normalize=how, dual="closed_form")(scores, y).backward()
        assert (
            scores.grad.isfinite().all() and scores.grad[0] < 0
            if how != "sigmoid"
            else scores.grad[0] <= 0
        )


@pytest.mark.parametrize("how", ["l2", "l2*sqrt_b"])
def test_l2_forgets_the_scale_of_the_scores(how):
    scores, y = case(n=32, labels=1)
    values = [
        AUCMargin(margin=0.2, normalize=how).double()(scores * factor, y).item()
        for factor in (1, 1e-3, 1e18)
    ]
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-6)


def test_l2_of_very_large_float32_scores():
    scores, y = case(n=32, labels=1, dtype=torch.float32)
    value = AUCMargin(margin=0.2, normalize="l2")(scores * 1e30, y)  # its square is beyond float32
    assert value.item() == pytest.approx(
        AUCMargin(margin=0.2, normalize="l2")(scores, y).item(), rel=1e-5
    )


@pytest.mark.parametrize("make", ALL_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float32_comes_out_of_any_precision_and_autocast_changes_nothing(make, dtype):
    scores, y = case(dtype=dtype)
    loss = make(3)
    value = loss(scores, y)
    value.backward()
    plain = scores.grad.clone()
    assert value.dtype == torch.float32 and value.shape == () and scores.grad.dtype == dtype
    reference = copy.deepcopy(loss)(scores.detach().float(), y.float())
    assert value.item() == pytest.approx(reference.item(), rel=1e-6)
    scores.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        again = loss(scores, y)
    again.backward()
    assert again.item() == value.item() and torch.equal(scores.grad, plain)


@pytest.mark.parametrize("labels_as", [torch.bool, torch.int64, torch.uint8, torch.float16])
def test_labels_of_any_type(labels_as):
    scores, y = case()
    assert AUCMargin(3)(scores, y.to(labels_as)) == AUCMargin(3)(scores, y)


@pytest.mark.parametrize("margin", [0.3, 2.0])
def test_closed_form_without_memory_descends_a_m(margin):
    """memory = 0: a, b, α are the batch's own saddle, so the gradient is p(1-p) ∇ A_M of the
    batch."""
    scores, y = case(labels=1)
    loss = AUCMargin(margin=margin, dual="closed_form", memory=0.0).double()
    value = loss(scores, y)
    value.backward()
    h = scores.detach()[:, 0].numpy()
    labels = y[:, 0].numpy()
    p = labels.mean()
    assert value.item() == pytest.approx(p * (1 - p) * a_m(h, labels, margin), rel=1e-6)
    assert (loss.a.item(), loss.b.item(), loss.alpha.item()) == pytest.approx(
        saddle(h, labels, margin), rel=1e-12
    )
    step = 1e-6
    for i in (0, 7):
        moved = h.copy()
        moved[i] += step
        difference = p * (1 - p) * (a_m(moved, labels, margin) - a_m(h, labels, margin)) / step
        assert scores.grad[i, 0].item() == pytest.approx(difference, abs=1e-6)


def test_closed_form_remembers_class_sums():
    loss = AUCMargin(dual="closed_form", memory=0.8).double()
    rng = np.random.default_rng(0)
    sums = np.zeros(2)
    counts = np.zeros(2)
    for _ in range(20):
        h = rng.normal(size=16)
        y = (rng.random(16) < 0.1).astype(float)
        first_without = not y.any() and "positive 0" not in loss.warned
        warns = pytest.warns(OneClassWarning) if first_without else contextlib.nullcontext()
        with warns:
            loss(torch.from_numpy(h), torch.from_numpy(y))
        for k, chosen in enumerate((y == 1, y == 0)):
            sums[k] = 0.8 * sums[k] + h[chosen].sum()
            counts[k] = 0.8 * counts[k] + chosen.sum()
    a, b = sums / counts
    assert (loss.a.item(), loss.b.item(), loss.alpha.item()) == pytest.approx(
        (a, b, max(0, 1 - a + b)), rel=1e-10
    )
    assert not list(loss.parameters())
    before = copy.deepcopy(loss.state_dict())
    loss.eval()(
        torch.from_numpy(h), torch.from_numpy(y).fill_(0).index_fill_(0, torch.tensor(0), 1)
    )
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_last_tells_the_batch():
    scores, y = case(labels=2)
    loss = AUCMargin(2, margin=[0.1, 0.2], normalize="l2")
    loss(scores, y)
    h = (scores / scores.norm(dim=0)).detach().numpy()
    for k in range(2):
        labels = y[:, k].numpy()
        mean_pos = h[labels == 1, k].mean()
        mean_neg = h[labels == 0, k].mean()
        found = {name: value[k].item() for name, value in loss.last.items()}
        assert found["a_m"] == pytest.approx(a_m(h[:, k], labels, [0.1, 0.2][k]), rel=1e-6)
        assert found["gap"] == pytest.approx(mean_pos - mean_neg)
        assert found["reach"] == pytest.approx((1 / labels.sum() + 1 / (1 - labels).sum()) ** 0.5)
        assert (found["positives"], found["negatives"]) == (labels.sum(), (1 - labels).sum())


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_definition(alpha, gamma):
    scores, y = case()
    value = Focal(alpha, gamma)(scores, y)
    total = 0.0
    for h, label in zip(scores.detach().flatten().tolist(), y.flatten().tolist()):
        p = 1 / (1 + np.exp(-h))
        p_t, alpha_t = (p, alpha) if label == 1 else (1 - p, 1 - alpha)
        total -= alpha_t * (1 - p_t) ** gamma * np.log(p_t)
    assert value.item() == pytest.approx(total / y.numel(), rel=1e-6)
    if gamma == 0 and alpha == 0.25:
        assert Focal(0.5, 0)(scores, y).item() == pytest.approx(
            CrossEntropy()(scores, y).item() / 2, rel=1e-6
        )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 5.0])
def test_focal_survives_extreme_logits(gamma):
    scores = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    for label in (0.0, 1.0):
        value = Focal(0.25, gamma)(scores, torch.full((5,), label))
        value.backward()
        assert value.isfinite() and scores.grad.isfinite().all()


def test_cross_entropy_is_torchs_with_soft_labels():
    scores, _ = case()
    soft = torch.rand(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert CrossEntropy()(scores, soft).item() == pytest.approx(
        F.binary_cross_entropy_with_logits(scores, soft).item(), rel=1e-6
    )


EVERY_KIND = (AUCMargin, AUCSquare, lambda k: AUCMargin(k, 0.1, normalize="l2"), lambda _: Focal())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("backend", "kinds"),
    [("aot_eager", EVERY_KIND[:1]), pytest.param("inductor", EVERY_KIND, marks=pytest.mark.slow)],
)
def test_compiled_is_the_same(backend, kinds):
    for make in kinds:
        scores, y = case(dtype=torch.float32)
        plain = make(3)
        compiled = torch.compile(make(3), backend=backend)
        for mask in (None, torch.arange(64)[:, None].expand(64, 3) % 5 > 0):
            values = [loss(scores, y, mask) for loss in (plain, compiled)]
            gradients = [torch.autograd.grad(value, scores)[0] for value in values]
            torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
