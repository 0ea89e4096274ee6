"""The stages of PPD-SG: their lengths and rates, and a run of three of them against Algorithm 1 of
Liu et al. (2020) written out in float64."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.config.run import Finetune, Metadata, Pretrain, Run
from pipeline.core.losses import AUCMargin, AUCSquare
from pipeline.core.losses.checks import NotFinite
from pipeline.core.pesg import PESG
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.loop import fit_epochs
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import (
    PPD_SG_BATCHES,
    milestones,
    restart_batches,
    stepwise,
)
from tests.cases.phases import fit_until, table_phase

RECIPE = Finetune(lr=0.2, gamma=0.1, weight_decay=1e-3, epochs=9, batch_size=20, first_stage=4)
ROWS = 120


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 5)).astype(np.float32)
    y = (x[:, :1] + rng.normal(size=(ROWS, 1)) > 0.8).astype(np.float32)
    return x, y


def phase(folder: Path, norm: bool = False, **changes: object) -> Phase:
    x, y = data()
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 1)) if norm else nn.Linear(5, 1)
    ends = milestones(RECIPE, ROWS // RECIPE.batch_size)
    staged = dict(
        rate=stepwise(RECIPE.lr, RECIPE.divide, ends),
        restarts=frozenset(ends),
        restart_batches=restart_batches(RECIPE),
    )
    return table_phase(folder, RECIPE, x, y, network, **staged | changes)


def equation_8(h, y, a, b, alpha, margin):
    """The mean of F, with the batch's own p."""
    p = y.mean()
    return (
        (1 - p) * (h - a) ** 2 * y
        + p * (h - b) ** 2 * (1 - y)
        - p * (1 - p) * alpha**2
        + 2 * alpha * (p * (1 - p) * margin + p * h * (1 - y) - (1 - p) * h * y)
    ).mean()


def algorithm_1(made: Phase) -> dict[str, torch.Tensor]:
    """PPD-SG on a linear model, one step at a time."""
    x, y = (torch.from_numpy(part).double() for part in data())
    v = [value.detach().double() for value in made.network.parameters()]
    a, b, alpha = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    batches = [batch for epoch in range(RECIPE.epochs) for batch in made.order.epoch_batches(epoch)]
    ends = (4, 4 + 12, 4 + 12 + 36)
    reference = [value.clone() for value in v]
    iterates: list[list[torch.Tensor]] = []
    for step, batch in enumerate(batches):
        if step in ends:
            v = [torch.stack(values).mean(0) for values in zip(*iterates, strict=True)]
            reference = [value.clone() for value in v]
            iterates = []
            coming = np.concatenate(batches[step : step + PPD_SG_BATCHES])
            h = x[coming] @ v[0].T + v[1]
            positive = y[coming] == 1
            a, b = h[positive].mean()[None], h[~positive].mean()[None]
            alpha = (1 - a + b).clamp(min=0)
        eta = RECIPE.lr / 3 ** sum(step >= end for end in ends)
        free = [value.clone().requires_grad_() for value in (*v, a, b, alpha)]
        h = x[batch] @ free[0].T + free[1]
        value = equation_8(h, y[batch], *free[2:], 1.0)
        g = torch.autograd.grad(value, free)
        parts = zip(v, g, reference)
        v = [w - eta * (d + 0.1 * (w - r)) - 1e-3 * eta * w for w, d, r in parts]
        a = a - eta * g[2]
        b = b - eta * g[3]
        alpha = (alpha + eta * g[4]).clamp(min=0)
        iterates.append(v)
    return {"weight": v[0], "bias": v[1], "a": a, "b": b, "alpha": alpha}


def test_stages_grow_as_their_rates_fall():
    recipe = Finetune(first_stage=2000, epochs=4)
    assert milestones(recipe, 7000) == [2000, 8000, 26000]  # the paper's CheXpert: 2000 and 8000
    assert milestones(Finetune(first_stage=1, milestone_unit="epoch", epochs=8), 10) == [10, 40]
    assert milestones(Finetune(first_stage=3, divide=1, epochs=1), 8) == [3, 6]
    assert milestones(Finetune(first_stage=50, epochs=1), 50) == []
    rate = stepwise(0.9, 3.0, milestones(recipe, 7000))
    assert [rate(step) for step in (0, 2000, 8000, 26000)] == pytest.approx(
        [0.9, 0.3, 0.1, 0.1 / 3]
    )


