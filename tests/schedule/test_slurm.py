"""A competition through a real Slurm equals the one made without, bit for bit, whatever happens to
its jobs: submitted twice, requeued, preempted, their node lost, at their time limit, cancelled, on
a full disk, failed."""

import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.runtime.claims import claim_path, owner_of
from pipeline.core.schedule import slurm
from pipeline.core.schedule.graph import Step
from pipeline.core.schedule.site import Site
from tests.cases import mounts
from tests.cases.faults import copied, leftovers
from tests.cases.scheduled import FOLD, made, make, times_trained

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

FINETUNED = ("models/melanoma/b3_256/fold*/finetuned*", "models/melanoma/b3_256/fold*/predictions*")
FINETUNE = "finetune melanoma/b3_256/fold0"
CHECKPOINT = f"{FOLD}/finetuned.checkpoint.safetensors"


@pytest.fixture(autouse=True)
def known(cluster, monkeypatch):
    """Every program that a test starts finds this Slurm."""
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)


def ended(cluster) -> bool:
    return not cluster.jobs()


def wait_for_end(cluster) -> None:
    cluster.wait_until(lambda: ended(cluster), "jobs are left")


def wait_for_hold(cluster, name: str) -> None:
    held = ("squeue", "-h", "-o", "%Q", f"--name={name}")
    cluster.wait_until(lambda: cluster.command(*held) == "0", f"{name}: not held")


def begin_finetune(cluster, home: Path, **more: str) -> int:
    """Submit stage 2 of fold 0 anew and stop its process when it has a checkpoint, or it might have
    ended before the harm is done; the process. SIGCONT, which Slurm sends before SIGTERM, lets it
    go on."""
    make(home, "forget", "STAGE=finetune", "FOLDS=0")
    make(home, "predict", "FOLDS=0", "ON=slurm", **more)
    cluster.wait_until((home / CHECKPOINT).exists, "no checkpoint", pause=0.005)
    # The owner of the claim.
    stage = owner_of(claim_path(home / FOLD / "finetuned.safetensors"))["pid"]
    os.kill(stage, signal.SIGSTOP)
    return stage


def test_a_competition_through_slurm_is_the_local_one(cluster, house, tmp_path):
    """Its images prepared by two jobs of an array; submitted once more while it runs, and once when
    all is made."""
    site = tmp_path / "site.toml"
    site.write_text("[prepare]\njobs = 2\n")
    report = ("report", "K=2", "ON=slurm", f"SITE={site}")
    shutil.copytree(house / "data/melanoma/raw", tmp_path / "data/melanoma/raw")
    first = make(tmp_path, *report).splitlines()
    # prepare, folds, three stages of two folds, metadata, ensemble, submit, report
    assert len(first) == 2 + 3 * 2 + 1 + 3

    pretrained = list((tmp_path / "models").glob("*/*/*/pretrained.safetensors"))
    assert not pretrained
    cluster.wait_until((tmp_path / FOLD / "pretrained.safetensors").exists, "no weights")
    again = make(tmp_path, *report).splitlines()
    assert again and all(line.endswith(" already") for line in again), again

    wait_for_end(cluster)
    assert make(tmp_path, *report) == ""
    assert made(tmp_path) == made(house)
    assert set(times_trained(tmp_path).values()) == {1}
    assert not leftovers(tmp_path)


def test_a_requeued_job_goes_on(cluster, house, home):
    begin_finetune(cluster, home)
    cluster.command("scontrol", "requeue", cluster.number(FINETUNE))
    wait_for_end(cluster)
    assert "goes on" in (home / FOLD / "finetune.log").read_text()
    assert made(home, FINETUNED) == made(house, FINETUNED)
    assert not leftovers(home)


def test_a_cancelled_job_has_a_checkpoint_and_goes_on(cluster, house, home):
    begin_finetune(cluster, home)
    assert "2 jobs cancelled" in make(home, "cancel")
    wait_for_end(cluster)
    assert (home / CHECKPOINT).exists() and not (home / FOLD / "finetuned.safetensors").exists()
    assert "stopped:" in (home / FOLD / "finetune.log").read_text()
    make(home, "predict", "FOLDS=0", "ON=slurm")
    wait_for_end(cluster)
    assert made(home, FINETUNED) == made(house, FINETUNED)


def test_a_job_on_a_lost_node_is_done_once(cluster, house, home):
    """The node is lost to Slurm, while what it ran runs on: the second job finds its claim."""
    stage = begin_finetune(cluster, home)
    node = cluster.command("squeue", "-h", "-o", "%N", f"--name={FINETUNE}")
    cluster.stop_node(node)
    restarted = f"scontrol show job {cluster.number(FINETUNE)}".split()
    cluster.wait_until(lambda: "Restarts=1" in cluster.command(*restarted), "not requeued")
    os.kill(stage, signal.SIGCONT)
    wait_for_end(cluster)
    cluster.start_node(node)
    assert made(home, FINETUNED) == made(house, FINETUNED)
    assert times_trained(home)["fold0 finetune"] == 1
    assert not leftovers(home)


