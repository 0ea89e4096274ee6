"""Claims: of several processes, each artifact is made by one, on a disk that several machines may
share.

A claim is a file beside the artifact, made with O_EXCL, that its owner touches every few seconds. A
watcher calls it stale when it has not changed for `STALE` seconds by the watcher's own clock
(clocks of two machines are never compared), or at once when its owner ran on this machine and is
gone. It is taken over by removing it, which only one watcher can do; should a new owner appear
between a watcher's last look and that (microseconds), the work is done twice, with equal results.

Lock libraries do less where machines share a disk. filelock's SoftFileLease (tried in 4.3.1) takes
over by exchanging two names, which NFS and sshfs refuse: a dead owner's claim stands there for
ever, and an empty one, as a power cut leaves it, on any disk; of two machines of one name each
takes the other's owner for dead. flufl.lock (10.0.0) compares the clocks of machines. flock needs a
file system that has it on every machine.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.interruption import interruptible, uninterrupted

BEAT = 5.0  # seconds between an owner's touches
# Seconds without a touch after which a claim is stale: a network disk may show an old time of a
# file for 60 s (NFS keeps attributes that long), and two such are not yet a dead owner.
STALE = 150.0
LOOK_FIRST = 0.5  # seconds before a watcher looks again; doubled each time that nothing has changed
LOOK_LAST = 15.0  # the longest that it becomes
TURN = 0.05  # the same, for a file that takes milliseconds to write


def claim_path(artifact: Path) -> Path:
    """The claim that exists beside an artifact while it is made."""
    return artifact.with_name(f".{artifact.name}.claim")


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in kernel ticks; None when it is gone or the system
    does not say."""
    # Field 22 of /proc/<pid>/stat; the process's name before it may hold spaces and brackets.
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return None


def machine() -> str:
    """This machine, this boot of it, and the container's own process ids: a process id means
    nothing elsewhere."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def try_claim(path: Path) -> bool:
    """Make the claim file, or return False when there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    owner = {"machine": machine(), "pid": os.getpid(), "started": process_start(os.getpid())}
    try:
        with file:
            json.dump(owner, file)
    except OSError:
        # A full disk: a claim that names nobody would be waited for.
        path.unlink(missing_ok=True)
        raise
    return True


def owner_of(path: Path) -> dict | None:
    """The machine, pid and start of a claim's owner; None for a claim that is being written or has
    just gone, and for what is no claim."""
    with suppress(OSError, ValueError, RecursionError):
        owner = json.loads(path.read_text()) if path.is_file() else None
        if isinstance(owner, dict) and {"machine", "pid", "started"} <= {*owner}:
            return owner
    return None


def owner_is_gone(path: Path) -> bool:
    """True when the owner ran on this machine and its process is gone, and for what is no file:
    nobody's claim is a pipe."""
    if path.exists() and not path.is_file():
        return True
    owner = owner_of(path)
    if owner is None or owner["machine"] != machine():
        return False
    # A new process may have the old one's id, but not its start time.
    return process_start(owner["pid"]) != owner["started"]


def stamp(path: Path) -> tuple[int, int] | None:
    """What a touch changes (time in ns, and the file's number); None when there is no claim."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_mtime_ns, status.st_ino
    return None


@dataclass
class Watch:
    """What this process last saw of another's claim, when by its own clock, and whether it has seen
    it being touched."""

    seen: tuple[int, int] | None = None
    since: float = float("inf")
    alive: bool = False
    reported: bool = False


def acquire(artifact: Path, watch: Watch) -> bool:
    """Claim the making of `artifact` if nobody else has; take a stale claim over. Never waits."""
    path = claim_path(artifact)
    if try_claim(path):
        return True
    if path.is_dir():
        raise UserError(f"{path}: is a folder, not a file; remove it and run again")
    now = stamp(path)
    if now != watch.seen:
        watch.alive = watch.seen is not None
        watch.seen, watch.since = now, time.monotonic()
    if owner_is_gone(path) or time.monotonic() - watch.since > STALE:
        print(f"{path}: its owner is gone; taking over", flush=True)
        # Another watcher may have been here since.
        if stamp(path) == now:
            path.unlink(missing_ok=True)
        # At once, or the fold that was interrupted would be passed over for another.
        return try_claim(path)
    if not watch.reported:
        print(f"{artifact}: another process is making it", flush=True)
        watch.reported = True
    return False


@contextmanager
def claimed(artifact: Path, watch: Watch) -> Iterator[bool]:
    """Try to claim the making of `artifact`; whether it is claimed, until the block ends."""
    path = claim_path(artifact)
    done = threading.Event()
    thread = threading.Thread(target=beat, args=(path, done), daemon=True)
    with uninterrupted():
        mine = acquire(artifact, watch)
        try:
            if mine:
                thread.start()
            with interruptible():
                yield mine
        finally:
            if mine:
                done.set()
                thread.join()
                path.unlink(missing_ok=True)


def beat(path: Path, done: threading.Event) -> None:
    """Touch a claim every BEAT seconds."""
    while not done.wait(BEAT):
        # A network disk may not answer for once.
        with suppress(OSError):
            os.utime(path)


@contextmanager
def turn_to_write(path: Path) -> Iterator[None]:
    """Hold the claim of a file that several processes read and write anew, after waiting for it."""
    watch = Watch(reported=True)
    while True:
        with claimed(path, watch) as mine:
            if mine:
                yield
                return
        time.sleep(TURN)


def unfinished(artifacts: list[Path]) -> Iterator[Path]:
    """Yield each artifact that this process is to make now, holding its claim meanwhile, until all
    of them exist.

    What another process makes is left to it and waited for at the end; should it die, its work
    comes here.
    """
    yield from (path for path in attempts(artifacts) if path is not None)


def attempts(artifacts: list[Path], leave: bool = False) -> Iterator[Path | None]:
    """As `unfinished`, and None every LOOK_FIRST while there is nothing to make. `leave`: end where
    all that is left is being made by others who are seen to live."""
    # A kill just after the artifact was written leaves its claim.
    for path in artifacts:
        if path.exists() and owner_is_gone(claim_path(path)):
            claim_path(path).unlink(missing_ok=True)

    watches = {path: Watch() for path in artifacts}
    pause = 0.0
    while waiting := [path for path in artifacts if not path.exists()]:
        for path in waiting:
            if path.exists():
                continue
            with claimed(path, watches[path]) as mine:
                # Another process may have finished it between the look and the claim. Listed, since
                # a network disk may go on denying a file that it has denied before.
                if mine and path not in path.parent.iterdir():
                    yield path
                    pause = 0.0
        if leave and all(watches[path].alive for path in waiting):
            return
        # Whoever waits may be asked to stop.
        end = time.monotonic() + pause
        while time.monotonic() < end:
            yield None
            time.sleep(LOOK_FIRST)
        pause = min(2 * pause or LOOK_FIRST, LOOK_LAST)
