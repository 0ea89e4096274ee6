"""Any artifact with any byte changed: the stage that reads it makes the same as before, or says in
one line what is wrong; it never hangs, and never uses it without a word.

FAULTS=4 tries four times as many changes.
"""

import os
import time
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.core.runtime import command
from tests.cases.faults import (
    FOLD,
    KINDS,
    PLACES,
    STAGES,
    TALLY,
    Harm,
    contents,
    files_of,
    leftovers,
    remove,
    restore,
    results,
)
from tests.cases.forked import run_forked

pytestmark = [pytest.mark.faults, pytest.mark.slow]

DATA = "data/melanoma"
MODELS = "models/melanoma"
FIRST = f"models/{FOLD}"
SECOND = f"{MODELS}/b3_256/fold1"
CHECKPOINT = f"{FIRST}/finetuned.checkpoint.safetensors"
# Beside the stages, what only looks: it makes nothing, and must not stumble.
SUBMITTED = "submissions/melanoma"
PACKAGE = f"{SUBMITTED}/kaggle/dataset"
READERS = STAGES | {
    "todo": (("report", "melanoma", "--run", "b3_256"), ()),
    "status": (("melanoma/b3_256",), ()),
    "deploy.away.kaggle": ((PACKAGE, f"{DATA}/raw", "scored.csv"), ("scored.csv",)),
}
# What goes to people: `todo` tells of any change.
WATCHED = tuple(f"{SUBMITTED}/{name}" for name in ("submission.csv", "report.html", "report_files"))
# An artifact (a pattern means the first that it matches), another to swap it with, the stage that
# reads it, and how many changes are tried.
CASES = [
    (f"{DATA}/prepare/*/*/000000.jsonl", f"{DATA}/images.csv", "prepare", 12),
    (f"{DATA}/images.csv", f"{DATA}/folds.csv", "folds", 20),
    (f"{DATA}/images.csv", f"{DATA}/folds.csv", "ensemble", 20),
    (f"{DATA}/folds.csv", f"{DATA}/images.csv", "ensemble", 30),
    (f"{DATA}/folds_dropped.csv", f"{DATA}/folds.csv", "ensemble", 15),
    (f"{DATA}/folds_audit.json", f"{DATA}/prepare.json", "ensemble", 15),
    (f"{DATA}/folds_audit.json", f"{DATA}/prepare.json", "report", 15),
    (f"{DATA}/prepare.json", f"{DATA}/folds_audit.json", "ensemble", 15),
    (f"{DATA}/prepare.json", f"{DATA}/folds_audit.json", "report", 10),
    (f"{FIRST}/pretrained.safetensors", f"{SECOND}/pretrained.safetensors", "predict", 25),
    (f"{FIRST}/finetuned.safetensors", f"{SECOND}/finetuned.safetensors", "predict", 25),
    (f"{FIRST}/pretrained.safetensors", f"{FIRST}/finetuned.safetensors", "finetune", 10),
    (
        f"{MODELS}/metadata/fold0/finetuned.safetensors",
        f"{MODELS}/metadata/fold1/finetuned.safetensors",
        "metadata",
        25,
    ),
    (f"{FIRST}/predictions.csv", f"{SECOND}/predictions.csv", "ensemble", 30),
    (f"{FIRST}/predictions.json", f"{SECOND}/predictions.json", "ensemble", 30),
    (f"{FIRST}/predictions_pretrained.csv", f"{FIRST}/predictions.csv", "ensemble", 20),
    (f"{FIRST}/predictions_pretrained.json", f"{FIRST}/predictions.json", "ensemble", 20),
    (f"{MODELS}/metadata/fold0/predictions.csv", f"{FIRST}/predictions.csv", "ensemble", 20),
    (f"{FIRST}/predictions_views.npz", f"{SECOND}/predictions_views.npz", "report", 20),
    (f"{FIRST}/log.jsonl", f"{SECOND}/log.jsonl", "report", 20),
    (f"{MODELS}/ensemble.csv", f"{MODELS}/scores.csv", "submit", 25),
    (f"{MODELS}/ensemble.json", f"{DATA}/prepare.json", "submit", 25),
    (f"{MODELS}/scores.csv", f"{MODELS}/ensemble.csv", "report", 20),
    (f"{MODELS}/ensemble.json", f"{DATA}/prepare.json", "report", 25),
    (f"{MODELS}/quantiles.json", f"{MODELS}/ensemble.json", "report", 10),
    (f"{MODELS}/combination.json", f"{MODELS}/quantiles.json", "submit", 10),
    (f"{MODELS}/metadata/fold0/log.jsonl", f"{FIRST}/log.jsonl", "report", 10),
    (f"{MODELS}/metadata/fold0/predictions.json", f"{FIRST}/predictions.json", "ensemble", 10),
    ("submissions/LOG.md", f"{MODELS}/ensemble.csv", "submit", 15),
    (f"{MODELS}/scores.csv", f"{MODELS}/ensemble.csv", "submit", 15),
    (f"{DATA}/prepare_errors.csv", f"{DATA}/folds.csv", "submit", 10),
    (f"{DATA}/images/32.csv", f"{DATA}/images.csv", "predict", 15),
    (f"{DATA}/images/32.csv", f"{DATA}/images.csv", "prepare", 10),
    (f"{DATA}/images/32/*.jpg", f"{DATA}/prepare.json", "prepare", 10),
    (f"{DATA}/prepare.json", f"{DATA}/folds_audit.json", "todo", 15),
    (f"{DATA}/images/32/*.jpg", f"{DATA}/prepare.json", "predict", 10),
    (f"{DATA}/images/32/*.jpg", f"{DATA}/prepare.json", "finetune", 10),
    (CHECKPOINT, f"{SECOND}/finetuned.safetensors", "finetune", 15),
    (f"{PACKAGE}/package.json", f"{DATA}/prepare.json", "deploy.away.kaggle", 12),
    (f"{PACKAGE}/quantiles.json", f"{DATA}/prepare.json", "deploy.away.kaggle", 10),
    *(
        (
            f"{PACKAGE}/{member}-fold0.safetensors",
            f"{PACKAGE}/{member}-fold1.safetensors",
            "deploy.away.kaggle",
            12,
        )
        for member in ("b3_256", "metadata")
    ),
    (f"{FIRST}/finetuned.safetensors", f"{SECOND}/finetuned.safetensors", "todo", 15),
    (f"{FIRST}/predictions.json", f"{SECOND}/predictions.json", "todo", 15),
    (f"{MODELS}/ensemble.json", f"{DATA}/prepare.json", "todo", 15),
    (f"{SUBMITTED}/submission.csv", f"{MODELS}/scores.csv", "todo", 15),
    (f"{SUBMITTED}/report.json", f"{DATA}/prepare.json", "todo", 15),
    (f"{SUBMITTED}/report.html", f"{DATA}/prepare.json", "todo", 10),
    (f"{SUBMITTED}/report_files/*.csv", f"{MODELS}/scores.csv", "todo", 10),
    (f"{SUBMITTED}/report_files/*.svg", f"{MODELS}/scores.csv", "todo", 10),
    (f"{FIRST}/finetuned.safetensors", f"{SECOND}/finetuned.safetensors", "status", 15),
    (f"{FIRST}/log.jsonl", f"{SECOND}/log.jsonl", "status", 15),
]


