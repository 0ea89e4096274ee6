"""What `pipeline.status` says of a stage: its files (`runs.progress`), Slurm's queue, its log."""

import re
from collections import Counter
from pathlib import Path

from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED
from pipeline.core.runs.job import Job
from pipeline.core.runs.progress import (
    State,
    duration_text,
    how_far,
    stage_state,
    trained_so_far,
)
from pipeline.core.schedule.graph import CHAIN, Step
from pipeline.core.schedule.logs import last_line
from pipeline.core.schedule.slurm import Queued


def scheduled_state(job: Job, stage: str, queue: dict[str, Queued]) -> State:
    """How far a stage of one fold is, the words of `runs.progress.State` and two more: "waiting"
    (in the queue) and "failed", with the last line of its log."""
    state = stage_state(job, stage)
    step = Step(stage, (job.target,))
    queued = queue.get(step.name)
    if state.word in ("done", "refused", "running") and not queued:
        return state
    if queued:
        if queued.state != "RUNNING" and state.word == "running":
            return state
        far = how_far(job, stage) if queued.state in ("RUNNING", "HELD") else ""
        state = queued_state(queued, queue, step.log, far)
        # The table has the stage before of the same fold on its left.
        own = state.word == "waiting" and state.text.endswith(f" {job.target}")
        return State("waiting") if own else state

    # In nobody's hands: what its log ends with tells whether it failed.
    last = last_line(step.log)
    if last.startswith("error:") or re.match(r"[\w.]*(Error|Exception)\b", last):
        return State("failed", f"{last} ({step.log})")
    return state


def queued_state(queued: Queued, queue: dict[str, Queued], log: Path, far: str = "") -> State:
    """The state of a job in Slurm's queue. far: how far its stage is, "" where nothing says so."""
    if queued.state == "RUNNING":
        place = f"job {queued.number} on {queued.node}, {queued.time_left} until its limit"
        return State("running", f"{far} ({place})" if far else place)
    if queued.state == "HELD":
        reason = last_line(log) or queued.reason
        return State("failed", f"{reason} (job {queued.number} held; {log})")
    numbers = {job.number: job.name for job in queue.values()}
    names = [numbers[number] for number in queued.after if number in numbers]
    what = f"for {names[0]}" if names else f"for Slurm ({queued.reason})"
    if len(names) > 1:
        what = f"for {len(names)} jobs, first {names[0]}"
    return State("waiting", f"job {queued.number}: {what}")


def other_lines(queue: dict[str, Queued], shown: set[str]) -> list[str]:
    """A line for each job in the queue that the table has no cell for: prepare, ensemble, ...; of
    folds that it does not show the failed ones, and how many more there are."""
    lines = []
    more: Counter[str] = Counter()
    for name, queued in queue.items():
        if name in shown:
            continue
        step = Step(name.split()[0], tuple(name.split()[1:]))
        state = queued_state(queued, queue, step.log)
        if step.stage in CHAIN and state.word != "failed":
            more[state.word] += 1
        else:
            what = name if step.stage in CHAIN else step.stage
            lines.append(f"{what}: {state.word}, {state.text}")
    if more:
        counted = ", ".join(f"{more[word]} {word}" for word in sorted(more))
        lines.append(f"jobs of other folds: {counted}")
    return lines


def hours_line(jobs: list[Job]) -> str:
    """`3 h 20 min of training steps so far, 2 h 5 min left, and 4 phases of unknown length`.

    What is left of a phase is told by its own log, of one not begun by the mean of the same run's.
    """
    whole: dict[tuple[str, str], list[float]] = {}
    seconds = left = 0.0
    unbegun: list[tuple[str, str]] = []
    for job in jobs:
        for phase, artifact, recipe in (
            ("pretrained", PRETRAINED, job.run.pretrain),
            ("finetuned", FINETUNED, job.run.finetune),
        ):
            so_far = trained_so_far(job.folder, phase, recipe.batch_size, recipe.epochs)
            key = (job.run.name, phase)
            seconds += so_far.seconds
            if (job.folder / artifact).is_file():
                whole.setdefault(key, []).append(so_far.seconds)
            elif so_far.seconds_left is not None:
                whole.setdefault(key, []).append(so_far.seconds + so_far.seconds_left)
                left += so_far.seconds_left
            else:
                unbegun.append(key)

    # Those of a run of which nothing has been trained are counted, not guessed at.
    known = {key: sum(times) / len(times) for key, times in whole.items()}
    left += sum(known[key] for key in unbegun if key in known)
    unknown = sum(key not in known for key in unbegun)
    more = f", and {unknown} phases of unknown length" if unknown else ""
    return f"{duration_text(seconds)} of training steps so far, {duration_text(left)} left{more}"
