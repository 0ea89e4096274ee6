"""Learning rates against their definitions."""

import numpy as np
import pytest
import torch

from pipeline.core.config.run import Pretrain
from pipeline.core.networks.image import import_timm
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.recipe import (
    constant,
    cosine,
    pretrain_optimizer,
    pretrain_rate,
    stepwise,
    triangular,
)


def test_triangular_equals_torchs_cyclic_rate():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CyclicLR(
        optimizer, 3e-5, 2.4e-4, step_size_up=20, cycle_momentum=False
    )
    ours = triangular(3e-5, 2.4e-4, 40)
    for step in range(100):
        assert np.isclose(ours(step), reference.get_last_lr()[0], rtol=1e-12, atol=0)
        optimizer.step()
        reference.step()


def test_stepwise_divides_at_each_milestone():
    rate = stepwise(0.1, 3.0, [2000, 8000])
    assert [rate(s) for s in (0, 1999, 2000, 7999, 8000)] == [0.1, 0.1, 0.1 / 3, 0.1 / 3, 0.1 / 9]


def test_constant():
    assert constant(0.5)(123) == 0.5


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_cosine_equals_timms(warmup):
    import_timm()
    from timm.scheduler import CosineLRScheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=3e-4)
    reference = CosineLRScheduler(
        optimizer, 40 - warmup, warmup_t=warmup, warmup_prefix=True, t_in_epochs=False
    )
    ours = cosine(3e-4, warmup, 40)
    for step in range(40):
        reference.step_update(step)
        assert np.isclose(ours(step), optimizer.param_groups[0]["lr"], rtol=1e-12, atol=1e-18)
    assert ours(40) == pytest.approx(0, abs=1e-18)


def test_the_rate_of_each_recipe():
    assert pretrain_rate(Pretrain(lr=0.5), 10)(99) == 0.5
    triangle = pretrain_rate(Pretrain(lr=1.0, lr_max=3.0, cycle_epochs=2), 10)
    assert [triangle(step) for step in (0, 10, 20)] == [1.0, 3.0, 1.0]
    falling = pretrain_rate(Pretrain(lr=1.0, epochs=4, schedule="cosine", warmup_epochs=0.5), 10)
    assert [falling(step) for step in (0, 5, 40)] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)


def test_adamw_decays_beside_the_gradient():
    """Without a gradient AdamW shrinks a weight by lr times the decay; Adam's step is of size lr,
    whatever the decay, since the decay is all its gradient."""
    after = {}
    for name in ("adam", "adamw"):
        weight = torch.nn.Parameter(torch.tensor([2.0]))
        recipe = Pretrain(lr=0.1, weight_decay=0.5, optimizer=name)
        optimizer = pretrain_optimizer(recipe, [weight])
        weight.grad = torch.zeros(1)
        optimizer.step()
        after[name] = float(weight.detach())
    assert after["adamw"] == pytest.approx(2 * (1 - 0.1 * 0.5))
    assert after["adam"] == pytest.approx(2 - 0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"schedule": "cosine", "lr_max": 1.0, "cycle_epochs": 2}, "leave lr_max"),
        ({"warmup_epochs": 1.0}, "needs schedule='cosine'"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        Pretrain(lr=1e-3, **changes)
