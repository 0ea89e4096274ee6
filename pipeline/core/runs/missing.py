"""What a stage has still to make: asked of every stage in the same way, judged by content.

Each `lacking_<stage>(request)` returns the arguments to call the stage with, [] when there is
nothing to make. Weights and predictions that today's configuration would make otherwise raise a
UserError (`runs.facts`). What takes seconds (ensemble, submission, report) is made anew, and the
reason is printed. Needs no torch, so that the answer takes less than a second.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts.files import file_hash, first_changed, read_json
from pipeline.core.artifacts.paths import (
    FINETUNED,
    PREDICTIONS,
    PRETRAINED,
    STAGE_1_PREDICTIONS,
    data_folder,
    models_folder,
    submissions_folder,
)
from pipeline.core.artifacts.prepared_images import needed_sizes, prepared_sizes
from pipeline.core.artifacts.provenance import first_difference, notice, table_hashes
from pipeline.core.artifacts.tables import fold_numbers, read_folds
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import ALL, METADATA, MODERN, as_json, stage_1_member
from pipeline.core.config.target_path import Target
from pipeline.core.runs.average_files import changed_file
from pipeline.core.runs.facts import (
    lacks_test_scores,
    predicted_with_other_weights,
    require_current,
)
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runs.predictions import is_imported, predictions_digest
from pipeline.core.runs.whole import averaged_folds
from pipeline.core.runtime.errors import UserError

# A stage and what has to exist before it, in the order of work. "images" is images.csv alone: folds
# need no image, so they can be made and looked at while hours of resizing are still to come.
STAGES_BEFORE_ENSEMBLE = (
    "images",
    "folds",
    "prepare",
    "pretrain",
    "finetune",
    "predict",
    "metadata",
)
BEFORE = {
    "prepare": (),
    "folds": ("images",),
    "pretrain": ("images", "folds", "prepare"),
    "finetune": ("images", "folds", "prepare", "pretrain"),
    "metadata": ("images", "folds"),
    "predict": ("images", "folds", "prepare", "pretrain", "finetune"),
    "ensemble": STAGES_BEFORE_ENSEMBLE,
    "submit": (*STAGES_BEFORE_ENSEMBLE, "ensemble"),
    "report": (*STAGES_BEFORE_ENSEMBLE, "ensemble", "submit"),
}

# The stages that make an artifact for each fold of a run: hours of work, never redone unasked.
FOLD_STAGES = ("pretrain", "finetune", "predict", "metadata")


@dataclass(frozen=True)
class Request:
    """What make was asked for: a competition, some of its runs and folds (() = all), members taken
    from elsewhere, and K."""

    competition: Competition
    runs: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    folds: tuple[int | str, ...] = ()
    number_of_folds: int | None = None

    @property
    def name(self) -> str:
        return self.competition.name

    @property
    def run_targets(self) -> list[str]:
        """`melanoma/b5_384 ...`, or `melanoma`."""
        if self.imported and not self.runs:
            return []
        return [str(Target(self.name, run)) for run in self.runs] or [self.name]

    @property
    def member_targets(self) -> list[str]:
        """The same with the members from elsewhere."""
        return [*self.run_targets, *(str(Target(self.name, name)) for name in self.imported)]

    @property
    def trained(self) -> tuple[str, ...]:
        """The names of the runs that are meant."""
        if self.runs or self.imported:
            return self.runs
        return tuple(run.name for run in self.competition.runs)

    def fold_targets(self, runs: tuple[str, ...]) -> list[str]:
        """`melanoma/b5_384/fold0 ...` for these runs and the folds asked for."""
        folds = self.folds or (None,)
        return [str(Target(self.name, run, fold)) for run in runs for fold in folds]


def lacking_images(request: Request) -> list[str]:
    """images.csv itself: folds need nothing else."""
    exists = (data_folder(request.name) / "images.csv").is_file()
    return [] if exists else request.run_targets or [request.name]


def lacking_prepare(request: Request) -> list[str]:
    """Sizes of images that a run asked for needs."""
    needed = needed_sizes(request.competition, request.run_targets)
    missing = needed - prepared_sizes(request.competition)
    return request.run_targets if missing else []


def lacking_folds(request: Request) -> list[str]:
    """folds.csv; once made it is frozen, so another K than its own is an error."""
    path = data_folder(request.name) / "folds.csv"
    wanted = request.number_of_folds
    if not path.is_file():
        option = ["--folds", str(wanted)] if wanted is not None else []
        return [request.name, *option]
    there = len(fold_numbers(read_folds(request.name)))
    if wanted is not None and wanted != there:
        raise UserError(
            f"K={wanted}: there are {there} folds already: {path} is frozen; `make clean-folds "
            f"COMP={request.name}` removes it"
        )
    return []


def lacking_fold_artifacts(artifact: str, metadata: bool = False) -> Callable:
    """A function request -> the folds that lack an artifact, as targets."""

    def lacking(request: Request) -> list[str]:
        # an earned combination has a model of its own on patient columns
        if metadata and request.competition.blend.weights == "earned":
            return []
        targets = request.fold_targets((METADATA,) if metadata else request.trained)
        missing = []
        for job in jobs_of(targets, metadata):
            # Predictions of weights that have been trained again since count as missing; anything
            # else that exists must be today's, or make stops with what to do about it.
            path = job.folder / artifact
            exists = path.exists()
            if exists and artifact == PREDICTIONS:
                exists = not predicted_with_other_weights(job, path)
            if exists:
                require_current(job, path)
            if not exists or (artifact == PREDICTIONS and lacks_stage_1_member(job)):
                missing.append(job.target)
        return missing

    return lacking


def lacks_stage_1_member(job: Job) -> bool:
    """True where stage 1 may be a member of the ensemble and its predictions are not complete."""
    if job.run.name == METADATA or job.run.stage == "finetuned":
        return False
    path = job.folder / STAGE_1_PREDICTIONS
    return not path.exists() or lacks_test_scores(job, path)


def lacking_ensemble(request: Request) -> list[str]:
    """The average, when its members, folds or configuration are not today's."""
    reason = ensemble_reason(request)
    if not reason:
        return []
    say_why(models_folder(request.name) / "ensemble.csv", reason)
    return ensemble_arguments(request)


