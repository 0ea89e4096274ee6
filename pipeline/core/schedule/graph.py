"""The commands that a stage still needs, and which waits for which: every fold of a run is a chain
of its own.

    prepare → folds → pretrain → finetune → predict ┐
                    └ metadata ─────────────────────┴→ ensemble → submit → report

Asked of `runs.missing`, so that only what is missing is run, and what today's configuration would
make otherwise is refused before anything is. Needs no torch.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.artifacts.paths import data_folder, fold_folder, models_folder
from pipeline.core.artifacts.tables import fold_numbers, read_folds
from pipeline.core.config.run import ALL, METADATA
from pipeline.core.config.target_path import Target, parse_target
from pipeline.core.config.task import OFFICIAL
from pipeline.core.runs.missing import BEFORE, FOLD_STAGES, LACKING, Request, ensemble_arguments

# The stages of one fold of one run, in order; these are what takes a GPU.
CHAIN = ("pretrain", "finetune", "predict")
# A stage and those that it waits for; where one of them has nothing to make, for those before it.
WAITS_FOR = {
    "prepare": (),
    "folds": ("prepare",),
    "pretrain": ("prepare", "folds"),
    "finetune": ("pretrain",),
    "predict": ("finetune",),
    "metadata": ("folds",),
    "ensemble": ("predict", "metadata"),
    "submit": ("ensemble",),
    "report": ("submit",),
}


@dataclass(frozen=True)
class Step:
    """One command, `python -m pipeline.<stage> <arguments>`, and the names of those that must have
    ended well before it begins."""

    stage: str
    arguments: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`pretrain melanoma/b5_384/fold0`: the same work has the same name."""
        return " ".join((self.stage, *self.arguments))

    @property
    def target(self) -> Target:
        """What it is about, by its first argument."""
        return parse_target(self.arguments[0])

    @property
    def log(self) -> Path:
        """Where its output goes: into the folder of the fold or of the competition."""
        target = self.target
        folder = models_folder(target.competition)
        if self.stage in CHAIN:
            folder = fold_folder(target.competition, target.run, target.fold)
        return folder / f"{self.stage}.log"


def command_of(step: Step, processes: int = 0, machines: int = 1) -> list[str]:
    """The command of a step; what trains under torchrun where `processes` a machine are asked for,
    whose meeting point several machines take from the variables PET_RDZV_ENDPOINT and
    PET_RDZV_ID."""
    start = [sys.executable]
    if processes and step.stage in CHAIN:
        meet = ["--standalone"]
        if machines > 1:
            meet = ["--nnodes", str(machines), "--rdzv-backend", "c10d"]
        start += ["-m", "pipeline.core.runtime.torchrun", *meet, "--nproc-per-node", str(processes)]
    return [*start, "-m", f"pipeline.{step.stage}", *step.arguments]


def steps_of(stage: str, request: Request) -> list[Step]:
    """What a stage and those before it have still to make, each step after those it waits for, and
    chain by chain: a queue that is worked through in this order ends folds one by one."""
    lacking = lacking_of(stage, request)
    # `make prepare` looks for damaged images too, where nothing is missing.
    if stage == "prepare":
        lacking["prepare"] = request.run_targets
    chains = [
        Step(name, (target,))
        for target in all_targets("predict", request)
        for name in CHAIN
        if target in lacking.get(name, [])
    ]
    first, last = (
        [Step(name, tuple(lacking[name])) for name in names if lacking.get(name)]
        for names in (("prepare", "folds"), ("metadata", "ensemble", "submit", "report"))
    )
    steps = [*first, *chains, *last]

    metadata = request.competition.metadata
    through = metadata.through if metadata else ""
    return [replace(step, after=waits_for(step, step.stage, steps, through)) for step in steps]


