"""Training runs: they learn what can be learnt, repeat themselves, and record what they did."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.paper.benchmark import datasets, progress, training
from pipeline.paper.benchmark import run as runs
from pipeline.paper.benchmark.datasets import Benchmark
from pipeline.paper.benchmark.progress import Checkpoints, criterion_of, trial_optimizer
from pipeline.paper.benchmark.store import as_trial, run_and_append
from pipeline.paper.benchmark.trial import Trial

CPU = torch.device("cpu")


def bright(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """8 px noise; positives are brighter by one standard deviation of the noise, so AUC 1 is within
    reach."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = random.normal(100, 25, (count, 3, 8, 8)) + 25 * labels[:, None, None, None]
    return pixels.clip(0, 255).astype(np.uint8), labels


class Tiny(nn.Module):
    """Mean colour under one linear layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.classifier = nn.Linear(3, 1)

    def forward(self, images):
        return self.classifier(self.norm(images).mean((2, 3)))[:, 0]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A data set whose classes differ in brightness, and a tiny network, replace the real ones."""
    benchmark = Benchmark("cifar10", *bright(1000, 0), *bright(400, 1), "synthetic")
    monkeypatch.setattr(datasets, "read", lambda _: benchmark)
    monkeypatch.setitem(progress.NETWORKS, "resnet20", Tiny)
    runs.EASIEST.clear()


def trial(**changes) -> Trial:
    usual = dict(dataset="cifar10", imratio=0.1, epochs=4, batch_size=32, precision="fp32")
    return Trial(**(usual | changes))


@pytest.mark.parametrize(
    "changes",
    [
        dict(loss="ce"),
        dict(loss="focal"),
        dict(loss="aucs"),
        dict(loss="aucm"),
        dict(dual="closed_form"),
        dict(normalize="sigmoid"),
        dict(normalize="l2*sqrt_b", per_batch=4),
        dict(augment="crop", average=0.9),
        dict(first_ce=2),
        dict(constrained=False, margin=0.1),
    ],
)
def test_every_variant_learns_a_task_that_is_easy(changes):
    record = runs.run(trial(epochs=20, lr=1.0, **changes), CPU)
    assert len(record["test_auc"]) == 20
    assert record["test_auc"][-1] > 0.95


def test_equal_trials_give_equal_histories_and_other_seeds_others():
    first, again, other = (runs.run(trial(seed=seed), CPU)["test_auc"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_compiled_trial_learns_as_an_eager_one():
    eager = runs.run(trial(precision="fp32"), CPU)
    compiled = runs.run(trial(precision="fp32", compiled=True), CPU)
    # Compiled code sums in another order; the first epoch's steps are still the same ones.
    assert compiled["batches_auc"][0] == pytest.approx(eager["batches_auc"][0], abs=0.01)
    assert compiled["test_auc"] == pytest.approx(eager["test_auc"], abs=0.05)
    assert compiled["key"] != eager["key"]


def test_the_record_holds_what_was_trained_and_gives_the_trial_back():
    asked = trial(margin=0.3)
    record = runs.run(asked, CPU)
    assert (record["trained_on"], record["trained_on_positives"]) == (556, 56)
    assert record["bound"] == pytest.approx(np.sqrt(1 / 3 + 1 / 29), abs=1e-4)
    assert record["key"] == asked.key
    assert as_trial(record) == asked
    assert record["note"] == "synthetic"


def test_a_tuning_run_sees_the_validation_part_and_not_the_test_set():
    record = runs.run(trial(held_out=0.1), CPU)
    assert "test_auc" not in record
    assert record["trained_on"] == 556 - 50 - 6
    assert len(record["valid_auc"]) == 4


def test_noisy_and_easy_data_are_added():
    noisy = runs.run(trial(noisy=0.1), CPU)
    assert noisy["trained_on"] == 556 + round(0.1 * 444)
    assert noisy["trained_on_positives"] == 56 + 50
    easy = runs.run(trial(easy=0.2), CPU)
    assert easy["trained_on_positives"] == 56 + round(0.2 * 444)


def test_easy_data_are_those_that_the_first_network_scores_highest():
    asked = trial(easy=0.2)
    _, _, removed = runs.training_rows(asked, datasets.read("cifar10"))
    easy = runs.easy_rows(asked, removed, CPU, Checkpoints())
    light = datasets.read("cifar10").train_images.mean((1, 2, 3))
    rest = np.setdiff1d(removed, easy)
    assert light[easy].mean() > light[rest].mean() + 1


def test_the_rate_falls_at_half_and_at_three_quarters():
    assert training.decays(trial(epochs=100), "aucm", 100) == (50, 75)
    assert training.decays(trial(epochs=100, first_ce=40), "ce", 40) == ()
    assert training.decays(trial(epochs=1), "ce", 1) == ()


def test_a_training_that_diverges_is_recorded_with_an_auc_of_a_half():
    record = runs.run(trial(loss="aucs", lr=1e30, weight_decay=0.0, epochs=3), CPU)
    assert record["test_auc"][-1] == 0.5 and len(record["test_auc"]) == 3
    assert "not finite" in record["diverged"][0]


def test_the_rate_falls_within_a_training(monkeypatch):
    seen = []
    monkeypatch.setattr(
        training,
        "decay",
        lambda optimizer, divide: seen.append((len(optimizer.param_groups), divide)),
    )
    runs.run(trial(loss="ce", epochs=8), CPU)
    assert seen == [(1, 10.0), (1, 10.0)]


def test_decay_divides_the_rate_and_moves_the_reference():
    network = Tiny()
    criterion = criterion_of(trial(), "aucm")
    optimizer = trial_optimizer(trial(), network, criterion, "aucm")
    training.decay(optimizer, 10)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.01] * len(optimizer.param_groups)
    )
    sgd = trial_optimizer(trial(loss="ce"), network, criterion_of(trial(), "ce"), "ce")
    training.decay(sgd, 4)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.025)


