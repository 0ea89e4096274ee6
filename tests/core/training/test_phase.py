"""The phase of an image network is what the run, the task and the recipe say."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core.config.run import Augment, Finetune, Pretrain, Run, as_json
from pipeline.core.config.task import Resize, Task
from pipeline.core.losses import CrossEntropy
from pipeline.core.runs.facts import facts_of
from pipeline.core.training import phase as phases
from pipeline.core.training.phase import image_phase
from pipeline.core.training.recipe import constant

RUN = Run(
    network="test_resnet.r160_in1k",
    size=32,
    weights="random",
    pretrain=Pretrain(lr=1e-3, epochs=3, batch_size=4),
    finetune=Finetune(epochs=5, batch_size=2, positives=1),
    augment=Augment(flip=True),
    precision="fp32",
    accumulate=2,
    ema=0.9,
)
TASK = Task(title="t", labels=("y",), resize=Resize(channels=1))
ROWS = pd.DataFrame({"image_id": ["a", "b", "c"]})
TARGETS = np.array([[1.0], [0.0], [np.nan]], np.float32)


@pytest.mark.parametrize(
    ("name", "recipe"), [("pretrained", "pretrain"), ("finetuned", "finetune")]
)
def test_what_the_stages_share_comes_from_the_job(tmp_path, monkeypatch, name, recipe):
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setattr(phases, "image_validator", lambda job, dtype: (job, dtype))
    job = SimpleNamespace(
        competition=SimpleNamespace(name="comp", task=TASK),
        run=RUN,
        target="comp/run/fold0",
        fold=0,
        folder=Path("folder"),
        labels=("y",),
        tables=SimpleNamespace(hashes={"images.csv": "1"}),
    )
    network = torch.nn.Linear(1, 1)
    loss = CrossEntropy()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    asked = getattr(RUN, recipe)
    phase = image_phase(
        job,
        name,
        asked,
        rows=ROWS,
        targets=TARGETS,
        network=network,
        loss=loss,
        optimizer=optimizer,
        rate=constant(0.1),
        seed=7,
        epochs=asked.epochs,
        restarts=frozenset({2}),
        positives=1,
    )
    assert (phase.name, phase.folder, phase.network) == (name, Path("folder"), network)
    facts = facts_of(job, f"{name}.safetensors")
    assert phase.key == {**facts, "run": as_json(RUN)}
    assert phase.key["hashes"] == {"images.csv": "1"} and phase.key["labels"] == ["y"]
    assert (phase.epochs, phase.batch_size) == (asked.epochs, asked.batch_size)
    assert (phase.dtype, phase.micro, phase.ema, phase.workers) == (torch.float32, 2, 0.9, 3)
    assert (phase.seed, phase.restarts, phase.positives) == (7, {2}, 1)
    assert phase.validate == (job, torch.float32)
    np.testing.assert_array_equal(phase.targets.numpy(), TARGETS)
    assert [image.path.stem for image in phase.data.images] == ["a", "b", "c"]
    order = phase.order
    assert (order.seed, order.epochs, order.steps_per_epoch) == (
        7,
        asked.epochs,
        phase_steps(asked),
    )


def phase_steps(recipe: Pretrain | Finetune) -> int:
    """Whole batches of the three rows, at least one."""
    return max(1, len(ROWS) // recipe.batch_size)
