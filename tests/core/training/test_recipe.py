"""Learning rates against their definitions."""

import numpy as np
import torch

from pipeline.core.training.recipe import constant, stepwise, triangular


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