def test_a_job_at_its_time_limit_is_requeued(cluster, house, home, tmp_path):
    """Of two minutes; Slurm gives notice of 30 s, or up to a minute more, when imports are over."""
    site = tmp_path / "site.toml"
    site.write_text('[finetune]\ntime = "2"\nnotice = 30\n')
    stage = begin_finetune(cluster, home, SITE=str(site))
    cluster.wait_until(lambda: signal.SIGTERM in pending_signals(stage), "no notice")
    os.kill(stage, signal.SIGCONT)
    wait_for_end(cluster)
    assert "stopped:" in (home / FOLD / "finetune.log").read_text()
    assert made(home, FINETUNED) == made(house, FINETUNED)


def test_a_preempted_job_goes_on(cluster, house, home):
    """Asked to make room for another it writes a checkpoint, and begins again after that one."""
    begin_finetune(cluster, home)
    node = cluster.command("squeue", "-h", "-o", "%N", f"--name={FINETUNE}")
    urgent = ("--partition=urgent", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 1")
    cluster.command("sbatch", "--job-name=urgent", *urgent)
    wait_for_end(cluster)
    assert "stopped:" in (home / FOLD / "finetune.log").read_text()
    assert made(home, FINETUNED) == made(house, FINETUNED)
    assert times_trained(home)["fold0 finetune"] == 1
    assert not leftovers(home)


@pytest.fixture(scope="module")
def two_processes(house, tmp_path_factory) -> dict:
    """Stage 2 of fold 0 by two processes of this machine, without Slurm."""
    home = copied(house, tmp_path_factory.mktemp("two") / "home")
    make(home, "forget", "STAGE=finetune", "FOLDS=0")
    make(home, "predict", "FOLDS=0", "GPUS=2")
    return made(home, FINETUNED)


@pytest.mark.parametrize("words", [("GPUS=2",), ("GPUS=1", "NODES=2")], ids=" ".join)
def test_two_processes_of_a_fold(cluster, two_processes, home, words):
    """On one node and on two: what two processes without Slurm make."""
    make(home, "forget", "STAGE=finetune", "FOLDS=0")
    make(home, "predict", "FOLDS=0", "ON=slurm", *words)
    wait_for_end(cluster)
    assert made(home, FINETUNED) == two_processes


@pytest.mark.skipif(not mounts.permitted(), reason="this user may not mount")
def test_a_full_disk_is_held_and_said(cluster, house, home):
    """Of the fold's folder: there is no room for a checkpoint until it has been made larger."""
    make(home, "forget", "STAGE=finetune", "FOLDS=0")
    with mounts.disk_for_all(home / FOLD, 256 * 1024):
        make(home, "predict", "FOLDS=0", "ON=slurm")
        wait_for_hold(cluster, FINETUNE)
        status = make(home, "status")
        assert "No space left on device" in status and " held; " in status, status

        mounts.resize_disk(home / FOLD, 64 * 1024 * 1024)
        assert "released" in make(home, "predict", "FOLDS=0", "ON=slurm")
        wait_for_end(cluster)
        assert made(home, FINETUNED) == made(house, FINETUNED)
        assert not leftovers(home)


def test_a_failed_job_is_held_and_said_until_it_is_mended(cluster, house, home):
    """A damaged image: what waits for it goes on waiting."""
    images = pd.read_csv(home / "data/melanoma/images.csv", dtype=str)
    name = images.loc[images["split"] == "train", "image_id"].iloc[0]
    (image,) = home.glob(f"data/melanoma/images/*/{name}.jpg")
    whole = image.read_bytes()
    image.write_bytes(whole[:-10])
    make(home, "forget", "STAGE=pretrain", "FOLDS=0 1")
    make(home, "predict", "ON=slurm")
    wait_for_hold(cluster, "pretrain melanoma/b3_256/fold0")
    status = make(home, "status")
    assert f"{image}: {len(whole) - 10:,} bytes" in status, status
    assert " held; " in status and "waiting" in status

    image.write_bytes(whole)
    assert "released" in make(home, "predict", "ON=slurm")
    wait_for_end(cluster)
    assert made(home, FINETUNED) == made(house, FINETUNED)


def test_two_hundred_tiny_jobs(cluster, tmp_path, monkeypatch):
    """In chains of two: each is run once, after the one that it waits for."""
    monkeypatch.setenv("MODELS", str(tmp_path))
    done = tmp_path / "done"
    words = ["sh", "-c", f'echo "$0" >> {done}']
    monkeypatch.setattr(slurm, "command_of", lambda step, *_: [*words, step.name])
    steps = []
    for number in range(100):
        first = Step("pretrain", (f"melanoma/tiny/fold{number}",))
        steps += [first, Step("finetune", first.arguments, (first.name,))]
    began = time.monotonic()
    slurm.submit_steps("melanoma", steps, Site())
    submitted = time.monotonic() - began
    wait_for_end(cluster)
    print(f"200 jobs: {submitted:.1f} s to submit, {time.monotonic() - began:.1f} s to the end")

    names = done.read_text().splitlines()
    assert sorted(names) == sorted(step.name for step in steps)
    assert all(names.index(step.after[0]) < names.index(step.name) for step in steps if step.after)


def pending_signals(process: int) -> set[int]:
    """The signals that a stopped process has not taken yet."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    mask = 0
    for line in lines:
        if line.startswith(("SigPnd:", "ShdPnd:")):
            mask |= int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}
