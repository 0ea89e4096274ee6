"""A job: one fold of one run, with the tables it needs and the rows it trains on and validates."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import data_folder, fold_folder
from pipeline.core.artifacts.provenance import table_hashes
from pipeline.core.artifacts.tables import fold_numbers
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import Metadata, Run, fold_name
from pipeline.core.config.target_path import expand, parse_target
from pipeline.core.folds.audit import checked_tables
from pipeline.core.folds.split import training_images, validation_rows


@dataclass(frozen=True)
class Tables:
    """images.csv, folds.csv and the dropped images of one competition, with their hashes."""

    images: pd.DataFrame
    folds: pd.DataFrame
    dropped: pd.DataFrame
    hashes: dict[str, str]


def tables(competition: Competition) -> Tables:
    """A competition's tables, read once as long as they do not change; a leak in them is a
    UserError that stops every stage."""
    # Every job of a stage asks for them, and each answer would parse and check 400,000 rows again.
    # Named by content: should a table change while a stage runs, it is read again.
    folder = data_folder(competition.name)
    paths = [folder / f"{name}.csv" for name in ("images", "folds", "folds_dropped")]
    hashes = [file_hash(path) if path.is_file() else "" for path in paths]
    key = (competition.name, *hashes)
    if key not in READ:
        READ.clear()  # one competition at a time: 400,000 rows are 0.3 GB
        READ[key] = Tables(*checked_tables(competition), table_hashes(competition.name))
    return READ[key]


# What `tables` has read: (competition, a hash for each table) -> the tables.
READ: dict[tuple[str, ...], Tables] = {}


@dataclass(frozen=True)
class Job:
    """One fold of one run, or the network of all rows (fold ALL): its configuration, tables and
    folder."""

    competition: Competition
    run: Run | Metadata
    fold: int | str

    @property
    def target(self) -> str:
        return f"{self.competition.name}/{self.run.name}/{fold_name(self.fold)}"

    @property
    def folder(self) -> Path:
        return fold_folder(self.competition.name, self.run.name, self.fold)

    @property
    def tables(self) -> Tables:
        return tables(self.competition)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.competition.labels(self.run)

    def training(self) -> pd.DataFrame:
        """The rows of images.csv that train when this fold validates."""
        known = self.tables
        return training_images(known.images, known.folds, known.dropped, self.fold)

    def validation(self) -> pd.DataFrame:
        """The rows of images.csv that this fold validates."""
        known = self.tables
        task = self.competition.task
        return validation_rows(known.images, known.folds, known.dropped, self.fold, task)

    def test(self) -> pd.DataFrame:
        """The rows of images.csv that are to be submitted."""
        return self.tables.images[self.tables.images["split"] == "test"]


def folds_of(targets: list[str]) -> dict[str, list[int]]:
    """The folds that folds.csv has, for every competition named in the targets."""
    names = dict.fromkeys(parse_target(text).competition for text in targets)
    return {name: fold_numbers(tables(load_competition(name)).folds) for name in names}


def jobs_of(targets: list[str], metadata: bool = False) -> list[Job]:
    """The fold of every run that the targets mean, each once, in order."""
    return [Job(*parts) for parts in expand(targets, folds_of(targets), metadata)]
