"""Every table and figure that the data under $DATA allow, one after the other.

    python -m pipeline.paper.everything --tune --jobs 10                       as in the paper: for
                                                                               a GPU
    python -m pipeline.paper.everything --epochs 10 --seeds 1 --networks resnet20        a night on a CPU

runs the programs beside this file and writes what they write; RESULTS.md is rendered after each.
Data that are not there are named and left out. Runs already in results/ are not run again, so the
same command goes on where it was cut.
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

RATIOS = ("0.01", "0.1")
FIRST = [
    ("cifar10", "resnet20"),
    ("cifar10", "densenet121"),
    ("cats_dogs", "resnet20"),
    ("stl10", "resnet20"),
]


NEEDED = {**dict.fromkeys(READERS, "raw"), **dict.fromkeys(TABLE_5, "images.csv")}


def present() -> tuple[list[str], list[str]]:
    """(benchmarks whose raw folder is there, competitions of Table 5 whose images.csv is)."""
    there = [name for name, needed in NEEDED.items() if (data_folder(name) / needed).exists()]
    return [name for name in there if name in READERS], [name for name in there if name in TABLE_5]


def steps(
    options: argparse.Namespace, datasets: list[str], competitions: list[str]
) -> list[list[str]]:
    """Program and arguments of each table and figure: what needs no data, Tables 1 and 8, what
    builds on their runs."""
    epochs = ["--epochs", str(options.epochs)]
    sweep = [*epochs, "--seeds", str(options.seeds), "--jobs", str(options.jobs)]
    tune = ["--tune"] if options.tune else []
    made = [["appendix_e"], ["table6"], ["figure1"], ["made"]]
    made += [
        ["table1", "--dataset", dataset, "--network", network, "--imratio", imratio, *tune, *sweep]
        for imratio in RATIOS
        for dataset, network in cells(datasets, options.networks)
    ]
    deepest = ["--network", options.networks[-1]]
    if datasets:
        made.append(["figure3", "--datasets", *datasets, *deepest, *sweep])
    if "cats_dogs" in datasets:
        made += [
            ["figure2", "--dataset", "cats_dogs", *deepest, *epochs],
            ["figure4", *deepest, *sweep],
            ["figure4", "--noisy", "0.05", "--easy", "0.2", "--name", "figure5", *deepest, *sweep],
        ]
    if "cifar10" in datasets:
        made += [
            ["levers", "--network", options.networks[0], *last, *sweep]
            for last in ([], ["--final"])
        ]
    return made + ([["table5", "--competitions", *competitions]] if competitions else [])


def cells(datasets: list[str], networks: list[str]) -> list[tuple[str, str]]:
    """Rows of a table in the order of what they tell for their cost."""
    every = [(dataset, network) for network in networks for dataset in datasets]
    return sorted(every, key=lambda cell: FIRST.index(cell) if cell in FIRST else len(FIRST))


def call(program: str, *arguments: str) -> int:
    """Run a program of this folder in the time that is left; returns its exit status."""
    limit = {"TIME_LIMIT": f"{max(time_left(), 1):.0f}s"} if time_left() < float("inf") else {}
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.paper.{program}", *arguments],
        env={**os.environ, **limit},
        check=False,
    ).returncode


def main(options: argparse.Namespace) -> None:
    datasets, competitions = present()
    for name, needed in NEEDED.items():
        if name not in (*datasets, *competitions):
            print(f"{name}: left out, there is no {data_folder(name) / needed}")
    failed, todo = [], steps(options, datasets, competitions)
    for number, (program, *arguments) in enumerate(todo, 1):
        print(f"\n{number} of {len(todo)}: {program} {' '.join(arguments)}", flush=True)
        status = call(program, *arguments)
        call("render")
        if status not in (0, EXIT_USER_ERROR):
            sys.exit(status)
        failed += [program] * (status == EXIT_USER_ERROR)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(todo)} programs found a mistake, named above: "
            f"{', '.join(failed)}"
        )


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    made.add_argument("--epochs", type=int, default=100)
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument(
        "--jobs", type=int, default=1, help="runs at once on the device (a GPU takes about 10)"
    )
    made.add_argument(
        "--tune",
        action="store_true",
        help="choose hyper-parameters on a 9:1 validation split first",
    )
    return made


if __name__ == "__main__":
    run_stage(main, parser())
