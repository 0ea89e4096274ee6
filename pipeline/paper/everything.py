"""Every table and figure that the data under $DATA allow, one after the other.

    python -m pipeline.paper.everything --tune --jobs 10            as in the paper: for a GPU
    python -m pipeline.paper.everything --epochs 10 --seeds 1 --networks resnet20
                                                                    a night on a CPU

Runs the programs beside this file, which read and write what they say; RESULTS.md is rendered after
each. Data sets that are not there are printed and left out. Runs already in results/ are not run
again, so the same command continues where it stopped.
"""

import argparse
import os
import subprocess
import sys

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.runtime.command import EXIT_USER_ERROR, run_stage, stage_parser, time_left
from pipeline.core.runtime.errors import UserError
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.published import TABLE_5

RATIOS = ("0.01", "0.1")  # imratio, the positives' share: Table 1's and Table 8's
# The rows of a table that say most for their cost; they come first.
IMPORTANT_ROWS = [
    ("cifar10", "resnet20"),
    ("cifar10", "densenet121"),
    ("cats_dogs", "resnet20"),
    ("stl10", "resnet20"),
]
# What must lie under $DATA/<name> for a benchmark, or for a competition of Table 5.
NEEDED_FILES = {**dict.fromkeys(READERS, "raw"), **dict.fromkeys(TABLE_5, "images.csv")}


def available_data() -> tuple[list[str], list[str]]:
    """(benchmarks whose raw folder is there, competitions of Table 5 whose images.csv is)."""
    names = [name for name, needed in NEEDED_FILES.items() if (data_folder(name) / needed).exists()]
    datasets = [name for name in names if name in READERS]
    competitions = [name for name in names if name in TABLE_5]
    return datasets, competitions


def steps(
    options: argparse.Namespace, datasets: list[str], competitions: list[str]
) -> list[list[str]]:
    """Program and arguments of each table and figure: what needs no data, Tables 1 and 8, what
    builds on their runs."""
    epochs = ["--epochs", str(options.epochs)]
    sweep = [*epochs, "--seeds", str(options.seeds), "--jobs", str(options.jobs)]
    tune = ["--tune"] if options.tune else []

    # What needs no data.
    todo = [["appendix_e"], ["table6"], ["figure1"], ["synthetic"]]

    # Tables 1 and 8, Table 1 first.
    for imratio in RATIOS:
        for dataset, network in table_rows(datasets, options.networks):
            row = ["--dataset", dataset, "--network", network, "--imratio", imratio]
            todo.append(["table1", *row, *tune, *sweep])

    # What shares runs with them, which are in the store by then; Figure 2 needs networks, which the
    # store does not keep, and trains anew.
    deepest = ["--network", options.networks[-1]]
    if datasets:
        todo.append(["figure3", "--datasets", *datasets, *deepest, *sweep])
    if "cats_dogs" in datasets:
        figure5 = ["--noisy", "0.05", "--easy", "0.2", "--name", "figure5"]
        todo.append(["figure2", "--dataset", "cats_dogs", *deepest, *epochs])
        todo.append(["figure4", *deepest, *sweep])
        todo.append(["figure4", *figure5, *deepest, *sweep])
    if "cifar10" in datasets:
        first = ["--network", options.networks[0]]
        todo.append(["levers", *first, *sweep])
        todo.append(["levers", *first, "--final", *sweep])

    # The pipeline's own runs.
    if competitions:
        todo.append(["table5", "--competitions", *competitions])
    return todo


def table_rows(datasets: list[str], networks: list[str]) -> list[tuple[str, str]]:
    """(data set, network) of each row of a table, IMPORTANT_ROWS first."""
    every = [(dataset, network) for network in networks for dataset in datasets]
    places = {row: place for place, row in enumerate(IMPORTANT_ROWS)}
    return sorted(every, key=lambda row: places.get(row, len(places)))


def call(program: str, *arguments: str) -> int:
    """Run a program of this folder in the time that is left and return its exit status."""
    # A program counts TIME_LIMIT from its own start, so it is told what is left of ours.
    environment = dict(os.environ)
    if time_left() < float("inf"):
        environment["TIME_LIMIT"] = f"{max(time_left(), 1):.0f}s"

    # A process each: memory, threads and the GPU are free again when it ends.
    command = [sys.executable, "-m", f"pipeline.paper.{program}", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def main(options: argparse.Namespace) -> None:
    datasets, competitions = available_data()
    for name, needed in NEEDED_FILES.items():
        if name not in (*datasets, *competitions):
            print(f"{name}: left out, there is no {data_folder(name) / needed}")

    # RESULTS.md after each, so that what has been run can be read while the rest goes on.
    todo = steps(options, datasets, competitions)
    failed = []
    for number, (program, *arguments) in enumerate(todo, 1):
        print(f"\n{number} of {len(todo)}: {program} {' '.join(arguments)}", flush=True)
        status = call(program, *arguments)
        call("render")
        # A mistake in one data set stops that program only; a time limit or a crash stops all.
        if status not in (0, EXIT_USER_ERROR):
            sys.exit(status)
        if status == EXIT_USER_ERROR:
            failed.append(program)
    if failed:
        count = f"{len(failed)} of {len(todo)} programs"
        raise UserError(f"{count} found a mistake, named above: {', '.join(failed)}")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options.add_argument("--epochs", type=int, default=100)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument(
        "--jobs", type=int, default=1, help="runs at once on the device (a GPU takes about 10)"
    )
    options.add_argument(
        "--tune",
        action="store_true",
        help="choose hyper-parameters on a 9:1 validation split first",
    )
    return options


if __name__ == "__main__":
    run_stage(main, parser())
