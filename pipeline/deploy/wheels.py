"""Wheels of the packages that Kaggle's image may lack, so that the notebook installs them without
the network.

For the Python that runs here a wheel is made of what is installed: the same files, nothing fetched.
For another Python it is fetched by pip.
"""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from pipeline.core.artifacts.files import write_sealed
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.environments import AT_LEAST, WHEELS
from pipeline.deploy.package import add_to_zip

# What a wheel of another Python may ask for: glibc 2.28 or older, as of 2018, and processors alike.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64", "any")
# Licences that ask no more of who passes the wheel on than its own text, which a wheel contains.
PERMISSIVE = re.compile(r"\b(Apache|MIT|BSD|ISC|PSF|HPND|zlib)\b", re.IGNORECASE)
# What pip adds to a package as it installs it. A wheel has a RECORD of its own, made anew here.
WRITTEN_BY_PIP = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def add_wheels(folder: Path, package: dict, pythons: list[str]) -> None:
    """Put the wheels into the package and list them in its package.json: module -> what pip is
    asked for. `pythons` are versions such as 3.12; the one that runs here is always among them."""
    wheel_licences(WHEELS.values())

    # Wheels for this Python, and for Kaggle's where it is another.
    available = {module: name for module, name in WHEELS.items() if repack(name, folder)}
    this_python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in pythons:
        if python != this_python:
            fetch(list(available.values()), python, folder)

    # What the notebook asks pip for.
    wanted = {}
    for module, name in available.items():
        oldest = f">={distribution(name).version}" if name in AT_LEAST else ""
        wanted[module] = f"{name}{oldest}"
    package["wheels"] = wanted
    write_sealed(folder / "package.json", package)


def wheel_licences(asked: Iterable[str]) -> dict[str, str]:
    """Package -> its licence, of those that are installed; UserError for one that a dataset may not
    pass on under any licence of the user's choice. asked: names, perhaps with `>=` a version."""
    licences = {}
    for name in sorted(text.partition(">=")[0] for text in asked):
        try:
            licence = licence_of(distribution(name))
        except PackageNotFoundError:
            continue
        if "GPL" in licence or not PERMISSIVE.search(licence):
            raise UserError(
                f"the wheel of {name} is under {licence or 'an unknown licence'}, which the "
                "dataset's would contradict; take it out of WHEELS in "
                "pipeline/deploy/environments.py"
            )
        licences[name] = licence
    return licences


def licence_of(dist: Distribution) -> str:
    """The licence that a package's metadata name, in one of their three ways; "" for none."""
    metadata = dist.metadata
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License ::")
    ]
    short = (metadata.get("License") or "").split("\n")[0]
    return metadata.get("License-Expression") or ", ".join(classifiers) or short


def repack(name: str, folder: Path) -> Path | None:
    """A wheel of an installed distribution, byte for byte the same each time; None where it is not
    installed."""
    try:
        dist = distribution(name)
    except PackageNotFoundError:
        return None

    # Sorted, so that the archive has the same bytes each time.
    files = sorted((file for file in dist.files or () if is_content(str(file))), key=str)
    metadata = next(str(file) for file in files if str(file).endswith(".dist-info/METADATA"))
    info = metadata.split("/")[0]  # <name>-<version>.dist-info
    path = folder / f"{info.removesuffix('.dist-info')}-{tag(dist)}.whl"

    # The content, then the record of it that the format asks for.
    record = []
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            content = dist.locate_file(file).read_bytes()
            record.append(f"{file},sha256={wheel_digest(content)},{len(content)}")
            add_to_zip(archive, str(file), content)
        record.append(f"{info}/RECORD,,")
        add_to_zip(archive, f"{info}/RECORD", "\n".join(record) + "\n")
    return path


def tag(dist: Distribution) -> str:
    """The first tag of an installed wheel, such as py3-none-any."""
    for line in dist.read_text("WHEEL").splitlines():
        if line.startswith("Tag: "):
            return line.split(": ")[1]
    return ""


def is_content(file: str) -> bool:
    """True for what came in the wheel: no scripts outside site-packages, no caches, nothing that
    pip wrote afterwards."""
    if file.startswith("..") or "__pycache__" in file:
        return False
    return not (".dist-info/" in file and file.rsplit("/", 1)[1] in WRITTEN_BY_PIP)


def wheel_digest(content: bytes) -> str:
    """The sha256 as a wheel's RECORD writes it: URL-safe base 64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def fetch(names: list[str], python: str, folder: Path) -> None:
    """Download wheels of the installed versions for another Python on 64-bit Linux."""
    # --only-binary: a source would be built here, for the wrong Python. --no-deps: what they
    # require is in Kaggle's image, and torch above all must not be installed anew.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), "--python-version", python]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += [f"{name}=={distribution(name).version}" for name in names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # pip's last line says what was wrong; those before it are its search.
        reason = done.stderr.strip().splitlines()[-1]
        raise UserError(f"pip could not fetch wheels for Python {python}: {reason}")
