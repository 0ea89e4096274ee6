"""Wheels of the packages that Kaggle's image may lack, so that the notebook installs them without
the net.

For the Python that runs here a wheel is made of what is installed: the same files, nothing fetched.
For another Python it is fetched by pip.
"""

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from pipeline.core.artifacts.files import write_json
from pipeline.core.runtime.errors import UserError

# module -> distribution: what inference and training import beyond what Kaggle's image is known to
# hold
PACKAGES = {
    "safetensors": "safetensors",
    "timm": "timm",
    "iterstrat": "iterative-stratification",
    "pylibjpeg": "pylibjpeg",
    "libjpeg": "pylibjpeg-libjpeg",
    "openjpeg": "pylibjpeg-openjpeg",
}
AT_LEAST = (
    "timm",
)  # of which an older one may lack the network; it is Python alone, so another is safe to put first


def add_wheels(folder: Path, about: dict, pythons: list[str]) -> None:
    """Put the wheels into the package and name them in its package.json: module -> what pip is
    asked for."""
    here, found = f"{sys.version_info.major}.{sys.version_info.minor}", {}
    for module, name in PACKAGES.items():
        if repack(name, folder):
            found[module] = name
    for python in pythons:
        if python != here:
            fetch(list(found.values()), python, folder)
    about["wheels"] = {
        module: f"{name}>={distribution(name).version}" if name in AT_LEAST else name
        for module, name in found.items()
    }
    write_json(folder / "package.json", about)


def repack(name: str, folder: Path) -> Path | None:
    """A wheel of an installed distribution, byte for byte the same each time; None where it is not
    installed."""
    try:
        dist = distribution(name)
    except PackageNotFoundError:
        return None
    files = [file for file in dist.files or () if is_content(str(file))]
    wheel = next(
        (
            line.split(": ")[1]
            for line in dist.read_text("WHEEL").splitlines()
            if line.startswith("Tag: ")
        ),
        "",
    )
    info = next(
        str(file).split("/")[0] for file in files if str(file).endswith(".dist-info/METADATA")
    )
    path, record = folder / f"{info.removesuffix('.dist-info')}-{wheel}.whl", []
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(files, key=str):
            data = dist.locate_file(file).read_bytes()
            record.append(f"{file},sha256={digest(data)},{len(data)}")
            archive.writestr(
                zipfile.ZipInfo(str(file), (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED
            )
        lines = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
        archive.writestr(
            zipfile.ZipInfo(f"{info}/RECORD", (2020, 1, 1, 0, 0, 0)), lines, zipfile.ZIP_DEFLATED
        )
    return path


def is_content(file: str) -> bool:
    """True for what came in the wheel: no scripts outside site-packages, no caches, nothing pip
    wrote afterwards."""
    written = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    return (
        not file.startswith("..")
        and "__pycache__" not in file
        and not (".dist-info/" in file and file.rsplit("/", 1)[1] in written)
    )


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def fetch(names: list[str], python: str, folder: Path) -> None:
    """Download wheels of the installed versions for another Python on 64-bit Linux."""
    pinned = [f"{name}=={distribution(name).version}" for name in names]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
        "--python-version",
        python,
        "--platform",
        "manylinux2014_x86_64",
        "--platform",
        "any",
    ]
    done = subprocess.run([*command, *pinned], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"pip could not fetch wheels for Python {python}: "
            f"{done.stderr.strip().splitlines()[-1]}"
        )