def ensemble_arguments(request: Request) -> list[str]:
    """What the average is called with: its members, and folds where not all are meant."""
    named = [str(fold) for fold in request.folds if fold != ALL]
    folds = ["--folds", *named] if named else []
    return [*request.member_targets, *folds]


def ensemble_reason(request: Request) -> str:
    """Why ensemble.csv is not the average asked for today; "" when it is."""
    folder = models_folder(request.name)
    if not (folder / "ensemble.csv").is_file() or not (folder / "ensemble.json").is_file():
        return "missing"

    # A record that cannot be read is a reason like any other: an average takes seconds to make.
    try:
        recorded = read_json(folder / "ensemble.json")
    except UserError as error:
        return str(error)
    reason = reason_of(recorded.get("decided_by"), ensemble_facts(request))
    changed = changed_file(request.competition, recorded)
    return reason or (f"{changed} has changed since it was made" if changed else "")


def ensemble_facts(request: Request) -> dict:
    """What decides an average: tables, members' predictions, folds, and the task's own fields."""
    competition = request.competition
    folds = sorted(fold for fold in request.folds if fold != ALL)
    folds = folds or fold_numbers(read_folds(competition.name))
    names = dict.fromkeys((*request.trained, *request.imported))
    members = [name for name in names if name != METADATA]
    # Metadata is a member where its predictions exist; where it is blended in they must.
    if competition.metadata:
        members.append(METADATA)
    # A run without predictions stays in, as None: that differs from any digest on record.
    predictions = {}
    for name in members:
        own = averaged_folds(competition, name, folds)
        digest = predictions_digest(competition.name, name, own)
        if digest or name != METADATA:
            predictions[name] = digest

    # Which stages are members, and what stage 1 scored where it may be one.
    stages = {name: competition.run(name).stage for name in request.trained}
    for name, stage in stages.items():
        if stage != "finetuned":
            own = averaged_folds(competition, name, folds)
            digest = predictions_digest(competition.name, name, own, STAGE_1_PREDICTIONS)
            predictions[stage_1_member(name)] = digest
    return {
        "hashes": table_hashes(competition.name),
        "predictions": predictions,
        "stages": stages,
        "folds": list(folds),
        "configuration": ensemble_configuration(competition),
        "notice": notice(competition.name),
    }


def ensemble_configuration(competition: Competition) -> dict:
    """The fields of the competition's file that decide how members are averaged and scored."""
    task = as_json(competition.task)
    names = ("labels", "unit", "aggregate", "view", "blank", "scored_source", "metric")
    return {"blend": as_json(competition.blend), **{name: task[name] for name in names}}


def lacking_submit(request: Request) -> list[str]:
    """The organiser's file, when it was not filled in from today's average."""
    submission = request.competition.submission
    path = submissions_folder(request.name) / submission.file
    return lacking_page(request, path, page_reason(path, submission_facts(request.competition)))


