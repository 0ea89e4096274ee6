"""Run the very notebook that goes to Kaggle, as Kaggle will, and compare its submission with the
one made at home.

    python -m pipeline.deploy.rehearsal.kaggle melanoma

reads   submissions/<comp>/kaggle (`make kaggle`); submissions/<comp>/submission.csv (`make
        submit`); data/<comp>/raw
writes  nothing but a temporary folder

The dataset and the competition lie under Kaggle's paths, read-only, archives unpacked as Kaggle
does; the notebook runs in a kernel of a fresh environment that holds what Kaggle's image is known
to hold, without the network.
"""

import argparse
import json
import shutil
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import raw_folder, submissions_folder
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.organiser_file import wanted
from pipeline.deploy.environments import KAGGLE
from pipeline.deploy.package import require_contents, require_current_package
from pipeline.deploy.rehearsal.compare import compare_with_home
from pipeline.deploy.rehearsal.isolation import (
    check_cut,
    clean_variables,
    cut_off,
    description,
    fresh_environment,
)

# Kaggle's two ways to name its mounts: input/competitions/<slug>, and input/<slug>.
NEW = "new"
OLD = "old"
# The Jupyter kernel's name, which no kernel of the user's has.
KERNEL = "rehearsal"


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    folder = submissions_folder(competition.name)
    notebook = folder / "kaggle/predict/notebook.ipynb"
    home = folder / competition.submission.file
    for path, target in ((notebook, "kaggle"), (home, "submit")):
        if not path.is_file():
            raise UserError(
                f"{path}: there is no such file; `make {target} COMP={competition.name}` makes it"
            )
    require_current_package(folder / "kaggle/dataset", competition, "kaggle")
    require_contents(folder / "kaggle", f"make kaggle COMP={competition.name}")

    # A short prefix: the path of a socket takes 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="k") as temporary:
        # The surroundings.
        root = Path(temporary) / "kaggle"
        python = fresh_environment(Path(temporary) / "env", KAGGLE)
        check_cut(python)
        mounts = lay_out(competition, folder / "kaggle", root, arguments.layout)

        # The run.
        book = execute(notebook, python, root, mounts)
        print(notebook_output(book), end="")
        print(f"rehearsed with {description()}")

        # The judgement.
        sample = competition.module.sample(raw_folder(competition.name))
        want = wanted(sample, competition.submission, competition.task)
        scores = read_csv(home, ids=(competition.submission.id_column,))
        print(compare_with_home(root / "working" / home.name, scores, want))


def lay_out(
    competition: Competition, folder: Path, root: Path, layout: str
) -> list[tuple[Path, Path]]:
    """Make Kaggle's folders under `root`; returns what is to be mounted there, source and
    target."""
    # Where the dataset and the competition are mounted.
    metadata = read_json(folder / "dataset/dataset-metadata.json", needed=("id",))
    owner, dataset = metadata["id"].split("/")
    inputs = root / "input"
    if layout == NEW:
        raw = inputs / "competitions" / competition.task.slug
        package = inputs / "datasets" / owner / dataset
    else:
        raw = inputs / competition.task.slug
        package = inputs / dataset

    # The dataset, its archives unpacked.
    not_shown = shutil.ignore_patterns("dataset-metadata.json", "*.zip")
    shutil.copytree(folder / "dataset", package, ignore=not_shown)
    for path in (folder / "dataset").glob("*.zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(package / path.stem)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: this is not a whole zip file ({error})") from None
    raw.parent.mkdir(parents=True, exist_ok=True)
    (root / "working").mkdir()
    return [(raw_folder(competition.name), raw), (package, package)]


def execute(
    path: Path, python: Path, root: Path, mounts: list[tuple[Path, Path]]
) -> nbformat.NotebookNode:
    """The notebook with its outputs, run to the end by that Python, cut off; UserError where a cell
    fails."""
    # A kernel whose command is cut off from the network.
    kernels = root.parent / "kernels"
    command = cut_off([str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], mounts)
    specification = {"argv": command, "display_name": KERNEL, "language": "python"}
    (kernels / KERNEL).mkdir(parents=True)
    (kernels / KERNEL / "kernel.json").write_text(json.dumps(specification))
    # Sockets of files rather than ports: those of another network namespace cannot be reached.
    manager = AsyncKernelManager(
        kernel_name=KERNEL,
        transport="ipc",
        connection_file=str(root.parent / "c.json"),
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernels)]),
    )

    # The notebook in it.
    try:
        book = nbformat.read(path, as_version=4)
    except ValueError as error:
        raise UserError(f"{path}: this is not a notebook ({error})") from None
    resources = {"metadata": {"path": str(root / "working")}}
    client = NotebookClient(book, km=manager, timeout=None, resources=resources)

    # As in the rerun on the hidden test set; a HOME of its own, which holds no cached weights.
    variables = clean_variables(
        KAGGLE_ROOT=str(root), KAGGLE_IS_COMPETITION_RERUN="1", HOME=str(root.parent)
    )
    try:
        return client.execute(env=variables)
    except CellExecutionError as error:
        raise UserError(f"{path}: a cell failed: {error.ename}: {error.evalue}") from None


def notebook_output(book: nbformat.NotebookNode) -> str:
    """What the notebook printed."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return "".join(output["text"] for output in outputs if "text" in output)


def parser() -> argparse.ArgumentParser:
    """The program's options."""
    options = stage_parser(__doc__, targets=False)
    options.add_argument("competition", metavar="COMPETITION")
    names = "how Kaggle names its mounts"
    options.add_argument("--layout", choices=(NEW, OLD), default=NEW, help=names)
    return options


if __name__ == "__main__":
    sys.exit(run_stage(main, parser()))
