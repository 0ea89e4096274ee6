"""What the first screen says of the runs is what their weights and logs say."""

import json

import pytest

from pipeline.core.artifacts.paths import fold_folder
from pipeline.core.config.run import Augment, Finetune, Pretrain, Run, as_json
from pipeline.core.report.origins.run_recipes import finetune_text, recipe_lines, trained_run

RECIPE = {
    "pretrain": Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=6, epochs=6),
    "finetune": Finetune(lr=0.5, epochs=3, milestones=(2,), milestone_unit="epoch", divide=2),
    "augment": Augment(flip=True, rotate=180),
}


def write_fold(run: Run, fold: int, seconds: list[float], **facts: str) -> None:
    """Weights without tensors, and a log of one epoch a number."""
    folder = fold_folder("melanoma", run.name, fold)
    folder.mkdir(parents=True)
    pipeline = json.dumps({"run": as_json(run), **facts})
    header = json.dumps({"__metadata__": {"pipeline": pipeline}}).encode()
    content = len(header).to_bytes(8, "little") + header
    (folder / "finetuned.safetensors").write_bytes(content)
    lines = [{"phase": "finetuned", "step": 1, "loss": 1}]
    lines += [{"phase": "finetuned", "step": 2, "epoch": 1, "seconds": value} for value in seconds]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS", str(tmp_path))


def test_hardware_dates_and_seconds_are_collected_over_folds():
    run = Run(network="resnet10t", size=96, **RECIPE)
    write_fold(run, 0, [10, 20.5], hardware="a CPU", made="2026-01-02T03:04", commit="abc")
    write_fold(run, 1, [30], hardware="a GPU", made="2026-01-03T03:04", commit="abc")
    found = trained_run("melanoma", run.name, (0, 1))
    assert found.hardware == ("a CPU", "a GPU") and found.made == "2026-01-03T03:04"
    assert found.seconds == 60.5 and found.commits == ("abc",) and not found.imported


def test_older_weights_do_not_say():
    run = Run(network="resnet10t", size=96, **RECIPE)
    write_fold(run, 0, [])
    found = trained_run("melanoma", run.name, (0,))
    assert found.seconds is None and found.hardware == () and found.made == ""


def test_runs_of_one_recipe_are_one_line():
    for size in (96, 128):
        write_fold(Run(network="resnet10t", size=size, **RECIPE), 0, [1])
    write_fold(Run(network="resnet18", size=96, weights="random", pool="pcam", **RECIPE), 0, [1])
    names = ("resnet10t_96", "resnet10t_128", "resnet18_96")
    lines = recipe_lines([trained_run("melanoma", name, (0,)) for name in names])
    networks = ["resnet10t_96 (resnet10t, 96 px), resnet10t_128 (resnet10t, 128 px)"]
    assert [line[0] for line in lines] == [*networks, "resnet18_96 (resnet18, 96 px)"]
    text = lines[0][1]
    for part in (
        "from imagenet weights",
        "cross-entropy, Adam, 6 epochs, batches of 32, rate 0.0001 to 0.002 in triangles of 6",
        "AUC-M, PESG, 3 epochs, batches of 32, rate 0.5 divided by 2 at epoch 2, margin 1.0",
        "flips, rotate 180°",
        "30 test-time views",
    ):
        assert part in text
    assert "pooled" not in text and "pooled by pcam" in lines[1][1]


def test_the_other_systems_of_stage_2_are_named():
    partial = Finetune(loss="sopa", hardest_positives=0.2)
    assert finetune_text(as_json(partial)).startswith("SOPA (the hardest 20% of positives), PESG")
    soft = Finetune(loss="sota_s", temperature_negatives=1, temperature_positives=0.5)
    both = "SOTA-s (negatives at temperature 1, positives at temperature 0.5), PESG"
    assert finetune_text(as_json(soft)).startswith(both)
    head = finetune_text(as_json(Finetune(layers="head")))
    assert ", the classifier alone, margin" in head
    ahead = finetune_text(as_json(Finetune(inner_lr=0.05)))
    assert ahead.startswith("AUC-M, PDSCA (inner rate 0.05)")
    stages = finetune_text(as_json(Finetune(first_stage=2000)))
    assert "rate 0.1 divided by 3 in stages of PPD-SG, the first of 2000 steps" in stages


def test_the_fields_of_today_are_told_where_they_are_set():
    shared = dict(schedule="cosine", warmup_epochs=1, optimizer="adamw", clip=1.0, layer_decay=0.8)
    run = Run(
        network="resnet10t",
        size=96,
        pretrain=Pretrain(lr=1e-3, smoothing=0.1, **shared),
        finetune=Finetune(lr=1e-4, dual_lr=0.1, **shared),
        drop_path=0.2,
    )
    write_fold(run, 0, [1])
    text = recipe_lines([trained_run("melanoma", run.name, (0,))])[0][1]
    for part in (
        "AdamW, 2 epochs, batches of 32, rate 0.001 on a cosine after 1 epochs of warm-up, 0.8 of",
        "gradients up to 1, labels smoothed by 0.1",
        "PESG in AdamW's direction, 2 epochs",
        "drop_path 0.2",
    ):
        assert part in text
