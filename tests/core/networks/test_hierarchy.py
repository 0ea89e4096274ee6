"""Scores along a tree of labels: the product of conditionals by brute force and in many digits,
gradients, and the network that gives them."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from pipeline.core.config.label_tree import LabelTree
from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.losses import AUCMargin
from pipeline.core.networks.heat_maps import heat_maps
from pipeline.core.networks.hierarchy import path_scores
from pipeline.core.networks.image import (
    add_auxiliary,
    add_hierarchy,
    build,
    freeze_backbone,
    restart_classifier,
)

# 0 < 3 < 4, 1 < 3, 2 alone; and a chain.
TREE = LabelTree(("a", "b", "c", "parent", "root"), (3, 3, None, 4, None), 3)
CHAIN = LabelTree(("leaf", "middle", "top"), (1, 2, None), 1)
RUN = Run(
    network="test_resnet.r160_in1k",
    size=32,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=Finetune(),
)


def exact(scores: list[float]) -> mpmath.mpf:
    """log(P / (1 - P)), P the product of the logistic function of these, in 900 digits."""
    with mpmath.workdps(900):
        p = mpmath.mpf(1)
        for score in scores:
            p /= 1 + mpmath.exp(-mpmath.mpf(score))
        return mpmath.log(p) - mpmath.log(1 - p)


def test_it_is_the_product_of_the_conditionals():
    h = torch.randn(200, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    z = path_scores(h, TREE)
    for node in range(5):
        product = torch.sigmoid(h[:, [node, *TREE.ancestors(node)]]).prod(1)
        torch.testing.assert_close(torch.sigmoid(z[:, node]), product, rtol=1e-12, atol=0)
    # A root, and a label without a parent, keep their scores bit for bit.
    assert torch.equal(z[:, [2, 4]], h[:, [2, 4]])
    # A child is never likelier than its parent.
    assert (z[:, 0] < z[:, 3]).all() and (z[:, 3] < z[:, 4]).all()


def test_its_logarithms_are_those_of_the_product_and_of_its_complement():
    h = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 8
    z = path_scores(h, CHAIN)[:, 0]
    log_p = logsigmoid(h).sum(1)
    # log1mexp, by the branch that loses no digits (Maechler 2012).
    near = log_p > -np.log(2)
    complement = torch.where(near, torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))
    torch.testing.assert_close(logsigmoid(z), log_p, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(logsigmoid(-z), complement, rtol=1e-10, atol=1e-12)
    # So cross-entropy of z is that of the product.
    y = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = -(y * log_p + (1 - y) * complement).mean()
    torch.testing.assert_close(binary_cross_entropy_with_logits(z, y), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_scores_are_as_exact_as_small_ones(dtype):
    values = (-600.0, -120.0, -30.0, -1e-3, 0.0, 2.0, 30.0, 120.0, 600.0)
    h = torch.tensor(list(itertools.product(values, repeat=3)), dtype=dtype)
    z = path_scores(h, CHAIN)[:, 0]
    assert torch.isfinite(z).all()
    digits = 1e-6 if dtype == torch.float32 else 1e-14
    for row in range(len(h)):
        found = float(z[row])
        expected = float(exact(h[row].tolist()))
        assert abs(found - expected) <= digits * (1 + abs(expected)), (h[row], found, expected)


def test_gradients_are_those_of_finite_differences():
    h = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 4
    assert torch.autograd.gradcheck(lambda x: path_scores(x, TREE), h.requires_grad_())


def test_gradients_of_extreme_scores_are_finite_and_right():
    h = torch.tensor([[200.0, 200, 200], [-200, 200, 200], [9e3, -9e3, 3], [-9e3] * 3])
    h.requires_grad_()
    (gradient,) = torch.autograd.grad(path_scores(h, CHAIN)[:, 0].sum(), h)
    # dz/dh_j = σ(-h_j) / (1 - P): of three equal, large scores each has a third.
    expected = [[1 / 3] * 3, [1, 0, 0], [0, 1, torch.sigmoid(torch.tensor(-3.0))], [1, 1, 1]]
    torch.testing.assert_close(gradient, torch.tensor(expected))


def pictures() -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=chance)


@pytest.mark.parametrize("pool", ["avg", "csra", "gem"])
def test_a_network_gives_its_nodes_in_stage_1_and_paths_everywhere_else(pool):
    network = build(Run(**{**vars(RUN), "pool": pool}), 3)
    add_hierarchy(network, TREE)
    add_auxiliary(network, 4)
    network.eval()
    with torch.no_grad():
        paths = network(pictures())
        network.tree, tree = None, network.tree
        nodes = network(pictures())
        network.tree = tree
    assert nodes.shape == (4, 5) and paths.shape == (4, 3)
    torch.testing.assert_close(paths, path_scores(nodes, TREE)[:, :3])
    network.conditional = True
    assert torch.equal(network(pictures()), paths)
    assert network.train()(pictures()).shape == (4, 9)
    network.conditional = False
    network.auxiliary = None
    assert network(pictures()).shape == (4, 3)


@pytest.mark.parametrize("pool", ["avg", "csra"])
def test_heat_maps_of_places_are_along_the_paths_too(pool):
    network = build(Run(**{**vars(RUN), "pool": pool}), 3)
    add_hierarchy(network, TREE)
    scores, maps = heat_maps(network, pictures().numpy())
    with torch.no_grad():
        np.testing.assert_allclose(scores, network.eval()(pictures()).numpy(), rtol=1e-4, atol=1e-5)
    assert maps.shape[:2] == (4, 3) and np.isfinite(maps).all()


def test_without_a_hierarchy_nothing_is_new():
    plain = build(RUN, 3)
    torch.manual_seed(0)
    names = list(plain.state_dict())
    add_hierarchy(plain, None)
    assert list(plain.state_dict()) == names
    nodes = build(RUN, 3)
    add_hierarchy(nodes, TREE)
    assert set(nodes.state_dict()) - set(names) == {"ancestors.weight", "ancestors.bias"}


def test_the_restart_is_of_the_columns_above_too():
    network = build(RUN, 3)
    add_hierarchy(network, TREE)
    before = network.ancestors.weight.detach().clone()
    restart_classifier(network, 5)
    first = network.ancestors.weight.detach().clone()
    restart_classifier(network, 5)
    assert torch.equal(network.ancestors.weight, first) and not torch.equal(before, first)


def test_a_frozen_backbone_moves_neither_weights_nor_statistics():
    network = build(RUN, 3)
    freeze_backbone(network)
    network.train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    network(pictures()).square().sum().backward()
    optimizer.step()
    assert len(trained) == 2 and all(parameter.grad is not None for parameter in trained)
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_auc_loss_reaches_every_node_of_a_path():
    torch.manual_seed(0)
    h = torch.randn(16, 3, requires_grad=True)
    loss = AUCMargin(1, normalize="sigmoid")
    y = (torch.arange(16) % 3 == 0).float()
    loss(path_scores(h, CHAIN)[:, :1], y[:, None]).backward()
    assert (h.grad.abs().sum(0) > 0).all()
    # The loss sees P itself behind a sigmoid: the same value from the plain product.
    same = AUCMargin(1)(torch.sigmoid(h.detach()).prod(1), y)
    torch.testing.assert_close(loss(path_scores(h.detach(), CHAIN)[:, :1], y[:, None]), same)
    assert isinstance(loss, nn.Module)
