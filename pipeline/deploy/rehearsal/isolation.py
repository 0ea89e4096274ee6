"""The surroundings of a rehearsal: a fresh environment with stated packages only, the network cut,
inputs read-only.

The environment is a new venv whose site-packages links to the named distributions of this one and
to what those require: nothing else that is installed here can be imported in it, this project least
of all. Where the machine permits namespaces, the network is another, empty one and inputs are
mounted read-only; where not, sockets are refused by the environment's own start-up file and inputs
are links, and that is printed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

# What would lead back here: this project's variables and Python's.
VARIABLES_REMOVED = (
    "PYTHON",
    "DATA",
    "MODELS",
    "SUBMISSIONS",
    "VIRTUAL_ENV",
    "KAGGLE",
    "SMOKE",
    "TIME_LIMIT",
    "HF_",
)
# The start-up file (sitecustomize.py) of an environment whose network cannot be cut otherwise.
REFUSE = '''"""Sockets to other machines are refused: a rehearsal runs without the network."""
import socket

HERE = ("127.0.0.1", "::1", "localhost")


def refused(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in HERE:
        raise OSError(101, "the network is cut for the rehearsal")
    return real(self, address, *rest)


real = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = refused
'''
# What the environment must fail at. 192.0.2.1 is an address that no machine has (RFC 5737).
PROBE = """import socket, importlib.util
assert importlib.util.find_spec('pipeline') is None, 'pipeline can be imported'
try:
    socket.create_connection(('192.0.2.1', 80), 2)
except OSError as error:
    print('cut:', error)
else:
    raise SystemExit('the network is there')
"""


def fresh_environment(folder: Path, names: Iterable[str], without: Iterable[str] = ()) -> Path:
    """Make a venv with links to the named distributions and what they require, and return its
    Python.

    `without` are left out even where something requires them. Names that are not installed here are
    left out too.
    """
    # Without pip, whose own packages would be there to import.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))

    # Links rather than copies: torch alone is some hundred MB.
    for dist in closure(names, set(map(canonical, without))).values():
        tops = {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}
        for top in tops:
            source = Path(dist.locate_file(top)).absolute()
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)

    # Where no namespace is to be had, Python itself refuses sockets.
    if not namespaces():
        (site / "sitecustomize.py").write_text(REFUSE)
    return folder / "bin" / "python"


def closure(names: Iterable[str], without: set[str]) -> dict[str, Distribution]:
    """The installed distributions of these names and all they require, extras left out."""
    installed = {}
    todo = [canonical(name) for name in names]
    while todo:
        name = todo.pop()
        if name in installed or name in without:
            continue
        try:
            installed[name] = distribution(name)
        except PackageNotFoundError:
            continue
        # "numpy>=1.26; python_version > '3.9'": the name ends at the first of these characters.
        for text in installed[name].requires or ():
            if "extra ==" not in text:
                todo.append(canonical(re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0]))
    return installed


def canonical(name: str) -> str:
    """A distribution's name as pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def namespaces() -> bool:
    """True where this process may make a network and a mount namespace of its own."""
    # Asked of the system rather than guessed: containers and kernels differ in what they permit.
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "-rnm", "true"], capture_output=True, check=False)
    return done.returncode == 0


def cut_off(command: list[str], mounts: Iterable[tuple[Path, Path]] = ()) -> list[str]:
    """The command without a network, folders (source, target) mounted read-only, as far as that is
    permitted."""
    # Without namespaces: the folders as links, which do not keep anyone from writing.
    if not namespaces():
        for source, target in mounts:
            if not target.exists():
                target.symlink_to(source.resolve())
        return command

    # With them: a shell that mounts each folder upon itself, read-only, and becomes the command.
    steps = []
    for source, target in mounts:
        target.mkdir(parents=True, exist_ok=True)
        here = shlex.quote(str(source.resolve()))
        there = shlex.quote(str(target.resolve()))
        steps.append(f"mount --bind {here} {there} && mount -o remount,bind,ro {there}")
    steps.append(f"exec {shlex.join(command)}")
    return ["unshare", "-rnm", "sh", "-c", " && ".join(steps)]


def clean_variables(**more: str) -> dict[str, str]:
    """Environment variables for a rehearsal: VARIABLES_REMOVED removed, `more` added."""
    kept = {}
    for name, value in os.environ.items():
        if not name.startswith(VARIABLES_REMOVED):
            kept[name] = value
    return {**kept, **more}


def description() -> str:
    """How far the isolation goes on this machine, in words."""
    if namespaces():
        return "network: an empty namespace; inputs: mounted read-only"
    return "network: sockets refused, inputs: links (this machine permits no namespaces)"


def check_cut(python: Path) -> None:
    """Raise unless that environment, cut off, reaches nobody and cannot import this project."""
    # In "/", since Python imports from the folder it is started in.
    command = cut_off([str(python), "-c", PROBE])
    subprocess.run(command, cwd="/", env=clean_variables(), check=True, capture_output=True)
