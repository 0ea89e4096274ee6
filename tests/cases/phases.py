"""A phase of training on a table of numbers, and a cut of it after any step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.config.run import Finetune
from pipeline.core.networks.patient import PatientRows
from pipeline.core.runtime.errors import TimeLimitReached
from pipeline.core.training import loop
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import constant, make_loss, make_optimizer


def table_phase(
    folder: Path,
    recipe: Finetune,
    x: np.ndarray,
    y: np.ndarray,
    network: nn.Module,
    **changes: object,
) -> Phase:
    """Stage 2 of a network on rows x (n, columns) with labels y (n, K), both float32; changes:
    other fields of Phase."""
    loss = make_loss(recipe, y.shape[1], len(x))
    made = dict(
        name="finetuned",
        folder=folder,
        key={"target": "t"},
        network=network,
        loss=loss,
        data=PatientRows(x),
        optimizer=make_optimizer(recipe, network.parameters(), loss),
        targets=torch.from_numpy(y),
        rate=constant(recipe.lr),
        validate=lambda _: {"mean": 0.5},
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=3,
    )
    return Phase(**made | changes)


def fit_until(step: int, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a time limit stops the phase after that step, 1 the first."""
    steps = iter(range(1, step + 1))
    with monkeypatch.context() as patched, pytest.raises(TimeLimitReached):
        patched.setattr(loop, "agree", lambda _: next(steps) == step)
        loop.fit_epochs(phase)
