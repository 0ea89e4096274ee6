"""Every environment variable of the pipeline, parsed in one place; an empty one counts as not set.

    DATA MODELS SUBMISSIONS   folders; by default those of these names
    SMOKE                     1: tiny networks, sizes and epochs
    TIME_LIMIT                8.5h, 30m or 90s: stop in time
    WORKERS                   loader processes, 0 or more
    CHECKPOINT_SECONDS        seconds between checkpoints, 600; 0: after every step
    TENSORBOARD               1: events beside log.jsonl
    PRETRAINED                a .safetensors file, or a folder of them: where training starts from
    SITE                      what sbatch is told: a file, core/schedule/site.py
    PER_GPU                   folds that share a GPU, 1 or more (ON=local)
    LOCAL_RANK and the others of torchrun, which sets all of them or none

Any other value is a UserError of one line; `check_variables` looks at all of them before a stage
begins, but for SITE: the machine that a job runs on need not have that file. Read elsewhere, since
they are not the pipeline's own: Kaggle's credentials (core/submission/kaggle.py), and what Kaggle
sets in its notebooks (deploy/away).
"""

import math
import os
import re
from pathlib import Path

from pipeline.core.runtime.errors import UserError

ROOTS = ("DATA", "MODELS", "SUBMISSIONS")
CHECKPOINT_SECONDS = 600.0  # a kill loses no more work, at under 1 % of the time for writing
TORCHRUN = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def check_variables() -> None:
    """Raise a UserError for the first variable whose value cannot be used."""
    for name in ROOTS:
        folder(name)
    smoke()
    time_limit()
    workers()
    per_gpu()
    checkpoint_seconds()
    tensorboard()
    pretrained()
    local_rank()
    processes_here()


def text_of(name: str) -> str:
    """A variable's text, "" where it is not set."""
    return os.environ.get(name, "").strip()


def folder(name: str) -> Path | None:
    """The folder that DATA, MODELS or SUBMISSIONS names, None where it is not set."""
    if not text_of(name):
        return None
    path = Path(os.environ[name])
    if path.exists() and not path.is_dir():
        raise UserError(f"{name}={path} is not a folder")
    return path


def pretrained() -> Path | None:
    """PRETRAINED, the file or folder of a user's own weights; None where it is not set."""
    if not text_of("PRETRAINED"):
        return None
    path = Path(os.environ["PRETRAINED"])
    if not path.is_dir() and (path.suffix != ".safetensors" or not path.is_file()):
        raise UserError(f"PRETRAINED={path}: neither a .safetensors file nor a folder of them")
    return path


def site() -> Path | None:
    """SITE, the file of what sbatch is told; None where it is not set."""
    if not text_of("SITE"):
        return None
    path = Path(os.environ["SITE"])
    if not path.is_file():
        raise UserError(f"SITE={path}: is not a file")
    return path


def switch(name: str) -> bool:
    """A variable that is 1 or 0."""
    if text_of(name) not in ("", "0", "1"):
        raise UserError(f"{name}={text_of(name)!r}: write {name}=1, or {name}=0")
    return text_of(name) == "1"


def smoke() -> bool:
    """True when SMOKE=1: the same stages with tiny networks, sizes and epochs."""
    return switch("SMOKE")


def tensorboard() -> bool:
    """True when TENSORBOARD=1 asks for events beside log.jsonl."""
    return switch("TENSORBOARD")


def whole_number(name: str) -> int | None:
    """A variable that is a whole number from 0 on, None where it is not set."""
    text = text_of(name)
    if text and not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise UserError(f"{name}={text!r} is not a whole number from 0 on")
    return int(text) if text else None


def workers() -> int | None:
    """WORKERS, the loader processes asked for; None where the machine decides."""
    return whole_number("WORKERS")


def per_gpu() -> int:
    """PER_GPU, the folds that share a GPU; 1 where it is not set."""
    asked = whole_number("PER_GPU")
    if asked == 0:
        raise UserError("PER_GPU=0: a GPU takes one fold at least; write PER_GPU=1")
    return asked or 1


def checkpoint_seconds(default: float = CHECKPOINT_SECONDS) -> float:
    """Seconds between checkpoints (0: after every step)."""
    text = text_of("CHECKPOINT_SECONDS")
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"CHECKPOINT_SECONDS={text!r} is not a number of seconds from 0 on")
    return seconds


def time_limit() -> float | None:
    """TIME_LIMIT in seconds, None where there is none."""
    text = text_of("TIME_LIMIT")
    return parse_duration("TIME_LIMIT", text) if text else None


def parse_duration(name: str, text: str) -> float:
    """A duration such as `8.5h`, `30m` or `90s` in seconds; name: the option it is given by.

    >>> parse_duration("TIME_LIMIT", "8.5h")
    30600.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hms])", text.strip(), re.ASCII)
    if not match:
        # 8.5 alone was meant as hours once, and stopped after 8.5 seconds.
        raise UserError(f"{name}={text!r} is not a duration with its unit: write 8.5h, 30m or 90s")
    number, unit = match.groups()
    return float(number) * {"h": 3600, "m": 60, "s": 1}[unit]


def local_rank() -> int | None:
    """The number of this process on its machine where torchrun started it, else None."""
    rank = whole_number("LOCAL_RANK")
    if rank is None:
        return None
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        whole_number(name)
    missing = [name for name in TORCHRUN if not text_of(name)]
    if missing:
        raise UserError(
            f"LOCAL_RANK={rank} without {', '.join(missing)}: start with torchrun, which sets all "
            "of them, or unset it"
        )
    return rank


def processes_here() -> int:
    """Processes that torchrun started on this machine, 1 without it."""
    return max(1, whole_number("LOCAL_WORLD_SIZE") or 1)
