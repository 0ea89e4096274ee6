"""PDSCA in the training loop: the steps of the optimizer used by hand, cuts, micro-batches, and
BatchNorm, whose statistics see a batch once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.pdsca import PDSCA
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.loop import fit_epochs
from pipeline.core.training.phase import Phase
from tests.cases.phases import fit_until, table_phase

RECIPE = Finetune(lr=0.2, inner_lr=0.3, gamma=0.05, weight_decay=1e-3, epochs=4, batch_size=20)


def phase(folder: Path, norm: bool = False, **changes: object) -> Phase:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 5)).astype(np.float32)
    y = (x[:, :1] + rng.normal(size=(100, 1)) > 0.8).astype(np.float32)
    torch.manual_seed(0)
    first = [nn.BatchNorm1d(5)] if norm else []
    network = nn.Sequential(*first, nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))
    return table_phase(folder, RECIPE, x, y, network, **changes)


def test_the_loop_takes_the_optimizers_steps(tmp_path):
    found = fit_epochs(phase(tmp_path)).state_dict()
    by_hand = phase(tmp_path)
    net, loss, optimizer = by_hand.network, by_hand.loss, by_hand.optimizer
    assert isinstance(optimizer, PDSCA)
    for epoch in range(RECIPE.epochs):
        for batch in by_hand.order.epoch_batches(epoch):
            x = by_hand.data.matrix[batch]
            y = by_hand.targets[batch]
            optimizer.zero_grad()
            optimizer.inner_loss(net(x), y).backward()
            optimizer.look_ahead()
            loss(net(x), y).backward()
            optimizer.step()
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())


def test_micro_batches_take_the_step_of_the_whole_batch(tmp_path):
    whole = fit_epochs(phase(tmp_path / "1")).state_dict()
    parts = fit_epochs(phase(tmp_path / "4", micro=4)).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)


def test_a_cut_run_ends_as_the_uncut_one_and_statistics_see_a_batch_once(tmp_path, monkeypatch):
    expected = fit_epochs(phase(tmp_path / "uncut", norm=True)).state_dict()
    assert expected["0.num_batches_tracked"] == 20
    for cut in (1, 7, 19):
        fit_until(cut, phase(tmp_path / str(cut), norm=True), monkeypatch)
        found = fit_epochs(phase(tmp_path / str(cut), norm=True)).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_statistics_are_those_of_the_weights_that_are_kept(tmp_path):
    made = phase(tmp_path, epochs=1, batch_size=100)
    made.network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    made.optimizer = PDSCA(made.network.parameters(), made.loss, lr=0.2, inner_lr=50.0)
    x = made.data.matrix[made.order.epoch_batches(0)[0]]
    with torch.no_grad():
        expected = 0.1 * made.network[0](x).mean(0)
    found = fit_epochs(made)[1].running_mean
    torch.testing.assert_close(found, expected)


def test_recipes_that_cannot_be_composed_are_refused():
    for fields, message in (
        (dict(inner_lr=0.1, loss="ce"), "takes loss='aucm' or 'aucs'"),
        (dict(inner_lr=0.1, momentum=0.9), "averages gradients"),
        (dict(inner_lr=0.1, first_stage=10), "take one of the two"),
        (dict(inner_lr=-0.1), "inner_lr=-0.1"),
    ):
        with pytest.raises(UserError, match=message):
            Finetune(**fields)
    with pytest.raises(UserError, match="two losses to scale"):
        Run(network="x", size=32, pretrain=Pretrain(lr=1), finetune=RECIPE, precision="fp16")
