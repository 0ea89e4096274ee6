"""Heat maps: what they add up to, on which networks, and where a spot is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.core.config.run import POOLS, Finetune, Pretrain, Run
from pipeline.core.networks.heat_maps import heat_maps, hottest_place
from pipeline.core.networks.image import Network, build
from pipeline.core.networks.pooling import NoFeatureMapError

RUN = Run(
    network="test_resnet.r160_in1k",
    size=160,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=Finetune(),
)


def pictures(count: int = 3, size: int = 160) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def network_of(**changes) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build(replace(RUN, **changes), 3).eval()
    torch.nn.init.normal_(network.classifier.weight)
    return network


def found(network: torch.nn.Module, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The maps, after a check that the scores beside them are the network's own."""
    images = pictures(count)
    scores, maps = heat_maps(network, images)
    with torch.no_grad():
        assert np.allclose(scores, network(torch.from_numpy(images)).numpy(), atol=1e-4)
    return scores, maps


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet", "swin"])
@pytest.mark.parametrize("pool", ["avg", "max", "gem"])
def test_the_mean_of_the_map_is_the_score(network, pool):
    # Where the classifier follows the pooling at once; Swin's map has its channels last.
    if network == "swin":
        network = network_of(network="swin_tiny_patch4_window7_224", size=224, pool=pool)
        scores, maps = heat_maps(network, pictures(1, 224))
    else:
        scores, maps = found(network_of(network=network, pool=pool))
    assert np.allclose(maps.mean((2, 3)), scores, atol=1e-3)


def test_of_the_average_it_is_the_class_activation_map():
    network = network_of()
    images = pictures()
    with torch.no_grad():
        normalised = network.normalised(torch.from_numpy(images))
        features = network.backbone.forward_features(normalised).numpy()
    weight = network.classifier.weight.detach().numpy()
    bias = network.classifier.bias.detach().numpy()
    expected = np.einsum("kc,bchw->bkhw", weight, features) + bias[None, :, None, None]
    assert np.allclose(heat_maps(network, images)[1], expected, atol=1e-3)


def test_of_pcam_it_is_the_map_that_the_score_is_the_weighed_mean_of():
    scores, maps = found(network_of(pool="pcam"))
    chance = 1 / (1 + np.exp(-maps.astype(np.float64)))
    weighed = (chance * maps).sum((2, 3)) / chance.sum((2, 3))
    assert np.allclose(weighed, scores, atol=1e-3)


def test_of_csra_it_is_the_map_whose_mean_and_attention_are_the_score():
    network = network_of(pool="csra")
    scores, maps = found(network)
    evidence = maps - network.classifier.bias.detach().numpy()[None, :, None, None]
    attention = np.exp(evidence) / np.exp(evidence).sum((2, 3), keepdims=True)
    expected = maps.mean((2, 3)) + 0.1 * (attention * evidence).sum((2, 3))
    assert np.allclose(expected, scores, atol=1e-3)


@pytest.mark.parametrize("pool", POOLS)
def test_a_bright_spot_is_found_where_it_is(pool):
    # A network whose features are the brightness of a cell of 32 px, and whose score rises with it.
    class Brightness(torch.nn.Module):
        num_features = 1
        pretrained_cfg = {}

        def forward_features(self, x):
            return torch.nn.functional.avg_pool2d(x[:, :1], 32)

        def forward_head(self, x):
            return x.mean((2, 3))

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

    network = Network(Brightness(), 1, pool=pool).eval()
    torch.nn.init.ones_(network.classifier.weight)
    image = np.full((1, 160, 160, 3), 130, np.uint8)
    image[0, 96:128, 32:64] = 255
    _, maps = heat_maps(network, image)
    assert maps.shape == (1, 1, 5, 5)
    assert hottest_place(maps[0, 0]) == ((1 + 0.5) / 5, (3 + 0.5) / 5)


@pytest.mark.parametrize("network", ["test_convnext", "test_vit4", "test_mambaout"])
@pytest.mark.parametrize("pool", POOLS)
def test_networks_with_other_heads_have_maps_too(network, pool):
    _, maps = found(network_of(network=network, pool=pool), 2)
    side = {"test_vit4": 10}.get(network, 5)
    assert maps.shape == (2, 3, side, side) and np.isfinite(maps).all()
    assert (maps.std((2, 3)) > 0).all()


@pytest.mark.parametrize(("network", "size"), [("test_vit", 160), ("crossvit_9_240", 240)])
def test_a_network_that_scores_no_map_has_none(network, size):
    with pytest.raises(NoFeatureMapError):
        heat_maps(network_of(network=network, size=size), pictures(1, size))


def test_more_images_than_fit_at_once_are_the_same_maps():
    network = network_of(pool="pcam")
    images = pictures(9)
    whole = heat_maps(network, images)[1]
    assert np.allclose(whole[8:], heat_maps(network, images[8:])[1], atol=1e-4)
