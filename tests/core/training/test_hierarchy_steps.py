"""A hierarchy of labels in the training loop: both of its stages, cut and resumed, and in two
processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.core.networks.image import read_tensors

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from pipeline.core.config.label_tree import LabelTree
from pipeline.core.config.run import Auxiliary, Finetune, Pretrain
from pipeline.core.networks.image import Network, add_auxiliary, add_hierarchy, freeze_backbone
from pipeline.core.networks.patient import PatientRows
from pipeline.core.runtime.device import start_processes
from pipeline.core.runtime.errors import TimeLimitReached
from pipeline.core.training import loop
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import (
    constant, make_loss, make_optimizer, parameter_groups, pretrain_loss, pretrain_optimizer
)

folder, stage, cut = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
start_processes()
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (240, 4, 4, 3)).astype(np.float32)
bright = images.mean((1, 2, 3)) / 255 * 8 - 4
# Two labels, the first under an auxiliary column, and one more column.
parent = (bright + rng.normal(size=240) > -0.5).astype(np.float32)
leaf = np.where(parent == 1, bright + rng.normal(size=240) > 0.8, 0).astype(np.float32)
alone = (rng.random(240) < 0.3).astype(np.float32)
tree = LabelTree(("leaf", "alone", "parent"), (2, None, None), 2)

class Backbone(nn.Module):
    num_features = 6
    pretrained_cfg = {}
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 6)
        # Of a batch's part, were it not still: two processes would end elsewhere.
        self.norm = nn.BatchNorm1d(6) if stage == "head" else nn.Identity()
    def forward(self, x):
        return torch.tanh(self.norm(self.linear(x.flatten(1))))

torch.manual_seed(0)
network = Network(Backbone(), 2)
add_hierarchy(network, tree)
shared = dict(network=network, data=PatientRows(images), epochs=3, batch_size=24, seed=4,
              validate=lambda _: {"mean": 0.5}, key={"target": "t", "labels": ["leaf", "alone"]},
              folder=folder)
if stage == "conditional":
    network.conditional = True
    add_auxiliary(network, 1)
    targets = np.stack([np.where(parent == 1, leaf, np.nan), alone, parent, 1 - alone], axis=1)
    columns = [Auxiliary(column="parent", weight=0.2), Auxiliary(column="other")]
    recipe = Pretrain(lr=0.01)
    phase = Phase(name="pretrained", targets=torch.from_numpy(targets.astype(np.float32)),
                  loss=pretrain_loss(2, columns), rate=constant(0.01), auxiliary=2,
                  optimizer=pretrain_optimizer(recipe, parameter_groups(recipe, network)), **shared)
else:
    recipe = Finetune(lr=0.1, layers="head", dual="closed_form", normalize="sigmoid", gamma=0.01)
    freeze_backbone(network)
    loss = make_loss(recipe, 2, 240)
    phase = Phase(name="finetuned", targets=torch.from_numpy(np.stack([leaf, alone], axis=1)),
                  loss=loss, rate=constant(0.1), restarts=frozenset([12]),
                  optimizer=make_optimizer(recipe, parameter_groups(recipe, network), loss),
                  **shared)
if cut:
    steps = iter(range(1, 100))
    loop.agree = lambda _: next(steps) == cut
try:
    loop.keep(phase, loop.fit_epochs(phase))
except TimeLimitReached:
    assert cut
"""
NAMES = {"conditional": "pretrained", "head": "finetuned"}


def launch(folder: Path, stage: str, processes: int = 1, cut: int = 0) -> dict[str, torch.Tensor]:
    """The weights that a stage ends with; {} where it was cut."""
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [
            sys.executable,
            *(torchrun if processes > 1 else []),
            *(str(program), str(folder), stage, str(cut)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    path = folder / f"{NAMES[stage]}.safetensors"
    return read_tensors(path) if path.exists() else {}


@pytest.mark.parametrize("stage", NAMES)
def test_two_processes_end_with_the_weights_of_one_and_a_cut_run_with_those_of_the_uncut(
    tmp_path, stage
):
    one = launch(tmp_path / "one", stage)
    assert "ancestors.weight" in one and not any(name.startswith("auxiliary") for name in one)
    two = launch(tmp_path / "two", stage, processes=2)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    assert not launch(tmp_path / "cut", stage, cut=13)
    again = launch(tmp_path / "cut", stage)
    for name, value in one.items():
        assert torch.equal(again[name], value), name


def test_a_still_backbone_is_the_one_it_began_with_and_the_header_is_whole(tmp_path):
    kept = launch(tmp_path / "head", "head")
    assert kept["backbone.norm.num_batches_tracked"] == 0
    assert torch.equal(kept["backbone.norm.running_mean"], torch.zeros(6))
    lines = (tmp_path / "head" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["phase"] == "finetuned"
