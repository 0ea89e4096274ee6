"""Mounts that one process alone sees, in a mount namespace of its own; they go when it ends. A disk
that all see, for a block. And permissions that root obeys too."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CAPABILITY_VERSION = 0x20080522
CAP_DAC = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def libc_call(name: str, *arguments: object) -> None:
    """Call a function of the C library; OSError where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    texts = [text.encode() for text in (source, str(target), kind)]
    libc_call("mount", *texts, ctypes.c_ulong(flags), options.encode())


def own_namespace() -> None:
    """Give this process mounts of its own; OSError where that is not permitted."""
    libc_call("unshare", CLONE_NEWNS)
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)


def small_disk(folder: Path, size: int) -> None:
    """An empty disk of `size` bytes (whole pages) at a folder."""
    own_namespace()
    mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def read_only(folder: Path) -> None:
    """Make a folder read-only."""
    own_namespace()
    mount(str(folder), folder, "", MS_BIND)
    mount("none", folder, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def obey_permissions() -> None:
    """Have this process refused what a file's mode does not allow its owner: root gives up what
    lets it pass."""
    if os.geteuid() != 0:
        return
    # capget(2), capset(2): a version and a process, then two times effective, permitted, inherited.
    head = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc_call("capget", head, sets)
    for place in range(3):
        sets[place] &= ~CAP_DAC
    libc_call("capset", head, sets)


@contextmanager
def disk_for_all(folder: Path, room: int) -> Iterator[None]:
    """Until the block ends, in the place of a folder of files a disk that holds them and has `room`
    bytes left."""
    files = {path: path.read_bytes() for path in folder.iterdir()}
    resize = f"size={sum(map(len, files.values())) + room}"
    mount("tmpfs", folder, "tmpfs", 0, resize)
    try:
        for path, data in files.items():
            path.write_bytes(data)
        yield
    finally:
        libc_call("umount2", str(folder).encode(), MNT_DETACH)


def resize_disk(folder: Path, size: int) -> None:
    """Give the disk at a folder `size` bytes."""
    mount("tmpfs", folder, "tmpfs", MS_REMOUNT, f"size={size}")


def permitted() -> bool:
    """True where this user may mount."""
    child = os.fork()
    if child == 0:
        try:
            own_namespace()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
