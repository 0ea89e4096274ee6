"""Run a CodaLab bundle the way the organiser will, and compare with what was predicted at home.

    python -m pipeline.deploy.rehearsal.codalab chexpert

reads   submissions/<comp>/codalab/src (`make codalab`); data/<comp>/raw; models/<comp>/ensemble.csv
writes  nothing but a temporary folder

The bundle alone is copied into an empty folder, beside the images of the test list under the
organiser's paths, and runs in a fresh environment, without the network, images and bundle
read-only. Its predictions are checked and compared with the ensemble's, and the memory it took is
printed.
"""

import argparse
import csv
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.core.artifacts.paths import models_folder, raw_folder, submissions_folder
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.raw.read import read_source
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.organiser_file import fill, wanted
from pipeline.deploy.environments import CODALAB
from pipeline.deploy.package import megabytes, require_contents, require_current_package
from pipeline.deploy.rehearsal.compare import compare_with_home
from pipeline.deploy.rehearsal.isolation import (
    check_cut,
    clean_variables,
    cut_off,
    description,
    fresh_environment,
)
from pipeline.deploy.rehearsal.memory import run_measured

# The organiser's own names, and MB beside the weights that the bundle's README promises.
LIST = "valid_image_paths.csv"
PREDICTIONS = "predictions.csv"
MEMORY_ALLOWED_MB = 2000.0


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    bundle = submissions_folder(competition.name) / "codalab" / "src"
    if not (bundle / "predict.py").is_file():
        raise UserError(
            f"{bundle}: there is no bundle; `make codalab COMP={competition.name}` makes it"
        )
    require_current_package(bundle, competition, "codalab")
    require_contents(bundle.parent, f"make codalab COMP={competition.name}")

    # In a folder of the system's, so that nothing beside the bundle belongs to this project.
    with tempfile.TemporaryDirectory() as temporary:
        # The surroundings.
        work = Path(temporary) / "work"
        python = fresh_environment(Path(temporary) / "env", CODALAB)
        check_cut(python)
        shutil.copytree(bundle, work / "src")
        image_folders = write_inputs(competition, work)

        # The run.
        read_only = [(work / folder, work / folder) for folder in ("src", *image_folders)]
        command = cut_off([str(python), "src/predict.py", LIST, PREDICTIONS], read_only)
        status, peak = run_measured(command, work, clean_variables())
        if status:
            raise UserError(f"{bundle}: the rehearsal ended with status {status}")
        print(f"rehearsed with {description()}")

        # The judgement.
        want = wanted(first_test_rows(competition), competition.submission, competition.task)
        print(compare_with_home(work / PREDICTIONS, home_submission(competition), want))
        check_memory(peak, work / "src")


def write_inputs(competition: Competition, work: Path) -> list[str]:
    """Write the list, and the images of the test set under the organiser's paths; returns the top
    folders of these paths."""
    # From the raw download and not from the prepared images: the bundle resizes them itself.
    raw = raw_folder(competition.name)
    table = competition.module.read_raw(raw)
    test = table[table["split"] == "test"]
    paths = []
    for unit, file in zip(test["unit_id"], test["file"]):
        path = f"{unit}/{PurePosixPath(file).name}"
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(read_source(raw, file))
        paths.append(path)

    # The list has the paths and nothing else: no label, no sex, no age.
    with (work / LIST).open("w", newline="") as file:
        csv.writer(file).writerows([["Path"], *([path] for path in paths)])
    return sorted({PurePosixPath(path).parts[0] for path in paths})


def first_test_rows(competition: Competition) -> pd.DataFrame:
    """The organiser's file to fill in: the test set's units, in its order."""
    return competition.module.sample(raw_folder(competition.name))


def home_submission(competition: Competition) -> pd.DataFrame:
    """What `submit` would write."""
    path = models_folder(competition.name) / "ensemble.csv"
    scores = read_csv(path, ("unit_id", "split"), f"make ensemble COMP={competition.name}")
    test = scores[scores["split"] == "test"]
    return fill(first_test_rows(competition), test, competition.submission)


def check_memory(peak: float, source: Path) -> None:
    """Print how much memory (MB) the program took, or raise where it is more than promised."""
    # Twice the weights: a network is built, and then filled from a file that is in memory too.
    weights = megabytes(source.glob("*.safetensors"))
    report = f"memory: {peak:.0f} MB at most, {weights:.0f} MB of them networks"
    if peak > MEMORY_ALLOWED_MB + 2 * weights:
        raise UserError(f"{report}; promised are {MEMORY_ALLOWED_MB:.0f} MB beside the networks")
    print(report)


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("competition", metavar="COMPETITION")
    return options


if __name__ == "__main__":
    sys.exit(run_stage(main, parser()))
