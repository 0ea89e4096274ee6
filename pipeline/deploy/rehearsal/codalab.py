"""Run a CodaLab bundle the way the organiser will, and compare with what was predicted at home.

    python -m pipeline.deploy.rehearsal.codalab chexpert

reads   submissions/<comp>/codalab/src (`make codalab`); data/<comp>/raw; models/<comp>/ensemble.csv
writes  nothing but a temporary folder

The bundle alone is copied into an empty folder, beside the pictures of the test list under the
organiser's paths, and runs in a fresh environment, without the network, pictures and bundle
read-only. Its predictions are checked and held against the ensemble's, and the memory it took is
told.
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
from pipeline.core.config.competition import Competition, load
from pipeline.core.raw.read import read_source
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.organiser_file import fill, wanted
from pipeline.deploy.rehearsal.compare import compare
from pipeline.deploy.rehearsal.isolation import (
    CODALAB_BASE,
    check_cut,
    clean_variables,
    cut_off,
    fresh_environment,
    how,
)
from pipeline.deploy.rehearsal.memory import run_measured

LIST, OUT = "valid_image_paths.csv", "predictions.csv"
MEMORY = 2000.0  # MB beside the networks


def main(arguments: argparse.Namespace) -> None:
    competition = load(arguments.competition)
    bundle = submissions_folder(competition.name) / "codalab" / "src"
    if not (bundle / "predict.py").is_file():
        raise UserError(
            f"{bundle}: there is no bundle; `make codalab COMP={competition.name}` makes it"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work, python = (
            Path(temporary) / "work",
            fresh_environment(Path(temporary) / "env", CODALAB_BASE),
        )
        check_cut(python)
        shutil.copytree(bundle, work / "src")
        tops = lay_out(competition, work)
        mounts = [(work / top, work / top) for top in ("src", *tops)]
        command = cut_off([str(python), "src/predict.py", LIST, OUT], mounts)
        status, peak = run_measured(command, work, clean_variables())
        if status:
            raise UserError(f"{bundle}: the rehearsal ended with status {status}")
        print(f"rehearsed with {how()}")
        want = wanted(sample(competition), competition.submission, competition.task)
        print(compare(work / OUT, home(competition), want))
        check_memory(peak, work / "src")


def lay_out(competition: Competition, work: Path) -> list[str]:
    """Write the list and the pictures of the test set under the organiser's paths; the folders
    made."""
    raw = raw_folder(competition.name)
    table = competition.module.read_raw(raw)
    test = table[table["split"] == "test"]
    paths = [
        f"{unit}/{PurePosixPath(file).name}" for unit, file in zip(test["unit_id"], test["file"])
    ]
    for path, file in zip(paths, test["file"]):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes(read_source(raw, file))
    with (work / LIST).open("w", newline="") as file:
        csv.writer(file).writerows([["Path"], *([path] for path in paths)])
    return sorted({PurePosixPath(path).parts[0] for path in paths})


def sample(competition: Competition) -> pd.DataFrame:
    return competition.module.sample(raw_folder(competition.name))


def home(competition: Competition) -> pd.DataFrame:
    """What `submit` would write."""
    scores = read_csv(
        models_folder(competition.name) / "ensemble.csv",
        ("unit_id", "split"),
        f"make ensemble COMP={competition.name}",
    )
    return fill(sample(competition), scores[scores["split"] == "test"], competition.submission)


def check_memory(peak: float, source: Path) -> None:
    """Say how much memory the program took, or raise where it is more than promised."""
    weights = sum(path.stat().st_size for path in source.glob("*.safetensors")) / 1e6
    told = f"memory: {peak:.0f} MB at most, {weights:.0f} MB of them networks"
    if peak > MEMORY + 2 * weights:
        raise UserError(f"{told}; promised are {MEMORY:.0f} MB beside the networks")
    print(told)


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("competition", metavar="COMPETITION")
    return made


if __name__ == "__main__":
    sys.exit(run_stage(main, parser()))
