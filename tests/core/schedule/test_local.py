"""Steps packed onto a machine: the slots, the order, what follows a failure, stopping."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule import local
from pipeline.core.schedule.graph import Step
from pipeline.core.schedule.local import Slot, make_slots, run_steps
from pipeline.core.schedule.logs import last_line
from tests.cases.imports import ROOT


def test_cores_are_shared_out_among_the_folds():
    assert make_slots([0, 1, 2, 3], [], folds=2) == [Slot((0, 1)), Slot((2, 3))]
    assert make_slots([4, 5], [], folds=9) == [Slot((4,)), Slot((5,))]
    assert make_slots([0, 1, 2, 3], [], folds=9, processes=2) == [Slot((0, 1)), Slot((2, 3))]
    assert make_slots([0, 1, 2], [], folds=0) == [Slot((0, 1, 2))]


def test_a_slot_is_a_gpu_or_a_part_or_several(monkeypatch):
    cores = list(range(8))
    two = [Slot((0, 1, 2, 3), ("0",)), Slot((4, 5, 6, 7), ("1",))]
    assert make_slots(cores, ["0", "1"], folds=1) == two
    assert make_slots(cores, ["0", "1", "2"], folds=9, processes=2) == [
        Slot(tuple(cores), ("0", "1"))
    ]
    monkeypatch.setenv("PER_GPU", "2")
    parts = make_slots(cores, ["0", "1"], folds=9)
    assert [slot.gpus for slot in parts] == [("0",), ("0",), ("1",), ("1",)]
    assert [slot.cores for slot in parts] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    monkeypatch.setenv("PER_GPU", "9")
    assert {slot.cores for slot in make_slots([0, 1], ["0"], folds=9)} == {(0,), (1,)}
    with pytest.raises(UserError, match="GPUS=2: there are 1 here"):
        make_slots(cores, ["0"], folds=1, processes=2)


def test_a_pipe_for_a_log_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS", str(tmp_path))
    step = Step("pretrain", ("melanoma/b3_256/fold0",))
    step.log.parent.mkdir(parents=True)
    os.mkfifo(step.log)
    with pytest.raises(UserError, match="is a pipe"):
        local.start_step(step, Slot((0,)))


def chains(folds: int) -> list[Step]:
    """pretrain and finetune of each fold, and an ensemble after all."""
    steps = []
    for number in range(folds):
        first = Step("pretrain", (f"melanoma/b3_256/fold{number}",))
        steps += [first, Step("finetune", first.arguments, (first.name,))]
    last = tuple(step.name for step in steps[1::2])
    return [*steps, Step("ensemble", ("melanoma",), last)]


def run(steps, slots, status_of=lambda _: 0):
    """Run with processes that end at once; (names in the order of their start, exit statuses)."""
    started = []

    def start(step, _slot):
        started.append(step.name)
        return subprocess.Popen(["sh", "-c", f"exit {status_of(step)}"])

    return started, run_steps(steps, slots, start)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(local, "LOOK", 0.01)


def test_each_is_run_once_after_what_it_waits_for():
    steps = chains(3)
    started, ended = run(steps, [Slot((0,)), Slot((1,))])
    assert sorted(started) == sorted(step.name for step in steps)
    assert set(ended.values()) == {0}
    for step in steps:
        assert all(started.index(name) < started.index(step.name) for name in step.after)


def test_one_slot_ends_fold_by_fold():
    steps = chains(2)
    started, _ = run(steps, [Slot((0,))])
    assert started == [step.name for step in steps]


@pytest.mark.parametrize("status", [2, 75])
def test_after_a_failure_only_what_waits_for_it_is_left(status):
    steps = chains(2)
    first = steps[0].name
    started, ended = run(steps, [Slot((0,))], lambda step: status if step.name == first else 0)
    assert started == [first, "pretrain melanoma/b3_256/fold1", "finetune melanoma/b3_256/fold1"]
    assert ended[first] == status


STOPPED = """
import signal, subprocess, sys
from pathlib import Path
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.schedule import local
from pipeline.core.schedule.graph import Step

folder = Path(sys.argv[1])
CHILD = '''
import signal, sys, time
def stop(*_):
    print("checkpoint", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
'''
local.command_of = lambda step, _: [sys.executable, "-c", CHILD]
local.gpus_here = lambda: ["0", "1"]
steps = [Step("pretrain", (f"melanoma/x/fold{number}",)) for number in range(3)]
sys.argv = ["schedule"]
run_stage(lambda _: local.run_here(steps), stage_parser("", targets=False))
"""


def test_a_stop_reaches_all_that_run_as_a_checkpoint(tmp_path):
    """As Ctrl-C does. Two of three run; the third does not begin."""
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"MODELS": str(tmp_path / "models"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    logs = [tmp_path / f"models/melanoma/x/fold{number}/pretrain.log" for number in range(3)]
    while not all(log.exists() and "ready" in log.read_text() for log in logs[:2]):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    assert "stopped; the same command goes on" in printed
    assert [log.read_text() for log in logs[:2]] == ["ready\ncheckpoint\n"] * 2
    assert not logs[2].exists()


def test_the_last_line_of_a_log(tmp_path):
    log = tmp_path / "x.log"
    assert last_line(log) == ""
    log.write_text("a\nerror: x: no room\nslurmstepd: error: *** JOB 1 CANCELLED ***\n\n")
    assert last_line(log) == "error: x: no room"
    log.write_text("0 %\r50 %\r100 %")
    assert last_line(log) == "100 %"
    log.write_bytes(b"x" * 100_000 + b"\nend \xff\n")
    assert last_line(log).startswith("end")
