"""The claims of `pipeline/core/losses/ELSEWHERE.md`, each tried on both sides: `test_there_<claim>`
on LibAUC 2.0.1 (dependency group `parity`; skipped where it is not installed), `test_here_<claim>`
on this code."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipeline.core.losses import AUCMargin, Focal, Pairwise, PartialAUC
from pipeline.core.losses.checks import OneClassWarning
from pipeline.core.pdsca import PDSCA
from pipeline.core.pesg import PESG

PAGE = Path(__file__).parents[3] / "pipeline" / "core" / "losses" / "ELSEWHERE.md"
CPU = torch.device("cpu")
H = torch.tensor([[0.9], [-0.4], [0.3], [-0.2], [0.6], [-1.1], [0.1], [0.8]])
Y = torch.tensor([[1.0], [0.0], [0.0], [1.0], [0.0], [0.0], [0.0], [1.0]])
ROWS = torch.arange(8)
P = torch.sigmoid(H)  # their losses take probabilities


@pytest.fixture(scope="module")
def libauc():
    pytest.importorskip("libauc", reason="pip install --no-deps libauc==2.0.1")
    import libauc.losses
    import libauc.optimizers

    return libauc


def leaf(values: torch.Tensor = H) -> torch.Tensor:
    return values.clone().requires_grad_()


def their_partial(libauc, **changes):
    return libauc.losses.pAUC_DRO_Loss(**dict(data_len=8, device=CPU) | changes)


def test_every_claim_of_the_page_has_its_two_tests():
    claims = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(claims) == len(set(claims)) >= 18
    for side in ("there", "here"):
        start = f"test_{side}_"
        tests = {name.removeprefix(start) for name in globals() if name.startswith(start)}
        assert tests == set(claims)


# --- partial AUC ---


def test_there_states_saved(libauc):
    made = [
        libauc.losses.pAUC_CVaR_Loss(data_len=8, pos_len=3, device=CPU),
        their_partial(libauc),
        libauc.losses.tpAUC_KL_Loss(data_len=8, device=CPU),
    ]
    for loss in made:
        loss(leaf(), Y, ROWS)
        assert loss.u_pos.any() and not loss.state_dict()


def test_here_states_saved():
    loss = PartialAUC(8, temperature_negatives=1.0)
    loss(leaf(), Y, rows=ROWS)
    again = PartialAUC(8, temperature_negatives=1.0)
    again.load_state_dict(loss.state_dict())
    assert again(leaf(), Y, rows=ROWS) == loss(leaf(), Y, rows=ROWS)


def test_there_states_in_evaluation(libauc):
    loss = their_partial(libauc).eval()
    with torch.no_grad():
        loss(H, Y, ROWS)
    assert loss.u_pos.any()


def test_here_states_in_evaluation():
    loss = PartialAUC(8, temperature_negatives=1.0).eval()
    with torch.no_grad():
        loss(H, Y, rows=ROWS)
    loss.train()(H, Y)
    assert loss.state.isnan().all()


def test_there_overflow(libauc):
    scores = leaf(torch.where(Y == 1, -3.0, 0.0))  # L/λ = 16 / 0.1
    value = their_partial(libauc, Lambda=0.1)(scores, Y, ROWS)
    value.backward()
    assert value.isnan() and scores.grad.isnan().all()


def test_here_overflow():
    scores = leaf(torch.where(Y == 1, -3.0, 0.0))
    value = PartialAUC(8, temperature_negatives=0.1)(scores, Y, rows=ROWS)
    value.backward()
    assert value.item() == pytest.approx(16) and scores.grad.isfinite().all()


def first_gradients(loss_of_rate) -> tuple[torch.Tensor, torch.Tensor]:
    """The first step's gradient at the rate 0.1 and at the rate 1."""
    found = []
    for rate in (0.1, 1.0):
        scores = leaf()
        loss_of_rate(rate, scores).backward()
        found.append(scores.grad)
    return found[0], found[1]


def test_there_first_weights(libauc):
    slow, whole = first_gradients(
        lambda rate, scores: their_partial(libauc, gamma=rate)(scores, Y, ROWS)
    )
    torch.testing.assert_close(slow, 10 * whole)


