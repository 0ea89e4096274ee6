"""Networks: normalisation, fresh classifiers, weights in and out, and what a user may get wrong."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from pipeline.core.artifacts.provenance import data_digest, read_weights_header
from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.networks.image import (
    add_auxiliary,
    build,
    import_timm,
    load_weights,
    restart_classifier,
    save_weights,
)
from pipeline.core.runtime.errors import UserError

RUN = Run(
    network="test_resnet.r160_in1k",
    size=48,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=Finetune(),
)


def pictures(channels: int = 3, count: int = 4) -> torch.Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 48, 48, channels), dtype=torch.uint8, generator=chance)


def test_normalises_as_the_backbone_wants_and_equals_timms_own_forward():
    network = build(RUN, 5).eval()
    batch = pictures()
    cfg = network.backbone.pretrained_cfg
    mean, std = (torch.tensor(cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    normalised = (batch.permute(0, 3, 1, 2) / 255 - mean) / std
    expected = network.classifier(network.backbone(normalised))
    assert torch.allclose(network(batch), expected, atol=1e-5)
    assert network(batch).shape == (4, 5) and network(batch).dtype == torch.float32


def test_gray_is_the_same_as_three_equal_channels():
    network = build(RUN, 1).eval()
    gray = pictures(1)
    assert torch.equal(network(gray), network(gray.expand(-1, -1, -1, 3).contiguous()))


def test_scores_stay_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert build(RUN, 2).eval()(pictures()).dtype == torch.float32


def test_the_restarted_classifier_is_new_and_depends_on_the_seed_only():
    network = build(RUN, 3)
    backbone = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    trained = network.classifier.weight.detach().clone()
    restart_classifier(network, 7)
    first = network.classifier.weight.detach().clone()
    torch.rand(10)
    restart_classifier(network, 7)
    assert torch.equal(first, network.classifier.weight) and not torch.equal(first, trained)
    restart_classifier(network, 8)
    assert not torch.equal(first, network.classifier.weight)
    assert all(
        torch.equal(value, backbone[name]) for name, value in network.backbone.state_dict().items()
    )


def test_weights_come_back_with_their_header(tmp_path):
    network = build(RUN, 2).eval()
    path = tmp_path / "w.safetensors"
    save_weights(path, network, {"labels": ["a", "b"], "epoch": 3})
    header = read_weights_header(path)
    assert header.pop("digest") == data_digest(path)
    assert header == {"labels": ["a", "b"], "epoch": 3}
    assert torch.equal(load_weights(path, RUN, ["a", "b"])(pictures()), network(pictures()))


@pytest.mark.parametrize("pool", ["avg", "pcam", "gem"])
def test_auxiliary_outputs_are_for_training_and_in_no_file(tmp_path, pool):
    run = replace(RUN, pool=pool)
    network = build(run, 2)
    # Alone after a pass in training, which moves BatchNorm's statistics.
    assert network.train()(pictures()).shape == (4, 2)
    alone = network.eval()(pictures())
    add_auxiliary(network, 3)
    assert torch.equal(network(pictures()), alone)
    save_weights(tmp_path / "w.safetensors", network, {})
    assert network.train()(pictures()).shape == (4, 5)
    assert torch.equal(load_weights(tmp_path / "w.safetensors", run, "ab")(pictures()), alone)


def test_a_local_backbone_file_is_used_and_its_classifier_left_out(tmp_path):
    whole = import_timm().create_model("test_resnet.r160_in1k", num_classes=1000)
    save_file(whole.state_dict(), tmp_path / "b.safetensors")
    network = build(replace(RUN, weights=str(tmp_path / "b.safetensors")), 1)
    assert torch.equal(
        network.backbone.state_dict()[
            "conv1.0.weight" if "conv1.0.weight" in whole.state_dict() else "conv1.weight"
        ],
        whole.state_dict()[
            "conv1.0.weight" if "conv1.0.weight" in whole.state_dict() else "conv1.weight"
        ],
    )


def test_drop_path_rises_towards_the_head():
    network = build(replace(RUN, network="test_vit", size=160, drop_path=0.3), 1)
    drops = [m.drop_prob for m in network.modules() if type(m).__name__ == "DropPath"]
    assert drops == sorted(drops) and drops[-1] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "vgg11", "drop_path": 0.1}, "vgg11 has no drop_path"),
        ({"network": "densenet11"}, "timm knows no network 'densenet11'"),
        ({"network": "test_vit3", "size": 50}, "does not take size=50"),
        ({"weights": "missing.safetensors"}, "missing.safetensors: cannot be read"),
    ],
)
def test_what_a_user_may_get_wrong(change, message):
    with pytest.raises(UserError, match=message):
        build(replace(RUN, **change), 1)


def test_another_networks_file_is_refused(tmp_path):
    save_file({"nothing.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="not the weights of this network"):
        build(replace(RUN, weights=str(tmp_path / "x.safetensors")), 1)


@pytest.mark.parametrize(
    "content", [b"", b"junk", (10**12).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0{}"]
)
def test_a_file_that_is_no_weights_file_is_named(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors: no weights file"):
        read_weights_header(path)
