"""The families of networks that win today, each at its smallest variant and its own size: shapes,
real steps with groups of rates, and a run cut between them.

All begin from random weights: nothing is downloaded.
"""

from pathlib import Path

import pytest
import torch

from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.losses import CrossEntropy
from pipeline.core.networks.image import build, import_timm
from pipeline.core.runtime.errors import TimeLimitReached
from pipeline.core.training import loop
from pipeline.core.training.loop import fit_epochs
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import constant, parameter_groups, pretrain_optimizer

# Network and the size that timm says it was made for.
NETWORKS = [
    ("convnext_atto.d2_in1k", 224),
    ("tf_efficientnetv2_b0.in1k", 192),
    pytest.param("convnextv2_atto.fcmae_ft_in1k", 224, marks=pytest.mark.slow),
    pytest.param("eva02_tiny_patch14_224.mim_in22k", 224, marks=pytest.mark.slow),
    pytest.param("maxvit_rmlp_pico_rw_256.sw_in1k", 256, marks=pytest.mark.slow),
    pytest.param("coatnet_nano_rw_224.sw_in1k", 224, marks=pytest.mark.slow),
    pytest.param("swinv2_tiny_window8_256.ms_in1k", 256, marks=pytest.mark.slow),
    pytest.param("vit_small_patch14_dinov2.lvd142m", 518, marks=pytest.mark.slow),
    pytest.param("vit_small_patch16_dinov3.lvd1689m", 256, marks=pytest.mark.slow),
]
RECIPE = Pretrain(
    lr=1e-3, optimizer="adamw", weight_decay=0.05, layer_decay=0.8, clip=1.0, batch_size=2, epochs=2
)


class Pictures(torch.utils.data.Dataset):
    """Two noisy images, the same in every epoch."""

    def __init__(self, size: int) -> None:
        chance = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (2, size, size, 3), generator=chance).byte()

    def __getitem__(self, key: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.from_numpy(key[1])
        return self.images[indices], indices


def phase(folder: Path, run: Run) -> Phase:
    """Two steps of stage 1, one an epoch."""
    torch.manual_seed(0)
    network = build(run, 3)
    return Phase(
        name="pretrained",
        folder=folder,
        key={"target": "t"},
        network=network,
        loss=CrossEntropy(),
        optimizer=pretrain_optimizer(RECIPE, parameter_groups(RECIPE, network)),
        data=Pictures(run.size),
        targets=torch.tensor([[1.0, 0.0, torch.nan], [0.0, 1.0, 1.0]]),
        rate=constant(RECIPE.lr),
        validate=lambda _: {"mean": 0.5},
        epochs=RECIPE.epochs,
        batch_size=RECIPE.batch_size,
        seed=1,
        clip=RECIPE.clip,
    )


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_a_network_trains_at_its_own_size_and_goes_on_after_a_cut(
    tmp_path, monkeypatch, name, size
):
    cfg = import_timm().get_pretrained_cfg(name)
    assert cfg.input_size == (3, size, size)
    run = Run(
        network=name,
        size=size,
        weights="random",
        drop_path=0.1,
        pretrain=RECIPE,
        finetune=Finetune(),
    )

    # Shape and normalisation: the images reach the backbone in its own mean and deviation.
    first = phase(tmp_path / "uncut", run)
    network = first.network.eval()
    images = first.data.images
    with torch.no_grad():
        scores = network(images)
        own = torch.tensor(cfg.mean).view(1, 3, 1, 1), torch.tensor(cfg.std).view(1, 3, 1, 1)
        normalised = (images.permute(0, 3, 1, 2) / 255 - own[0]) / own[1]
        expected = network.classifier(network.backbone(normalised))
    assert scores.shape == (2, 3) and scores.isfinite().all()
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)

    # Two steps that move the weights of every group.
    before = {key: value.clone() for key, value in network.state_dict().items()}
    uncut = fit_epochs(first).state_dict()
    moved = [key for key, value in uncut.items() if not torch.equal(value, before[key])]
    assert len(moved) > 0.9 * len(list(network.parameters()))

    # The same cut after the first.
    with monkeypatch.context() as patched, pytest.raises(TimeLimitReached):
        patched.setattr(loop, "agree", lambda _: True)
        fit_epochs(phase(tmp_path / "cut", run))
    resumed = fit_epochs(phase(tmp_path / "cut", run)).state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in uncut.items())
