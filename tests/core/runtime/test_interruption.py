"""A signal at any line leaves nothing temporary: it is sent at each in turn."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.artifacts import files
from pipeline.core.runtime import claims
from pipeline.core.runtime.claims import turn_to_write
from pipeline.core.runtime.command import stop_by_exception
from pipeline.core.runtime.interruption import uninterrupted


@pytest.fixture(autouse=True)
def handlers():
    """Those that every stage has; the ones of before come back."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    # As in a new process: a stage that ran in this one may have left its own.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop_by_exception()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send_at(line: int, work: Callable[[], None]) -> bool:
    """Send SIGTERM just before the line-th traced line of the two modules; whether there are so
    many."""
    count = 0
    watched = {files.__file__, claims.__file__}

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename not in watched:
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return count >= line


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != "table.csv"]


def write(path: Path) -> None:
    files.write_text(path, "a,b\n")


def take_turn(path: Path) -> None:
    with turn_to_write(path):
        path.touch()


@pytest.mark.parametrize("work, fewest", [(write, 20), (take_turn, 20)])
def test_nothing_temporary_is_left_by_a_signal_at_any_line(tmp_path, work, fewest):
    line = 1
    while send_at(line, lambda: work(tmp_path / "table.csv")):
        assert left(tmp_path) == [], f"line {line}"
        line += 1
    assert line > fewest


def test_a_block_ends_before_it_is_interrupted():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
