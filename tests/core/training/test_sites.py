"""Hospitals that share no images, in the training loop: two sites under torchrun end with one
network, cut or not, and send nothing of a row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.core.config.run import Finetune, Metadata, Pretrain, Run
from pipeline.core.networks.image import read_tensors
from pipeline.core.runtime.errors import UserError
from pipeline.core.training import sites
from pipeline.core.training.sites import site_rows

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd, torch, torch.distributed as dist
from torch import nn
from pipeline.core.config.run import Finetune
from pipeline.core.networks.patient import PatientRows
from pipeline.core.runtime.device import start_processes, world
from pipeline.core.runtime.errors import TimeLimitReached
from pipeline.core.training import loop
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import make_loss, make_optimizer, milestones, stepwise
from pipeline.core.training.sites import site_rows, train_sites

folder, cut = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
start_processes()
rank = world()[0]
sent = []
plain = dist.all_reduce
def recorded(tensor, *more, **named):
    sent.append(tensor.numel())
    return plain(tensor, *more, **named)
dist.all_reduce = recorded
for name in ("all_gather", "all_gather_into_tensor", "broadcast", "broadcast_object_list", "gather",
             "all_gather_object", "send", "reduce", "scatter", "all_to_all"):
    def refused(*_, name=name, **__):
        raise AssertionError(f"{name} was called")
    setattr(dist, name, refused)

rng = np.random.default_rng(0)
x = rng.normal(size=(180, 6)).astype(np.float32)
table = pd.DataFrame({
    "image_id": [str(number) for number in range(180)],
    "row": range(180),
    "hospital": ["b" if number % 3 else "a" for number in range(180)],
    "y": (x[:, 0] + rng.normal(size=180) > 0.8).astype(np.float32),
})
recipe = Finetune(lr=0.1, epochs=3, batch_size=20, milestones=(7,), gamma=0.01,
                  site_column="hospital", site_steps=4, site_control=True)
rows = site_rows(table, "hospital")
assert set(rows["hospital"]) == {"ab"[rank]} and len(rows) == 120
torch.manual_seed(0)
network = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
loss = make_loss(recipe, 1, len(rows))
ends = milestones(recipe, 6)
calls = 0
def agree(flag):
    global calls
    calls += 1
    return calls == cut
if cut > 0:
    loop.agree = agree
phase = Phase(
    name="finetuned", folder=folder, key={"target": "two", "labels": ["y"]},
    network=network, loss=loss, optimizer=make_optimizer(recipe, network.parameters(), loss),
    data=PatientRows(x[rows["row"]]), targets=torch.from_numpy(rows[["y"]].to_numpy()),
    rate=stepwise(recipe.lr, 3.0, ends), restarts=frozenset(ends),
    validate=lambda _: {"mean": 0.5}, epochs=3, batch_size=20, seed=4,
)
try:
    train_sites(phase)
except TimeLimitReached:
    pass
(folder / f"sent{rank}.json").write_text(json.dumps(sent))
"""


def launch(folder: Path, cut: int = -1) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(program), str(folder), str(cut)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sites") / "whole"
    launch(folder)
    return folder


def test_two_sites_end_with_one_network(whole):
    first = read_tensors(whole / "finetuned.safetensors")
    second = read_tensors(whole / "site1" / "finetuned.safetensors")
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    # Each has a log of its own.
    logs = [(place / "log.jsonl").read_text().splitlines() for place in (whole, whole / "site1")]
    losses = [[json.loads(line).get("loss") for line in lines] for lines in logs]
    assert len(losses[0]) == len(losses[1]) and losses[0] != losses[1]


def test_what_is_sent_is_as_long_as_the_network(whole):
    """18 steps in rounds of 4, and a last one of 2: five exchanges of weights, a, b, α, statistics
    and control variates; one of references; the check of the start; and single numbers."""
    weights = 6 + 6 + 6 * 8 + 8 + 8 + 1
    exchange = (weights + 3) + 12 + (weights + 3)
    for rank in range(2):
        sent = json.loads((whole / f"sent{rank}.json").read_text())
        long = [size for size in sent if size > 2]
        assert sorted(long) == sorted([exchange] * 5 + [weights, weights + 3 + 12])


