"""Prepare as the number of files grows: files a second by one worker and by two, what listing them
takes, and a second time where nothing is to be done.

    python -m tests.bench.bench_many_files [--counts 2000 10000 40000] [--workers 1 2]

Small photographs (150 × 110 pixels), made here, to one size of 96: what is measured is what a file
costs beside its pixels. Whole commands, from the start of Python to the last table; on a machine
that others use, processor time means more than the clock.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import prepare
from pipeline.core.artifacts.paths import data_folder, raw_folder
from pipeline.core.config.competition import load_competition
from tests.cases.trained import ROOT, melanoma, variables

TARGET = "melanoma/resnet10t_96"


def prepared(home: Path, workers: int) -> tuple[float, float]:
    """Seconds of the clock and of processors for `make prepare` there."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.prepare", TARGET, "--workers", str(workers)]
    subprocess.run(
        command, cwd=ROOT, env=variables(home, SMOKE=""), check=True, capture_output=True
    )
    taken = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, sum(getattr(after, name) - getattr(before, name) for name in TIMES)


TIMES = ("ru_utime", "ru_stime")


def listed() -> float:
    """Seconds that a process takes to look at every file of the download."""
    raw = raw_folder("melanoma")
    table = load_competition("melanoma").module.read_raw(raw)
    began = time.perf_counter()
    prepare.list_tasks(raw, table)
    return time.perf_counter() - began


def fullest_folder() -> int:
    """How many files the fullest folder of prepared images has."""
    folders = (Path(path) for path, _, _ in os.walk(data_folder("melanoma") / "images"))
    return max(sum(entry.is_file() for entry in folder.iterdir()) for folder in folders)


def measure(home: Path, count: int, workers: int) -> str:
    """One row of the table."""
    raw = home / "data" / "melanoma" / "raw"
    raw.mkdir(parents=True)
    melanoma(raw, train=count - 12)
    os.environ["DATA"] = str(home / "data")
    seconds = listed()
    taken, processors = prepared(home, workers)
    again, _ = prepared(home, workers)
    return (
        f"| {count:,} | {workers} | {seconds:.2f} s | {count / taken:.0f} a second | "
        f"{1000 * processors / count:.2f} ms | {again:.1f} s | {fullest_folder():,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 10_000, 40_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print("| files | workers | listed | prepared | processor a file | again | fullest folder |")
    print("|---|---|---|---|---|---|---|")
    for count in options.counts:
        for workers in options.workers:
            with tempfile.TemporaryDirectory() as folder:
                print(measure(Path(folder), count, workers), flush=True)


if __name__ == "__main__":
    main()
