"""Stages run in forks of this process, which has everything imported: 0.1 s instead of 5 s each.

A fork is a process like any other: it can be killed, limited and cut off, and what it prints is
kept.
"""

import fcntl
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.core.images.area import warm_up
from pipeline.core.networks.image import import_timm
from pipeline.core.runtime.command import run_stage, stage_parser

ROOTS = ("DATA", "MODELS", "SUBMISSIONS")
# Here once, not in every fork.
import_timm()
warm_up()
# torch has read OMP_NUM_THREADS by now. Sums of two threads differ from those of one in the last
# digit; the stages that are processes of their own have one (`trained.variables`).
torch.set_num_threads(1)
LONGEST = 2000  # characters of a line of error
LIMIT = 300.0  # seconds after which a stage counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a stage ended: its exit status (minus the signal that ended it, None where it hung) and
    what it printed."""

    status: int | None
    printed: str

    @property
    def fault(self) -> str:
        """What is wrong with how it ended, "" where nothing is: it made its artifact (0), said in
        one line why it did not (2), or stopped so that the same command goes on (75, 130)."""
        errors = [line for line in self.printed.splitlines() if line.startswith("error:")]
        if self.status is None:
            return "hung"
        if "Traceback" in self.printed or "Exception ignored" in self.printed:
            return "traceback"
        if self.status == 2 and len(errors) != 1:
            return f"{len(errors)} lines of error"
        if any(len(line) > LONGEST for line in errors):
            return "an error of more than a line"
        return "" if self.status in (0, 2, 75, 130) else f"status {self.status}"

    @property
    def told(self) -> set[str]:
        """The lines that say something about a file that could not be used as it was."""
        words = ("error:", "warning:", "making it anew", "predicting again", "damaged", "left out")
        return {line for line in self.printed.splitlines() if any(word in line for word in words)}


@dataclass(frozen=True)
class Running:
    """A stage under way: its process, which leads a group of its own, and what it prints."""

    process: int
    output: int


def begin(
    home: Path, stage: str, *arguments: str, first: Callable[[], None] | None = None, **more: str
) -> Running:
    """Start a stage on the roots under `home`.

    first  what the new process does before the stage
    more   environment variables
    """
    module = importlib.import_module(f"pipeline.{stage}")
    sys.stdout.flush()
    sys.stderr.flush()
    # A pipe, since limits on files are among the faults.
    output, written = os.pipe()
    fcntl.fcntl(written, fcntl.F_SETPIPE_SZ, 1 << 20)
    child = os.fork()
    if child:
        os.close(written)
        return Running(child, output)
    status = 70
    try:
        os.setpgid(0, 0)
        replace_streams(written)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ |= {name: str(home / name.lower()) for name in ROOTS}
        os.environ |= {"SMOKE": "1", "WORKERS": "0", "OMP_NUM_THREADS": "1"} | more
        sys.argv = [f"pipeline.{stage}", *arguments]
        if first:
            first()
        parser = module.parser() if hasattr(module, "parser") else stage_parser(module.__doc__)
        run_stage(module.main, parser)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  # what ends a process is its traceback and status 1
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def replace_streams(output: int) -> None:
    """Let this process read nothing and print into `output`; what pytest has put in the place of
    the streams goes."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, handle in ((0, nothing), (1, output), (2, output)):
        os.dup2(handle, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)


def wait_for(running: Running, limit: float = LIMIT) -> Ended:
    """How a stage ends; one that takes longer than `limit` seconds is killed with its group."""
    # Read all along: a stage that says more than the pipe holds would wait for its reader.
    os.set_blocking(running.output, False)
    text = b""
    end = time.monotonic() + limit
    status = None
    while status is None and time.monotonic() < end:
        done, code = os.waitpid(running.process, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
        else:
            time.sleep(0.002)
        # Workers may have the other end still: what is there now is all that is read.
        with suppress(BlockingIOError):
            while block := os.read(running.output, 1 << 16):
                text += block
    if status is None:
        os.killpg(running.process, signal.SIGKILL)
        os.waitpid(running.process, 0)
    os.close(running.output)
    return Ended(status, text.decode("utf-8", "replace"))


def run_forked(
    home: Path, stage: str, *arguments: str, limit: float = LIMIT, **more: object
) -> Ended:
    """Run a stage to its end; the other arguments are those of `begin`."""
    return wait_for(begin(home, stage, *arguments, **more), limit)
