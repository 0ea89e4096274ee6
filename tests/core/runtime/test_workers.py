"""The pool survives what its workers do not."""

import os
import signal
import time

import numpy as np
import pytest

from pipeline.core.runtime import workers
from pipeline.core.runtime.workers import WORKER_MEMORY, WorkerDied, worker_pool


def work(task: tuple[str, int], factor: int) -> int:
    """Does what the task says: answer, die, stall, or ask for too much memory."""
    what, value = task
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "stall":
        time.sleep(60)
    if what == "memory":
        try:
            return len(np.ones(2 * WORKER_MEMORY, np.uint8))
        except MemoryError:
            return -1
    return value * factor


def test_every_task_is_answered_once():
    tasks = [("work", i) for i in range(500)]
    with worker_pool(3, work, 7) as run:
        for part in (tasks[:10], tasks[10:], []):
            assert dict(run(part)) == {task: 7 * task[1] for task in part}


@pytest.mark.parametrize(
    "what, why", [("die", "SIGKILL"), ("exit", "exit 3"), ("stall", "more than 1 s")]
)
def test_a_worker_that_dies_costs_its_task_alone(what, why):
    tasks = [("work", i) for i in range(20)]
    tasks[4] = (what, 4)
    with worker_pool(2, work, 2, limit=1.0) as run:
        answers = dict(run(tasks))
    assert isinstance(answers.pop(tasks[4]), WorkerDied) or pytest.fail(
        "the task that ended its worker has an answer"
    )
    assert answers == {task: 2 * task[1] for task in tasks if task[0] == "work"}
    with worker_pool(1, work, 2, limit=1.0) as run:
        assert why in str(next(iter(run([tasks[4]])))[1])


def test_memory_is_bounded():
    with worker_pool(1, work, 1) as run:
        assert dict(run([("memory", 0), ("work", 5)])) == {("memory", 0): -1, ("work", 5): 5}


def allocated(size: int) -> bool:
    """Whether this process may have so many bytes more."""
    try:
        return bool(len(np.ones(size, np.uint8)))
    except MemoryError:
        return False


def test_what_the_parent_holds_does_not_count(monkeypatch):
    monkeypatch.setattr(workers, "WORKER_MEMORY", 128 << 20)
    held = np.ones(512 << 20, np.uint8)
    with worker_pool(1, allocated) as run:
        assert dict(run([32 << 20, 256 << 20])) == {32 << 20: True, 256 << 20: False}
    assert held.size == 512 << 20


def test_no_worker_outlives_the_block():
    with worker_pool(2, os_pid) as run:
        pids = [pid for _, pid in run([0, 1, 2, 3])]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def os_pid(_task: int) -> int:
    return os.getpid()
