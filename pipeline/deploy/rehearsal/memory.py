"""Run a program and say how much memory it and its children took together."""

import subprocess
import threading
from pathlib import Path

PAUSE = 0.2  # seconds between two looks


def run_measured(
    command: list[str], folder: Path, environment: dict[str, str]
) -> tuple[int, float]:
    """(exit status, peak in MB). Shared pages count once (proportional set size); 0 MB where there
    is no /proc."""
    process = subprocess.Popen(command, cwd=folder, env=environment)
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(PAUSE):
            peak[0] = max(peak[0], sum(map(proportional, [process.pid, *descendants(process.pid)])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    return status, peak[0]


def descendants(process: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in read(path).split():
            found += [int(child), *descendants(int(child))]
    return found


def proportional(process: int) -> float:
    """The proportional set size of one process in MB."""
    lines = read(Path(f"/proc/{process}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def read(path: Path) -> str:
    """A file under /proc, empty when its process is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