def test_here_first_weights():
    def loss(rate: float, scores: torch.Tensor) -> torch.Tensor:
        return PartialAUC(8, temperature_negatives=1.0, rate=rate)(scores, Y, rows=ROWS)

    torch.testing.assert_close(*first_gradients(loss))


COPIES = torch.tensor([0, 1, 2, 0, 4, 5, 6, 7])  # row 0 twice, with two scores


def batch_means() -> torch.Tensor:
    """Of every positive, the mean over negatives of exp L."""
    losses = torch.relu(1 - (H[Y == 1][:, None] - H[Y == 0][None])) ** 2
    return losses.exp().mean(1)


def test_there_copies(libauc):
    loss = their_partial(libauc, gamma=1.0)
    loss(H, Y, COPIES)
    assert loss.u_pos[0].item() == pytest.approx(batch_means()[1].item())


def test_here_copies():
    loss = PartialAUC(8, temperature_negatives=1.0, rate=1.0)
    loss(leaf(), Y, rows=COPIES)
    assert loss.state[0].exp().item() == pytest.approx(batch_means()[:2].mean().item())


BOTH = torch.cat([5 * H, H], dim=1)  # two labels whose scores differ in scale


def test_there_two_way_labels(libauc):
    kind = dict(data_len=8, gammas=(0.9, 0.5), device=CPU)
    together = libauc.losses.MultiLabelpAUCLoss(mode="SOTAs", num_labels=2, **kind)(
        BOTH, Y.expand(-1, 2), ROWS
    )
    alone = [libauc.losses.tpAUC_KL_Loss(**kind)(part, Y, ROWS) for part in (H, 5 * H)]
    assert abs(together.item() / (sum(alone).item() / 2) - 1) > 1e-3


def test_here_two_way_labels():
    def loss(labels: int) -> PartialAUC:
        kind = dict(form="sota_s", temperature_negatives=1.0, temperature_positives=2.0)
        return PartialAUC(8, labels, **kind)

    together = loss(2)(leaf(BOTH), Y.expand(-1, 2), rows=ROWS)
    alone = [loss(1)(leaf(part), Y, rows=ROWS) for part in (H, 5 * H)]
    assert together.item() == pytest.approx(sum(alone).item() / 2)


# --- AUC margin ---


def test_there_prior_given(libauc):
    loss = libauc.losses.AUCMLoss(imratio=0.05, device=CPU)
    loss(P, Y)
    assert loss.p == 3 / 8


def test_here_prior_given():
    assert AUCMargin(prior=0.05)(P, Y) != AUCMargin()(P, Y)
    with pytest.raises(TypeError, match="imratio"):
        AUCMargin(imratio=0.05)


def right_without_prior(m: float, alpha: float) -> float:
    """What version 2 of their loss is documented as, with a = b = 0."""
    up, down = P[Y == 1], P[Y == 0]
    squares = (up**2).mean() + (down**2).mean()
    return (squares + 2 * alpha * (m + down.mean() - up.mean()) - alpha**2).item()


def test_there_version_2(libauc):
    loss = libauc.losses.AUCMLoss(version="v2", device=CPU)
    loss.alpha.data.fill_(1.0)
    assert abs(loss(P, Y).item() - right_without_prior(1.0, 1.0)) > 0.1


def test_here_version_2():
    """F of the paper is p(1-p) times that value."""
    loss = AUCMargin()
    with torch.no_grad():
        loss.alpha.fill_(1.0)
    assert loss(P, Y).item() == pytest.approx(3 / 8 * 5 / 8 * right_without_prior(1.0, 1.0))


def with_margin(make, margin: float) -> float:
    loss = make(margin)
    loss.alpha.data.fill_(1.0)
    return loss(P, Y).item()


def test_there_labels_margin(libauc):
    def make(margin: float):
        return libauc.losses.MultiLabelAUCMLoss(margin=margin, num_labels=1, device=CPU)

    assert with_margin(make, 0.1) == with_margin(make, 5.0)


def test_here_labels_margin():
    p = 3 / 8
    gain = with_margin(AUCMargin_of, 5.0) - with_margin(AUCMargin_of, 0.1)
    assert gain == pytest.approx(2 * p * (1 - p) * 4.9, rel=1e-5)


