"""What a training or prediction stage is asked for: its folds, the tables they need, and who makes which.

Every stage calls `fold_jobs` and does one fold after the other; two launchers on one shared disk make each fold once.
"""
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from pipeline.core.claims import unfinished
from pipeline.core.command import stop_gently
from pipeline.core.competition import Competition, expand, load, parse_target
from pipeline.core.device import from_main, is_main, start_processes
from pipeline.core.membership import read_dropped, training_rows, validation_rows
from pipeline.core.recipes import Run
from pipeline.core.tables import (
    fold_folder,
    fold_numbers,
    read_folds,
    read_images,
    require_hashes,
    table_hashes,
)


@dataclass(frozen=True)
class Tables:
    """images.csv, folds.csv and the dropped images of one competition, with their hashes."""
    images: pd.DataFrame
    folds: pd.DataFrame
    dropped: pd.DataFrame
    hashes: dict[str, str]


@lru_cache(maxsize=4)
def tables(name: str) -> Tables:
    """Read a competition's tables once per process."""
    return Tables(read_images(name), read_folds(name), read_dropped(name), table_hashes(name))


@dataclass(frozen=True)
class Job:
    """One fold of one run: its configuration, tables and folder."""
    competition: Competition
    run: Run
    fold: int

    @property
    def target(self) -> str:
        return f"{self.competition.name}/{self.run.name}/fold{self.fold}"

    @property
    def folder(self) -> Path:
        return fold_folder(self.competition.name, self.run.name, self.fold)

    @property
    def tables(self) -> Tables:
        return tables(self.competition.name)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.competition.labels(self.run)

    def training(self) -> pd.DataFrame:
        """The rows of images.csv that train when this fold validates."""
        return training_rows(self.tables.images, self.tables.folds, self.tables.dropped, self.fold)

    def validation(self) -> pd.DataFrame:
        """The rows of images.csv that this fold validates."""
        return validation_rows(self.tables.images, self.tables.folds, self.tables.dropped, self.fold,
                               self.competition.task)

    def test(self) -> pd.DataFrame:
        """The rows of images.csv that are to be submitted."""
        return self.tables.images[self.tables.images["split"] == "test"]


def folds_of(targets: list[str]) -> dict[str, list[int]]:
    """The folds that folds.csv has, for every competition named in the targets."""
    names = {load(parse_target(text).competition).name for text in targets}
    return {name: fold_numbers(tables(name).folds) for name in names}


def fold_jobs(targets: list[str], artifact: str, made_from: Callable[[Path], dict]) -> Iterator[Job]:
    """Yield the folds whose `artifact` this process is to make, until all of them stand.

    An artifact that stands must be made from today's tables (`made_from` gives the hashes it carries), else UserError.
    """
    start_processes()
    stop_gently()
    jobs = {fold_folder(c.name, run.name, fold) / artifact: Job(c, run, fold)
            for c, run, fold in expand(targets, folds_of(targets))}
    for path, job in jobs.items():
        if path.exists():
            require_hashes(path, made_from(path), job.tables.hashes)
    with closing(shared(list(jobs))) as paths:
        for path in paths:
            yield jobs[path]


def shared(paths: list[Path]) -> Iterator[Path]:
    """`unfinished` of the main process, told to every process of the group."""
    mine = unfinished(paths) if is_main() else None
    while (path := from_main(next(mine, None) if mine else None)) is not None:
        yield path
