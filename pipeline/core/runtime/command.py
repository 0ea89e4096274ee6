"""The command line that all stages share: one parser, one way to fail, stop signals, time limits.

    if __name__ == "__main__":
        run_stage(main, stage_parser(__doc__))

Exit status: 0 when the whole artifact exists; 2 for a mistake of the user's, printed as one line on
stderr; 75 when a time limit stopped the stage and running it again continues; 130 after Ctrl-C.
"""

import argparse
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable

from pipeline.core.runtime.errors import TimeLimitReached, UserError

EXIT_USER_ERROR = 2
EXIT_TIME_LIMIT = 75  # EX_TEMPFAIL of sysexits.h: "try again later"
EXIT_INTERRUPTED = 130

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
    try:
        main(parser.parse_args())
    except UserError as error:
        sys.exit(fail(error, EXIT_USER_ERROR))
    except TimeLimitReached as stop:
        sys.exit(fail(stop, EXIT_TIME_LIMIT))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted: the same command goes on from here", EXIT_INTERRUPTED))


def one_line_warning(message: Warning, *_: object) -> None:
    """A warning without the path and source line that Python puts around it."""
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def fail(reason: object, status: int) -> int:
    """Print the reason as one line and return the exit status."""
    kind = "error:" if status == EXIT_USER_ERROR else "stopped:"
    print(kind, " ".join(str(reason).split()), file=sys.stderr)
    return status


class Stop:
    """Whether this process was asked to stop: SIGTERM (a machine taken away) or a first Ctrl-C."""

    requested = False


def stop_gently() -> None:
    """From here on SIGTERM and a first Ctrl-C ask for a checkpoint and exit 75; a second Ctrl-C
    ends at once."""

    def ask(number: int, _frame: object) -> None:
        Stop.requested = True
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def seconds(text: str) -> float:
    """A duration such as `8.5h`, `30m`, `90s` or `90` in seconds.

    >>> seconds("8.5h"), seconds("90")
    (30600.0, 90.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hms]?)", text.strip())
    if not match:
        raise UserError(f"TIME_LIMIT={text!r} is not a duration: write 8.5h, 30m or 90s")
    number, unit = match.groups()
    return float(number) * {"h": 3600, "m": 60, "s": 1, "": 1}[unit]


def time_left() -> float:
    """Seconds until TIME_LIMIT (counted from the start of this process), infinite when none is
    set."""
    limit = os.environ.get("TIME_LIMIT")
    if not limit:
        return float("inf")
    return seconds(limit) - (time.monotonic() - STARTED)
