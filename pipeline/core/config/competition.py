"""A competition: its file, loaded and checked, and the paths of its parts.

A target is the path of what a stage makes: `melanoma`, `melanoma/b5_384` or `melanoma/b5_384/fold0`; a coarser one
means all below it.
"""
import importlib
import pkgutil
import re
from dataclasses import dataclass
from types import ModuleType

from pipeline.core.config.run import METADATA, Metadata, Run
from pipeline.core.config.task import Blend, Submission, Task
from pipeline.core.runtime.command import UserError, smoke


@dataclass(frozen=True)
class Competition:
    """All of one competition: its name, the values above, and the module that reads its raw files."""
    name: str
    task: Task
    runs: tuple[Run, ...]
    metadata: Metadata | None
    blend: Blend
    submission: Submission
    module: ModuleType
    trials: tuple[Run, ...] = ()

    def run(self, name: str) -> Run:
        """The run or trial of that name, or a UserError that lists the names there are."""
        for run in (*self.runs, *self.trials):
            if run.name == name:
                return run
        names = ", ".join(run.name for run in (*self.runs, *self.trials))
        raise UserError(f"{self.name}: no run is called {name!r}; the runs are {names}")

    def labels(self, run: Run) -> tuple[str, ...]:
        """The labels that a run predicts, in the task's order."""
        return tuple(label for label in self.task.labels if not run.labels or label in run.labels)


def competition_names() -> list[str]:
    """The names of all competition files."""
    package = importlib.import_module("pipeline.competitions")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def load(name: str) -> Competition:
    """Import and check a competition file; SMOKE=1 gives its tiny form."""
    if name not in competition_names():
        raise UserError(f"no competition is called {name!r}; there are {', '.join(competition_names())}")
    module = importlib.import_module(f"pipeline.competitions.{name}")
    for needed in ("task", "runs", "blend", "submission", "read_raw", "sample"):
        if not hasattr(module, needed):
            raise UserError(f"pipeline/competitions/{name}.py: `{needed}` is missing")
    runs, trials, metadata = tuple(module.runs), tuple(getattr(module, "trials", ())), getattr(module, "metadata", None)
    if smoke():
        runs, trials = (tuple(run.smoke() for run in these) for these in (runs, trials))
        metadata = metadata and metadata.smoke()
    competition = Competition(name, module.task, runs, metadata, module.blend, module.submission, module, trials)
    check(competition)
    return competition


def check(competition: Competition) -> None:
    """Raise a UserError where the parts of a competition contradict each other."""
    file, task = f"pipeline/competitions/{competition.name}.py", competition.task
    names = [run.name for run in (*competition.runs, *competition.trials)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file}: two runs are called {name!r}; give one a tag")
        if name == METADATA:
            raise UserError(f"{file}: a run may not be called {METADATA!r}")
    for run in (*competition.runs, *competition.trials):
        for label in run.labels:
            if label not in task.labels:
                raise UserError(f"{file}: run {run.name} predicts {label!r}, which is not among the task's labels")
        margin = run.finetune.margin
        if isinstance(margin, tuple) and len(margin) != len(competition.labels(run)):
            labels = len(competition.labels(run))
            raise UserError(f"{file}: run {run.name} has {len(margin)} margins for {labels} labels")
    if competition.metadata and competition.metadata.through:
        competition.run(competition.metadata.through)
    for label in task.labels:
        if label not in competition.submission.columns:
            raise UserError(f"{file}: submission.columns lacks the label {label!r}")


@dataclass(frozen=True)
class Target:
    """A competition, one of its runs ("" = all), and one of its folds (None = all)."""
    competition: str
    run: str = ""
    fold: int | None = None

    def __str__(self) -> str:
        fold = "" if self.fold is None else f"fold{self.fold}"
        return "/".join(part for part in (self.competition, self.run, fold) if part)


def parse_target(text: str) -> Target:
    """`melanoma/b5_384/fold0` as a Target; a UserError says what is wrong with any other text."""
    match = re.fullmatch(r"([a-z][a-z0-9_]*)(?:/([A-Za-z0-9_.\-]+))?(?:/fold(\d+))?/?", text)
    if not match:
        raise UserError(f"{text!r} is no target: write melanoma, melanoma/b5_384 or melanoma/b5_384/fold0")
    return Target(match[1], match[2] or "", None if match[3] is None else int(match[3]))


def expand(texts: list[str], folds: dict[str, list[int]],
           metadata: bool = False) -> list[tuple[Competition, Run | Metadata, int]]:
    """Every (competition, run, fold) that the targets mean, each once, in order.

    `folds` maps a competition's name to the folds it has. With `metadata` the metadata network stands for the runs; a
    competition without one gives nothing.
    """
    jobs = []
    for target in map(parse_target, texts):
        competition, known = load(target.competition), folds[target.competition]
        if target.fold is not None and target.fold not in known:
            raise UserError(f"{target}: folds.csv has the folds {', '.join(map(str, known))}")
        for member in metadata_of(competition, target) if metadata else runs_of(competition, target):
            for fold in known if target.fold is None else [target.fold]:
                if (competition, member, fold) not in jobs:
                    jobs.append((competition, member, fold))
    return jobs


def runs_of(competition: Competition, target: Target) -> tuple[Run, ...]:
    """The run that the target names, or all."""
    return (competition.run(target.run),) if target.run else competition.runs


def metadata_of(competition: Competition, target: Target) -> tuple[Metadata, ...]:
    """The competition's metadata network; nothing where it has none."""
    if target.run not in ("", METADATA):
        raise UserError(f"{target}: this stage takes {competition.name} or {competition.name}/{METADATA}")
    return (competition.metadata,) if competition.metadata else ()
