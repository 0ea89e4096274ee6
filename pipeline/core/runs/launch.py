"""Which folds this process makes: one after the other, each by one launcher, however many share the
disk."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pipeline.core.artifacts.checkpoints import remove_checkpoints
from pipeline.core.artifacts.files import remove_abandoned
from pipeline.core.runs.facts import (
    PREDICTED,
    lacks_test_scores,
    predicted_with_other_weights,
    require_current,
)
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runtime.claims import attempts
from pipeline.core.runtime.command import Stop, stop_gently, time_left
from pipeline.core.runtime.device import agree, from_main, is_main, start_processes
from pipeline.core.runtime.errors import TimeLimitReached

# What the main process tells the others when nothing is left; a path or None stands for the rest.
NOTHING_LEFT = "nothing left"


def fold_jobs(targets: list[str], artifact: str, metadata: bool = False) -> Iterator[Job]:
    """Yield the folds whose `artifact` this process is to make, until all of them exist.

    TimeLimitReached where others are making all that is left: to wait for them would hold a GPU.
    UserError where one that exists was made from something else than today's configuration.
    """
    # From here on a stop leaves a checkpoint.
    start_processes()
    stop_gently()

    # All folds are looked at before the first is made: a stale one is an error now, not in hours.
    jobs = {job.folder / artifact: job for job in jobs_of(targets, metadata)}
    for path, job in jobs.items():
        check_existing(job, path)

    # Closed whatever happens, which gives the claim of a fold that failed back.
    with closing(shared(list(jobs))) as paths:
        for path in paths:
            yield jobs[path]


def check_existing(job: Job, path: Path) -> None:
    """Accept an artifact that today's configuration makes; refuse any other. Predictions of weights
    that have been trained again since, and those of stage 1 whose test rows are now wanted, are
    removed, so that they are made anew."""
    if not path.exists():
        return
    # Minutes of scoring, against hours of training: these need no question.
    if path.name in PREDICTED and predicted_with_other_weights(job, path):
        predict_again(path, "made with other weights than today's")
        return
    require_current(job, path)
    remove_what_led_to(path)
    if lacks_test_scores(job, path):
        predict_again(path, f"stage={job.run.stage!r} needs scores of the test images too")


def remove_what_led_to(path: Path) -> None:
    """Remove what a kill just after an artifact's renaming left: its temporary folder, the
    checkpoints of weights. Nothing writes there any more."""
    remove_abandoned(path)
    if path.suffix == ".safetensors":
        remove_checkpoints(path.parent, path.stem)


def predict_again(path: Path, reason: str) -> None:
    """Remove predictions, so that they are made anew, and say why."""
    if is_main():
        print(f"{path}: {reason}; predicting again", flush=True)
        path.unlink(missing_ok=True)


def shared(paths: list[Path]) -> Iterator[Path]:
    """Yield, in every process of the group, the paths that the main one claims.

    While there is nothing to make, all of them hear so every half second: one that waited longer
    would run into the group's timeout. TimeLimitReached between two folds when time is up or a stop
    was asked for, and at the end where others are making what is left.
    """
    with closing(attempts(paths, leave=True)) as mine:
        while True:
            # Only the main process claims; a fold that eight processes train has one claim.
            path = from_main(next(mine, NOTHING_LEFT) if is_main() else None)
            if path == NOTHING_LEFT:
                break
            # Signals and clocks differ between processes; one that stopped alone would leave the
            # others waiting for it.
            if agree(Stop.requested or time_left() < 0):
                raise TimeLimitReached(
                    "stopped between folds; the same command goes on with those that are left"
                )
            if path is not None:
                yield path

    left = from_main([path for path in paths if not path.exists()])
    if left:
        more = f" and {len(left) - 1} more" if left[1:] else ""
        raise TimeLimitReached(f"{left[0]}{more}: others are making it; the same command goes on")
