"""Pooling: each kind against numpy, what becomes of it at its edges, and on many backbones."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.config.run import POOLS, Finetune, Pretrain, Run, as_json, from_json
from pipeline.core.images.views import view_matrices
from pipeline.core.networks.image import (
    build,
    import_timm,
    load_weights,
    restart_classifier,
    save_weights,
)
from pipeline.core.networks.pooling import (
    FEATURE_POOLS,
    SCORE_POOLS,
    place_features,
    pooled_scores,
)
from pipeline.core.networks.scoring import score_views
from pipeline.core.runtime.errors import UserError

RUN = Run(
    network="test_resnet.r160_in1k",
    size=96,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=Finetune(),
)
MAP_POOLS = POOLS[1:]
# Maps with the channels first and last, tokens with and without prefix, heads with and without
# layers of their own.
FAMILIES = (
    "test_resnet",
    "test_convnext",
    "test_nfnet",
    "test_mambaout",
    "test_vit",
    "test_vit3",
    "test_vit4",
    "mobilenetv3_small_050",
    "levit_128s",
)


def pictures(count: int = 3, size: int = 96, seed: int = 1) -> torch.Tensor:
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=chance)


def network_of(pool: str, labels: int = 3, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(replace(RUN, pool=pool, **changes), labels).eval()


def example(count: int = 4, features: int = 6, places: int = 9, labels: int = 3, seed: int = 0):
    """(a classifier, features at places), with scores well away from 0."""
    torch.manual_seed(seed)
    classifier = torch.nn.Linear(features, labels)
    torch.nn.init.normal_(classifier.weight)
    return classifier, 2 * torch.randn(count, features, places)


def numpy_scores(pool: str, classifier: torch.nn.Linear, places: torch.Tensor) -> np.ndarray:
    """The equations, one image and one label at a time, in float64."""
    weight = classifier.weight.detach().numpy().astype(np.float64)
    bias = classifier.bias.detach().numpy().astype(np.float64)
    x = places.numpy().astype(np.float64)
    scores = np.empty((len(x), len(weight)))
    for image in range(len(x)):
        for label, (w, c) in enumerate(zip(weight, bias, strict=True)):
            by_place = np.array([w @ x[image, :, p] + c for p in range(x.shape[2])])
            if pool == "pcam":
                # As in the paper: one probability a place, the features pooled, then scored.
                chance = 1 / (1 + np.exp(-by_place))
                scores[image, label] = w @ (x[image] @ (chance / chance.sum())) + c
            elif pool == "csra":
                weighed = np.exp(by_place - c)
                attended = x[image] @ (weighed / weighed.sum())
                scores[image, label] = w @ x[image].mean(1) + c + 0.1 * (w @ attended)
            else:
                pooled = {
                    "max": x[image].max(1),
                    "lse": np.log(np.exp(0.5 * x[image]).mean(1)) / 0.5,
                    "gem": np.mean(np.maximum(x[image], 1e-6) ** 3, axis=1) ** (1 / 3),
                }[pool]
                scores[image, label] = w @ pooled + c
    return scores


def test_the_names_of_the_configuration_are_those_of_the_equations():
    assert set(POOLS) == {"avg", *FEATURE_POOLS, *SCORE_POOLS}
    with pytest.raises(UserError, match="pool='mean'"):
        replace(RUN, pool="mean")


@pytest.mark.parametrize("pool", MAP_POOLS)
def test_equals_the_equations_in_numpy(pool):
    classifier, places = example()
    scores = pooled_scores(pool, classifier, places).detach().numpy()
    assert np.allclose(scores, numpy_scores(pool, classifier, places), rtol=1e-4, atol=1e-4)


def test_the_average_is_the_network_as_it_was_bit_for_bit():
    network = network_of("avg")
    x = pictures().permute(0, 3, 1, 2).float()
    expected = network.classifier(network.backbone((x - network.mean).div_(network.std)))
    assert torch.equal(network(pictures()), expected)


def test_every_pooling_has_the_same_tensors():
    shapes = [
        {name: value.shape for name, value in network_of(pool).state_dict().items()}
        for pool in POOLS
    ]
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize("pool", SCORE_POOLS)
def test_without_weights_the_score_is_that_of_the_average(pool):
    classifier, places = example()
    torch.nn.init.zeros_(classifier.weight)
    average = classifier(places.mean(2))
    assert torch.allclose(pooled_scores(pool, classifier, places), average, atol=1e-6)


@pytest.mark.parametrize("pool", [*SCORE_POOLS, "max", "lse"])
def test_a_map_of_one_place_or_of_equal_places_is_scored_as_that_place(pool):
    classifier, places = example(places=1)
    alone = classifier(places[:, :, 0])
    if pool == "csra":  # the attention adds its tenth again
        alone = alone + 0.1 * (alone - classifier.bias)
    for repeated in (places, places.expand(-1, -1, 7)):
        assert torch.allclose(pooled_scores(pool, classifier, repeated), alone, atol=1e-5)


def test_the_cubic_mean_lies_between_the_mean_and_the_largest():
    _, places = example()
    pooled = FEATURE_POOLS["gem"](places.abs())
    assert (pooled >= places.abs().mean(2)).all() and (pooled <= places.abs().amax(2) + 1e-5).all()


@pytest.mark.parametrize("level", [-1000.0, 1000.0])
def test_probabilities_that_underflow_leave_a_mean_and_a_gradient(level):
    # σ(-1000) is 0 in float32, and all weights would be 0 / 0. Far below 0 the logarithm of σ(s) is
    # s itself, so the weights are a softmax of the scores; far above all probabilities are 1.
    scores = (level + torch.tensor([[[0.0, 1.0, 2.0]]])).requires_grad_()
    pooled = SCORE_POOLS["pcam"](scores, torch.zeros(1))
    offsets = torch.tensor([0.0, 1.0, 2.0])
    weights = torch.softmax(offsets, 0) if level < 0 else torch.full((3,), 1 / 3)
    assert torch.allclose(pooled, level + (weights * offsets).sum(), atol=1e-3)
    pooled.sum().backward()
    assert scores.grad.isfinite().all() and scores.grad.abs().sum() > 0.1


@pytest.mark.parametrize("pool", POOLS)
def test_pools_in_float32_inside_autocast(pool):
    network = network_of(pool)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        features = network.backbone.forward_features(network.normalised(pictures()))
        scores = network(pictures())
        assert features.dtype == torch.bfloat16 and scores.dtype == torch.float32
        if pool != "avg":
            places = place_features(network.backbone, features).float()
    # What is pooled has been rounded, the pooling has not.
    if pool != "avg":
        assert torch.equal(scores, pooled_scores(pool, network.classifier, places))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_of_each_place_is_the_backbones_own(name):
    # On a map of equal places a backbone's own pooling changes nothing, so its head gives what the
    # head of each place gives; the classes and layers between differ from family to family.
    timm = import_timm()
    backbone = timm.create_model(name, num_classes=0).eval()
    size = backbone.pretrained_cfg["input_size"][-1]
    with torch.no_grad():
        features = backbone.forward_features(torch.randn(2, 3, size, size))
        if features.ndim == 3:
            one = features[:, -1:].expand(-1, features.shape[1], -1)
        elif features.shape[1] == backbone.num_features:
            one = features[:, :, :1, :1].expand_as(features)
        else:
            one = features[:, :1, :1].expand_as(features)
        places = place_features(backbone, one)
        own = backbone.forward_head(one)
    assert places.shape[:2] == own.shape and places.shape[2] > 1
    assert torch.allclose(places, own[:, :, None].expand_as(places), atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pool", ["pcam", "gem"])
def test_trains_on_backbones_of_many_kinds(name, pool):
    size = {"levit_128s": 224}.get(name, 160)
    network = build(replace(RUN, network=name, size=size, pool=pool), 2).train()
    scores = network(pictures(2, size))
    scores.square().mean().backward()
    assert scores.shape == (2, 2) and scores.isfinite().all()
    first = next(network.backbone.parameters())
    assert first.grad.isfinite().all() and network.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "size", "message"), [("crossvit_9_240", 240, "a list"), ("volo_d1_224", 224, "197")]
)
def test_a_backbone_without_a_map_is_an_error_that_names_run_and_way_out(name, size, message):
    run = replace(RUN, network=name, size=size, pool="pcam")
    with pytest.raises(UserError, match=f"run {name}_{size}: pool='pcam' needs .*{message}.*avg"):
        build(run, 1)
    assert build(replace(run, pool="avg"), 1).pool == "avg"


@pytest.mark.parametrize("pool", MAP_POOLS)
def test_the_layout_in_memory_changes_nothing(pool):
    network = network_of(pool)
    scores = network(pictures())
    network.to(memory_format=torch.contiguous_format)
    # Convolutions in another layout add in another order.
    assert torch.allclose(scores, network(pictures()), atol=1e-4)


@pytest.mark.parametrize("pool", POOLS)
def test_compiles_as_one_graph(pool):
    network = network_of(pool)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(pictures()), network(pictures()), atol=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_dropout_leaves_out_features_in_training_only(pool):
    network = network_of(pool, dropout=0.5)
    assert torch.equal(network(pictures()), network_of(pool)(pictures()))
    network.dropout.train()
    network.training = True  # the statistics of BatchNorm stay those of the evaluation
    torch.manual_seed(1)
    first = network(pictures())
    torch.manual_seed(1)
    assert torch.equal(first, network(pictures()))
    assert not torch.equal(first, network(pictures()))


@pytest.mark.parametrize("pool", POOLS)
def test_is_rebuilt_from_the_recipe_in_its_file_and_scores_views_alike(pool, tmp_path):
    run = replace(RUN, pool=pool)
    network = build(run, 2).eval()
    restart_classifier(network, 3)
    save_weights(tmp_path / "w.safetensors", network, {"run": as_json(run), "labels": ["a", "b"]})
    header = read_weights_header(tmp_path / "w.safetensors")
    again = load_weights(tmp_path / "w.safetensors", from_json(Run, header["run"]), ["a", "b"])
    images = pictures().numpy()
    matrices = view_matrices(3, RUN.size, RUN.augment)
    both = [
        score_views(one, images.__getitem__, 3, matrices, torch.float32, 0)
        for one in (network, again)
    ]
    assert both[0].shape == (3, 3, 2) and np.array_equal(*both)


def test_a_file_older_than_the_field_is_an_average():
    values = as_json(RUN)
    del values["pool"]
    assert from_json(Run, values) == RUN
