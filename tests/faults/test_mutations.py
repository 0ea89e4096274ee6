"""Any artifact with any byte changed: the stage that reads it makes the same as before, or says in
one line what is wrong; it never hangs, and never uses it without a word."""

import random

import pytest

from tests.cases.faults import (
    FOLD,
    STAGES,
    TALLY,
    contents,
    files_of,
    harmed,
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
# An artifact, another to swap it with, the stage that reads it, and how many changes are tried.
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
    ("submissions/LOG.md", f"{MODELS}/ensemble.csv", "submit", 15),
]


@pytest.mark.parametrize("artifact, other, stage, count", CASES)
def test_a_changed_artifact_is_harmless_or_told(home, artifact, other, stage, count):
    change_and_run(home, artifact, other, stage, count)
    TALLY.require_none_wrong("an artifact changed")


def change_and_run(home, artifact, other, stage, count) -> None:
    """Change an artifact `count` times, each time anew, and run the stage that reads it."""
    arguments, made = STAGES[stage]
    if stage == "metadata":
        made = (f"{MODELS}/metadata/fold0/predictions.*",)
    if stage == "prepare":
        artifact = str(next(home.glob(artifact)).relative_to(home))
        made = (f"{DATA}/images.csv", f"{DATA}/prepare.json")
    if artifact.startswith(DATA) and stage == "folds":
        arguments = ("melanoma",)
        made = (f"{DATA}/folds*",)
    before = contents(home, ("data/melanoma/*.*", f"{DATA}/prepare", "models", "submissions"))
    expected = results(home, made)
    chance = random.Random(f"{artifact} {stage}")
    path = home / artifact
    for _ in range(count):
        remove(home, tuple(name for name in made if name != artifact))
        what, data = harmed(before[artifact], before[other], chance)
        path.write_bytes(data)
        done = run_forked(home, stage, *arguments)
        case = f"{artifact}, {what}, read by {stage}"
        TALLY.note("an artifact changed", case, fault_of(home, done, made, expected))
        restore(home, before)
        for left in files_of(home, ("models/**/.*", "submissions/**/.*")):
            left.unlink()


def fault_of(home, done, made, expected) -> str:
    """What is wrong with how a stage ended on a changed artifact, "" where nothing is."""
    if done.fault:
        return f"{done.fault}: {done.printed[-600:]}"
    found = results(home, made)
    if done.status == 0 and found != expected and not done.told:
        differ = [name for name in expected if found.get(name) != expected[name]]
        return f"other than before without a word: {differ} {done.printed[-300:]}"
    left = leftovers(home, (".tmp", ".claim"))
    return f"left {left}" if left else ""
