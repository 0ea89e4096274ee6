"""How far the runs of a competition are: a line for each fold, a column for each stage.

    python -m pipeline.status melanoma                   (make status COMP=melanoma)
    python -m pipeline.status melanoma/b5_384 --watch    again every 10 seconds, until Ctrl-C

reads   models/<comp>/<run>/fold<k>: weights, predictions, checkpoints, claims, log.jsonl
writes  nothing; safe while others train

What a launcher on another machine holds counts as running as long as its claim file exists.
"""

import argparse
import time
from collections import Counter

from pipeline.core.config.run import fold_name
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runs.progress import ARTIFACTS, State, duration_text, stage_state, trained_so_far
from pipeline.core.runtime.command import run_stage, stage_parser

WATCH_SECONDS = 10.0  # seconds between two looks of --watch
FOLD_WIDTH = 26  # width of the column of runs and folds
STAGE_WIDTH = 16  # width of a stage's column; longer texts follow below the line


def main(options: argparse.Namespace) -> None:
    while True:
        print("\n".join(status_lines(jobs_of(options.targets))), flush=True)
        if not options.watch:
            return
        time.sleep(WATCH_SECONDS)
        print()


def status_lines(jobs: list[Job]) -> list[str]:
    """The table as lines of text, and the totals below it."""
    lines = [
        f"{'':<{FOLD_WIDTH}}" + "".join(f"{stage:<{STAGE_WIDTH}}" for stage in ARTIFACTS).rstrip()
    ]
    counts: Counter[str] = Counter()
    for job in jobs:
        states = {stage: stage_state(job, stage) for stage in ARTIFACTS}
        counts.update(state.word for state in states.values())
        cells = "".join(f"{cell(state):<{STAGE_WIDTH}}" for state in states.values())
        lines.append(f"{job.run.name + '/' + fold_name(job.fold):<{FOLD_WIDTH}}{cells}".rstrip())
        # What does not fit a cell: how far, on which machine, or why it is refused.
        for stage, state in states.items():
            if state.text and state.word != "done":
                lines.append(f"{'':<{FOLD_WIDTH}}{stage}: {state.text}")
    return [*lines, "", totals_line(jobs, counts)]


def cell(state: State) -> str:
    """`done .8123` for what is done, else the word alone."""
    if state.word == "done" and state.text:
        return f"done {state.text.removeprefix('0')}"
    return state.word


def totals_line(jobs: list[Job], counts: Counter) -> str:
    """`7 of 12 done, 1 running, 4 missing; 3.5 h of training steps`."""
    whole = sum(counts.values())
    parts = [f"{counts['done']} of {whole} done"]
    parts += [f"{counts[word]} {word}" for word in sorted(counts) if word != "done"]
    seconds = 0.0
    for job in jobs:
        for phase, recipe in (("pretrained", job.run.pretrain), ("finetuned", job.run.finetune)):
            so_far = trained_so_far(job.folder, phase, recipe.batch_size, recipe.epochs)
            seconds += so_far.seconds
    return f"{', '.join(parts)}; {duration_text(seconds)} of training steps so far"


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__)
    options.add_argument("--watch", action="store_true", help="look again every 10 seconds")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