def AUCMargin_of(margin: float) -> AUCMargin:  # noqa: N802  # makes one
    return AUCMargin(1, margin=margin)


def test_there_labels_duals(libauc):
    assert not libauc.losses.MultiLabelAUCMLoss(num_labels=2, device=CPU).state_dict()


def test_here_labels_duals():
    assert {"a", "b", "alpha"} <= set(AUCMargin(2).state_dict())


def test_there_wrong_labels(libauc):
    signed = torch.where(Y == 1, 1.0, -1.0)
    loss = libauc.losses.AUCMLoss(device=CPU)
    moved = torch.where(Y == 1, P, P + 7)  # all negatives elsewhere
    assert loss(P, signed).item() == loss(moved, signed).item()


def test_here_wrong_labels():
    with pytest.raises(ValueError, match="label -1 is not 0 or 1"):
        AUCMargin()(P, torch.where(Y == 1, 1.0, -1.0))


def test_there_one_class(libauc):
    assert libauc.losses.AUCMLoss(version="v2", device=CPU)(P, torch.ones(8, 1)).isnan().all()


def test_here_one_class():
    with pytest.warns(OneClassWarning, match="label 0 had no negative"):
        assert AUCMargin()(P, torch.ones(8, 1)) == 0


# --- pairs, focal ---


def test_there_logistic_pairs(libauc):
    far, labels = torch.tensor([-200.0, 0.0]), torch.tensor([1.0, 0.0])
    assert libauc.losses.PairwiseAUCLoss("logistic")(far, labels).isinf()


def test_here_logistic_pairs():
    far, labels = torch.tensor([-200.0, 0.0]), torch.tensor([1.0, 0.0])
    assert Pairwise("logistic")(far, labels).item() == pytest.approx(200)


def test_there_barrier_default(libauc):
    with pytest.raises(TypeError):
        libauc.losses.PairwiseAUCLoss("barrier_hinge")(H, Y)


def test_here_barrier_default():
    assert Pairwise("barrier_hinge")(H, Y).isfinite()


def focal_by_hand() -> float:
    """-α̂_t (1 - p_t)² log p_t, entry by entry, with α̂ = 0.25 for positives."""
    total = 0.0
    for p, y in zip(P[:, 0], Y[:, 0]):
        weight, q = (0.25, p) if y == 1 else (0.75, 1 - p)
        total -= (weight * (1 - q) ** 2 * q.log()).item() / 8
    return total


def test_there_focal(libauc):
    found = libauc.losses.FocalLoss(device=CPU)(H, Y).item()
    assert abs(found - focal_by_hand()) > 0.01


def test_here_focal():
    assert Focal()(H, Y).item() == pytest.approx(focal_by_hand())


# --- compositional training ---


def test_there_composition_validated(libauc):
    """The same training call gives another loss after a call in evaluation."""
    values = []
    for validated in (False, True):
        loss = libauc.losses.CompositionalAUCLoss(device=CPU)
        if validated:
            loss.eval()
            with torch.no_grad():
                loss(P, Y)
            loss.train()
        values.append(loss(P, Y).item())
    assert values[0] != values[1]


