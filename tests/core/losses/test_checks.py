"""Every wrong use of the losses raises, warns once or is counted."""

import copy
import warnings

import pytest
import torch

from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal, checks
from pipeline.core.pesg import PESG

LABELS = torch.tensor([1.0, 0.0, 0.0, 1.0])
SCORES = torch.tensor([0.3, -0.2, 0.1, 0.4])


@pytest.mark.parametrize("loss", [AUCMargin(), AUCSquare(), AUCMargin(dual="closed_form")])
@pytest.mark.parametrize("value", [-1.0, 0.7, 2.0, torch.inf])
def test_other_labels_raise_and_are_named(loss, value):
    labels = LABELS.clone()
    labels[2] = value
    with pytest.raises(ValueError, match=rf"label {value:g} is not 0 or 1.*row 2, column 0"):
        loss(SCORES, labels)


@pytest.mark.parametrize("loss", [Focal(), CrossEntropy()])
def test_labels_outside_0_and_1_raise(loss):
    loss(SCORES, torch.tensor([0.7, 0.0, 1.0, 0.1]))
    for value in (-1.0, 1.01):
        with pytest.raises(ValueError, match=f"label {value:g} is not between 0 and 1"):
            loss(SCORES, torch.tensor([1.0, value, 0.0, 0.0]))


@pytest.mark.parametrize(
    "loss",
    [
        AUCMargin(),
        AUCSquare(),
        AUCMargin(normalize="l2", margin=0.1),
        Focal(),
        CrossEntropy(),
        AUCMargin(dual="closed_form"),
        AUCMargin(normalize="l2*sqrt_b"),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_raise(loss, value):
    scores = SCORES.clone()
    scores[3] = value
    before = copy.deepcopy(loss.state_dict())
    with pytest.raises(ValueError, match=rf"1 of 4 scores are not finite: {value} \(row 3"):
        loss(scores, LABELS)
    assert all(torch.equal(left, before[name]) for name, left in loss.state_dict().items())


@pytest.mark.parametrize("loss", [AUCMargin(3), AUCSquare(3), Focal(), CrossEntropy()])
@pytest.mark.parametrize(
    ("scores", "labels", "mask"),
    [
        ((8, 3), (8,), None),
        ((8, 3), (8, 1), None),
        ((8, 3), (3, 8), None),
        ((8, 3), (8, 3), (8,)),
        ((8, 3), (7, 3), None),
        ((8, 3, 1), (8, 3, 1), None),
    ],
)
def test_shapes_that_differ_raise_rather_than_broadcast(loss, scores, labels, mask):
    with pytest.raises(ValueError, match="shape"):
        loss(torch.zeros(scores), torch.zeros(labels), None if mask is None else torch.ones(mask))


def test_number_of_labels():
    for shape, labels in (((8, 3), 2), ((8,), 2), ((8, 2), 1)):
        with pytest.raises(ValueError, match=f"the loss for {labels}"):
            AUCMargin(labels)(torch.zeros(shape), torch.zeros(shape))


def test_a_mask_of_weights_raises():
    with pytest.raises(ValueError, match="other than 0 and 1"):
        AUCMargin()(SCORES, LABELS, torch.tensor([1.0, 0.5, 1.0, 1.0]))


def test_scores_of_integers_raise():
    with pytest.raises(ValueError, match="not floating point"):
        AUCMargin()(torch.ones(4, dtype=torch.int64), LABELS)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(margin=0.0),
        dict(margin=-1.0),
        dict(margin=[1.0, 0.5]),
        dict(prior=0.0),
        dict(prior=1.0),
        dict(prior=torch.nan),
        dict(normalize="l1"),
        dict(dual="adam"),
        dict(num_labels=0),
        dict(memory=1.0),
        dict(margin=torch.inf),
    ],
)
def test_wrong_arguments_raise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AUCMargin(**{"num_labels": 3, **wrong})
    for loss in (lambda: Focal(alpha=1.5), lambda: Focal(gamma=-1.0)):
        with pytest.raises(ValueError, match=r"is not in|negative"):
            loss()


