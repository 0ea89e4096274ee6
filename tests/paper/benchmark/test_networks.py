"""The paper's networks: published parameter counts, ELU everywhere, one float32 score an image."""

import pytest
import torch
from torch import nn

from pipeline.paper.benchmark.networks import NETWORKS


@pytest.mark.parametrize(
    ("name", "one_output", "features", "ten_outputs"),
    [
        # He et al., Table 6: 0.27 M; torch's own count of the common CIFAR form.
        ("resnet20", 269_137, 64, 269_722),
        ("densenet121", 6_947_073, 1024, 6_956_298),
    ],
)
def test_parameter_counts_are_the_published_ones(name, one_output, features, ten_outputs):
    count = sum(p.numel() for p in NETWORKS[name]().parameters())
    assert count == one_output
    assert count - (features + 1) + 10 * (features + 1) == ten_outputs


@pytest.mark.parametrize(("name", "convolutions"), [("resnet20", 19), ("densenet121", 120)])
def test_depth_is_in_the_name(name, convolutions):
    assert sum(isinstance(m, nn.Conv2d) for m in NETWORKS[name]().modules()) == convolutions


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [32, 96])
def test_scores_are_float32_and_one_per_image_also_under_autocast(name, side):
    network = NETWORKS[name]().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = network(torch.randn(2, 3, side, side))
    assert scores.shape == (2,)
    assert scores.dtype == torch.float32


def test_activations_pass_negative_values():
    """ReLU would give features of at least 0; ELU's go down to -1."""
    features = NETWORKS["resnet20"]().features(torch.randn(8, 3, 32, 32))
    assert -1 <= features.min() < 0