TIMES = int(os.environ.get("FAULTS", "1"))
# A flipped bit and a replaced byte are as likely as all the others together.
HARMS = st.builds(
    Harm,
    st.sampled_from(("flip", "flip", "flip", "replace", "replace", *KINDS[2:])),
    st.integers(0, PLACES - 1),
    st.booleans(),
    st.integers(0, 255),
)


@pytest.mark.parametrize("artifact, other, stage, count", CASES)
def test_a_changed_artifact_is_harmless_or_told(home, artifact, other, stage, count):
    change_and_run(home, artifact, other, stage, count * TIMES)
    TALLY.require_none_wrong()


def change_and_run(home, artifact, other, stage, count) -> None:
    """Change an artifact `count` times, each time anew, and run the stage that reads it."""
    arguments, made = READERS[stage]
    compared = made
    if stage == "metadata":
        made = compared = (f"{MODELS}/metadata/fold0/predictions.*",)
    if stage == "prepare":
        made = (f"{DATA}/images.csv", f"{DATA}/prepare.json")
    if artifact == CHECKPOINT:
        stop_training(home)
        compared = (f"{FIRST}/finetuned.safetensors",)
    if artifact.startswith(PACKAGE):
        pack(home)
    # Paths of a package's program are relative to where it is run.
    run = partial(run_forked, home, stage, *arguments, first=partial(os.chdir, home))
    path = sorted(home.glob(artifact))[0]
    artifact = str(path.relative_to(home))
    tables = (f"{DATA}/*.*", f"{DATA}/images/*.csv", f"{DATA}/prepare")
    before = contents(home, (*tables, artifact, "models", "submissions"))
    expected = results(home, compared)

    # What the stage says when nothing has been changed.
    remove(home, made)
    usual = run()
    TALLY.note("nothing changed", stage, fault_of(home, usual, compared, expected))
    restore(home, before)
    seen = {hash(before[artifact])}

    @settings(
        max_examples=6 * count,  # a third to a half of them repeat an earlier one
        derandomize=True,
        database=None,
        deadline=None,
        # Every case is noted; none is made smaller.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(harm=HARMS)
    def one_change(harm: Harm) -> None:
        # No change counts twice.
        what, data = harm.done_to(before[artifact], before[other])
        if hash(data) in seen or len(seen) > count:
            return
        seen.add(hash(data))
        remove(home, tuple(name for name in made if name != artifact))
        path.write_bytes(data)
        done = run()
        fault = fault_of(home, done, compared, expected, usual)
        if not fault and stage == "todo" and artifact.startswith(WATCHED):
            fault = "" if done.told - usual.told else f"not told: {done.printed[-300:]}"
        TALLY.note("an artifact changed", f"{artifact}, {what}, read by {stage}", fault)
        restore(home, before)
        for left in files_of(home, ("models/**/.*", "submissions/**/.*")):
            left.unlink()

    one_change()


def stop_training(home) -> None:
    """Have the checkpoint of a stage 2 that a time limit stopped after its first step."""
    weights = contents(home, (f"{FIRST}/finetuned.safetensors",))
    remove(home, tuple(weights))
    # Its clock begins now, and five seconds before the end are kept for writing.
    begin = lambda: setattr(command, "STARTED", time.monotonic())  # noqa: E731
    stopped = run_forked(home, "finetune", FOLD, first=begin, TIME_LIMIT="4s")
    assert stopped.status == 75, stopped.printed
    restore(home, weights)


def pack(home) -> None:
    """Make the folder for Kaggle, and what its package scores."""
    arguments, _ = READERS["deploy.away.kaggle"]
    owner = ("--owner", "me", "--licence", "other")
    assert run_forked(home, "deploy.kaggle", "melanoma", *owner).status == 0
    scored = run_forked(home, "deploy.away.kaggle", *arguments, first=partial(os.chdir, home))
    assert scored.status == 0, scored.printed


def fault_of(home, done, compared, expected, usual=None) -> str:
    """What is wrong with how a stage ended on a changed artifact, "" where nothing is; usual: how
    it ends on those that nobody changed."""
    if done.fault:
        return f"{done.fault}: {done.printed[-600:]}"
    found = results(home, compared)
    told = usual is not None and bool(done.told - usual.told)
    if done.status == 0 and found != expected and not told:
        differ = [name for name in expected if found.get(name) != expected[name]]
        return f"other than before without a word: {differ} {done.printed[-300:]}"
    left = leftovers(home, (".tmp", ".claim"))
    return f"left {left}" if left else ""
