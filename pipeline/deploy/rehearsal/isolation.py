"""A rehearsal's surroundings: a fresh environment with stated packages only, the network cut,
inputs read-only.

The environment is a new venv whose site-packages links to the named distributions of this one and
to what those require: nothing else that is installed here can be imported in it, this project least
of all. Where the machine permits namespaces, the network is another, empty one and inputs are
mounted read-only; where not, sockets are refused by the environment's own start-up file and inputs
are links, and that is said.
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

# What Kaggle's image holds of what is used here, and the notebook's own machinery.
KAGGLE_BASE = (
    "torch",
    "torchvision",
    "timm",
    "opencv-python-headless",
    "opencv-python",
    "pandas",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "tqdm",
    "numba",
    "h5py",
    "pydicom",
    "albumentations",
    "matplotlib",
    "ipykernel",
    "pip",
)
CODALAB_BASE = (
    "torch",
    "torchvision",
    "timm",
    "opencv-python-headless",
    "opencv-python",
    "pandas",
    "safetensors",
    "numba",
    "tqdm",
)
REFUSE = '''"""Sockets to other machines are refused: this environment rehearses without the network."""
import socket


def refused(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(101, "the network is cut for the rehearsal")
    return real(self, address, *rest)


real = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = refused
'''


def fresh_environment(folder: Path, base: Iterable[str], without: Iterable[str] = ()) -> Path:
    """Make a venv with links to the distributions of `base` and what they require, and return its
    Python.

    `without` are left out even where something requires them. Names that are not installed here are
    left out too.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for dist in closure(base, set(map(canonical, without))).values():
        for top in {
            file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            source = Path(dist.locate_file(top)).absolute()
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    if not namespaces():
        (site / "sitecustomize.py").write_text(REFUSE)
    return folder / "bin" / "python"


def closure(names: Iterable[str], without: set[str]) -> dict[str, Distribution]:
    """The installed distributions of these names and all they require, extras left out."""
    found, todo = {}, [canonical(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found or name in without:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        wanted = [text for text in found[name].requires or () if "extra ==" not in text]
        todo += [canonical(re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0]) for text in wanted]
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def namespaces() -> bool:
    """True where this process may make a network and a mount namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-rnm", "true"], capture_output=True, check=False).returncode
        == 0
    )


def cut_off(command: list[str], mounts: Iterable[tuple[Path, Path]] = ()) -> list[str]:
    """The command without a network, folders (source, target) mounted read-only, as far as that is
    permitted."""
    if not namespaces():
        for source, target in mounts:
            if not target.exists():
                target.symlink_to(source.resolve())
        return command
    steps = []
    for source, target in mounts:
        target.mkdir(parents=True, exist_ok=True)
        here, there = shlex.quote(str(source.resolve())), shlex.quote(str(target.resolve()))
        steps.append(f"mount --bind {here} {there} && mount -o remount,bind,ro {there}")
    return ["unshare", "-rnm", "sh", "-c", " && ".join([*steps, f"exec {shlex.join(command)}"])]


def clean_variables(**more: str) -> dict[str, str]:
    """Environment variables for a rehearsal: none of this project's or of Python's, which would
    lead back here."""
    left_out = (
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
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, **more}


def how() -> str:
    """What is said of the isolation."""
    if namespaces():
        return "network: an empty namespace; inputs: mounted read-only"
    return "network: sockets refused, inputs: links (this machine permits no namespaces)"


def check_cut(python: Path) -> None:
    """Raise unless that environment, cut off, reaches nobody and cannot import this project."""
    probe = (
        "import socket, importlib.util\n"
        "assert importlib.util.find_spec('pipeline') is None, 'pipeline can be imported'\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 2)\n"
        "except OSError as error:\n    print('cut:', error)\n"
        "else:\n    raise SystemExit('the network is there')\n"
    )
    subprocess.run(
        cut_off([str(python), "-c", probe]),
        cwd="/",
        env=clean_variables(),
        check=True,
        capture_output=True,
    )
