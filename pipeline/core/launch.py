"""Which folds this process makes: one after the other, each by one launcher, however many share the disk."""
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline.core.claims import unfinished
from pipeline.core.command import stop_gently
from pipeline.core.device import from_main, is_main, start_processes
from pipeline.core.jobs import Job, jobs


def fold_jobs(targets: list[str], artifact: str, metadata: bool = False) -> Iterator[Job]:
    """Yield the folds whose `artifact` this process is to make, until all of them stand."""
    start_processes()
    stop_gently()
    found = jobs(targets, artifact, metadata)
    with closing(shared(list(found))) as paths:
        for path in paths:
            yield found[path]


def shared(paths: list[Path]) -> Iterator[Path]:
    """`unfinished` of the main process, told to every process of the group."""
    mine = unfinished(paths) if is_main() else None
    while (path := from_main(next(mine, None) if mine else None)) is not None:
        yield path
