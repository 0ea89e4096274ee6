"""A folder to upload to Kaggle: a dataset with networks and code, and notebooks that predict and
train without the net.

    python -m pipeline.deploy.kaggle melanoma --owner your-kaggle-name

reads   models/<comp>/ensemble.json, scores.csv, quantiles.json and the weights they speak of;
        data/<comp>/images.csv
writes  submissions/<comp>/kaggle/dataset/   dataset-metadata.json and the package (deploy/package.py tells its files)
                                 /predict/   kernel-metadata.json notebook.ipynb: predicts the test
                                             set it finds mounted
                                 /train/     the same for training, hours at a time, with --train
                                             TARGET; needs no ensemble: the dataset then holds code
                                             alone

Upload:   kaggle datasets create -p submissions/<comp>/kaggle/dataset     (later: kaggle datasets version -p ... -m ...)
          kaggle kernels push -p submissions/<comp>/kaggle/predict
`make kaggle-rehearse` runs the very notebook first, without the net.
"""

import argparse
from pathlib import Path

from pipeline.core.artifacts.files import write_json
from pipeline.core.artifacts.paths import models_folder, submissions_folder
from pipeline.core.config.competition import Competition, load
from pipeline.core.config.target import parse_target
from pipeline.core.runtime.command import run_stage, seconds, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.notebook import (
    LICENCE,
    checked,
    dataset_metadata,
    kernel_metadata,
    notebook,
    reference,
)
from pipeline.deploy.package import write_package
from pipeline.deploy.wheels import add_wheels

SOURCES = Path(__file__).parent / "away"


def main(arguments: argparse.Namespace) -> None:
    competition = load(arguments.competition)
    if not competition.task.slug:
        raise UserError(
            f"pipeline/competitions/{competition.name}.py gives no slug, so it is not on Kaggle"
        )
    titles = {
        kind: f"{competition.name.replace('_', ' ')} {kind}"
        for kind in ("package", "predict", "train")
    }
    dataset = reference(arguments.owner, checked(titles["package"], 6))
    folder = submissions_folder(competition.name) / "kaggle"
    about = write_package(
        competition, folder / "dataset", zipped=True, code_only=code_only(competition, arguments)
    )
    add_wheels(folder / "dataset", about, arguments.python)
    write_json(
        folder / "dataset" / "dataset-metadata.json",
        dataset_metadata(
            arguments.owner,
            titles["package"],
            f"Networks and code for {competition.name}"[:80],
            arguments.licence,
        ),
    )

    hours = seconds(arguments.time_limit) / 3600
    shared = {"SLUG": competition.task.slug, "PACKAGE": competition.name, "HOURS": hours}
    kinds = ["predict"] * bool(about["networks"]) + ["train"] * bool(arguments.train)
    for kind in kinds:
        own = (
            (reference(arguments.owner, titles["train"]),)
            if arguments.resume and kind == "train"
            else ()
        )
        settings = shared | (
            {"TARGET": target(competition, arguments.train)} if kind == "train" else {}
        )
        write_kernel(
            folder / kind,
            f"notebook_{kind}.py",
            settings,
            kernel_metadata(
                arguments.owner,
                titles[kind],
                competition.task.slug,
                dataset,
                own,
                internet=kind == "train",
            ),
        )
    size = sum(path.stat().st_size for path in (folder / "dataset").iterdir()) / 1e6
    print(
        f"{folder}: {len(about['networks'])} networks, {size:.0f} MB; upload it with\n"
        f"  kaggle datasets create -p {folder / 'dataset'}"
    )
    for kind in kinds:
        print(f"  kaggle kernels push -p {folder / kind}")


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("competition", metavar="COMPETITION", help="melanoma, ...")
    made.add_argument("--owner", required=True, metavar="NAME", help="your user name on Kaggle")
    made.add_argument(
        "--licence", default=LICENCE, help=f"of the dataset, as Kaggle names it (default {LICENCE})"
    )
    made.add_argument("--time-limit", default="8.5h", help="for the whole notebook (default 8.5h)")
    made.add_argument(
        "--python",
        nargs="*",
        default=[],
        metavar="3.12",
        help="Kaggle's Python, where it is not yours: "
        "wheels of compiled packages are fetched for it",
    )
    made.add_argument(
        "--train",
        default="",
        metavar="TARGET",
        help="write a notebook that trains this run or fold",
    )
    made.add_argument(
        "--resume", action="store_true", help="attach the training notebook's own last output to it"
    )
    return made


def code_only(competition: Competition, arguments: argparse.Namespace) -> bool:
    """True where there is nothing to predict with yet and a training notebook is asked for."""
    return (
        bool(arguments.train) and not (models_folder(competition.name) / "ensemble.json").is_file()
    )


def target(competition: Competition, text: str) -> str:
    """The training notebook's target, checked."""
    wanted = parse_target(text)
    if wanted.competition != competition.name:
        raise UserError(f"--train {text}: not a target of {competition.name}")
    if wanted.run:
        competition.run(wanted.run)
    return str(wanted)


def write_kernel(folder: Path, script: str, settings: dict, metadata: dict) -> None:
    write_json(folder / metadata["code_file"], notebook(SOURCES / script, settings))
    write_json(folder / "kernel-metadata.json", metadata)


if __name__ == "__main__":
    run_stage(main, parser())
