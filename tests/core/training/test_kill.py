"""SIGKILL at any moment, then the same command again: the weights of the uncut run, bit for bit."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.core.artifacts.prepared_images import PreparedImage
from pipeline.core.config.run import Augment, Finetune, Pretrain, Run
from pipeline.core.images.batches import TrainingBatches
from pipeline.core.networks.image import build, read_tensors
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import make_loss, make_optimizer, stepwise

RECIPE = Finetune(
    lr=0.05,
    epochs=3,
    batch_size=16,
    milestones=(5, 9),
    margin=0.8,
    momentum=0.9,
    normalize="sigmoid",
    weight_decay=1e-4,
)
RUN = Run(
    network="test_resnet.r160_in1k",
    size=32,
    weights="random",
    pretrain=Pretrain(lr=1e-3),
    finetune=RECIPE,
    augment=Augment(flip=True, rotate=180, scale=0.1, holes=1),
    dropout=0.2,
    ema=0.9,
)


def train(pictures: Path, folder: Path) -> None:
    """One phase as `pipeline.finetune` runs it: real pictures, two loader processes, PESG, an
    average of weights."""
    torch.set_num_threads(1)
    paths = sorted(pictures.glob("*.png"))
    targets = torch.tensor([[float(path.stem.endswith("p"))] for path in paths])
    torch.manual_seed(0)
    network = build(RUN, 1)
    loss = make_loss(RECIPE, 1, len(paths))
    phase = Phase(
        name="finetuned",
        folder=folder,
        key={"target": "kill", "labels": ["y"]},
        network=network,
        loss=loss,
        optimizer=make_optimizer(RECIPE, network.parameters(), loss),
        data=TrainingBatches(list(map(PreparedImage, paths)), 32, 3, RUN.augment, 3),
        targets=targets,
        rate=stepwise(RECIPE.lr, RECIPE.divide, RECIPE.milestones),
        restarts=frozenset(RECIPE.milestones),
        validate=lambda _: {"mean": 0.5},
        epochs=RECIPE.epochs,
        batch_size=16,
        seed=3,
        ema=RUN.ema,
        workers=2,
    )
    keep(phase, fit_epochs(phase))


def run(pictures: Path, folder: Path, kill_after: float = float("inf")) -> float:
    """Train in a process of its own, which gets a SIGKILL after so many seconds; returns how long
    it ran."""
    began = time.monotonic()
    # A server that has imported torch but started no thread: forks of it are quick and safe.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.core.training.test_kill"])
    child = context.Process(target=quietly, args=(pictures, folder))
    child.start()
    child.join(None if kill_after == float("inf") else kill_after)
    if child.is_alive():
        with contextlib.suppress(
            ProcessLookupError
        ):  # killed before it had a group, hence before it had children
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()
    elif child.exitcode != 0:
        raise AssertionError(f"training ended with {child.exitcode}")
    return time.monotonic() - began


def quietly(pictures: Path, folder: Path) -> None:
    os.setpgid(0, 0)
    os.environ["CHECKPOINT_SECONDS"] = "0"
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 2)
        train(pictures, folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(80):
        kind = "p" if number % 4 == 0 else "n"
        picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) // 2 + (
            60 if kind == "p" else 0
        )
        cv2.imwrite(str(folder / f"{number:03d}{kind}.png"), picture.astype(np.uint8))
    return folder


def test_killed_anywhere_and_run_again(pictures, tmp_path, kills=3):
    took = run(pictures, tmp_path / "uncut")
    expected = read_tensors(tmp_path / "uncut" / "finetuned.safetensors")
    steps = log_steps(tmp_path / "uncut")
    chance = random.Random(1)
    for number in range(kills):
        folder = tmp_path / str(number)
        for _ in range(2):
            run(pictures, folder, kill_after=chance.uniform(0, took))
            if (folder / "finetuned.safetensors").exists():
                break
        run(pictures, folder)
        found = read_tensors(folder / "finetuned.safetensors")
        assert all(torch.equal(expected[name], found[name]) for name in expected), f"kill {number}"
        assert log_steps(folder) == steps
        left = {path.name for path in folder.iterdir()}  # and no half-written file of a kill
        assert left == {"finetuned.safetensors", "log.jsonl"}


@pytest.mark.slow
def test_killed_fifty_times(pictures, tmp_path):
    test_killed_anywhere_and_run_again(pictures, tmp_path, kills=50)


def log_steps(folder: Path) -> list[tuple]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line.get("loss"), line.get("epoch")) for line in lines]
