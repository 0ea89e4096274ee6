"""A crew of processes that outlives its members: a task that kills or stalls its worker costs that
task alone.

concurrent.futures gives up on everything when one worker dies, and cannot end a call into C that
never returns.
"""

import ctypes
import multiprocessing
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

DEPTH = (
    2  # tasks handed to a worker: one in hand, one waiting, so that it never waits for the parent
)
MEMORY = (
    4 << 30
    # bytes a worker may allocate; beyond, Python sees a MemoryError rather than the machine a full
    # memory
)


class WorkerDied(Exception):
    """The worker died or was ended; the message says how."""


@dataclass
class Worker:
    """A process, our end of its pipe, and the tasks it holds, oldest first."""

    process: BaseProcess
    pipe: Connection
    tasks: deque = field(default_factory=deque)
    since: float = 0.0


@contextmanager
def crew_of(workers: int, work: Callable, *setup, limit: float = 120.0) -> Iterator[Callable]:
    """Give a function run(tasks) that yields (task, work(task, *setup)) in the order tasks end,
    over several processes.

    (task, WorkerDied) is yielded for a task that took its worker with it. work, setup and tasks are
    picklable; limit: seconds a task may take.
    """
    crew = [start(work, setup) for _ in range(workers)]
    try:
        yield partial(run, crew, work, setup, limit)
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()


def run(
    crew: list[Worker], work: Callable, setup: tuple, limit: float, tasks: Iterable
) -> Iterator[tuple]:
    """See `crew_of`."""
    waiting, again = iter(tasks), deque()
    while True:
        for worker in crew:
            feed(worker, waiting, again)
        busy = [worker for worker in crew if worker.tasks]
        if not busy:
            return
        ready = set(wait([worker.pipe for worker in busy if not worker.pipe.closed], timeout=1.0))
        for place, worker in enumerate(crew):
            if worker.pipe in ready:
                yield from collect(worker)
            if worker.tasks and (worker.pipe.closed or time.monotonic() - worker.since > limit):
                yield worker.tasks.popleft(), lost(worker, limit)
                again.extend(worker.tasks)
                crew[place] = start(work, setup)


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


def lost(worker: Worker, limit: float) -> WorkerDied:
    """End a worker; how it ended."""
    if not worker.pipe.closed:
        worker.process.kill()
        worker.process.join()
        return WorkerDied(f"took more than {limit:.0f} s")
    worker.process.join()
    code = worker.process.exitcode
    return WorkerDied(
        f"the decoder died ({signal.Signals(-code).name if code and code < 0 else f'exit {code}'})"
    )


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
    """A worker's life: a task, its result, the next, until the parent is gone. Ctrl-C is the
    parent's business."""
    parents.close()  # a fork has a copy, which would keep the pipe open after the parent's end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    while True:
        try:
            pipe.send(work(pipe.recv(), *setup))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def keep_memory() -> None:
    """Let glibc reuse large blocks: to give each picture's 72 MB back takes as long as to decode it
    (84, not 50 ms)."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 256 << 20)