def waits_for(step: Step, stage: str, steps: list[Step], through: str) -> tuple[str, ...]:
    """The names of the steps that this one waits for, by what WAITS_FOR has of `stage`.

    through: the run that the network on patient columns is trained through, "" for none.
    """
    before = WAITS_FOR[stage]
    if stage == "metadata" and through:
        before = (*before, "finetune")
    names: list[str] = []
    for earlier in before:
        there = [other for other in steps if other.stage == earlier]
        found = [other.name for other in there if concerns(other, step, through)]
        names += found or waits_for(step, earlier, steps, through)
    if stage == step.stage:
        names += [other.name for other in steps if decides_epochs(other, step)]
    return tuple(dict.fromkeys(names))


def decides_epochs(other: Step, step: Step) -> bool:
    """Whether a step trains a network of all rows, and the other a fold of the same run and stage,
    whose best epoch may be taken for it."""
    if step.stage not in ("pretrain", "finetune") or step.target.fold != ALL:
        return False
    same = other.stage == step.stage and other.target.run == step.target.run
    return same and other.target.fold != ALL


def concerns(other: Step, step: Step, through: str) -> bool:
    """Whether a step may need what the other makes: of the chains its own fold's, for the network
    on patient columns those of the run that it is trained through."""
    if other.stage in CHAIN and step.stage in CHAIN:
        return other.arguments == step.arguments
    if other.stage in CHAIN and step.stage == "metadata":
        return other.target.run == through
    return True


def next_command(stage: str, request: Request) -> list[str]:
    """The first stage that has something to make, with its arguments; [] when all exist."""
    lacking = lacking_of(stage, request)
    for name in WAITS_FOR:
        if lacking.get(name):
            return [name, *lacking[name]]
    return []


def lacking_of(stage: str, request: Request) -> dict[str, list[str]]:
    """Stage -> the arguments to call it with, of what has to be made; [] where there is nothing.

    What follows from something that is to be made is to be made too.
    """
    order = (*BEFORE[stage], stage)
    lacking = {"prepare": LACKING["images"](request)}
    if "folds" in order:
        lacking["folds"] = LACKING["folds"](request)
    tables = not any(lacking.values())

    # Dear artifacts first: what is refused must be so before anything is run.
    for name in order:
        if name in FOLD_STAGES:
            lacking[name] = LACKING[name](request) if tables else all_targets(name, request)
    # New weights of a fold ask for what is made from them.
    for earlier, later in (("pretrain", "finetune"), ("finetune", "predict")):
        if later in order:
            lacking[later] = list(dict.fromkeys([*lacking[later], *lacking[earlier]]))
    # Seconds of work for all folds, in one step of one name.
    if lacking.get("metadata"):
        lacking["metadata"] = all_targets("metadata", request)

    if "prepare" in order and not lacking["prepare"]:
        lacking["prepare"] = LACKING["prepare"](request)
    # Seconds again: made anew where their members are, else where something is out of date.
    anew = not tables or any(lacking.get(name) for name in ("predict", "metadata"))
    for name in ("ensemble", "submit", "report"):
        if name in order:
            forced = ensemble_arguments(request) if name == "ensemble" else [request.name]
            lacking[name] = forced if anew else LACKING[name](request)
            anew = bool(lacking[name])
    return lacking


def all_targets(stage: str, request: Request) -> list[str]:
    """The folds that a stage will make, before there are tables to read them from; the network of
    all rows of a run that has one is its last."""
    competition = request.competition
    folds = request.folds or expected_folds(request)
    if stage != "metadata":
        runs = map(competition.run, request.trained)
        return [
            str(Target(request.name, run.name, fold))
            for run in runs
            for fold in (*folds, *([ALL] if run.whole and not request.folds else []))
        ]
    # An earned combination has a model of its own on patient columns.
    if not competition.metadata or competition.blend.weights == "earned":
        return []
    return [str(Target(request.name, METADATA, fold)) for fold in folds if fold != ALL]


def expected_folds(request: Request) -> list[int]:
    """The folds of folds.csv, or those that it will have."""
    if (data_folder(request.name) / "folds.csv").is_file():
        return fold_numbers(read_folds(request.name))
    wanted = request.number_of_folds or request.competition.task.folds
    return [0] if wanted == OFFICIAL else list(range(wanted))