def test_an_unconstrained_alpha_may_go_below_zero_and_a_constrained_one_not():
    free, held = (
        runs.run(trial(constrained=c, margin=0.01, epochs=8, lr=0.5), CPU)["alpha"]
        for c in (False, True)
    )
    assert min(held) >= 0
    assert min(free) < 0


def test_keys_ignore_defaults_and_know_every_change():
    base = trial()
    assert base.key == trial().key
    for item in dataclasses.fields(Trial):
        other = {
            "dataset": "stl10",
            "network": "densenet121",
            "loss": "ce",
            "normalize": "none",
            "dual": "closed_form",
            "augment": "flip",
            "precision": "bf16",
            "constrained": False,
        }.get(item.name, 0.3)
        if item.name in ("seed", "epochs", "batch_size", "per_batch", "first_ce"):
            other = 3
        assert dataclasses.replace(base, **{item.name: other}).key != base.key, item.name


@pytest.mark.parametrize(
    "changes",
    [
        dict(loss="hinge"),
        dict(epochs=0),
        dict(held_out=1.0),
        dict(first_ce=4),
        dict(dataset="mnist"),
        dict(constrained=False, dual="closed_form"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes):
    with pytest.raises(UserError):
        trial(**changes)


def test_an_epoch_records_what_its_batches_did():
    # One batch holds the whole training set, so the first step can be computed by hand.
    asked = trial(epochs=1, batch_size=556, loss="ce", lr=0.5, seed=4)
    kept: dict = {}
    record = runs.run(asked, CPU, kept)
    torch.manual_seed(4)
    network = Tiny()
    images = kept["train"]
    scores = network(images.normalised(images.pixels))
    chances = torch.sigmoid(scores.detach())
    expected = (chances - images.labels).norm() / 556
    torch.nn.functional.binary_cross_entropy(torch.sigmoid(scores), images.labels).backward()
    squares = [(w.grad.square().sum(), w.detach().square().sum()) for w in network.parameters()]
    gradient, weights = (sum(each).sqrt() for each in zip(*squares))
    assert record["score_norm"] == pytest.approx([scores.norm().item()], rel=1e-3)
    assert record["score_gradient"] == pytest.approx([expected.item()], rel=1e-3)
    assert record["gradient"] == pytest.approx([gradient.item()], rel=1e-3)
    assert record["relative_step"] == pytest.approx([0.5 * (gradient / weights).item()], rel=1e-3)
    assert record["no_positive"] == [0.0]
    ranks = roc_auc_score(images.labels, scores.detach())
    assert record["batches_auc"] == pytest.approx([ranks], abs=1e-4)


class Cut(BaseException):
    """A kill in mid-run."""


def cut_after(monkeypatch, steps: int) -> None:
    """A process takes `steps` steps, a checkpoint after each, and dies."""
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    whole = training.step

    def step(*arguments):
        nonlocal steps
        if steps == 0:
            raise Cut
        steps -= 1
        whole(*arguments)

    monkeypatch.setattr(training, "step", step)


# An epoch has 17 steps: the cuts lie in the first epoch, at the first step of another, in the
# middle of one after the rate has fallen, and in the second phase.
@pytest.mark.parametrize("steps", [5, 17, 40, 60])
@pytest.mark.parametrize(
    "changes",
    [
        dict(loss="ce", augment="crop", momentum=0.9),
        dict(loss="aucs", per_batch=4, average=0.9),
        dict(margin=0.7, momentum=0.9),
        dict(dual="closed_form", normalize="sigmoid"),
        dict(first_ce=2, augment="flip"),
        dict(easy=0.2, seed=3),
    ],
)
def test_a_cut_run_goes_on_to_the_same_result(tmp_path, monkeypatch, changes, steps):
    asked = trial(**changes)
    kept: dict = {}
    whole = runs.run(asked, CPU, kept)
    with monkeypatch.context() as context:
        cut_after(context, steps)
        runs.EASIEST.clear()
        with pytest.raises(Cut):
            runs.run(asked, CPU, folder=tmp_path)
    assert list(tmp_path.glob("*.checkpoint.safetensors"))
    runs.EASIEST.clear()
    again: dict = {}
    resumed = runs.run(asked, CPU, again, tmp_path)
    for name in ("test_auc", "alpha"):
        assert resumed.get(name) == whole.get(name)
    for name, value in kept["network"].state_dict().items():
        assert torch.equal(value, again["network"].state_dict()[name]), name


def test_a_resumed_run_takes_only_the_steps_that_are_left(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        cut_after(context, 40)
        with pytest.raises(Cut):
            runs.run(trial(), CPU, folder=tmp_path)
    with monkeypatch.context() as context:
        cut_after(context, 4 * 17 - 40)
        runs.run(trial(), CPU, folder=tmp_path)


def test_the_time_limit_stops_within_a_run_and_the_stored_run_leaves_no_checkpoint(
    tmp_path, monkeypatch
):
    left = iter([60.0] * 30 + [1.0])
    out = tmp_path / "a.jsonl"
    with monkeypatch.context() as context:
        context.setattr(training, "time_left", lambda: next(left))
        with pytest.raises(TimeLimitReached, match="stopped in epoch 2 of 4"):
            run_and_append(trial(), out, "cpu")
    assert not out.exists()
    record = run_and_append(trial(), out, "cpu")
    assert record["test_auc"] == runs.run(trial(), CPU)["test_auc"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.jsonl"]


def test_the_time_of_the_earlier_process_counts(tmp_path):
    first = Checkpoints(tmp_path, "a", seconds=100.0, cpu_seconds=50.0)
    first.save({})
    second = Checkpoints(tmp_path, "a")
    second.load()
    spent = second.spent()
    assert 100 <= spent["seconds"] < 200
    assert 50 <= spent["cpu_seconds"] < 60


def test_a_checkpoint_of_other_images_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        cut_after(context, 5)
        with pytest.raises(Cut):
            runs.run(trial(), CPU, folder=tmp_path)
    other = Benchmark("cifar10", *bright(1000, 7), *bright(400, 1), "synthetic")
    monkeypatch.setattr(datasets, "read", lambda _: other)
    with pytest.raises(UserError, match="from other images than today's"):
        runs.run(trial(), CPU, folder=tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("loss", ["ce", "aucm"])
def test_a_gpu_sees_the_same_order_and_views_as_the_cpu(loss):
    here, there = (
        runs.run(trial(loss=loss, augment="crop"), torch.device(name)) for name in ("cpu", "cuda")
    )
    assert here["test_auc"] == pytest.approx(there["test_auc"], abs=1e-3)
