"""How far one stage of one fold is, judged from the files in the fold's folder alone: weights,
predictions, checkpoints, claims and log.jsonl. Needs no torch, and disturbs nobody who trains.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts.paths import FINETUNED, PREDICTIONS, PRETRAINED
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.run import Run
from pipeline.core.runs.facts import predicted_with_other_weights, require_current
from pipeline.core.runs.job import Job
from pipeline.core.runtime.claims import claim_path, owner_is_gone, owner_of
from pipeline.core.runtime.errors import UserError

# The stages of a fold, each with the artifact that says that it is done.
ARTIFACTS = {"pretrain": PRETRAINED, "finetune": FINETUNED, "predict": PREDICTIONS}


@dataclass(frozen=True)
class PhaseProgress:
    """What log.jsonl says of one phase so far.

    epoch              epochs that have ended
    images_per_second  of the last window, all processes together; 0 before the first window
    seconds            spent on training steps, validation and start not counted
    seconds_left       of training steps; None before the first epoch has ended
    """

    epoch: int = 0
    images_per_second: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None


def trained_so_far(folder: Path, phase: str, batch_size: int, epochs: int) -> PhaseProgress:
    """Read a phase ("pretrained" or "finetuned") from a fold's log.jsonl; zeros where none exists.

    A last line that is still being written is left out.
    """
    lines = [line for line in read_log(folder / "log.jsonl") if line["phase"] == phase]
    if not lines:
        return PhaseProgress()

    # Windows are of equal numbers of steps, but a resumed run may begin within one.
    speed = 0.0
    seconds = 0.0
    before = 0
    for line in lines:
        if line.get("window"):
            speed = line["images_per_second"]
            seconds += (line["step"] - before) * batch_size / speed
            before = line["step"]

    # Steps of an epoch are known once one has ended.
    ended = [line for line in lines if "epoch" in line]
    epoch = ended[-1]["epoch"] if ended else 0
    left = None
    if ended and speed:
        steps = epochs * ended[-1]["step"] / epoch
        left = max(0.0, (steps - lines[-1]["step"]) * batch_size / speed)
    return PhaseProgress(epoch, speed, seconds, left)


@dataclass(frozen=True)
class State:
    """One cell of the table of `pipeline.status`.

    word    "done", "refused" (made from something else than today's configuration), "outdated"
            (predictions of other weights: made again by themselves), "running", "interrupted"
            (a checkpoint or a dead owner's claim: the same command goes on), "missing"
    text    what else there is to say: an AUC, how far, on which machine, why
    """

    word: str
    text: str = ""


def stage_state(job: Job, stage: str) -> State:
    """How far "pretrain", "finetune" or "predict" is for one fold of one run."""
    # The artifact before the claim: its owner may have renamed it and not yet let go.
    path = job.folder / ARTIFACTS[stage]
    if path.is_file():
        return finished_state(job, stage, path)

    # Without it: being made, cut off, or not begun.
    claim = claim_path(path)
    phase = path.stem
    checkpoints = any(job.folder.glob(f"{phase}.checkpoint*.safetensors"))
    if claim.is_file() and not owner_is_gone(claim):
        return State("running", " ".join([how_far(job, stage), owner_text(claim)]).strip())
    if checkpoints or claim.is_file():
        return State("interrupted", how_far(job, stage))
    return State("missing")


def finished_state(job: Job, stage: str, path: Path) -> State:
    """ "done" with the validation AUC, or what today's configuration has against the artifact."""
    if stage == "predict" and predicted_with_other_weights(job, path):
        return State("outdated", "other weights")
    try:
        require_current(job, path)
        if stage == "predict":
            return State("done")
        auc = read_weights_header(path)["validation_auc"]["mean"]
    except UserError as error:
        # The whole line is what the stage itself will say; the table has room for its beginning.
        return State("refused", str(error).removeprefix(f"{path}: "))
    return State("done", f"{auc:.4f}")


def how_far(job: Job, stage: str) -> str:
    """`epoch 3 of 10, 412 img/s, 5 min left`; "" for prediction, which keeps no log."""
    if stage == "predict" or not isinstance(job.run, Run):
        return ""
    recipe = job.run.pretrain if stage == "pretrain" else job.run.finetune
    phase = Path(ARTIFACTS[stage]).stem
    trained = trained_so_far(job.folder, phase, recipe.batch_size, recipe.epochs)
    parts = [f"epoch {trained.epoch} of {recipe.epochs}"]
    if trained.images_per_second:
        parts.append(f"{trained.images_per_second:.0f} img/s")
    if trained.seconds_left is not None:
        parts.append(f"{duration_text(trained.seconds_left)} left")
    return ", ".join(parts)


def owner_text(claim: Path) -> str:
    """`(node7, process 4711)`; "" while the claim is being written."""
    owner = owner_of(claim)
    return f"({owner['machine'].split()[0]}, process {owner['pid']})" if owner else ""


def duration_text(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 20 min`; "not recorded" for None.

    >>> duration_text(45), duration_text(754), duration_text(12_000), duration_text(None)
    ('45 s', '13 min', '3 h 20 min', 'not recorded')
    """
    if seconds is None:
        return "not recorded"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