def test_labels_of_one_class_are_named_once_and_counted():
    loss = AUCMargin(2)
    scores = torch.zeros(4, 2)
    labels = torch.stack([LABELS, torch.zeros(4)], dim=1)
    with pytest.warns(checks.OneClassWarning, match="label 1 had no positive"):
        loss(scores, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(scores, labels)
        loss(scores, torch.stack([LABELS, LABELS], dim=1))
    with pytest.warns(checks.OneClassWarning, match="no negative") as caught:
        loss(scores, torch.ones(4, 2))
    assert len(caught) == 2
    assert loss.last["one_class"].tolist() == [1, 3]
    assert loss.state_dict()["one_class"].tolist() == [[0, 2], [1, 1]]


@pytest.mark.parametrize(
    ("loss", "warns"),
    [
        (AUCMargin(margin=1.01, normalize="l2"), True),
        (AUCMargin(margin=0.99, normalize="l2"), False),
        (AUCMargin(margin=1.0, normalize="sigmoid"), True),
        (AUCMargin(margin=0.9, normalize="sigmoid"), False),
        (AUCMargin(margin=1.9, normalize="l2*sqrt_b"), False),
        (AUCMargin(margin=2.1, normalize="l2*sqrt_b"), True),
        (AUCMargin(margin=100.0), False),
        (AUCSquare(normalize="sigmoid"), False),
    ],
)
def test_a_margin_out_of_reach_is_warned_of_once(loss, warns):
    """Two positives and two negatives: the reach is 1 under l2, 2 under l2*sqrt_b, 1 under the
    sigmoid."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(SCORES, LABELS)
        loss(SCORES, LABELS)
    assert [("out of reach" in str(one.message)) for one in caught] == [True] * warns
    assert not any(issubclass(one.category, checks.OneClassWarning) for one in caught)


@pytest.mark.parametrize("make", [AUCMargin, AUCSquare])
def test_alpha_is_state_and_not_a_parameter(make):
    loss = make(5)
    assert [name for name, _ in loss.named_parameters()] == ["a", "b"]
    assert {"a", "b", "alpha"} <= set(loss.state_dict())
    assert loss.a.shape == loss.b.shape == loss.alpha.shape == (5,)


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_no_other_optimizer_steps_with_alpha(optimizer):
    loss = AUCMargin()
    minimiser = optimizer([loss.a, loss.b, loss.alpha], lr=0.1)
    loss(SCORES, LABELS).backward()
    with pytest.raises(RuntimeError, match="would minimise it"):
        minimiser.step()
    assert loss.alpha == 0 and loss.a == 0


def test_pesg_refuses_alpha_among_what_it_minimises():
    loss = AUCMargin()
    with pytest.raises(ValueError, match="loss=loss"):
        PESG([loss.a, loss.alpha], lr=0.1)


def test_alpha_is_still_known_after_moving_copying_and_loading():
    loss = AUCMargin(2)
    optimizer = PESG(torch.nn.Linear(2, 2).parameters(), loss=loss, lr=0.1)
    loss.double().float()
    loss.load_state_dict({name: value + 1 for name, value in loss.state_dict().items()})
    assert optimizer.param_groups[-1]["params"][0] is loss.alpha
    for one in (loss, copy.deepcopy(loss)):
        assert one.alpha.is_leaf and one.alpha.requires_grad and one.alpha.tolist() == [1, 1]
        with pytest.raises(RuntimeError, match="would minimise it"):
            torch.optim.SGD([one.alpha], lr=0.1).step()


@pytest.fixture
def late(monkeypatch):
    """As on an accelerator: nothing is read at once."""
    monkeypatch.setattr(checks, "read_at_once", lambda _: False)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize(("wrong", "value"), [(-1.0, -1), (0.3, 0.3), (2.0, 2)])
def test_late_judgement_names_the_label_at_the_next_call(wrong, value):
    labels = LABELS.clone()
    labels[0] = wrong
    loss = AUCMargin()
    loss(SCORES, labels)
    with pytest.raises(ValueError, match=f"label {value:g} is not 0 or 1"):
        loss(SCORES, LABELS)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("make", [AUCMargin, CrossEntropy, Focal])
def test_late_judgement_of_scores(make):
    loss = make()
    assert loss(SCORES * torch.nan, LABELS).isnan()
    with pytest.raises(ValueError, match="not finite"):
        loss(SCORES, LABELS)


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("make", [AUCMargin, CrossEntropy])
@pytest.mark.filterwarnings("ignore:label .:UserWarning")
def test_late_judgement_of_an_empty_batch(make):
    loss = make()
    assert loss(SCORES[:0], LABELS[:0]) == 0
    assert loss(SCORES, LABELS).isfinite()


@pytest.mark.usefixtures("late")
def test_late_judgement_of_soft_labels():
    loss = CrossEntropy()
    loss(SCORES, LABELS * 0.9)
    loss(SCORES, LABELS * 1.5)
    with pytest.raises(ValueError, match=r"label 1\.5 is not between 0 and 1"):
        loss(SCORES, LABELS)


@pytest.mark.usefixtures("late")
def test_late_judgement_warns_and_counts():
    loss = AUCMargin(2, margin=0.9, normalize="l2")
    labels = torch.stack([LABELS, torch.zeros(4)], dim=1)
    scores = torch.randn(4, 2)
    loss(scores, labels)
    with pytest.warns(checks.OneClassWarning, match="label 1 had no positive"):
        loss(scores, torch.tensor([[1.0, 1], [1, 1], [1, 1], [1, 0]])[torch.randperm(4)])
    loss(scores, torch.ones(4, 2).index_fill(0, torch.tensor([0]), 0.0))
    assert loss.last["one_class"].tolist() == [1, 1]


@pytest.mark.usefixtures("late")
def test_late_judgement_computes_the_same():
    labels = torch.stack([LABELS, LABELS.flip(0), torch.tensor([1.0, torch.nan, 0, 0])], dim=1)
    scores = torch.randn(4, 3, requires_grad=True)
    value = AUCMargin(3)(scores, labels)
    (gradient,) = torch.autograd.grad(value, scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "read_at_once", lambda _: True)
        at_once = AUCMargin(3)(scores, labels)
    assert value == at_once and torch.equal(gradient, torch.autograd.grad(at_once, scores)[0])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("normalize", ["none", "l2", "l2*sqrt_b", "sigmoid"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_no_normaliser_hides_a_score_that_is_not_finite(monkeypatch, late, normalize, value):
    if late:
        monkeypatch.setattr(checks, "read_at_once", lambda _: False)
    loss = AUCMargin(normalize=normalize, margin=0.5)
    scores = SCORES.clone()
    scores[3] = value
    with pytest.raises(checks.NotFinite, match="not finite"):
        loss(scores, LABELS)
        loss(SCORES, LABELS)  # judged at the next call on an accelerator


def on_meta(loss: AUCMargin) -> AUCMargin:
    """The loss with all it holds on the device that has shapes but no values: whoever reads one
    there fails."""
    for held in (loss._parameters, loss._buffers):
        for name, value in held.items():
            if value is not None:
                moved = value.detach().to("meta").requires_grad_(value.requires_grad)
                held[name] = torch.nn.Parameter(moved) if held is loss._parameters else moved
    if loss.dual == "sgd":
        loss.alpha.ascends = True
    return loss


@pytest.mark.parametrize("dual", ["sgd", "closed_form"])
@pytest.mark.parametrize("normalize", ["none", "l2", "l2*sqrt_b", "sigmoid"])
@pytest.mark.parametrize("prior", ["batch", 0.2])
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_on_an_accelerator_reads_nothing_back_and_leaves_nothing_on_the_host(
    monkeypatch, dual, normalize, prior, masked
):
    """Waiting for a value would stall the device in every step; a tensor left on the host would
    stop it."""
    monkeypatch.setattr(
        checks.Tally,
        "note",
        lambda tally, values: torch.minimum(tally.least, values, out=tally.least),
    )
    network = torch.nn.Linear(4, 3, device="meta")
    loss = on_meta(AUCMargin(3, margin=0.5, normalize=normalize, dual=dual, prior=prior))
    optimizer = PESG(network.parameters(), loss=loss, lr=0.1, gamma=0.01, weight_decay=1e-4)
    labels = torch.ones(8, 3, device="meta")
    for _ in range(2):
        optimizer.zero_grad()
        value = loss(
            network(torch.ones(8, 4, device="meta")), labels, labels.bool() if masked else None
        )
        value.backward()
        optimizer.step()
    optimizer.next_stage(lr=0.01)
    assert (
        value.device.type
        == loss.last["a_m"].device.type
        == network.weight.grad.device.type
        == "meta"
    )
