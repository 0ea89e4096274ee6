"""A process pool that survives crashed or stalled workers: a task that kills or stalls its worker
costs that task alone.

concurrent.futures gives up on everything when one worker dies, and cannot end a call into C that
never returns.
"""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from pipeline.core.runtime.command import leave_signals_to_the_parent

# Tasks handed to a worker: one in hand, one waiting, so that it never waits for the parent.
DEPTH = 2
# Bytes a worker may allocate; beyond, it sees a MemoryError rather than the machine a full memory.
WORKER_MEMORY = 4 << 30


def usable_cores() -> list[int]:
    """The numbers of the CPU cores that this process may use."""
    # Only Linux knows of a process that may use some of the machine's cores, as a job's does.
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class WorkerDied(Exception):
    """The worker died or was ended; the message says how."""


@dataclass
class Worker:
    """A process, our end of its pipe, and the tasks it holds, oldest first.

    since  when it began the oldest of them, by the monotonic clock
    """

    process: BaseProcess
    pipe: Connection
    tasks: deque = field(default_factory=deque)
    since: float = 0.0


@contextmanager
def worker_pool(count: int, work: Callable, *setup, limit: float = 120.0) -> Iterator[Callable]:
    """Give a function run(tasks) that yields (task, work(task, *setup)) in the order tasks end,
    over `count` processes.

    (task, WorkerDied) is yielded for a task that took its worker with it. work, setup and tasks are
    picklable; limit: seconds a task may take.
    """
    workers = [start(work, setup) for _ in range(count)]
    try:
        yield partial(run_in_workers, workers, work, setup, limit)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


def run_in_workers(
    workers: list[Worker], work: Callable, setup: tuple, limit: float, tasks: Iterable
) -> Iterator[tuple]:
    """The results of `worker_pool`, which explains the arguments."""
    waiting = iter(tasks)
    again: deque = deque()
    while True:
        # Every worker gets its tasks, those of dead workers first.
        for worker in workers:
            feed(worker, waiting, again)
        busy = [worker for worker in workers if worker.tasks]
        if not busy:
            return

        # Results, or a second without any, which is how often stalled workers are looked for.
        open_pipes = [worker.pipe for worker in busy if not worker.pipe.closed]
        ready = set(wait(open_pipes, timeout=1.0))
        for place, worker in enumerate(workers):
            if worker.pipe in ready:
                yield from collect(worker)
            stalled = time.monotonic() - worker.since > limit
            if worker.tasks and (worker.pipe.closed or stalled):
                # The oldest task is the one it died of; the others are given out again.
                yield worker.tasks.popleft(), end(worker, limit)
                again.extend(worker.tasks)
                workers[place] = start(work, setup)


def feed(worker: Worker, waiting: Iterator, again: deque) -> None:
    """Hand tasks to a worker until it holds DEPTH."""
    while len(worker.tasks) < DEPTH:
        task = again.popleft() if again else next(waiting, None)
        if task is None:
            return
        if not worker.tasks:
            worker.since = time.monotonic()
        worker.tasks.append(task)
        try:
            worker.pipe.send(task)
        except BrokenPipeError:
            worker.pipe.close()
            return


def collect(worker: Worker) -> Iterator[tuple]:
    """The results that have come; closes the pipe of a worker that is gone."""
    try:
        while worker.pipe.poll():
            result = worker.pipe.recv()
            worker.since = time.monotonic()
            yield worker.tasks.popleft(), result
    except (EOFError, ConnectionResetError):
        worker.pipe.close()


def end(worker: Worker, limit: float) -> WorkerDied:
    """End a worker that stalled or died; returns how it ended."""
    if not worker.pipe.closed:
        worker.process.kill()
        worker.process.join()
        return WorkerDied(f"took more than {limit:.0f} s")
    worker.process.join()
    code = worker.process.exitcode
    # multiprocessing's exit code of a process that a signal ended is minus the signal.
    how = signal.Signals(-code).name if code and code < 0 else f"exit {code}"
    return WorkerDied(f"the decoder died ({how})")


def start(work: Callable, setup: tuple) -> Worker:
    """A new worker, by fork on Linux: it starts in milliseconds, with everything imported and
    compiled."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(work, setup, theirs, ours), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def serve(work: Callable, setup: tuple, pipe: Connection, parents: Connection) -> None:
    """What a worker process does: a task, its result, the next, until the parent is gone."""
    # A fork has a copy of the parent's end, which would keep the pipe open after the parent's end.
    parents.close()
    leave_signals_to_the_parent()
    keep_memory()
    limit_memory()
    while True:
        try:
            pipe.send(work(pipe.recv(), *setup))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def limit_memory() -> None:
    """Let this process allocate WORKER_MEMORY bytes beyond what it has from the process that it was
    forked from, which may hold networks."""
    limit = held_memory() + WORKER_MEMORY
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def held_memory() -> int:
    """Bytes that count against the limit already; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


def keep_memory() -> None:
    """Let glibc reuse large blocks: to give each image's 72 MB back takes as long as to decode it
    (84, not 50 ms)."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # Parameters of malloc.h: no block from mmap; up to 256 MiB at the heap's top are kept.
        M_TRIM_THRESHOLD = -1
        M_MMAP_MAX = -4
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)
