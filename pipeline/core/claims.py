"""One job, one process: an atomic claim per artifact, on a disk that several machines may share.

The claim is a file made with O_EXCL that its owner touches every few seconds. A watcher calls it stale when it has not
changed for `STALE` seconds by the watcher's own clock (clocks of two machines are never compared), or at once when its
owner ran on this machine and is gone. It is taken over by renaming it away, which one watcher can do; should a new owner
appear between a watcher's last look and its rename (microseconds), the work is done twice, with equal results.
"""
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BEAT, STALE, POLL = 5.0, 60.0, 0.5  # seconds


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in kernel ticks; None when it is gone or the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def machine() -> str:
    """This machine, and this boot of it: a process id means nothing on another."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".strip()


def try_claim(path: Path) -> bool:
    """Make the claim file, or return False when there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    owner = {"machine": machine(), "pid": os.getpid(), "started": process_start(os.getpid())}
    with os.fdopen(handle, "w") as file:
        json.dump(owner, file)
    return True


def owner_is_gone(path: Path) -> bool:
    """True when the owner ran on this machine and its process is no more."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return False  # just made or just gone: look again later
    return owner["machine"] == machine() and process_start(owner["pid"]) != owner["started"]


def take_over(path: Path, seen: tuple[int, int] | None) -> None:
    """Move away the claim that was `seen` stale; of several watchers one succeeds, for the others it is gone."""
    grave = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        if stamp(path) == seen:
            path.rename(grave)
            grave.unlink()


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch the claim until the block ends, then remove it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            try:
                os.utime(path)
            except FileNotFoundError:
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


def stamp(path: Path) -> tuple[int, int] | None:
    """What a heartbeat changes, None when there is no claim."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


@contextmanager
def claimed(artifact: Path) -> Iterator[bool]:
    """Yield True while this process holds the claim to make `artifact`, or False when it stands already.

    Waits while another process makes it, and says for whom; takes a stale claim over.
    """
    path = artifact.with_name(f".{artifact.name}.claim")
    seen, since, said = None, time.monotonic(), False
    while not artifact.exists():
        if try_claim(path):
            with beating(path):
                yield not artifact.exists()
            return
        now = stamp(path)
        if now != seen:
            seen, since = now, time.monotonic()
        elif owner_is_gone(path) or time.monotonic() - since > STALE:
            print(f"{path}: its owner is gone; taking over", flush=True)
            take_over(path, seen)
            continue
        if not said:
            print(f"{artifact}: another process is making it; waiting", flush=True)
            said = True
        time.sleep(POLL)
    yield False
