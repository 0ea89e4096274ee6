"""What becomes of a job, by how its stage ends: job.sh with a Slurm that only writes down what it
is asked."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.core.schedule.slurm import JOB_SCRIPT

# Says that it runs, and what a signal makes of it.
STAGE = "trap 'echo asked; exit {status}' TERM; echo begun; while :; do sleep 0.05; done"


@pytest.fixture
def begin(tmp_path):
    """A function that starts the script on a stage's shell text; the job is in this state."""

    def start(stage: str, state: str = "RUNNING", notice: int = 120) -> subprocess.Popen:
        programs = {"squeue": f"echo {state}", "scontrol": f'echo "$@" >> {tmp_path}/asked'}
        for name, text in programs.items():
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        return subprocess.Popen(
            ["bash", str(JOB_SCRIPT), str(notice), "sh", "-c", stage],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def asked(folder: Path) -> str:
    """What scontrol was asked, "" for nothing."""
    path = folder / "asked"
    return path.read_text().strip() if path.exists() else ""


@pytest.mark.parametrize(
    ("status", "state", "expected"),
    [
        (0, "RUNNING", ""),
        (75, "RUNNING", "requeue 7"),
        (130, "RUNNING", "requeue 7"),
        (143, "RUNNING", "requeue 7"),
        (2, "RUNNING", "requeuehold 7"),
        (137, "RUNNING", "requeuehold 7"),
        (75, "COMPLETING", ""),
        (2, "CANCELLED", ""),
    ],
)
def test_by_the_status_of_its_stage(begin, tmp_path, status, state, expected):
    assert begin(f"exit {status}", state).wait(timeout=20) == status
    assert asked(tmp_path) == expected


@pytest.mark.parametrize(("status", "expected"), [(75, "requeue 7"), (130, "requeuehold 7")])
def test_near_the_time_limit_the_stage_is_asked_to_stop(begin, tmp_path, status, expected):
    """With a checkpoint it goes back, without one it is held, and its log says why."""
    job = begin(STAGE.format(status=status))
    assert job.stdout.readline() == "begun\n"
    job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=20)
    assert printed.startswith("asked\n")
    assert ("error: the time limit ended this stage" in printed) == (status == 130)
    assert asked(tmp_path) == expected


def test_a_preempted_stage_without_a_checkpoint_goes_back(begin, tmp_path):
    """squeue answers with the time of it."""
    job = begin(STAGE.format(status=130), '$(test "$5" = %T && echo RUNNING || echo 2026-01-01)')
    assert job.stdout.readline() == "begun\n"
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 130
    assert asked(tmp_path) == "requeue 7"


def test_a_stage_that_does_not_stop_is_held_before_the_limit(begin, tmp_path):
    """A quarter of the notice before it."""
    job = begin("trap '' TERM; echo begun; while :; do sleep 0.05; done", notice=4)
    assert job.stdout.readline() == "begun\n"
    job.send_signal(signal.SIGUSR1)
    while not asked(tmp_path):
        assert job.poll() is None
        time.sleep(0.05)
    assert asked(tmp_path) == "requeuehold 7"
    os.killpg(job.pid, signal.SIGKILL)


def test_a_job_that_is_cancelled_lets_its_stage_end(begin, tmp_path):
    """Slurm asks both, and decides itself what becomes of it."""
    job = begin(STAGE.format(status=75), "COMPLETING")
    assert job.stdout.readline() == "begun\n"
    job.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert job.poll() is None
    (stage,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    os.kill(int(stage), signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert asked(tmp_path) == ""
