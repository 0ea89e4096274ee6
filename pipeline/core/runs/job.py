"""What a training or prediction stage is asked for: folds of runs, the tables they need, and which
still lack what.

    python -m pipeline.core.runs.job finetuned.safetensors melanoma [--run b5_384 b6_512] [--folds 0
    1]

prints the targets that lack that artifact (the Makefile asks), having checked that those which
stand were made from today's tables. Needs no torch, so the answer takes half a second.
"""

import argparse
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.paths import fold_folder
from pipeline.core.artifacts.provenance import (
    made_from,
    require_hashes,
    table_hashes,
)
from pipeline.core.artifacts.tables import fold_numbers
from pipeline.core.config.competition import Competition, load
from pipeline.core.config.run import METADATA, Metadata, Run
from pipeline.core.config.target import Target, expand, parse_target
from pipeline.core.folds.audit import checked_tables
from pipeline.core.folds.split import training_rows, validation_rows
from pipeline.core.runtime.command import run_stage


@dataclass(frozen=True)
class Tables:
    """images.csv, folds.csv and the dropped images of one competition, with their hashes."""

    images: pd.DataFrame
    folds: pd.DataFrame
    dropped: pd.DataFrame
    hashes: dict[str, str]


@lru_cache(maxsize=4)
def tables(name: str) -> Tables:
    """Read a competition's tables once per process; a leak in them is a UserError that stops every
    stage."""
    return Tables(*checked_tables(load(name)), table_hashes(name))


@dataclass(frozen=True)
class Job:
    """One fold of one run: its configuration, tables and folder."""

    competition: Competition
    run: Run | Metadata
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
        return validation_rows(
            self.tables.images,
            self.tables.folds,
            self.tables.dropped,
            self.fold,
            self.competition.task,
        )

    def test(self) -> pd.DataFrame:
        """The rows of images.csv that are to be submitted."""
        return self.tables.images[self.tables.images["split"] == "test"]


def folds_of(targets: list[str]) -> dict[str, list[int]]:
    """The folds that folds.csv has, for every competition named in the targets."""
    names = {load(parse_target(text).competition).name for text in targets}
    return {name: fold_numbers(tables(name).folds) for name in names}


def jobs(targets: list[str], artifact: str, metadata: bool = False) -> dict[Path, Job]:
    """The artifact of every fold that the targets mean; UserError where one was made from other
    tables than today's."""
    found = {
        fold_folder(competition.name, member.name, fold) / artifact: Job(competition, member, fold)
        for competition, member, fold in expand(targets, folds_of(targets), metadata)
    }
    for path, job in found.items():
        if path.exists():
            require_hashes(path, made_from(path), job.tables.hashes)
    return found


def main(arguments: argparse.Namespace) -> None:
    metadata = arguments.run == [METADATA]
    targets = [
        str(Target(arguments.competition, run, fold))
        for run in arguments.run or [r.name for r in load(arguments.competition).runs]
        for fold in arguments.folds or [None]
    ]
    print(
        *(
            job.target
            for path, job in jobs(targets, arguments.artifact, metadata).items()
            if not path.exists()
        )
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("artifact")
    made.add_argument("competition")
    made.add_argument("--run", nargs="*", default=[])
    made.add_argument("--folds", nargs="*", type=int, default=[])
    return made


if __name__ == "__main__":
    run_stage(main, parser())
