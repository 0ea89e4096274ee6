"""Learning rates, groups of parameters and smoothed labels against their definitions and timm's and
torch's."""

import numpy as np
import pytest
import torch

from pipeline.core.config.run import Finetune, Metadata, Pretrain, Run
from pipeline.core.losses import CrossEntropy
from pipeline.core.networks.image import build, import_timm
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.recipe import (
    constant,
    cosine,
    finetune_rate,
    make_loss,
    make_optimizer,
    parameter_groups,
    pretrain_optimizer,
    pretrain_rate,
    smoothed,
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


def test_stage_2s_rate_is_a_cosine_or_falls_at_milestones():
    milestones = dict(milestones=(2,), milestone_unit="epoch", divide=2)
    steps = finetune_rate(Finetune(lr=1.0, epochs=4, **milestones), 10)
    assert [steps(step) for step in (0, 19, 20)] == [1.0, 1.0, 0.5]
    cosine_recipe = Finetune(lr=1.0, epochs=4, schedule="cosine", warmup_epochs=1, **milestones)
    falling = finetune_rate(cosine_recipe, 10)
    assert [falling(step) for step in (0, 5, 10, 25, 40)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit"])
def test_layer_decay_gives_timms_groups_and_the_classifier_the_whole_rate(name):
    network = small_network(name)
    recipe = Pretrain(lr=1e-3, weight_decay=0.05, layer_decay=0.6, backbone_lr=0.5)
    groups = parameter_groups(recipe, network)

    # Every parameter once.
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, network.parameters()))

    # Of the backbone: timm's numbers for each, times backbone_lr.
    from timm.optim import param_groups_layer_decay

    spared = getattr(network.backbone, "no_weight_decay", tuple)()
    theirs = param_groups_layer_decay(network.backbone, 0.05, spared, layer_decay=0.6)
    ours = {id(p): group for group in groups for p in group["params"]}
    for group in theirs:
        for parameter in group["params"]:
            assert ours[id(parameter)]["lr_scale"] == group["lr_scale"] * 0.5
            assert ours[id(parameter)]["weight_decay"] == group["weight_decay"]
    assert len({group["lr_scale"] for group in theirs}) > 3
    assert ours[id(network.classifier.weight)]["lr_scale"] == 1
    assert ours[id(network.classifier.bias)]["weight_decay"] == 0


def test_the_backbones_part_of_the_rate_alone_changes_no_decay():
    network = small_network("test_resnet.r160_in1k")
    groups = parameter_groups(Pretrain(lr=1e-3, backbone_lr=0.1), network)
    assert [group["lr_scale"] for group in groups] == [0.1, 1.0]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in network.classifier.parameters()]
    assert not any("weight_decay" in group for group in groups)
    assert isinstance(parameter_groups(Pretrain(lr=1e-3), network)[0], torch.nn.Parameter)


def small_network(name: str):
    size = 160 if "vit" in name else 32
    recipes = dict(pretrain=Pretrain(lr=1e-3), finetune=Finetune())
    return build(Run(network=name, size=size, weights="random", **recipes), 1)


def test_smoothing_moves_labels_towards_a_half_as_torchs():
    """torch's cross-entropy over two classes smooths in the same way."""
    labels = np.array([[1.0], [0.0], [np.nan]], np.float32)
    ours = smoothed(labels, 0.2)
    assert ours.dtype == np.float32 and np.isnan(ours[2, 0])
    scores = torch.tensor([[0.3], [-1.2]])
    two = torch.cat([torch.zeros_like(scores), scores], 1)
    classes = torch.from_numpy(labels[:2, 0]).long()
    theirs = torch.nn.functional.cross_entropy(two, classes, label_smoothing=0.2)
    torch.testing.assert_close(CrossEntropy()(scores, torch.from_numpy(ours[:2])), theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamw"}, "needs dual_lr"),
        ({"optimizer": "adamw", "loss": "aucs", "dual": "closed_form"}, "needs dual_lr"),
        ({"optimizer": "adamw", "dual_lr": 0.1, "momentum": 0.9}, "leave momentum out"),
        ({"smoothing": 0.1}, "loss='aucm' takes hard labels"),
        ({"warmup_epochs": 1.0}, "needs schedule='cosine'"),
        ({"layer_decay": 1.5}, "layer_decay=1.5"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"optimizer": "adamw", "dual_lr": 0.1, "inner_lr": 0.1}, "take the gradient itself"),
        ({"optimizer": "adamw", "dual_lr": 0.1, "first_stage": 5}, "take the gradient itself"),
        ({"first_stage": 5, "schedule": "cosine"}, "leave the cosine out"),
        ({"inner_lr": 0.1, "dual_lr": 0.1}, "leave dual_lr out"),
    ],
)
def test_contradictions_of_stage_2_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        Finetune(**changes)


@pytest.mark.parametrize(
    "changes", [{"dual_lr": 0.1}, {"dual": "closed_form"}, {"loss": "ce"}, {"loss": "pairwise"}]
)
def test_adamw_in_stage_2_is_pesg_in_its_direction(changes):
    recipe = Finetune(optimizer="adamw", lr=1e-4, **changes)
    loss = make_loss(recipe, 1, 10)
    optimizer = make_optimizer(recipe, torch.nn.Linear(2, 1).parameters(), loss)
    assert optimizer.param_groups[0]["adam"] and optimizer.param_groups[0]["gamma"] == 1 / 500
    dual = {id(part) for part in loss.parameters()}
    assert all(
        not group["adam"] for group in optimizer.param_groups if id(group["params"][0]) in dual
    )


def test_a_network_on_patient_columns_has_no_backbone():
    with pytest.raises(UserError, match="no backbone"):
        Metadata(finetune=Finetune(backbone_lr=0.1))
