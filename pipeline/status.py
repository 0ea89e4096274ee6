"""How far the runs of a competition are: a line for each fold, a column for each stage.

    python -m pipeline.status melanoma                   (make status COMP=melanoma)
    python -m pipeline.status melanoma/b5_384 --watch    again every 10 seconds, until Ctrl-C

reads   models/<comp>/<run>/fold<k>: weights, predictions, checkpoints, claims, logs; Slurm's queue,
        where there is one
writes  nothing; safe while others train

What a launcher on another machine holds counts as running as long as its claim file exists. A stage
that is only waiting waits for the one on its left. The log of a stage that Slurm or `ON=local` ran
is models/<comp>/<run>/fold<k>/<stage>.log.
"""

import argparse
import sys
import time
from collections import Counter
from shutil import which

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import fold_name
from pipeline.core.config.target_path import parse_target
from pipeline.core.runs.job import jobs_of
from pipeline.core.runs.progress import ARTIFACTS, State
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule.slurm import Queued, queue_of
from pipeline.core.schedule.states import hours_line, other_lines, scheduled_state

WATCH_SECONDS = 10.0  # seconds between two looks of --watch
FOLD_WIDTH = 26  # width of the column of runs and folds
STAGE_WIDTH = 16  # width of a stage's column; longer texts follow below the line


def main(options: argparse.Namespace) -> None:
    while True:
        print("\n".join(status_lines(options.targets)), flush=True)
        if not options.watch:
            return
        time.sleep(WATCH_SECONDS)
        print()


def status_lines(targets: list[str]) -> list[str]:
    """The table as lines of text, what else is in the queue, and the totals."""
    queue = queue_of_targets(targets)
    if not tables_exist(targets):
        return [*other_lines(queue, set()), "no folds yet"]
    jobs = jobs_of(targets)
    lines = [
        f"{'':<{FOLD_WIDTH}}" + "".join(f"{stage:<{STAGE_WIDTH}}" for stage in ARTIFACTS).rstrip()
    ]
    counts: Counter[str] = Counter()
    for job in jobs:
        states = {stage: scheduled_state(job, stage, queue) for stage in ARTIFACTS}
        counts.update(state.word for state in states.values())
        cells = "".join(f"{cell(state):<{STAGE_WIDTH}}" for state in states.values())
        lines.append(f"{job.run.name + '/' + fold_name(job.fold):<{FOLD_WIDTH}}{cells}".rstrip())
        # What does not fit a cell: how far, on which machine, for what it waits, why it failed.
        for stage, state in states.items():
            if state.text and state.word != "done":
                lines.append(f"{'':<{FOLD_WIDTH}}{stage}: {state.text}")

    shown = {f"{stage} {job.target}" for job in jobs for stage in ARTIFACTS}
    whole = sum(counts.values())
    parts = [f"{counts['done']} of {whole} done"]
    parts += [f"{counts[word]} {word}" for word in sorted(counts) if word != "done"]
    lines += [*other_lines(queue, shown), "", f"{', '.join(parts)}; {hours_line(jobs)}"]
    if logs := [path for job in jobs for path in job.folder.glob("*.log")]:
        lines.append(f"newest log: {max(logs, key=lambda path: path.stat().st_mtime)}")
    return lines


def tables_exist(targets: list[str]) -> bool:
    """Whether all competitions named have their folds."""
    names = {parse_target(text).competition for text in targets}
    return all((data_folder(name) / "folds.csv").is_file() for name in names)


def queue_of_targets(targets: list[str]) -> dict[str, Queued]:
    """Slurm's jobs for these competitions by name; none, with a warning, where it does not
    answer."""
    if not which("squeue"):
        return {}
    queue: dict[str, Queued] = {}
    try:
        for name in dict.fromkeys(parse_target(text).competition for text in targets):
            queue |= queue_of(load_competition(name).name)
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
    return queue


def cell(state: State) -> str:
    """`done .8123` for what is done, else the word alone."""
    if state.word == "done" and state.text:
        return f"done {state.text.removeprefix('0')}"
    return state.word


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__)
    options.add_argument("--watch", action="store_true", help="look again every 10 seconds")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
