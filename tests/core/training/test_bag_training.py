"""Training on units: what an epoch shows of them, and two processes under torchrun take the steps
of one."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment
from pipeline.core.images.batches import TrainingBags, TrainingBatches
from pipeline.core.networks.image import read_tensors

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment, Finetune, Pretrain, Run
from pipeline.core.images.batches import TrainingBags
from pipeline.core.networks.image import build
from pipeline.core.runtime.device import start_processes
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import constant, make_loss, make_optimizer

pictures, folder, bag, micro = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(1)
start_processes()
recipe = Finetune(lr=0.05, epochs=2, batch_size=8, normalize="sigmoid", margin=0.8, positives=2)
# LayerNorm, which sees each image alone: with BatchNorm two processes are two batches.
run = Run(network="test_convnext.r160_in1k", size=32, weights="random", bag=bag,
          pretrain=Pretrain(lr=1e-3), finetune=recipe)
images = [PreparedImage(path) for path in sorted(pictures.glob("*.png"))]
ends = np.cumsum([1 + unit % 4 for unit in range(16)])
bags = np.split(np.arange(ends[-1]), ends[:-1])
torch.manual_seed(0)
network = build(run, 1)
loss = make_loss(recipe, 1, len(bags))
phase = Phase(
    name="finetuned", folder=folder, key={"target": "two", "labels": ["y"]},
    network=network, loss=loss, optimizer=make_optimizer(recipe, network.parameters(), loss),
    data=TrainingBags(bags, 2, images, 32, 3, Augment(flip=True), 5),
    targets=torch.tensor([[float(unit % 5 == 0)] for unit in range(16)]),
    rate=constant(recipe.lr), validate=lambda _: {"mean": 0.5}, epochs=recipe.epochs,
    batch_size=recipe.batch_size, seed=5, positives=recipe.positives, micro=micro,
)
keep(phase, fit_epochs(phase))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """40 noisy images."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(40):
        picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


def train(pictures: Path, folder: Path, processes: int, bag: str, micro: int) -> dict:
    """The weights that so many processes end with."""
    folder.mkdir()
    program = folder / "program.py"
    program.write_text(PROGRAM)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [
            sys.executable,
            *(torchrun if processes > 1 else []),
            str(program),
            str(pictures),
            str(folder),
            bag,
            str(micro),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORKERS": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return read_tensors(folder / "finetuned.safetensors")


@pytest.mark.parametrize(("bag", "micro"), [("attention", 2), ("max", 1)])
def test_two_processes_end_with_the_weights_of_one(pictures, tmp_path, bag, micro):
    one = train(pictures, tmp_path / "one", 1, bag, micro)
    two = train(pictures, tmp_path / "two", 2, bag, micro)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-6, msg=name)


def test_an_epoch_draws_a_part_of_a_large_unit_anew(pictures):
    images = [PreparedImage(path) for path in sorted(pictures.glob("*.png"))]
    bags = [np.arange(9), np.array([20, 12]), np.array([30])]
    source = (images, 32, 3, Augment(flip=True, rotate=10), 7)
    data = TrainingBags(bags, 3, *source)
    drawn = [tuple(data.drawn_images(epoch, 0)) for epoch in range(30)]
    assert all(len(set(one)) == 3 and list(one) == sorted(one) for one in drawn)
    assert len(set(drawn)) > 20 and set().union(*drawn) == set(range(9))
    assert [tuple(data.drawn_images(epoch, 0)) for epoch in range(30)] == drawn

    # The views are those that the images have by themselves.
    batch, indices = data[4, np.array([2, 0])]
    assert batch.sizes.tolist() == [1, 3] and indices.tolist() == [2, 0]
    chosen = np.array([30, *drawn[4]])
    assert torch.equal(batch.images, TrainingBatches(*source)[4, chosen][0])
