"""Predict as a CodaLab bundle: one row for each study of the images in a list.

    python src/predict.py valid_image_paths.csv predictions.csv

reads   the list: a CSV with a column Path; the images, relative to the working folder or to the
        list; the package beside predict.py
writes  Study and a column for each label, one row for each study, in the list's order; nothing else

The view is read from the file's name; there are no patient columns, which count as missing. Images
come in chunks, so memory is that of the networks and some 1.5 GB whatever their number. A GPU is
used where there is one.
"""

import argparse
import csv
import sys
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import load_competition
from pipeline.core.config.task import Task
from pipeline.core.runtime.command import run_stage, time_left
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.away.combine import combine_runs
from pipeline.deploy.away.stream import (
    Progress,
    load_scorers,
    print_unreadable,
    raw_images,
    read_package,
    read_quantiles,
    score_metadata,
    stream,
    units_together,
)

PROBED = 100  # paths tried to find the folder that they are relative to


def main(arguments: argparse.Namespace) -> None:
    # The list is all there is: no sex, age or projection, as the organiser's list has Path alone.
    folder = arguments.package
    package = read_package(folder)
    competition = load_competition(package["competition"])
    paths = read_paths(arguments.list)
    rows = units_together(image_rows(paths, competition.task))
    raw = base_folder(paths, arguments.list)

    # Scores of every network.
    scores = Progress()
    scorers = load_scorers(folder, package)
    score_metadata(folder, package, rows, scores)
    if paths:
        images = raw_images(scorers, raw, rows["file"])
        stream(scorers, images, time_left, scores, units=rows["unit_id"].tolist())
    print_unreadable(scores)

    # One bad file gets a neutral score; all bad means a wrong folder, and no score would show it.
    if paths and len(scores.unreadable) == len(paths):
        none = f"none of its {len(paths)} images can be read below {raw}"
        raise UserError(f"{arguments.list}: {none}; the first: {scores.unreadable[0]}")

    # Scores of the studies, under the organiser's names.
    quantiles = read_quantiles(folder)
    task = competition.task
    units = combine_runs(package, quantiles, rows, scores.tables, task, scores.unreadable)
    names = {"unit_id": competition.submission.id_column, **competition.submission.columns}
    write_csv(arguments.predictions, units.rename(columns=names))
    print(f"{arguments.predictions}: {len(units)} studies of {len(paths)} images")


def read_paths(path: Path) -> list[str]:
    """The Path column, blank lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "Path" not in (reader.fieldnames or ()):
                raise UserError(f"{path}: there is no column Path in its first row")
            cells = [(row["Path"] or "").strip() for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    return [cell for cell in cells if cell]


def image_rows(paths: list[str], task: Task) -> pd.DataFrame:
    """One row for each image: file, study (the folder it is in) and view (from `view1_frontal.jpg`;
    frontal where unknown)."""
    rows = pd.DataFrame({"file": paths}, dtype="str")
    rows["unit_id"] = rows["file"].str.rpartition("/")[0]
    # Frontal where unknown, as 86 % of the training images are.
    if task.view:
        is_lateral = rows["file"].str.lower().str.contains("lateral")
        rows[task.view] = is_lateral.map({True: "Lateral", False: "Frontal"})
    return rows


def base_folder(paths: list[str], list_path: Path) -> Path:
    """The folder that the paths are relative to: the working folder, or that of the list."""
    # Some paths, since the first image may be the one that is missing.
    for folder in (Path.cwd(), list_path.resolve().parent):
        if any((folder / path).is_file() for path in paths[:PROBED]):
            return folder
    return Path.cwd()


def parser(package: Path) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("list", type=Path, help="CSV with a column Path")
    options.add_argument("predictions", type=Path, help="where to write")
    options.set_defaults(package=package)
    return options


def predict_submission(package: Path) -> None:
    """The entry of src/predict.py."""
    sys.exit(run_stage(main, parser(package)))
