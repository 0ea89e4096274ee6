"""What made an artifact, written into it and compared later: hashes of tables, recipe, commit,
versions."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.core.artifacts.files import file_hash, write_json
from pipeline.core.artifacts.paths import PREDICTIONS, data_folder, fold_folder, models_folder
from pipeline.core.runtime.errors import UserError

LARGEST = 100 << 20  # bytes; safetensors' own limit for a header


def read_weights_header(path: Path) -> dict:
    """What `network.save_weights` put into a file, or a UserError when it is not one of ours.

    A safetensors file begins with the header's length (8 bytes, little-endian) and the header, a
    JSON object whose "__metadata__" maps strings to strings; ours is JSON under "pipeline".
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST:
                raise ValueError(f"a header of {length} bytes")
            return json.loads(json.loads(file.read(length))["__metadata__"]["pipeline"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: no weights file of this pipeline ({error}); delete it and train again"
        ) from None


def table_hashes(competition: str) -> dict[str, str]:
    """The sha256 of images.csv and folds.csv, which weights and predictions carry."""
    folder = data_folder(competition)
    return {name: file_hash(folder / f"{name}.csv") for name in ("images", "folds")}


def require_hashes(path: Path, found: dict, expected: dict) -> None:
    """Raise a UserError when `path` was made from other tables than those of today, saying what to
    delete."""
    for name, value in expected.items():
        if found.get(name) != value:
            was = str(found.get(name))[:12]
            raise UserError(
                f"{path}: made from another {name}.csv ({was}…) than today's ({value[:12]}…); "
                f"delete {path.parent} and make it again, or restore that {name}.csv"
            )


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this code, with '+' when files differ from it; 'unknown' outside a checkout."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in (
        "torch",
        "timm",
        "albumentations",
        "opencv-python-headless",
        "opencv-python",
        "pandas",
        "scikit-learn",
        "numpy",
    ):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance(**facts: object) -> dict:
    """What made an artifact: the facts given, the commit, and the versions."""
    return {**facts, "commit": commit(), "versions": versions()}


def read_sidecar(path: Path, made_by: str = "") -> dict:
    """What made a prediction table, or a UserError where nothing says it."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        raise UserError(
            f"{sidecar}: there is no such file, so nobody knows what made {path.name}; delete "
            f"{path.name} "
            f"and make it again" + (f" with `{made_by}`" if made_by else "")
        )
    return json.loads(sidecar.read_text(encoding="utf-8"))


def made_from(path: Path) -> dict[str, str]:
    """The hashes of the tables that weights or predictions were made from."""
    return (read_weights_header(path) if path.suffix == ".safetensors" else read_sidecar(path))[
        "hashes"
    ]


def predictions_digest(
    competition: str, member: str, folds: Sequence[int], file: str = PREDICTIONS
) -> str | None:
    """One digest for the prediction tables of a member's folds; None while one is missing."""
    paths = [fold_folder(competition, member, fold) / file for fold in folds]
    if not all(path.is_file() for path in paths):
        return None
    return hashlib.sha256("".join(map(file_hash, paths)).encode()).hexdigest()


def note_ensemble(path: Path, competition: str) -> None:
    """Write beside a submission or report which ensemble it was made from."""
    write_json(
        path.with_suffix(".json"),
        provenance(ensemble=file_hash(models_folder(competition) / "ensemble.csv")),
    )


def made_from_ensemble(path: Path, competition: str) -> bool:
    """True when the file was made from today's ensemble.csv."""
    ensemble, beside = models_folder(competition) / "ensemble.csv", path.with_suffix(".json")
    if not all(each.is_file() for each in (path, beside, ensemble)):
        return False
    return json.loads(beside.read_text(encoding="utf-8"))["ensemble"] == file_hash(ensemble)
