"""Two processes under torchrun take the steps of one; when one dies, the other ends."""

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
import json, os, sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from pipeline.core.training.recipe import (
    make_loss, make_optimizer, milestones, restart_batches, stepwise
)
from pipeline.core.runtime.device import start_processes, world
from pipeline.core.networks.patient import PatientRows
from pipeline.core.config.run import Finetune
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.mixing import Mixing
from pipeline.core.training.phase import Phase

folder, micro, die = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
start_processes()
rng = np.random.default_rng(0)
x = rng.normal(size=(320, 6)).astype(np.float32)
y = (x[:, :1] + rng.normal(size=(320, 1)) > 1.2).astype(np.float32)
y[:7] = np.nan
settings = dict(lr=0.05, epochs=5, batch_size=32, milestones=(12, 30), margin=0.8,
                normalize="l2", gamma=0.01)
recipe = Finetune(**settings | json.loads(sys.argv[4]))
ends = milestones(recipe, 10)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
loss = make_loss(recipe, 1, 320)
steps = 0

def rate(step):
    global steps
    steps += 1
    if steps == die and world()[0] == 1:
        os._exit(3)
    return stepwise(recipe.lr, 3.0, ends)(step)

phase = Phase(
    name="finetuned", folder=folder, key={"target": "two", "labels": ["y"]},
    network=network, loss=loss, optimizer=make_optimizer(recipe, network.parameters(), loss),
    data=PatientRows(x), targets=torch.from_numpy(y), rate=rate,
    restarts=frozenset(ends), restart_batches=restart_batches(recipe),
    validate=lambda _: {"mean": 0.5},
    epochs=recipe.epochs, batch_size=32, seed=4, micro=micro, clip=recipe.clip,
    mixing=Mixing(4, recipe.mixup, 0.0) if recipe.mixup else None,
    weights=torch.linspace(0, 2, 320)[:, None] if recipe.mixup else None,
)
keep(phase, fit_epochs(phase))
"""


def launch(
    folder: Path, processes: int, micro: int = 1, die: int = -1, **recipe: object
) -> subprocess.CompletedProcess:
    program = folder / "program.py"
    folder.mkdir(exist_ok=True)
    program.write_text(PROGRAM)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [
            sys.executable,
            *(torchrun if processes > 1 else []),
            str(program),
            str(folder),
            str(micro),
            str(die),
            json.dumps(recipe),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,  # a group that waited for a dead process would wait for half an hour
    )


@pytest.mark.parametrize(
    ("micro", "recipe"),
    [
        (1, {}),
        (2, dict(lr=1e-3, optimizer="adamw", dual_lr=0.05, clip=0.1)),
        (1, dict(loss="ce", mixup=0.4)),
    ],
    ids=["PESG", "AdamW, clipped, micro-batches", "mixed and weighted"],
)
def test_two_processes_end_with_the_weights_of_one(tmp_path, micro, recipe):
    alone = launch(tmp_path / "one", 1, micro, **recipe)
    assert alone.returncode == 0, alone.stderr
    one = read_tensors(tmp_path / "one" / "finetuned.safetensors")
    done = launch(tmp_path / "two", 2, micro, **recipe)
    assert done.returncode == 0, done.stderr
    two = read_tensors(tmp_path / "two" / "finetuned.safetensors")
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=1e-6), (
            name,
            (value - two[name]).abs().max(),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        dict(milestones=(), first_stage=5),
        dict(inner_lr=0.1),
        dict(loss="sopa_s", normalize="none", surrogate="logistic", temperature_positives=1.0),
        dict(loss="sopa", normalize="none", hardest_negatives=0.3, positives=2),
    ],
    ids=str,
)
def test_two_processes_of_the_other_systems_end_with_the_weights_of_one(tmp_path, recipe):
    ends = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        done = launch(folder, processes, **recipe)
        assert done.returncode == 0, done.stderr
        ends.append(read_tensors(folder / "finetuned.safetensors"))
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=2e-6)


def test_one_process_dying_ends_the_other(tmp_path):
    done = launch(tmp_path / "dies", 2, die=10)
    assert done.returncode != 0
    assert "exitcode" in done.stderr
    assert not (tmp_path / "dies" / "finetuned.safetensors").exists()
