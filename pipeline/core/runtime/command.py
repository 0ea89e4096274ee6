"""The command line that all stages share: one parser, one way to fail, stop signals, time limits.

    if __name__ == "__main__":
        run_stage(main, stage_parser(__doc__))

Exit status: 0 when the whole artifact exists; 2 for a mistake of the user's or a disk that cannot
be read or written, printed as one line on stderr; 75 when a time limit, a signal or the loss of a
loader process stopped the stage and running it again continues; 130 after Ctrl-C, and after SIGTERM
or SIGHUP in a stage without checkpoints; 141 where whoever read the output is gone.
"""

import argparse
import errno
import io
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from types import FrameType

from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.runtime.interruption import interrupting

EXIT_USER_ERROR = 2
EXIT_TIME_LIMIT = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141  # as of a process that SIGPIPE ended
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Seconds within which a second signal is the first one again: a terminal or a scheduler reaches
# every process, and torchrun passes on to its own what it got itself.
SAME_REQUEST = 2.0

# TIME_LIMIT counts from here: the start of the process, but for its first imports.
STARTED = time.monotonic()


def stage_parser(doc: str, targets: bool = True) -> argparse.ArgumentParser:
    """A parser whose --help is the stage's module docstring. `targets` are competition, run or fold
    paths."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if targets:
        parser.add_argument(
            "targets",
            nargs="+",
            metavar="TARGET",
            help="competition, run or fold: melanoma, melanoma/b5_384 or melanoma/b5_384/fold0",
        )
    return parser


def run_stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse, run, and turn the expected ways to fail into exit codes without a traceback."""
    warnings.showwarning = one_line_warning
    # A path may hold letters that the terminal's encoding lacks; a notebook's output takes all.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    stop_by_exception()
    arguments = parser.parse_args()
    try:
        environment.check_variables()
        main(arguments)
        sys.stdout.flush()
    except UserError as error:
        sys.exit(fail(error, EXIT_USER_ERROR))
    except TimeLimitReached as stop:
        sys.exit(fail(stop, EXIT_TIME_LIMIT))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted: the same command goes on from here", EXIT_INTERRUPTED))
    except BrokenPipeError:
        # Python would flush once more at its end, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_NO_READER)
    except OSError as error:
        sys.exit(fail(disk_trouble(error), EXIT_USER_ERROR))
    except RuntimeError as error:
        lost = lost_loader(error)
        if not lost:
            raise
        sys.exit(fail(lost, EXIT_TIME_LIMIT))


def disk_trouble(error: OSError) -> str:
    """What the system said about a file, and what to do."""
    if error.strerror is None:
        return str(error)
    advice = "; make room and run the same command again" if error.errno in FULL else ""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}{advice}"


def lost_loader(error: RuntimeError) -> str:
    """How a loader process ended, "" for any other error. torch tells it by the text alone."""
    found = re.search(r"DataLoader worker \(pid\(?s?\)? [^)]*\) (.*)", str(error), re.DOTALL)
    if not found:
        return ""
    how = found[1].split(". ")[0].strip(" .")
    return (
        f"a loader process {how}; memory, or room in /dev/shm, most often ran out: WORKERS=1 takes "
        "less, WORKERS=0 least; what the last checkpoint holds is kept, the same command goes on"
    )


def one_line_warning(message: Warning, *_: object) -> None:
    """A warning without the path and source line that Python puts around it."""
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def fail(reason: object, status: int) -> int:
    """Print the reason as one line and return the exit status."""
    kind = "error:" if status == EXIT_USER_ERROR else "stopped:"
    print(kind, " ".join(str(reason).split()), file=sys.stderr)
    return status


class Stop:
    """Whether this process was asked to stop: SIGTERM (a machine taken away), SIGHUP (a terminal
    closed) or a first Ctrl-C."""

    requested = False


def stop_by_exception() -> None:
    """From here on SIGTERM and SIGHUP end the process as Ctrl-C does, so that nothing temporary is
    left behind."""
    end = interrupting(signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        # What is ignored stays so: `nohup` asks for it.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)


def stop_gently() -> None:
    """From here on SIGTERM, SIGHUP and a first Ctrl-C ask for a checkpoint and exit 75; a second
    one ends at once."""
    asked: list[float] = []
    end = interrupting(signal.default_int_handler)

    def ask(number: int, frame: FrameType | None) -> None:
        if asked and time.monotonic() - asked[0] > SAME_REQUEST:
            end(number, frame)
        Stop.requested = True
        asked.append(time.monotonic())

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ask)


def stop_with_time_limit() -> None:
    """From here on SIGTERM and SIGHUP end the stage at once as a time limit does, with 75: one that
    keeps what it has done as it goes."""

    def stop(_number: int, _frame: object) -> None:
        raise TimeLimitReached("asked to stop; the same command goes on from here")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupting(stop))


def leave_signals_to_the_parent() -> None:
    """In a worker process: Ctrl-C and a scheduler's SIGTERM reach every process of a group, and it
    is the parent that ends its workers."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def time_left() -> float:
    """Seconds until TIME_LIMIT (counted from the start of this process), infinite when none is
    set."""
    limit = environment.time_limit()
    if limit is None:
        return float("inf")
    return limit - (time.monotonic() - STARTED)
