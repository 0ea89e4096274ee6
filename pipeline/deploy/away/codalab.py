"""What `src/predict.py` of a CodaLab bundle runs: one row a study for the pictures in a list.

    python src/predict.py valid_image_paths.csv predictions.csv

reads   the list: a CSV with a column Path; the pictures, relative to the working folder or to the
        list; the package beside predict.py. Nothing is written but the predictions
writes  Study and a column a label, one row a study, in the list's order

The view is read from the file's name; patient columns are not there and count as missing. Pictures
come in chunks, so memory is that of the networks and some 1.5 GB whatever their number. A GPU is
used where there is one.
"""

import argparse
import csv
import sys
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import load
from pipeline.core.config.task import Task
from pipeline.core.runtime.command import run_stage, time_left
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.away.combine import combine
from pipeline.deploy.away.stream import (
    Scores,
    image_members,
    patients,
    pictures_for,
    quantiles,
    read_package,
    stream,
    tell_unreadable,
)

PROBED = 100  # paths tried to find the folder that they are relative to


def main(arguments: argparse.Namespace) -> None:
    package = arguments.package
    about = read_package(package)
    competition = load(about["competition"])
    paths = read_paths(arguments.list)
    rows, raw = picture_rows(paths, competition.task), base_folder(paths, arguments.list)
    scores, members = Scores(), image_members(package, about)
    patients(package, about, rows, scores)
    if paths:
        stream(members, pictures_for(members, raw, rows["file"]), time_left, scores)
    tell_unreadable(scores)
    if paths and len(scores.unreadable) == len(paths):
        raise UserError(
            f"{arguments.list}: none of its {len(paths)} pictures can be read below {raw}; the "
            "first: "
            f"{scores.unreadable[0]}"
        )
    units = combine(
        about, quantiles(package), rows, scores.made, competition.task, scores.unreadable
    )
    names = {"unit_id": competition.submission.id_column, **competition.submission.columns}
    write_csv(arguments.predictions, units.rename(columns=names))
    print(f"{arguments.predictions}: {len(units)} studies of {len(paths)} pictures")


def parser(package: Path) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("list", type=Path, help="CSV with a column Path")
    made.add_argument("predictions", type=Path, help="where to write")
    made.set_defaults(package=package)
    return made


def read_paths(path: Path) -> list[str]:
    """The Path column, blank lines left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "Path" not in (reader.fieldnames or ()):
                raise UserError(f"{path}: there is no column Path in its first row")
            return [row["Path"].strip() for row in reader if row["Path"] and row["Path"].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None


def picture_rows(paths: list[str], task: Task) -> pd.DataFrame:
    """A row a picture: file, study (the folder it is in) and view (from `view1_frontal.jpg`;
    frontal where unknown)."""
    rows = pd.DataFrame({"file": paths}, dtype="str")
    rows["unit_id"] = rows["file"].str.rpartition("/")[0]
    if task.view:
        rows[task.view] = (
            rows["file"]
            .str.lower()
            .str.contains("lateral")
            .map({True: "Lateral", False: "Frontal"})
        )
    return rows


def base_folder(paths: list[str], listed: Path) -> Path:
    """The folder that the paths are relative to: the working folder, or that of the list."""
    for folder in (Path.cwd(), listed.resolve().parent):
        if any((folder / path).is_file() for path in paths[:PROBED]):
            return folder
    return Path.cwd()


def run(package: Path) -> None:
    """The entry of src/predict.py."""
    sys.exit(run_stage(main, parser(package)))