def lacking_report(request: Request) -> list[str]:
    """The page, when it does not show today's average, or a file beside it has changed."""
    path = submissions_folder(request.name) / "report.html"
    reason = page_reason(path, report_facts(request.competition))
    if not reason:
        changed = first_changed(path.parent, read_json(path.with_suffix(".json")).get("files", {}))
        reason = f"{changed} has changed since it was made" if changed else ""
    return lacking_page(request, path, reason)


def submission_facts(competition: Competition) -> dict:
    """What decides a submission."""
    average = file_hash(models_folder(competition.name) / "ensemble.csv")
    return {"ensemble": average, "submission": as_json(competition.submission)}


def report_facts(competition: Competition) -> dict:
    """What decides a report: the average and its scores, whose digests ensemble.json has."""
    return {"ensemble": file_hash(models_folder(competition.name) / "ensemble.json")}


def lacking_page(request: Request, path: Path, reason: str) -> list[str]:
    """[] where no reason is given to make a file anew; otherwise it is said."""
    if not reason:
        return []
    say_why(path, reason)
    return [request.name]


def page_reason(path: Path, facts: dict) -> str:
    """Why a submission or a report is not today's; "" when it is."""
    sidecar = path.with_suffix(".json")
    if not path.is_file() or not sidecar.is_file():
        return "missing"
    try:
        recorded = read_json(sidecar)
    except UserError as error:
        return str(error)

    # A cell edited by hand must not be what is sent in.
    if recorded.get("digest") != file_hash(path):
        return "changed since it was made"
    return reason_of({name: recorded.get(name) for name in facts}, facts)


def reason_of(recorded: object, today: dict) -> str:
    """The first difference as half a sentence, "" when there is none."""
    found = first_difference(recorded, json.loads(json.dumps(today)))
    if not found:
        return ""
    field, old, new = found
    if not field:
        return "made by an older version"
    return f"made with {field}={shortened(old)}, today it is {shortened(new)}"


def shortened(value: object) -> str:
    """A value for a message: a digest by its first twelve characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:12]}…"


def say_why(path: Path, reason: str) -> None:
    """Say on stderr, since stdout is for make, why a file is made anew; a missing one needs no
    reason."""
    if reason != "missing":
        print(f"{path}: {reason}; making it anew", file=sys.stderr, flush=True)


# Stage -> what it has still to make.
LACKING: dict[str, Callable[[Request], list[str]]] = {
    "images": lacking_images,
    "prepare": lacking_prepare,
    "folds": lacking_folds,
    "pretrain": lacking_fold_artifacts(PRETRAINED),
    "finetune": lacking_fold_artifacts(FINETUNED),
    "predict": lacking_fold_artifacts(PREDICTIONS),
    "metadata": lacking_fold_artifacts(PREDICTIONS, metadata=True),
    "ensemble": lacking_ensemble,
    "submit": lacking_submit,
    "report": lacking_report,
}


def request_for(competition: Competition, names: Sequence[str], folds: Sequence[int]) -> Request:
    """The request that these members and folds answer: what `pipeline.ensemble` records."""
    imported = tuple(name for name in names if is_imported(competition.name, name))
    runs = tuple(name for name in names if name not in imported and name != METADATA)
    return Request(competition, runs, imported, tuple(folds))


def request_of(competition: str, runs: str = "", folds: str = "", number: str = "") -> Request:
    """A Request from make's variables COMP, RUN, FOLDS and K; UserError for what they cannot be."""
    # make passes text; each mistake is named by the variable as it was typed.
    if not competition.strip():
        raise UserError("COMP is empty; name a competition, as in `make report COMP=melanoma`")
    if len(competition.split()) > 1:
        raise UserError(f"COMP={competition!r} names {len(competition.split())}; name one")
    found = load_competition(competition.strip())

    # RUN: members taken from elsewhere have predictions only, and are no runs of the file.
    # RUN=modern stands for all of that tuple.
    names = [name for name in runs.split() if name != METADATA]
    if MODERN in names and found.modern:
        names = [*(name for name in names if name != MODERN), *found.modern]
    imported = tuple(name for name in names if is_imported(found.name, name))
    chosen = tuple(found.run(name).name for name in names if name not in imported)

    # FOLDS and K.
    for fold in folds.split():
        if not fold.isdecimal() and fold != ALL:
            raise UserError(f'FOLDS={folds!r}: {fold!r} is not a fold; write FOLDS="0 1"')
    if number and not number.isdecimal():
        raise UserError(f"K={number!r} is not a number of folds; write K=5")
    if number and int(number) < 2:
        raise UserError(f"K={number}: at least 2 folds, or no patient would train")
    numbers = tuple(fold if fold == ALL else int(fold) for fold in folds.split())
    return Request(found, chosen, imported, numbers, int(number) if number else None)
