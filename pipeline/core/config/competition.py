"""A competition: its file, loaded by name and checked as a whole, and its tiny form for SMOKE=1."""

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType

from pipeline.core.config.label_tree import label_tree
from pipeline.core.config.run import AFTER_STAGE_1, METADATA, MODERN, Metadata, Run
from pipeline.core.config.stages import BLEND, ENSEMBLE, FINAL, STAGE_1, STAGE_2
from pipeline.core.config.task import Blend, Submission, Task
from pipeline.core.runtime.environment import smoke
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Competition:
    """All of one competition: its name, the values of its file, and the module itself, which reads
    the raw download."""

    name: str
    task: Task
    runs: tuple[Run, ...]
    metadata: Metadata | None
    blend: Blend
    submission: Submission
    module: ModuleType
    trials: tuple[Run, ...] = ()  # with those of `modern` behind them
    modern: tuple[str, ...] = ()

    def run(self, name: str) -> Run:
        """The run or trial of that name, or a UserError that lists the names there are."""
        # Trials too: they are made only when they are named, and this is where they are.
        known = (*self.runs, *self.trials)
        for run in known:
            if run.name == name:
                return run
        names = ", ".join(run.name for run in known)
        raise UserError(f"{self.name}: no run is called {name!r}; the runs are {names}")

    def labels(self, run: Run | Metadata) -> tuple[str, ...]:
        """The labels that a run predicts, in the task's order; the metadata network: all."""
        # The task's order for all: columns averaged by position would mix labels up.
        chosen = run.labels if isinstance(run, Run) else ()
        return tuple(label for label in self.task.labels if not chosen or label in chosen)


def competition_names() -> list[str]:
    """The names of all competition files."""
    # By the files in the folder, so that a new competition is in no list. Names that begin with an
    # underscore are helpers of several competitions.
    package = importlib.import_module("pipeline.competitions")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return sorted(name for name in names if not name.startswith("_"))


def load_competition(name: str) -> Competition:
    """Import and check a competition file; SMOKE=1 gives its tiny form."""
    # Compared with the files that exist before anything is imported: ../x is refused.
    names = competition_names()
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"no competition is called {name!r}; there are {', '.join(names)}{hint}")
    module = import_competition(name)
    for needed in ("task", "runs", "blend", "submission", "read_raw", "sample"):
        if not hasattr(module, needed):
            raise UserError(f"pipeline/competitions/{name}.py: `{needed}` is missing")

    # What the file may leave out has a default here. A smoke run keeps its name, so that every path
    # and command is that of the real run.
    runs = tuple(module.runs)
    modern = tuple(getattr(module, "modern", ()))
    trials = (*getattr(module, "trials", ()), *modern)
    metadata = getattr(module, "metadata", None)
    if smoke():
        runs = tuple(run.smoke() for run in runs)
        trials = tuple(run.smoke() for run in trials)
        metadata = metadata and metadata.smoke()
    competition = Competition(
        name,
        module.task,
        runs,
        metadata,
        module.blend,
        module.submission,
        module,
        trials,
        tuple(run.name for run in modern),
    )
    check_competition(competition)
    return competition


def import_competition(name: str) -> ModuleType:
    """The module of a competition file; a UserError says what to change in one that was written
    for an older layout of this package."""
    try:
        return importlib.import_module(f"pipeline.competitions.{name}")
    except ImportError as error:
        # A package that is not installed is another matter, and its own message names it.
        if not (error.name or "").startswith("pipeline.core"):
            raise
        raise UserError(
            f"pipeline/competitions/{name}.py: {error}; import configuration (Task, Run, ...) from "
            "pipeline.core.config, readers from pipeline.core.raw, UserError from "
            "pipeline.core.runtime.errors"
        ) from None


def check_competition(competition: Competition) -> None:
    """Raise a UserError where the parts of a competition contradict each other."""
    file = f"pipeline/competitions/{competition.name}.py"
    task = competition.task

    # Names: they are folders, so two runs of one name would overwrite each other's weights.
    names = [run.name for run in (*competition.runs, *competition.trials)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{file}: two runs are called {name!r}; give one a tag")
        if name in (METADATA, MODERN):
            raise UserError(f"{file}: a run may not be called {name!r}")
        if name.endswith(AFTER_STAGE_1):
            raise UserError(f"{file}: run {name}: a run's name may not end with {AFTER_STAGE_1!r}")

    # Labels: each part names only those of the task, and a margin for each where it gives several.
    for run in (*competition.runs, *competition.trials):
        for label in run.labels:
            if label not in task.labels:
                raise UserError(
                    f"{file}: run {run.name} predicts {label!r}, which is not among the task's "
                    "labels"
                )
        label_tree(run, competition.labels(run))
        if run.whole and competition.blend.weights == "earned":
            raise UserError(
                f"{file}: run {run.name} has whole={run.whole!r}, and Blend(weights='earned') "
                "takes the networks of the folds: leave one of the two"
            )
        if run.bag and task.unit != "study":
            raise UserError(
                f"{file}: run {run.name} has bag={run.bag!r}, which needs Task(unit='study'): here "
                "each image is a unit by itself"
            )
        margin = run.finetune.margin
        labels = len(competition.labels(run))
        if isinstance(margin, tuple) and len(margin) != labels:
            raise UserError(f"{file}: run {run.name} has {len(margin)} margins for {labels} labels")

    # The run that the metadata network is trained through: raises where there is none.
    if competition.metadata and competition.metadata.through:
        competition.run(competition.metadata.through)
    for label in task.labels:
        if label not in competition.submission.columns:
            raise UserError(f"{file}: submission.columns lacks the label {label!r}")
    # A mistyped stage would leave the paper's number out of the report without a word.
    stages = (STAGE_1, *STAGE_2.values(), BLEND, ENSEMBLE, FINAL)
    for stage, *_ in getattr(competition.module, "published", ()):
        if stage not in stages:
            raise UserError(
                f"{file}: published names the stage {stage!r}; there are {', '.join(stages)}"
            )
