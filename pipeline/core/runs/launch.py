"""Which folds this process makes: one after the other, each by one launcher, however many share the
disk."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline.core.runs.job import Job, jobs
from pipeline.core.runtime.claims import attempts
from pipeline.core.runtime.command import Stop, stop_gently, time_left
from pipeline.core.runtime.device import agree, from_main, is_main, start_processes
from pipeline.core.runtime.errors import TimeLimitReached

DONE = "all stand"


def fold_jobs(targets: list[str], artifact: str, metadata: bool = False) -> Iterator[Job]:
    """Yield the folds whose `artifact` this process is to make, until all of them stand."""
    start_processes()
    stop_gently()
    found = jobs(targets, artifact, metadata)
    with closing(shared(list(found))) as paths:
        for path in paths:
            yield found[path]


def shared(paths: list[Path]) -> Iterator[Path]:
    """`unfinished` of the main process, told to every process of the group.

    While there is nothing to make, all of them hear so every POLL seconds: one that waited longer
    would run into the group's timeout. TimeLimitReached between two folds when time is up or a stop
    was asked for.
    """
    with closing(attempts(paths)) as mine:
        while True:
            path = from_main(next(mine, DONE) if is_main() else None)
            if path == DONE:
                return
            if agree(Stop.requested or time_left() < 0):
                raise TimeLimitReached(
                    "stopped between folds; the same command goes on with those that are left"
                )
            if path is not None:
                yield path
