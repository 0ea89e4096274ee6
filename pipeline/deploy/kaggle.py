"""Write a folder to upload to Kaggle: a dataset with networks and code, and notebooks that predict
and train without the network.

    python -m pipeline.deploy.kaggle melanoma --owner your-kaggle-name --licence apache-2.0

reads   models/<comp>/ensemble.json, scores.csv, quantiles.json and the weights that they name;
        data/<comp>/images.csv
writes  submissions/<comp>/kaggle/dataset/   dataset-metadata.json and the package, whose files
                                             deploy/package.py lists
                                 /predict/   kernel-metadata.json notebook.ipynb: predicts the test
                                             set it finds mounted
                                 /train/     the same for training, hours at a time, with --train
                                             TARGET; needs no ensemble: the dataset then holds code
                                             alone
                                 /contents.json   the sha256 of every file, which the rehearsal
                                             checks

Upload:   kaggle datasets create -p submissions/<comp>/kaggle/dataset
          (later: kaggle datasets version -p ... -m ...)
          kaggle kernels push -p submissions/<comp>/kaggle/predict
`make kaggle-rehearse` runs the very notebook first, without the network.
"""

import argparse
from pathlib import Path

from pipeline.core.artifacts.files import write_json
from pipeline.core.artifacts.paths import models_folder, submissions_folder
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.environment import parse_duration
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.notebook import (
    LICENCES,
    checked_title,
    dataset_metadata,
    kernel_metadata,
    notebook,
    reference,
    require_licence,
)
from pipeline.deploy.package import megabytes, record_contents, write_package
from pipeline.deploy.wheels import add_wheels, wheel_licences

SCRIPTS = Path(__file__).parent / "away"  # the notebooks, as notebook_<kind>.py


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    if not competition.task.slug:
        raise UserError(
            f"pipeline/competitions/{competition.name}.py gives no slug, so it is not on Kaggle"
        )
    folder = submissions_folder(competition.name) / "kaggle"
    package = write_dataset(competition, folder / "dataset", arguments)

    # Notebooks: one that predicts where there are networks, one that trains where it is asked for.
    # They attach the dataset by its name, so they can be written before it is uploaded.
    kinds = []
    if package["networks"]:
        write_predict(competition, folder / "predict", arguments)
        kinds.append("predict")
    if arguments.train:
        write_train(competition, folder / "train", arguments)
        kinds.append("train")

    record_contents(folder, ("dataset", *kinds))
    size = megabytes((folder / "dataset").iterdir())
    print(f"{folder}: {len(package['networks'])} networks, {size:.0f} MB; upload it with")
    print(f"  kaggle datasets create -p {folder / 'dataset'}")
    for kind in kinds:
        print(f"  kaggle kernels push -p {folder / kind}")


def title_of(competition: Competition, kind: str) -> str:
    """The title on Kaggle of the "package" (the dataset) or of the notebook that does "predict" or
    "train"."""
    return f"{competition.name.replace('_', ' ')} {kind}"


def write_dataset(competition: Competition, folder: Path, arguments: argparse.Namespace) -> dict:
    """Write the dataset and return what its package.json says."""

    title = title_of(competition, "package")
    # Refused before the weights are copied: an owner or title that Kaggle would refuse.
    reference(arguments.owner, checked_title(title, 6))
    require_licence(arguments.licence)

    # Without an ensemble there is nothing to predict with; training needs the code alone.
    predicts = (models_folder(competition.name) / "ensemble.json").is_file()
    code_only = bool(arguments.train) and not predicts
    package = write_package(competition, folder, zipped=True, code_only=code_only)

    # What Kaggle's image may lack, and what Kaggle asks to know of a dataset.
    add_wheels(folder, package, arguments.python)
    subtitle = f"Networks and code for {competition.name}"[:80]
    licences = wheel_licences(package["wheels"].values())
    metadata = dataset_metadata(arguments.owner, title, subtitle, arguments.licence, licences)
    write_json(folder / "dataset-metadata.json", metadata)
    return package


def write_predict(competition: Competition, folder: Path, arguments: argparse.Namespace) -> None:
    """The notebook that predicts, without the internet: a competition that reruns notebooks on its
    hidden test set takes no other."""
    owner = arguments.owner
    title = title_of(competition, "predict")
    dataset = reference(owner, title_of(competition, "package"))
    metadata = kernel_metadata(owner, title, competition.task.slug, dataset)
    write_kernel(folder, "notebook_predict.py", shared_settings(competition, arguments), metadata)


def write_train(competition: Competition, folder: Path, arguments: argparse.Namespace) -> None:
    """The notebook that trains; with --resume its own last output is attached to it."""
    settings = shared_settings(competition, arguments)
    settings["TARGET"] = checked_target(competition, arguments.train)

    # A session ends after 12 hours at most, so training goes on from its own last output, once
    # there is one.
    owner = arguments.owner
    title = title_of(competition, "train")
    dataset = reference(owner, title_of(competition, "package"))
    itself = (reference(owner, title),) if arguments.resume else ()
    slug = competition.task.slug
    metadata = kernel_metadata(owner, title, slug, dataset, kernels=itself, internet=True)
    write_kernel(folder, "notebook_train.py", settings, metadata)


def shared_settings(competition: Competition, arguments: argparse.Namespace) -> dict:
    """The values of the `settings` cell that both notebooks have."""
    return {
        "SLUG": competition.task.slug,
        "PACKAGE": competition.name,
        "HOURS": parse_duration("--time-limit", arguments.time_limit) / 3600,
    }


def checked_target(competition: Competition, text: str) -> str:
    """The training notebook's target, or a UserError where this competition has none of that
    name."""
    # Refused here rather than on Kaggle, after an upload and the start of a machine.
    target = parse_target(text)
    if target.competition != competition.name:
        raise UserError(f"--train {text}: not a target of {competition.name}")
    if target.run:
        competition.run(target.run)
    return str(target)


def write_kernel(folder: Path, script: str, settings: dict, metadata: dict) -> None:
    """A notebook made of a script of `away`, and the metadata to push it with."""
    write_json(folder / metadata["code_file"], notebook(SCRIPTS / script, settings))
    write_json(folder / "kernel-metadata.json", metadata)


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    options = stage_parser(__doc__, targets=False)
    add = options.add_argument
    add("competition", metavar="COMPETITION", help="melanoma, ...")
    add("--owner", required=True, metavar="NAME", help="your user name on Kaggle")
    licence = (
        f"of the dataset, as Kaggle names it: {', '.join(LICENCES)}; images that the networks "
        "learnt from may allow only some of them"
    )
    add("--licence", required=True, metavar="LICENCE", help=licence)
    # Kaggle's competitions allow 9 to 12 hours; half an hour is for starting and writing.
    add("--time-limit", default="8.5h", help="for the whole notebook (default 8.5h)")
    other = "Kaggle's Python, where it is not yours: wheels of compiled packages are fetched for it"
    add("--python", nargs="*", default=[], metavar="3.12", help=other)
    train = "write a notebook that trains this run or fold"
    add("--train", default="", metavar="TARGET", help=train)
    resume = "attach the training notebook's own last output to it"
    add("--resume", action="store_true", help=resume)
    return options


if __name__ == "__main__":
    run_stage(main, parser())
