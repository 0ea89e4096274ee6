"""How a program ends: one line for a full disk, a lost loader process, a reader that is gone, and
a signal that leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.runtime import command
from pipeline.core.runtime.command import disk_trouble, lost_loader

HEAD = """
import sys, time
from pathlib import Path
from pipeline.core.artifacts.files import atomic
from pipeline.core.runtime.command import run_stage, stage_parser
def main(arguments):
"""
TAIL = "\nrun_stage(main, stage_parser('a program', targets=False))\n"


def program(body: str) -> list[str]:
    """A stage with this body, as a command."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return [sys.executable, "-c", HEAD + lines + TAIL]


def ended(body: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(program(body), capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize(
    "body, line",
    [
        ("Path('/proc/x').mkdir()", "error: /proc/x: No such file or directory"),
        ("raise OSError(28, 'No space', 'a.csv')", "error: a.csv: No space; make room and run"),
        (
            "raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')",
            "stopped: a loader process is killed by signal: Killed; memory",
        ),
    ],
)
def test_trouble_of_the_machine_is_one_line(body, line):
    done = ended(body)
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1, done.stderr
    assert done.returncode == (75 if line.startswith("stopped") else 2)


def test_any_other_error_keeps_its_traceback():
    assert lost_loader(RuntimeError("shapes do not fit")) == ""
    done = ended("raise RuntimeError('shapes do not fit')")
    assert "Traceback" in done.stderr and done.returncode == 1
    assert disk_trouble(OSError("no number")) == "no number"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_temporary(tmp_path, number):
    body = (
        f"with atomic(Path({str(tmp_path / 'a.txt')!r})) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    time.sleep(60)"
    )
    child = subprocess.Popen(program(body), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".a.txt.*/a.txt")):
        time.sleep(0.05)
    child.send_signal(number)
    assert child.communicate()[1] == "stopped: interrupted: the same command goes on from here\n"
    assert child.returncode == 130 and not list(tmp_path.iterdir())


def test_a_reader_that_is_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as output:
        body = "print('x' * 100_000)\nprint('y')"
        done = subprocess.run(program(body), stdout=output, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 141 and done.stderr == b""


def test_a_path_with_other_letters_is_printed_in_any_language(tmp_path):
    folder = tmp_path / "größe"
    body = f"print(Path({str(folder)!a}))\nraise OSError(30, 'Read-only', {str(folder)!a})"
    ascii_only = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ended(body, env={**os.environ, **ascii_only}, cwd=Path(__file__).parents[3])
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "gr\\xf6" in done.stdout


def test_a_second_signal_ends_at_once_unless_it_is_the_same_request(monkeypatch):
    """A scheduler and torchrun each send one; a user presses Ctrl-C again after two seconds."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    now = iter([10.0, 10.1, 10.2, 12.5])
    monkeypatch.setattr(command.Stop, "requested", False)
    monkeypatch.setattr(command.time, "monotonic", lambda: next(now))
    try:
        command.stop_gently()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert command.Stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
