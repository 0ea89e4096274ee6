"""Units of several images: the pooling against numpy, and what must not matter to it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.core.config.run import BAGS, FEATURE_BAGS, Finetune, Pretrain, Run
from pipeline.core.images.batches import Bags
from pipeline.core.images.views import view_matrices
from pipeline.core.networks import image as images_module
from pipeline.core.networks.bags import GatedAttention, largest_scores, padded
from pipeline.core.networks.image import build
from pipeline.core.networks.scoring import score_views

RUN = Run(
    network="test_resnet.r160_in1k",
    size=32,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=Finetune(),
)
KINDS = BAGS[1:]
SIZES = torch.tensor([2, 1, 3, 1])


def pictures(count: int = 7, seed: int = 1) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=chance)


def network_of(bag: str, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build(replace(RUN, bag=bag, **changes), 3)
    torch.nn.init.normal_(network.classifier.weight)
    return network.eval()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_attention_equals_the_equation_in_numpy():
    torch.manual_seed(0)
    attention = GatedAttention(6)
    features = 3 * torch.randn(7, 6)
    found = attention(features, SIZES).detach().numpy()
    state = {name: value.double().numpy() for name, value in attention.state_dict().items()}
    start = 0
    for unit, size in enumerate(SIZES.tolist()):
        h = features[start : start + size].double().numpy()
        start += size
        inner = [
            np.tanh(state["content.weight"] @ x + state["content.bias"])
            * sigmoid(state["gate.weight"] @ x + state["gate.bias"])
            for x in h
        ]
        weight = np.exp([state["score.weight"][0] @ one for one in inner])
        np.testing.assert_allclose(found[unit], (weight / weight.sum()) @ h, rtol=1e-4, atol=1e-5)


def test_the_largest_is_taken_label_by_label():
    scores = torch.tensor([[-3.0, 1.0], [-1.0, -2.0], [-7.0, -8.0]])
    expected = torch.tensor([[-1.0, 1.0], [-7.0, -8.0]])
    assert torch.equal(largest_scores(scores, torch.tensor([2, 1])), expected)


def test_rows_and_padding():
    values = torch.arange(14.0).reshape(7, 2)
    images, absent = padded(values, SIZES)
    assert images.shape == (4, 3, 2) and absent[:, :, 0].sum(1).tolist() == [1, 2, 0, 2]
    assert torch.equal(images[~absent[:, :, 0]], values)


@pytest.mark.parametrize("bag", KINDS)
def test_the_order_of_a_units_images_and_the_other_units_change_nothing(bag):
    network = network_of(bag)
    views = pictures()
    with torch.no_grad():
        scores = network(Bags(views, SIZES))
        turned = network(Bags(views[[1, 0, 2, 5, 3, 4, 6]], SIZES))
        # Beside a unit of 20 images every other is padded to 20; alone to nothing.
        crowd = torch.cat([views, pictures(20, 2)])
        beside = network(Bags(crowd, torch.cat([SIZES, torch.tensor([20])])))[:4]
        alone = network(Bags(views[3:6], torch.tensor([3])))
    assert scores.shape == (4, 3) and scores.dtype == torch.float32
    for other in (turned, beside):
        torch.testing.assert_close(scores, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores[2:3], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bag", KINDS)
def test_one_image_a_unit_is_no_bag_at_all(bag):
    network = network_of(bag)
    plain = network_of("")
    plain.load_state_dict(network.state_dict(), strict=False)
    views = pictures()
    with torch.no_grad():
        alone = network(Bags(views, torch.ones(7, dtype=torch.int64)))
        assert torch.equal(alone, plain(views)) and torch.equal(network(views), plain(views))


def test_a_score_under_attention_is_the_mean_of_the_images_own_under_its_weights():
    network = network_of("attention")
    views = pictures(3)
    with torch.no_grad():
        own = network(views)
        unit = network(Bags(views, torch.tensor([3])))[0]
    assert (unit >= own.amin(0) - 1e-5).all() and (unit <= own.amax(0) + 1e-5).all()


@pytest.mark.parametrize("bag", KINDS)
def test_training_reaches_every_image_or_the_largest(bag):
    network = network_of(bag).train()
    features = torch.randn(7, 3 if bag == "max" else network.features, requires_grad=True)
    if bag == "max":
        largest_scores(features, SIZES).sum().backward()
        reached = (features.grad != 0).sum(0)
        assert reached.tolist() == [4, 4, 4]
    else:
        network.attention(features, SIZES).square().sum().backward()
        assert (features.grad != 0).any(1).all()


def test_the_weights_of_a_network_without_attention_are_what_they_were():
    shapes = {bag: set(network_of(bag).state_dict()) for bag in BAGS}
    assert shapes[""] == shapes["max"]
    more = shapes["attention"] - shapes[""]
    assert more == {
        f"attention.{part}"
        for part in ("content.weight", "content.bias", "gate.weight", "gate.bias", "score.weight")
    }


@pytest.mark.parametrize("bag", KINDS)
def test_many_images_go_through_the_backbone_in_parts(bag, monkeypatch):
    network = network_of(bag)
    bags = Bags(pictures(), SIZES)
    with torch.no_grad():
        whole = network(bags)
        monkeypatch.setattr(images_module, "IMAGES_IN_PART", 2)
        torch.testing.assert_close(network(bags), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bag", KINDS)
def test_under_autocast_scores_are_float32(bag):
    network = network_of(bag)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(Bags(pictures(), SIZES)).dtype == torch.float32


@pytest.mark.parametrize(
    ("bag", "workers", "at_once"), [*((k, 0, 64) for k in KINDS), ("max", 2, 5)]
)
def test_every_image_of_a_unit_has_the_units_score_under_every_view(bag, workers, at_once):
    network = network_of(bag)
    views = pictures(6).numpy()
    bags = [np.array([4]), np.array([0, 2, 5]), np.array([1, 3])]
    matrices = view_matrices(4, 32, replace(RUN.augment, flip=True, rotate=90))
    read = views.__getitem__
    scores = score_views(
        network, read, 6, matrices, torch.float32, workers, views_in_batch=at_once, bags=bags
    )
    assert scores.shape == (6, 4, 3)
    # One view of one unit, by hand: view 1 is a quarter turn.
    plain = score_views(network_of(""), read, 6, matrices, torch.float32, 0)
    for unit in bags:
        assert (scores[unit] == scores[unit[0]]).all()
        if bag == "max":
            expected = plain[unit].max(axis=0)
            np.testing.assert_allclose(scores[unit[0]], expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        own = network(Bags(torch.from_numpy(views[[0, 2, 5]]), torch.tensor([3])))
    np.testing.assert_allclose(scores[0, 0], own[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_network_of_units_takes_no_single_images_in_scoring():
    matrices = view_matrices(1, 32, RUN.augment)
    read = pictures().numpy().__getitem__
    with pytest.raises(ValueError, match="bag='max' needs the units"):
        score_views(network_of("max"), read, 7, matrices, torch.float32, 0)
    with pytest.raises(ValueError, match="scores images, not units"):
        score_views(network_of(""), read, 7, matrices, torch.float32, 0, bags=[np.arange(7)])


def test_units_travel_like_rows():
    bags = Bags(pictures(), SIZES)
    assert len(bags) == 4
    parts = bags.chunk(3)
    assert [part.sizes.tolist() for part in parts] == [[2, 1], [3, 1]]  # as torch.chunk cuts four
    assert torch.equal(torch.cat([part.images for part in parts]), bags.images)
    assert bags.to(torch.device("cpu")).images.shape == (7, 32, 32, 3)


def test_the_names_of_the_configuration():
    assert set(FEATURE_BAGS) < set(BAGS) and BAGS[0] == ""
