"""This machine: steps side by side, each on a slot of its own, a share of its GPUs and cores.

With GPUs a slot is one of them (PER_GPU: a part of one; GPUS=2: two of them). Without, the cores
are shared out among the folds, so that each computes with as many threads however many wait.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from shutil import which

from pipeline.core.artifacts.files import require_plain
from pipeline.core.runtime import environment
from pipeline.core.runtime.command import EXIT_TIME_LIMIT, time_left
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.runtime.workers import usable_cores
from pipeline.core.schedule.graph import CHAIN, Step, command_of
from pipeline.core.schedule.logs import last_line

LOOK = 0.2  # seconds between two looks at what runs


@dataclass(frozen=True)
class Slot:
    """What one step may use: numbers of cores, and of GPUs as CUDA_VISIBLE_DEVICES has them."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind, numbers = ("GPU", self.gpus) if self.gpus else ("core", self.cores)
        return f"{kind} {','.join(map(str, numbers))}"


def make_slots(cores: list[int], gpus: list[str], folds: int, processes: int = 1) -> list[Slot]:
    """The slots of a machine, its cores shared out evenly.

    folds: how many chains there are to run; processes: of one fold, each with a GPU of its own.
    """
    if len(gpus) < processes and gpus:
        raise UserError(f"GPUS={processes}: there are {len(gpus)} here")
    groups = [gpus[start : start + processes] for start in range(0, len(gpus), processes)]
    # The last ones may be too few for one more fold.
    whole = [tuple(group) for group in groups if len(group) == processes]
    places = [group for group in whole for _ in range(environment.per_gpu())]
    if not gpus:
        places = [()] * max(1, min(len(cores) // processes, folds))

    # Fewer cores than slots: they are used twice.
    share = max(1, len(cores) // len(places))
    return [
        Slot(tuple(cores[(number * share + one) % len(cores)] for one in range(share)), group)
        for number, group in enumerate(places)
    ]


def gpus_here() -> list[str]:
    """This machine's GPUs, those of CUDA_VISIBLE_DEVICES where it is set."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return [number for number in shown.split(",") if number.strip()]
    if not which("nvidia-smi"):
        return []
    question = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(question, capture_output=True, text=True, check=False).stdout.split()


def run_here(steps: list[Step], processes: int = 0) -> None:
    """Run all steps, as many at once as there are slots.

    UserError when one failed, after all that do not wait for it have run; TimeLimitReached when one
    stopped, or when all were asked to.
    """
    folds = len({step.arguments for step in steps if step.stage in CHAIN})
    slots = make_slots(usable_cores(), gpus_here(), folds, processes or 1)
    ended = run_steps(steps, slots, lambda step, slot: start_step(step, slot, processes))

    failed = [step for step in steps if ended.get(step.name) not in (None, 0, EXIT_TIME_LIMIT)]
    if failed:
        first = failed[0]
        more = f"; {len(failed) - 1} more failed" if failed[1:] else ""
        raise UserError(f"{first.name}: {last_line(first.log)} ({first.log}){more}")
    if any(ended.get(step.name) != 0 for step in steps):
        raise TimeLimitReached("stopped; the same command goes on with what is left")


def run_steps(
    steps: list[Step], slots: list[Slot], start: Callable[[Step, Slot], subprocess.Popen]
) -> dict[str, int]:
    """Name -> exit status of every step that was started: each when a slot is free and those that
    it waits for have ended with 0."""
    running: dict[str, tuple[subprocess.Popen, Slot]] = {}
    ended: dict[str, int] = {}
    free = list(slots)
    there = {step.name for step in steps}
    with signals_passed_on(running) as stopped:
        while True:
            for step in steps:
                ready = all(ended.get(name) == 0 for name in step.after if name in there)
                if free and ready and not stopped and not {step.name} & {*running, *ended}:
                    slot = free.pop(0)
                    running[step.name] = start(step, slot), slot
                    tell(f"{step.name}: started on {slot}")
            if not running:
                return ended
            time.sleep(LOOK)
            for name, (process, slot) in list(running.items()):
                if process.poll() is not None:
                    ended[name] = process.returncode
                    del running[name]
                    free.append(slot)
                    tell(f"{name}: {'done' if not process.returncode else ended_text(process)}")


def ended_text(process: subprocess.Popen) -> str:
    """How a step ended that is not done."""
    if process.returncode == EXIT_TIME_LIMIT:
        return "stopped"
    return f"failed with status {process.returncode}"


def tell(text: str) -> None:
    """Print a line with the time of day."""
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


def start_step(step: Step, slot: Slot, processes: int = 0) -> subprocess.Popen:
    """Start a step on its slot; what it prints goes to its log."""
    changes = {"CUDA_VISIBLE_DEVICES": ",".join(slot.gpus)} if slot.gpus else {}
    # A progress bar is a line a minute in a log.
    changes["TQDM_MININTERVAL"] = os.environ.get("TQDM_MININTERVAL", "60")
    # The limit counts from the start of each process.
    if environment.time_limit() is not None:
        changes["TIME_LIMIT"] = f"{max(0.0, time_left()):.0f}s"
    command = command_of(step, processes)
    # Whatever counts cores counts those that a process may use; images are prepared by all.
    if step.stage != "prepare" and which("taskset"):
        command = ["taskset", "--cpu-list", ",".join(map(str, slot.cores)), *command]
    step.log.parent.mkdir(parents=True, exist_ok=True)
    require_plain(step.log)
    with step.log.open("a", encoding="utf-8") as log:
        # A session of its own: Ctrl-C reaches it through this process, once.
        return subprocess.Popen(
            command,
            env=os.environ | changes,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def signals_passed_on(running: dict[str, tuple[subprocess.Popen, Slot]]) -> Iterator[list[int]]:
    """Pass Ctrl-C, SIGTERM and SIGHUP on to all that runs, as SIGTERM; the list is empty until one
    has come. A second one ends each at once, as it would alone."""
    came: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        came.append(number)
        tell(f"stopping {len(running)} after a checkpoint; once more: at once")
        for process, _ in list(running.values()):
            process.send_signal(signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