def test_three_stages_are_those_of_algorithm_1(tmp_path):
    made = phase(tmp_path)
    expected = algorithm_1(copy.deepcopy(made))
    network = fit_epochs(made)
    found = {**network.state_dict(), **{name: getattr(made.loss, name) for name in "ab"}}
    found["alpha"] = made.loss.alpha
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach().double(), value, rtol=1e-4, atol=1e-6)
    # Without the restarts the run ends elsewhere.
    other = fit_epochs(phase(tmp_path / "other", restart_batches=0))
    assert not torch.allclose(other.weight, network.weight, rtol=1e-3)


def test_a_run_cut_around_a_restart_ends_as_the_uncut_one(tmp_path, monkeypatch):
    uncut = phase(tmp_path / "uncut", norm=True, micro=2)
    expected = fit_epochs(uncut).state_dict()
    for cut in (3, 4, 5, 16, 53):
        fit_until(cut, phase(tmp_path / str(cut), norm=True, micro=2), monkeypatch)
        again = phase(tmp_path / str(cut), norm=True, micro=2)
        found = fit_epochs(again).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert torch.equal(again.loss.alpha, uncut.loss.alpha)
    # The passes at the restarts left the statistics of BatchNorm alone.
    assert expected["0.num_batches_tracked"] == 2 * 54


@pytest.mark.parametrize("normalize", ["none", "l2", "sigmoid"])
@pytest.mark.parametrize("kind", [AUCMargin, AUCSquare])
def test_a_restart_is_the_saddle_of_all_its_batches(kind, normalize):
    """There every derivative by a, b and α is 0, of the whole set's F where nothing is normalised
    by batch."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(60, 3, generator=generator)
    y = (torch.rand(60, 3, generator=generator) < 0.4).float()
    y[3, 0] = torch.nan
    y[:, 2] = 0
    loss = kind(3, normalize=normalize)
    loss.restart(zip(h.split(20), y.split(20)))
    assert loss.a[2] == loss.b[2] == loss.alpha[2] == 0  # no positive: it keeps its own
    if normalize == "l2":
        parts = [part / part.norm(dim=0) for part in torch.where(y.isnan(), 0, h).split(20)]
        h = torch.cat(parts)
        loss.normalize = "none"
    loss(h.requires_grad_(), y).backward()
    for gradient in (loss.a.grad, loss.b.grad, loss.alpha.grad):
        assert gradient[:2].abs().max() < 1e-6


def test_a_smoke_run_has_growing_stages_too():
    run = Run(network="x", size=64, pretrain=Pretrain(lr=1), finetune=RECIPE).smoke()
    assert (run.finetune.first_stage, run.finetune.milestones) == (1, ())
    assert milestones(run.finetune, 10) == [10, 40]
    assert Metadata(finetune=RECIPE).smoke().finetune.first_stage == 1
    plain = Run(network="x", size=64, pretrain=Pretrain(lr=1), finetune=Finetune()).smoke()
    assert plain.finetune.milestones == (4,)


def test_restarts_that_cannot_be_made_are_errors():
    network = nn.Linear(5, 1)
    with pytest.raises(ValueError, match="gamma=0 does not keep"):
        PESG(network.parameters(), AUCMargin(), gamma=0.0).next_stage(restart=True)
    with pytest.raises(NotFinite, match="where a stage begins"):
        AUCMargin().restart([(torch.tensor([torch.nan, 0.0]), torch.tensor([1.0, 0.0]))])
    for fields, message in (
        (dict(first_stage=-1), "first_stage=-1"),
        (dict(first_stage=5, milestones=(9,)), "takes the place of milestones"),
        (dict(first_stage=5, loss="ce"), "restarts α"),
        (dict(first_stage=5, dual="closed_form"), "restarts α"),
        (dict(first_stage=5, gamma=0.0), "gamma=0 does not keep"),
        (dict(first_stage=5, momentum=0.9), "takes momentum=0"),
    ):
        with pytest.raises(UserError, match=message):
            Finetune(**fields)