def test_there_composition_average(libauc):
    """After the first AUC step α keeps its gradient, which the optimizer reads as the sign of an
    AUC step: the moving average of the weights never moves again."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    x = torch.randn(8, 3)
    loss = libauc.losses.CompositionalAUCLoss(device=CPU)
    optimizer = libauc.optimizers.PDSCA(
        network.parameters(), loss_fn=loss, device="cpu", verbose=False
    )
    averages = []
    for _ in range(6):
        optimizer.zero_grad()
        loss(torch.sigmoid(network(x)), Y).backward()
        optimizer.step()
        averages.append(optimizer.state[network.weight]["weight_buffer"].clone())
    assert all(torch.equal(average, averages[0]) for average in averages)


def composed() -> tuple[torch.nn.Module, AUCMargin, PDSCA]:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    loss = AUCMargin()
    return network, loss, PDSCA(network.parameters(), loss)


def test_here_composition_validated():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    ends = []
    for validated in (False, True):
        network, loss, optimizer = composed()
        for _ in range(3):
            optimizer.inner_loss(network(x), Y).backward()
            optimizer.look_ahead()
            loss(network(x), Y).backward()
            optimizer.step()
            optimizer.zero_grad()
            if validated:
                with torch.no_grad():
                    loss.eval()(network(x), Y)
                loss.train()
        ends.append(network.weight.detach().clone())
    assert torch.equal(*ends)


def test_here_composition_average():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    network, loss, optimizer = composed()
    averages = []
    for _ in range(6):
        optimizer.inner_loss(network(x), Y).backward()
        optimizer.look_ahead()
        averages.append(network.weight.detach().clone())
        loss(network(x), Y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(not torch.equal(one, two) for one, two in pairwise(averages))


# --- PESG ---


def their_pesg(libauc, parameters, **more):
    loss = libauc.losses.AUCMLoss(device=CPU)
    return libauc.optimizers.PESG(parameters, loss_fn=loss, device="cpu", verbose=False, **more)


def test_there_reference(libauc):
    network = torch.nn.Linear(3, 1)
    reference = their_pesg(libauc, network.parameters()).model_ref[0]
    assert not torch.equal(reference, network.weight)


def test_here_reference():
    network = torch.nn.Linear(3, 1)
    start = network.weight.detach().clone()
    optimizer = PESG(network.parameters(), lr=0.1, gamma=0.5)
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(optimizer.state[network.weight]["reference"], start)


def test_there_misspelt(libauc):
    their_pesg(libauc, torch.nn.Linear(3, 1).parameters(), gama=3.0)


def test_here_misspelt():
    with pytest.raises(TypeError, match="gama"):
        PESG(torch.nn.Linear(3, 1).parameters(), gama=3.0)


def test_there_loading(libauc):
    optimizer = their_pesg(libauc, torch.nn.Linear(3, 1).parameters())
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert "model_ref" not in saved


def test_here_loading():
    optimizer = PESG(torch.nn.Linear(3, 1).parameters(), AUCMargin(), gamma=0.1)
    saved = optimizer.state_dict()
    names = set(saved)
    optimizer.load_state_dict(saved)
    assert set(saved) == names


def step_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> float:
    """How far a gradient of 5 moves a parameter at the rate 0.1, without any regulariser."""
    before = parameter.item()
    parameter.grad = torch.full_like(parameter, 5.0)
    optimizer.step()
    return before - parameter.item()


def test_there_clipped(libauc):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = their_pesg(libauc, [parameter], lr=0.1, epoch_decay=0, weight_decay=0, momentum=0)
    assert step_of(optimizer, parameter) == pytest.approx(0.1)


def test_here_clipped():
    parameter = torch.nn.Parameter(torch.zeros(1))
    assert step_of(PESG([parameter], lr=0.1), parameter) == pytest.approx(0.5)


def test_there_ascent(libauc):
    """Documented as α + η ∂F/∂α; at p = 3/8 it takes 1/(p(1-p)) times that."""
    loss = libauc.losses.AUCMLoss(device=CPU)
    network = torch.nn.Linear(1, 1)
    optimizer = libauc.optimizers.PESG(
        network.parameters(), loss_fn=loss, lr=0.1, epoch_decay=0, device="cpu", verbose=False
    )
    loss(torch.sigmoid(network(H)), Y).backward()
    loss.a.grad.zero_()
    loss.b.grad.zero_()
    optimizer.step()
    assert loss.alpha.item() == pytest.approx(0.2)  # 0.1 · 2 (m + b - a), at a = b = 0


def test_here_ascent():
    loss = AUCMargin()
    network = torch.nn.Linear(1, 1)
    optimizer = PESG(network.parameters(), loss, lr=0.1)
    scores = torch.sigmoid(network(H))
    loss(scores, Y).backward()
    gap = scores[Y == 1].mean() - scores[Y == 0].mean()
    optimizer.step()
    assert loss.alpha.item() == pytest.approx(0.2 * 3 / 8 * 5 / 8 * (1 - gap.item()), rel=1e-5)
