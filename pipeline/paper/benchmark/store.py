"""The store of results, and sweeps that fill it: JSON lines, one training run each, appended as
they end.

A run already in the store is not run again, and one that was cut goes on from its checkpoint in
unfinished/, so a sweep that was interrupted continues where it stopped. Files from several machines
are merged by putting them in the same folder, the program's name first (table1-lab2.jsonl), or by
concatenating them: equal trials count once. A program whose trial another one has run copies the
line into its own file.
"""

import argparse
import concurrent.futures
import fcntl
import json
import multiprocessing
import os
import threading
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from pipeline.core.runtime import command
from pipeline.core.runtime import device as machine
from pipeline.core.runtime.command import time_left
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.runtime.workers import usable_cores
from pipeline.paper.benchmark.run import checkpoints_of, run
from pipeline.paper.benchmark.trial import Trial

FOLDER = Path(__file__).parents[1] / "results"
UNFINISHED = "unfinished"  # the folder beside the lines that holds checkpoints


def append(path: Path, record: dict) -> None:
    """Add one line, whole or not at all to other readers: under a lock, flushed before the lock is
    let go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end_last_line(file)
        file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def end_last_line(file: BinaryIO) -> None:
    """End a last line that has no newline, or remove what a crash left of one: a new line must not
    be joined to it."""
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    try:
        json.loads(content[start:] or b"{}")
    except ValueError:  # not JSON, or cut within a character
        file.truncate(start)
    else:
        file.write(b"\n" if content[start:] else b"")


def read_lines(path: Path) -> list[dict]:
    """The records of one file; a last line cut by a crash is left out, any other bad line is an
    error."""
    if not path.is_file():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}: row {number}: this is not JSON ({error.msg})") from None
    return records


def load(folder: Path = FOLDER) -> dict[str, dict]:
    """Every record of a folder by its trial's key; of equal trials the first in file order
    counts."""
    records: dict[str, dict] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in read_lines(path):
            records.setdefault(record["key"], record)
    return records


def stored(program: str, folder: Path = FOLDER) -> list[dict]:
    """The records of a program, of all machines: <program>.jsonl and <program>-*.jsonl."""
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem.split("-")[0] == program:
            records += read_lines(path)
    return records


def result(record: dict) -> float:
    """The AUC of the last epoch, on the test set or, of a tuning run, on the validation part."""
    return record["valid_auc" if record["held_out"] else "test_auc"][-1]


def mean_and_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (NaN for one value)."""
    values = np.asarray(list(values), float)
    deviation = values.std(ddof=1) if len(values) > 1 else np.nan
    return float(values.mean()), float(deviation)


def sweep(trials: list[Trial], out: Path, device: str = "auto", jobs: int = 1) -> list[dict]:
    """The records of `trials`, in order; those not yet in `out`'s folder are run, `jobs` at a time
    on one device.

    Networks this small leave a GPU mostly waiting for launches, so several processes share one
    (--jobs 10 on 16 cores).
    """
    # Runs of other programs and machines are copied into this program's own file.
    done = load(out.parent)
    own = {record["key"] for record in read_lines(out)}
    for trial in dict.fromkeys(trials):
        if trial.key in done and trial.key not in own:
            append(out, done[trial.key])
    # The others are run.
    missing = [trial for trial in dict.fromkeys(trials) if trial.key not in done]
    if jobs == 1:
        for trial in missing:
            done[trial.key] = run_and_append(trial, out, device)
    elif missing:
        done |= run_together(missing, out, device, jobs)
    return [done[trial.key] for trial in trials]


def sweep_all_seeds(trials: list[Trial], options: argparse.Namespace) -> list[list[dict]]:
    """The records of each trial on training sets 0 to --seeds - 1, by the options of
    `sweep_options`."""
    seeds = options.seeds
    compiled = options.compile
    every = [
        replace(trial, seed=seed, compiled=compiled) for trial in trials for seed in range(seeds)
    ]
    records = sweep(every, options.out, options.device, options.jobs)
    return [records[row * seeds : (row + 1) * seeds] for row in range(len(trials))]


def sweep_seeds(trial: Trial, options: argparse.Namespace) -> list[dict]:
    """The records of one trial on training sets 0 to --seeds - 1."""
    return sweep_all_seeds([trial], options)[0]


def run_together(trials: list[Trial], out: Path, device: str, jobs: int) -> dict[str, dict]:
    """Records by key of trials run by `jobs` processes; after the first error nothing more is
    started."""
    threads = max(1, len(usable_cores()) // jobs)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    settings = dict(initializer=begin_trial_worker, initargs=(threads, command.STARTED))
    with concurrent.futures.ProcessPoolExecutor(jobs, context, **settings) as pool:
        keys = {pool.submit(run_and_append, trial, out, device): trial.key for trial in trials}
        try:
            ended = concurrent.futures.as_completed(keys)
            return {keys[future]: future.result() for future in ended}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def begin_trial_worker(threads: int, started: float) -> None:
    """In a worker: its share of the cores, the parent's clock for TIME_LIMIT, and an end when the
    parent ends."""
    torch.set_num_threads(threads)
    command.STARTED = started
    threading.Thread(target=end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the parent to end, killed or not, and end this process: nothing else would."""
    parent.join()
    os._exit(1)


def run_and_append(trial: Trial, out: Path, device: str) -> dict:
    """Run one trial, from its checkpoint where there is one, and store its record, unless the time
    is up."""
    if time_left() < 0:
        raise TimeLimitReached(
            f"runs are still to do; the same command continues after those in {out}"
        )
    folder = out.parent / UNFINISHED
    record = run(trial, torch_device(device), folder=folder)
    append(out, record)
    for checkpoints in checkpoints_of(trial, folder):
        checkpoints.remove()
    return record


def torch_device(name: str) -> torch.device:
    """The device of --device; "auto" is the GPU where there is one."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {name}: there is no CUDA device here")
    return machine.device() if name == "auto" else torch.device(name)


def sweep_options(
    parser: argparse.ArgumentParser, out: str, epochs: int = 100, seeds: int = 5
) -> None:
    """The options that all sweeps share."""
    parser.add_argument(
        "--epochs", type=int, default=epochs, help=f"the paper's 100 by default ({epochs})"
    )
    parser.add_argument(
        "--seeds", type=int, default=seeds, help=f"training sets 0 to N-1 ({seeds})"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at once on the device (a GPU takes about 10)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: a quarter faster on a CPU; needs a C++ compiler",
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER / out, help=f"where lines are appended ({out})"
    )


def last_epochs(records: list[dict]) -> str:
    """`0.7150 ± 0.0080 (n = 5)` of the records' results."""
    mean, std = mean_and_std(map(result, records))
    spread = "" if len(records) < 2 else f" ± {std:.4f}"
    return f"{mean:.4f}{spread} (n = {len(records)})"


def machine_of(records: list[dict]) -> str:
    """What the records were computed on, in what precision, and from which copy of the data."""
    kinds = set()
    for record in records:
        facts = (record["device"], record["computed_in"], record["note"])
        kinds.add(", ".join(filter(None, facts)))
    return "; ".join(sorted(kinds))


def as_trial(record: dict) -> Trial:
    """The trial that left a record."""
    return Trial(**{item.name: record[item.name] for item in fields(Trial) if item.name in record})
