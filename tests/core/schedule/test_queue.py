"""Slurm's queue as text made up here: read, submitted to, released, cancelled, shown."""

import pytest

from pipeline.core.config.competition import load_competition
from pipeline.core.runs.job import Job
from pipeline.core.schedule import slurm
from pipeline.core.schedule.graph import Step
from pipeline.core.schedule.site import Site
from pipeline.core.schedule.slurm import Queued, cancel_jobs, queue_of, submit_steps
from pipeline.core.schedule.states import hours_line, other_lines, scheduled_state

FOLD = "melanoma/b3_256/fold0"
# squeue's columns: number, state, priority, node, time left, reason, dependencies, name; a comment
# follows.
LINES = (
    f"7|RUNNING|90|node1|1:02:03|None|(null)|pretrain {FOLD}",
    f"8|PENDING|90||2:00:00|Dependency|afterok:7(unfulfilled)|finetune {FOLD}",
    "12|PENDING|90||1:00|Dependency|afterok:8(failed),afterok:5_*(failed)|submit melanoma",
    "5|RUNNING|90|node2|1:00|None|(null)|prepare melanoma",
    "5|PENDING|90||1:00|Resources|(null)|prepare melanoma",
    "9|PENDING|0||1:00|job requeued in held state|(null)|predict melanoma/b3_256/fold1",
    "10|COMPLETING|90|node1|1:00|None|(null)|folds melanoma",
)


class Slurm:
    """Answers squeue with these lines and numbers new jobs from 100 on; `calls` is what else was
    asked of it."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *words: str) -> str:
        if words[0] == "squeue":
            return "\n".join(self.lines)
        self.calls.append(words)
        return str(99 + len(self.calls)) if words[0] == "sbatch" else ""


@pytest.fixture
def faked(tmp_path, monkeypatch) -> Slurm:
    monkeypatch.setenv("MODELS", str(tmp_path / "mod|els"))
    mine = str(tmp_path / "mod|els/melanoma")
    others = ["1|RUNNING|90|node9|1:00|None|(null)|pretrain x|(null)", "2|PENDING|0||a|b|c|d|e"]
    fake = Slurm(*(f"{line}|{mine}" for line in LINES), *others)
    monkeypatch.setattr(slurm, "slurm", fake)
    return fake


@pytest.mark.usefixtures("faked")
def test_the_queue_is_read():
    queue = queue_of("melanoma")
    assert [job.number for job in queue.values()] == ["5", "7", "8", "9", "12"]
    assert queue["prepare melanoma"].state == "RUNNING"
    assert queue["predict melanoma/b3_256/fold1"].state == "HELD"
    assert queue["submit melanoma"].after == ("8", "5")
    first = f"pretrain {FOLD}"
    assert queue[first] == Queued(first, "7", "RUNNING", "node1", "1:02:03", "None")


def test_only_what_is_not_queued_is_submitted(faked, capsys):
    first = Step("pretrain", (FOLD,))
    second = Step("finetune", (FOLD,), (first.name,))
    third = Step("predict", (FOLD,), (second.name,))
    submit_steps("melanoma", [first, second, third], Site())
    (call,) = faked.calls
    assert call[0] == "sbatch" and f"--job-name={third.name}" in call
    assert "--dependency=afterok:8" in call
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"job 7: {first.name}: running already"
    assert printed[2] == f"job 100: {third.name}: after 8"


def test_a_held_job_is_released_after_what_it_now_waits_for(faked):
    first = Step("pretrain", ("melanoma/b3_256/fold1",))
    held = Step("predict", first.arguments, (first.name,))
    submit_steps("melanoma", [first, held], Site())
    assert [call[0] for call in faked.calls] == ["sbatch", "scontrol", "scontrol"]
    assert faked.calls[1][1:] == ("update", "JobId=9", "Dependency=afterok:100")
    assert faked.calls[2][1:] == ("release", "9")


def test_those_that_wait_are_cancelled_before_those_that_run(faked):
    assert len(cancel_jobs("melanoma")) == 5
    assert [call[1] for call in faked.calls] == ["8", "9", "12", "5", "7"]


@pytest.fixture
def job(tmp_path, monkeypatch) -> Job:
    monkeypatch.setenv("MODELS", str(tmp_path / "mod|els"))
    return Job(load_competition("melanoma"), load_competition("melanoma").runs[0], 0)


def test_what_status_says_of_a_stage(job, faked):
    """Named by the competition's first run, whichever it is."""
    faked.lines = tuple(line.replace("b3_256", job.run.name) for line in faked.lines)
    queue = queue_of("melanoma")
    state = scheduled_state(job, "pretrain", queue)
    assert state.word == "running"
    assert state.text.endswith("(job 7 on node1, 1:02:03 until its limit)")
    assert state.text.startswith("epoch 0 of ")
    state = scheduled_state(job, "finetune", queue)
    assert (state.word, state.text) == ("waiting", "")
    assert scheduled_state(job, "predict", queue).word == "missing"

    log = Step("predict", (job.target,)).log
    log.parent.mkdir(parents=True)
    log.write_text("error: no room\n")
    assert scheduled_state(job, "predict", queue).text == f"error: no room ({log})"
    log.write_text("stopped: time is up\n")
    assert scheduled_state(job, "predict", queue).word == "missing"
    assert hours_line([job]) == (
        "0 s of training steps so far, 0 s left, and 2 phases of unknown length"
    )


@pytest.mark.usefixtures("faked")
def test_jobs_without_a_cell_have_a_line(tmp_path):
    queue = queue_of("melanoma")
    lines = other_lines(queue, {f"pretrain {FOLD}"})
    log = tmp_path / "mod|els/melanoma/b3_256/fold1/predict.log"
    assert lines == [
        "prepare: running, job 5 on node2, 1:00 until its limit",
        f"predict melanoma/b3_256/fold1: failed, job requeued in held state (job 9 held; {log})",
        "submit: waiting, job 12: for 2 jobs, first finetune melanoma/b3_256/fold0",
        "jobs of other folds: 1 waiting",
    ]
