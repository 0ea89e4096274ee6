"""A loss with a state for each training row, in the training loop: the rows it is told, cuts,
micro-batches, validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.config.run import Finetune
from pipeline.core.training.loop import fit_epochs
from pipeline.core.training.phase import Phase
from tests.cases.phases import fit_until, table_phase

ROWS = 96
RECIPES = [
    Finetune(loss="sopa", hardest_positives=0.3, lr=0.05),
    Finetune(loss="sopa_s", temperature_positives=1.0, surrogate="logistic", lr=0.05),
    Finetune(loss="sota_s", temperature_negatives=1.0, temperature_positives=2.0, lr=0.05),
]


def phase(folder: Path, recipe: Finetune, **changes: object) -> Phase:
    """Two labels, a fifth of the second left out, class-aware batches: rows that come twice."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 5)).astype(np.float32)
    targets = (x[:, :2] + rng.normal(size=(ROWS, 2)) > 1.2).astype(np.float32)
    targets[::5, 1] = np.nan
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    made = table_phase(
        folder, recipe, x, targets, network, epochs=4, batch_size=24, seed=5, positives=3
    )
    loss = made.loss

    def validate(network: nn.Module) -> dict[str, float]:
        # As a validation that computes the loss does it: in evaluation, on the training rows too.
        loss.eval()
        with torch.no_grad():
            value = loss(network(torch.from_numpy(x)), torch.from_numpy(targets))
        loss.train()
        return {"mean": float(value)}

    return replace(made, **{"validate": validate} | changes)


def ending(phase: Phase) -> dict[str, torch.Tensor]:
    """Weights and states at the end."""
    network = fit_epochs(phase)
    states = {f"loss.{name}": value for name, value in phase.loss.state_dict().items()}
    return {**network.state_dict(), **states}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.loss)
def test_every_row_with_a_pair_has_a_state_and_no_other(tmp_path, recipe):
    made = phase(tmp_path, recipe)
    ends = ending(made)
    known = ~torch.isnan(ends["loss.state"])
    wanted = made.targets == (0 if made.loss.swapped else 1)
    assert torch.equal(known & ~wanted, torch.zeros_like(known))
    assert (known.sum() / wanted.sum()).item() > 0.9  # an epoch drops what fills no batch


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.loss)
def test_a_cut_run_ends_with_the_weights_and_states_of_the_uncut_one(tmp_path, monkeypatch, recipe):
    uncut = ending(phase(tmp_path / "uncut", recipe))
    for cut in (1, 4, 7, 15):
        fit_until(cut, phase(tmp_path / str(cut), recipe), monkeypatch)
        found = ending(phase(tmp_path / str(cut), recipe))
        for name, value in uncut.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.loss)
def test_micro_batches_move_a_state_once(tmp_path, recipe):
    whole = ending(phase(tmp_path / "whole", recipe))
    parts = ending(phase(tmp_path / "parts", recipe, micro=3))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.loss)
def test_validation_changes_nothing(tmp_path, recipe):
    with_loss = ending(phase(tmp_path / "with", recipe))
    without = ending(phase(tmp_path / "without", recipe, validate=lambda _: {"mean": 0.5}))
    for name, value in without.items():
        torch.testing.assert_close(with_loss[name], value, rtol=0, atol=0, equal_nan=True)
