"""Slurm: a job for each step, never two for the same, each after those that its step waits for.

A job is known by its name (the step's) and its comment (the competition's folder of models), which
`squeue` shows for everybody's jobs; nothing is kept beside the queue. What a job does when its
stage stops or fails is in job.sh.

submitit is not used: it answers SIGUSR2 alone and ignores SIGTERM, so that a cancelled job writes
no checkpoint; what it may requeue is a pickled object, not a command that ended with 75; it takes
every signal to a job of ten minutes or less for its time limit, of which it allows three; and it
asks sacct, which a cluster without accounting lacks. (Read in version 1.5.4.)
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.runtime.claims import turn_to_write
from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule.graph import CHAIN, Step, command_of
from pipeline.core.schedule.site import NOTICE, Site

JOB_SCRIPT = Path(__file__).with_name("job.sh")
# Number (of an array: the whole one's), state, priority, node, time left, reason, dependencies,
# name, comment. The last is a path, which may hold anything.
COLUMNS = ("%F", "%T", "%Q", "%N", "%L", "%r", "%E", "%j", "%k")


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    state   Slurm's own word, RUNNING or PENDING most often; HELD for one that waits to be released
    reason  why it does not run; node, time_left (as `1:02:03`): of one that runs
    after   the numbers of the jobs that it waits for
    """

    name: str
    number: str
    state: str
    node: str = ""
    time_left: str = ""
    reason: str = ""
    after: tuple[str, ...] = ()


def comment_of(competition: str) -> str:
    """What tells a competition's jobs from those of another, or of another folder of models."""
    return str(models_folder(competition).resolve())


def queue_of(competition: str) -> dict[str, Queued]:
    """The jobs of a competition that wait or run, by their names; those that are ending are left
    out."""
    text = slurm("squeue", "--noheader", f"--format={'|'.join(COLUMNS)}")
    jobs: dict[str, Queued] = {}
    for line in text.splitlines():
        number, state, priority, node, left, reason, after, name, comment = line.split("|", 8)
        if comment != comment_of(competition) or state in ("COMPLETING", "CANCELLED"):
            continue
        if state == "PENDING" and priority == "0":
            state = "HELD"
        # The jobs of an array share a name; one that is held, or runs, stands for them.
        known = jobs.get(name)
        if not known or (known.state != "HELD" and state in ("HELD", "RUNNING")):
            before = tuple(re.findall(r":(\d+)", after))
            jobs[name] = Queued(name, number, state, node, left, reason, before)
    return dict(sorted(jobs.items(), key=lambda item: int(item[1].number)))


def submit_steps(
    competition: str, steps: list[Step], site: Site, processes: int = 0, machines: int = 1
) -> None:
    """Submit what is not in the queue, release what is held there, and print a line for each."""
    # Two that submit at once would both find an empty queue.
    with turn_to_write(models_folder(competition) / "queue"):
        queue = queue_of(competition)
        numbers = {name: job.number for name, job in queue.items()}
        for step in steps:
            before = [numbers[name] for name in step.after]
            if step.name in queue:
                done = again(queue[step.name], before)
            else:
                numbers[step.name] = submit_step(step, site, before, processes, machines)
                done = f"after {', '.join(before)}" if before else "submitted"
            print(f"job {numbers[step.name]}: {step.name}: {done}", flush=True)


def again(job: Queued, before: list[str]) -> str:
    """What is done with a job that is in the queue already, when the jobs `before` are to end well
    before it begins."""
    # It may have been submitted, or have failed, before they were.
    if job.state in ("PENDING", "HELD") and not {*before} <= {*job.after}:
        waits = "afterok:" + ":".join(before)
        slurm("scontrol", "update", f"JobId={job.number}", f"Dependency={waits}")
    if job.state != "HELD":
        return f"{job.state.lower()} already"
    slurm("scontrol", "release", job.number)
    return "released, to be tried again"


def submit_step(
    step: Step, site: Site, before: list[str], processes: int = 0, machines: int = 1
) -> str:
    """Submit one step, to begin when the jobs `before` have ended well; the job's number."""
    options = site.options(step.stage)
    jobs = options.pop("jobs", 1)
    notice = options.pop("notice", NOTICE)
    log = step.log.resolve()
    log.parent.mkdir(parents=True, exist_ok=True)
    options |= {
        "job-name": step.name,
        "comment": comment_of(step.target.competition),
        "chdir": str(Path.cwd()),
        "output": str(log),
        "open-mode": "append",
        "requeue": True,
        "signal": f"B:USR1@{notice}",
        # Waits for a job that was cancelled: leaves the queue, since it would wait for ever.
        "kill-on-invalid-dep": "yes",
    }
    if before:
        options["dependency"] = "afterok:" + ":".join(before)
    if jobs > 1:
        options["array"] = f"0-{jobs - 1}"
        options["output"] = str(log.with_suffix(".%a.log"))

    # Several GPUs, several machines: torchrun's business, one torchrun a machine.
    command = command_of(step, processes, machines)
    if processes and step.stage in CHAIN:
        if "gpus-per-node" in options:
            options["gpus-per-node"] = processes
        if machines > 1:
            options |= {"nodes": machines, "ntasks-per-node": 1}
            command = ["srun", *command]
    job = (*as_options(options), str(JOB_SCRIPT), str(notice), *command)
    return slurm("sbatch", "--parsable", *job).split(";")[0]


def as_options(options: dict[str, object]) -> list[str]:
    """`--time=08:00:00 --requeue`; an option that is false is left out."""
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in options.items()
        if value is not False
    ]


def cancel_jobs(competition: str) -> list[Queued]:
    """Cancel the jobs of a competition, those that run after a checkpoint; the jobs."""
    jobs = list(queue_of(competition).values())
    # Those that wait first, or one of them would begin in the meantime.
    for job in sorted(jobs, key=lambda job: job.state == "RUNNING"):
        slurm("scancel", job.number)
    return jobs


def slurm(*command: str) -> str:
    """What a command of Slurm prints; UserError with its own words where it fails."""
    # Inside another job, its options would be taken for those of the new one.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name == "SLURM_CONF"
    }
    try:
        done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: there is no such program; is this a login node?") from None
    if done.returncode:
        raise UserError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
