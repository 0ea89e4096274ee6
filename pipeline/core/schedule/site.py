"""The site file: which of sbatch's options the jobs of a cluster need.

    [all]                     every job
    account = "skin"

    [gpu]                     pretrain, finetune, predict
    partition = "a100"
    gpus-per-node = 1
    cpus-per-task = 8
    mem = "48G"
    time = "08:00:00"

    [cpu]                     all other stages
    partition = "cpu"

    [prepare]                 a stage by its name
    cpus-per-task = 16
    jobs = 16                 so many jobs share the images

A later section overrides an earlier one: all, gpu or cpu, the stage. A key is a long option of
sbatch without its dashes, a value what follows it; true stands for an option without a value. Two
are ours: `jobs`, and `notice`, the seconds before its time limit at which a job is asked for a
checkpoint (120).

The file is SITE=file, by default `slurm.toml` where that exists. Without one sbatch's own defaults
hold; its variables (SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_TIMELIMIT, ...) do in any case.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.runtime import environment
from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule.graph import CHAIN, WAITS_FOR

DEFAULT_SITE = Path("slurm.toml")
# What the launcher itself says to sbatch.
TAKEN = (
    "array",
    "chdir",
    "comment",
    "dependency",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "signal",
    "wrap",
)
# Seconds before the time limit at which a job is asked for its checkpoint: one of 2 GB takes 20 s
# at 100 MB/s, a step in hand less. Slurm may ask up to 60 s earlier.
NOTICE = 120


@dataclass(frozen=True)
class Site:
    """Options of sbatch by section."""

    sections: dict[str, dict[str, object]] = field(default_factory=dict)

    def options(self, stage: str) -> dict[str, object]:
        """The options of a stage's job, the most particular last."""
        merged: dict[str, object] = {}
        for section in ("all", "gpu" if stage in CHAIN else "cpu", stage):
            merged |= self.sections.get(section, {})
        return merged


def read_site() -> Site:
    """The site file that SITE names, or the default one, or none; UserError for what cannot be used
    in it."""
    named = environment.site()
    path = named or DEFAULT_SITE
    if not named and not path.is_file():
        return Site()
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    # A section that no job has, or an option that is not the site's to say, is a mistake.
    known = ("all", "gpu", "cpu", *WAITS_FOR)
    for name, section in sections.items():
        if name not in known or not isinstance(section, dict):
            raise UserError(f"{path}: [{name}] is none of {', '.join(known)}")
        for option, value in section.items():
            where = f"{path}: [{name}] {option}={value!r}"
            if option in TAKEN:
                raise UserError(f"{where}: the launcher itself sets this option")
            if not isinstance(value, str | int | bool):
                raise UserError(f"{where}: write text, a number or true")
            if option == "notice" and (type(value) is not int or value < 4):
                raise UserError(f"{where}: a number of seconds from 4 on")
            if option == "jobs" and (name != "prepare" or type(value) is not int or value < 1):
                raise UserError(f"{where}: a number from 1 on, of [prepare]")
    return Site(sections)
