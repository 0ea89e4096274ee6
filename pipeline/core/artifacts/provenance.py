"""What made an artifact: written into it, and compared with today's when it is used again.

Weights carry it in their header, tables in a JSON file beside them. `core.runs.facts` says which
facts decide which artifact; here is how they are stored, read and compared.
"""

import hashlib
import json
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

from pipeline.core.artifacts.files import (
    CHECKSUM,
    checksum,
    file_hash,
    is_intact,
    read_json,
    require_plain,
    write_sealed,
)
from pipeline.core.artifacts.paths import SYNTHETIC_MARKER, data_folder
from pipeline.core.runtime.environment import smoke
from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.install import installed

PACKAGE = Path(__file__).parents[2]  # the folder `pipeline`
LARGEST = 100 << 20  # bytes; safetensors' own limit for a header
DECIDING_PACKAGES = (  # another version of these may change a number
    "torch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "pandas",
    "scikit-learn",
    "lightgbm",
    "numpy",
)


def read_weights_header(path: Path) -> dict:
    """What `network.save_weights` put into a file, or a UserError when it is not one of ours, or
    not as it was written.

    A safetensors file begins with the header's length (8 bytes, little-endian) and the header, a
    JSON object whose "__metadata__" maps strings to strings; ours is JSON under "pipeline". Its
    other keys list the tensors: name, dtype, shape, place.
    """
    require_plain(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST:
                raise ValueError(f"a header of {length} bytes")
            tensors = json.loads(file.read(length))
        header = json.loads(tensors.pop("__metadata__")["pipeline"])
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # Not its repr: that of a UnicodeDecodeError is the whole header.
        what = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: no weights file of this pipeline ({what}); delete it and train again"
        ) from None
    # The list of tensors has a checksum of its own inside what is sealed; older files have neither.
    if not is_intact(header) or header.get("tensors", checksum(tensors)) != checksum(tensors):
        raise UserError(damaged_weights(path, "header differs"))
    return {key: value for key, value in header.items() if key not in (CHECKSUM, "tensors")}


def damaged_weights(path: Path, what: str) -> str:
    """That a weights file is not as it was written, and what to do."""
    return (
        f"{path}: its {what} from what was written (damaged, or changed by hand); delete "
        f"{path.parent} and make it again, or restore that file"
    )


def tensors_checksum(path: Path) -> str:
    """The checksum of a safetensors file's list of tensors."""
    with path.open("rb") as file:
        tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors.pop("__metadata__", None)
    return checksum(tensors)


def data_digest(path: Path) -> str:
    """The sha256 of the tensors' bytes in a safetensors file: all that follows the header."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_data(path: Path) -> None:
    """Raise a UserError where the tensors of a weights file are not those that were written."""
    recorded = read_weights_header(path).get("digest")
    if recorded != data_digest(path):
        raise UserError(damaged_weights(path, "data differ"))


def table_hashes(competition: str) -> dict[str, str]:
    """The sha256 of images.csv and folds.csv, which weights and predictions carry."""
    folder = data_folder(competition)
    return {name: file_hash(folder / f"{name}.csv") for name in ("images", "folds")}


def require_hashes(path: Path, recorded: dict, today: dict, forget: str = "") -> None:
    """Raise a UserError when `path` was made from other tables than those of today, naming the way
    out: `forget` is the command that removes what was made from them."""
    command = f" (`{forget}` does)" if forget else ""
    for name, value in today.items():
        if recorded.get(name) != value:
            before = str(recorded.get(name))[:12]
            raise UserError(
                f"{path}: made from another {name}.csv ({before}…) than today's ({value[:12]}…); "
                f"delete {path.parent}{command} and make it again, or restore that {name}.csv"
            )


def first_difference(recorded: object, today: object, name: str = "") -> tuple | None:
    """(field, recorded value, today's value) of the first difference; None where all agree.

    Both are plain JSON values; a field of a field is named `finetune.margin`.
    """
    if isinstance(recorded, dict) and isinstance(today, dict):
        for key in (*today, *(key for key in recorded if key not in today)):
            inner = f"{name}.{key}" if name else str(key)
            found = first_difference(recorded.get(key), today.get(key), inner)
            if found:
                return found
        return None
    return None if recorded == today else (name, recorded, today)


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of this code, with '+' when files of the package differ from it or are not in it;
    'unknown' outside a checkout."""
    try:
        changed = git("status", "--porcelain", "--", str(PACKAGE))
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    """What git prints about this checkout."""
    # In a session of its own: a SIGTERM to the group, which the stage outlives to end well, would
    # end git, and the artifact would say that its commit is unknown.
    kept = dict(cwd=PACKAGE, capture_output=True, text=True, start_new_session=True)
    return subprocess.run(["git", *arguments], check=True, **kept).stdout.strip()


@lru_cache(maxsize=8)
def competition_file(name: str) -> dict[str, str]:
    """The file that defines a competition: its digest, and whether git has it.

    state: "committed", "changed" (differs from the commit), "untracked", or "unknown" without git.
    """
    path = PACKAGE / "competitions" / f"{name}.py"
    if not path.is_file():
        return {"file": path.name, "sha256": "", "state": "unknown"}
    try:
        line = git("status", "--porcelain", "--ignored", "--", str(path))
        states = {"": "committed", "??": "untracked", "!!": "untracked"}
        state = states.get(line[:2], "changed")
    except (OSError, subprocess.CalledProcessError):
        state = "unknown"
    return {"file": path.name, "sha256": file_hash(path), "state": state}


def notice(competition: str) -> str:
    """ "SMOKE RUN", "SYNTHETIC DATA", both, or "": what every page, table and file must say."""
    parts = ["SMOKE RUN"] if smoke() else []
    if is_synthetic(competition):
        parts.append("SYNTHETIC DATA")
    return ", ".join(parts)


def is_synthetic(competition: str) -> bool:
    """True where the demo has drawn the images: it marks its raw folder, `prepare` passes it on."""
    folder = data_folder(competition)
    if (folder / "raw" / SYNTHETIC_MARKER).is_file():
        return True
    prepared = folder / "prepare.json"
    return prepared.is_file() and bool(read_json(prepared).get("synthetic"))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for package in DECIDING_PACKAGES:
        pinned = installed(package)
        if pinned:
            name, number = pinned.split("==")
            found[name] = number
    return found


def provenance(of: str = "", /, **facts: object) -> dict:
    """What made an artifact: the facts given, the commit, the versions and, of the competition
    named first, the digest of its file and the notice that its artifacts carry."""
    about = {"commit": commit(), "versions": versions()}
    if of:
        about["competition_file"] = competition_file(of)
        about["notice"] = notice(of)
    return {**facts, **about}


def read_sidecar(path: Path, made_by: str = "") -> dict:
    """What made a table, from the JSON file beside it; UserError where nothing says it."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        way = f" with `{made_by}`" if made_by else ""
        raise UserError(
            f"{sidecar}: there is no such file, so nobody knows what made {path.name}; delete "
            f"{path.name} and make it again{way}"
        )
    return read_json(sidecar, needed=("commit",))


def recorded_facts(path: Path) -> dict:
    """What weights or predictions say that they were made from."""
    return read_weights_header(path) if path.suffix == ".safetensors" else read_sidecar(path)


def write_sidecar(path: Path, competition: str, **facts: object) -> None:
    """Write beside a finished file what made it, with the digest of the file itself."""
    about = provenance(competition, digest=file_hash(path), **facts)
    write_sealed(path.with_suffix(".json"), about)
