"""Run a program and measure how much memory it and its children took together."""

import subprocess
import threading
from pathlib import Path

# Seconds between two measurements: a shorter peak than that may be missed.
PAUSE = 0.2


def run_measured(
    command: list[str], folder: Path, environment: dict[str, str]
) -> tuple[int, float]:
    """(exit status, peak in MB). Shared pages count once (proportional set size); 0 MB where there
    is no /proc."""
    # Children too: loader processes hold images of their own.
    process = subprocess.Popen(command, cwd=folder, env=environment)
    done = threading.Event()
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while not done.wait(PAUSE):
            family = [process.pid, *descendants(process.pid)]
            peak = max(peak, sum(map(proportional, family)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    return status, peak


def descendants(process: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    # A child is listed under the thread that started it, so every thread is asked.
    family = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, read_proc(path).split()):
            family += [child, *descendants(child)]
    return family


def proportional(process: int) -> float:
    """The proportional set size of one process in MB."""
    for line in read_proc(Path(f"/proc/{process}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def read_proc(path: Path) -> str:
    """A file under /proc, empty when its process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