@pytest.mark.slow
@pytest.mark.parametrize("cut", [3, 8, 13])
def test_sites_that_were_stopped_end_bit_for_bit_as_those_that_were_not(whole, tmp_path, cut):
    folder = tmp_path / "cut"
    launch(folder, cut)
    assert (folder / "finetuned.checkpoint.safetensors").exists()
    assert (folder / "site1" / "finetuned.checkpoint.safetensors").exists()
    launch(folder)
    expected = read_tensors(whole / "finetuned.safetensors")
    for place in (folder, folder / "site1"):
        found = read_tensors(place / "finetuned.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def table(hospitals: list) -> pd.DataFrame:
    names = [f"i{number}" for number in range(len(hospitals))]
    return pd.DataFrame({"image_id": names, "hospital": hospitals})


def test_rows_go_to_the_process_of_their_site(monkeypatch):
    images = table(["b", "a", "b", "c", "b"])
    monkeypatch.setattr(sites, "extremes_of", lambda _: (1, 3))
    for rank, expected in enumerate(["i1 i1 i1", "i0 i2 i4", "i3 i3 i3"]):
        monkeypatch.setattr(sites, "world", lambda rank=rank: (rank, 3))
        assert site_rows(images, "hospital")["image_id"].tolist() == expected.split()
    # A process with a DATA of its own is a site.
    assert site_rows(images[:2], "process")["image_id"].tolist() == ["i0", "i1", "i0"]


@pytest.mark.parametrize(
    ("hospitals", "column", "message"),
    [
        (["a", "b"], "clinic", "there is no column 'clinic'"),
        (["a", None], "hospital", "image i1: column hospital: blank"),
        (["a", "b", "c"], "hospital", r"names 3 sites \(a, b, c\), and there are 2 processes"),
        ([], "process", "process 0 has no training row"),
    ],
)
def test_sites_that_do_not_fit_are_one_line(monkeypatch, hospitals, column, message):
    monkeypatch.setattr(sites, "world", lambda: (0, 2))
    with pytest.raises(UserError, match=message):
        site_rows(table(hospitals), column)


def test_recipes_that_do_not_go_with_sites_are_refused():
    for fields, message in (
        (dict(loss="ce"), "takes loss='aucm' or 'aucs'"),
        (dict(dual="closed_form"), "dual='sgd'"),
        (dict(momentum=0.9), "takes no momentum"),
        (dict(first_stage=3), "takes no momentum, first_stage"),
        (dict(dual_lr=0.1), "no dual_lr"),
        (dict(site_steps=0), "site_steps=0"),
    ):
        with pytest.raises(UserError, match=message):
            Finetune(site_column="hospital", **fields)
    with pytest.raises(UserError, match="site_control needs a site_column"):
        Finetune(site_control=True)
    recipe = Finetune(site_column="hospital")
    with pytest.raises(UserError, match="is for networks on images"):
        Metadata(finetune=recipe)
    apart = dict(network="x", size=64, finetune=recipe)
    with pytest.raises(UserError, match="give pretrain epochs=0"):
        Run(pretrain=Pretrain(lr=1), **apart)
    with pytest.raises(UserError, match="leave ema out"):
        Run(pretrain=Pretrain(lr=1, epochs=0), ema=0.9, **apart)
    assert Run(pretrain=Pretrain(lr=1, epochs=0), **apart).smoke().pretrain.epochs == 0


def test_checkpoints_of_different_steps_are_named(monkeypatch):
    monkeypatch.setattr(sites, "extremes_of", lambda _: (3, 7))
    with pytest.raises(UserError, match="are of steps 3 to 7"):
        sites.require_same_step(3)
