"""The loop: batches, micro-batches, cuts and resumption, and scores that break down."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.config.run import Finetune, Pretrain, Run, as_json
from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.losses.checks import NotFinite, OneClassWarning
from pipeline.core.networks.image import read_tensors
from pipeline.core.networks.patient import PatientRows
from pipeline.core.runs.facts import same_key
from pipeline.core.runtime.command import Stop
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.training import loop as training
from pipeline.core.training.batch_order import add_positives, fold_seed
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.mixing import Mixing
from pipeline.core.training.phase import Phase
from pipeline.core.training.recipe import triangular

WEIGHTS = torch.linspace(0, 2, 200)[:, None]


class PairwiseSquare(nn.Module):
    """A loss that is no mean over rows, as AUC losses are not, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, scores, targets):
        positive = scores[targets > 0.5]
        negative = scores[targets <= 0.5]
        return (1 + self.shift - positive[:, None] + negative[None]).square().mean()


class Net(nn.Module):
    def __init__(self, norm: bool, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 16),
            nn.BatchNorm1d(16) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, 1),
        )

    def forward(self, x):
        return self.layers(x)


def phase(folder, *, norm=True, dropout=0.3, rows=200, **changes) -> Phase:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    targets = torch.from_numpy((x[:, :1] + rng.normal(size=(rows, 1)) > 0.5).astype(np.float32))
    network = Net(norm, dropout)
    loss = PairwiseSquare()
    # SGD: a pairwise loss leaves the last bias without gradient, and Adam would make a step of its
    # rounding noise.
    parameters = [*network.parameters(), *loss.parameters()]
    made = dict(
        name="finetuned",
        folder=folder,
        key={"target": "t"},
        network=network,
        loss=loss,
        data=PatientRows(x),
        optimizer=torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
        targets=targets,
        rate=triangular(1e-3, 1e-1, 14),
        validate=lambda _: {"mean": 0.5},
        epochs=4,
        batch_size=32,
        seed=9,
    )
    return Phase(**made | changes)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def log_lines(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clocks = ("images_per_second", "seconds", "checksum")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


def test_an_epoch_takes_whole_batches_of_different_images(tmp_path):
    order = phase(tmp_path).order
    batches = order.epoch_batches(0)
    assert [len(batch) for batch in batches] == [32] * 6
    assert len(np.unique(np.concatenate(batches))) == 192
    next_epoch = order.epoch_batches(1)
    assert any((a != b).any() for a, b in zip(batches, next_epoch, strict=True))
    again = phase(tmp_path).order.epoch_batches(0)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_keys_go_on_where_a_run_was_cut(tmp_path):
    order = phase(tmp_path).order
    every = order.remaining_keys(0, 0, 1)
    for step in (1, 5, 6, 23):
        left = order.remaining_keys(step, 0, 1)
        assert len(left) == 24 - step
        for expected, key in zip(every[step:], left, strict=True):
            assert expected[0] == key[0] and (expected[1] == key[1]).all()
    assert order.remaining_keys(24, 0, 1) == []


def test_processes_share_each_batch(tmp_path):
    order = phase(tmp_path).order
    whole = order.remaining_keys(0, 0, 1)
    shares = [order.remaining_keys(0, rank, 4) for rank in range(4)]
    for step, (_, batch) in enumerate(whole):
        assert sorted(np.concatenate([share[step][1] for share in shares])) == sorted(batch)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 1000))
def test_every_batch_gets_its_positives(least, positives, seed):
    rng = np.random.default_rng(seed)
    targets = np.zeros((300, 2), np.float32)
    for label in range(2):
        targets[rng.choice(300, positives, replace=False), label] = 1
    batches = [part.copy() for part in np.split(rng.permutation(300)[:288], 9)]
    sizes = [len(batch) for batch in batches]
    add_positives(batches, targets, least, rng)
    assert [len(batch) for batch in batches] == sizes
    assert all((targets[batch].sum(axis=0) >= least).all() for batch in batches)


def test_a_step_is_no_longer_than_the_rate_times_the_clip(tmp_path):
    """Plain SGD, so that a step is the rate times the gradient of the weights."""
    made = phase(tmp_path, epochs=1, dropout=0.0)
    longest = []
    for clip in (0.0, 1e-3):
        network = Net(norm=True)
        optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        steps = phase(
            tmp_path / str(clip),
            network=network,
            optimizer=optimizer,
            loss=made.loss,
            rate=lambda _: 0.5,
            clip=clip,
            epochs=1,
            rows=32,
        )
        before = nn.utils.parameters_to_vector(network.parameters()).detach()
        fit_epochs(steps)
        after = nn.utils.parameters_to_vector(network.parameters()).detach()
        longest.append((after - before).norm().item())
    assert longest[0] > 1e-2 and longest[1] == pytest.approx(0.5e-3, rel=1e-3)


def test_a_group_has_its_part_of_the_rate(tmp_path):
    network = Net(norm=False)
    groups = [
        {"params": network.layers[0].parameters(), "lr_scale": 0.0},
        {"params": network.layers[4].parameters()},
    ]
    before = [layer.weight.detach().clone() for layer in (network.layers[0], network.layers[4])]
    fit_epochs(phase(tmp_path, network=network, optimizer=torch.optim.SGD(groups, lr=1.0)))
    assert torch.equal(network.layers[0].weight, before[0])
    assert not torch.equal(network.layers[4].weight, before[1])


def test_a_checkpoint_of_a_recipe_without_todays_fields_is_of_their_defaults():
    run = Run(network="n", size=32, pretrain=Pretrain(lr=1.0), finetune=Finetune())
    older = as_json(run)
    del older["drop_path"], older["pretrain"]["clip"], older["finetune"]["schedule"]
    today = {"target": "t", "run": as_json(run), "means": [float("nan")]}
    assert same_key({**today, "run": older}, today)
    assert not same_key({**today, "target": "u", "run": older}, today)
    older["pretrain"]["lr"] = 2.0
    assert not same_key({**today, "run": older}, today)


def test_micro_batches_of_mixed_and_weighted_images_take_the_step_of_the_whole_batch(tmp_path):
    own = dict(mixing=Mixing(9, 0.4, 0.0), weights=WEIGHTS, loss=CrossEntropy())
    plain = dict(norm=False, dropout=0.0, **own)
    whole = weights(fit_epochs(phase(tmp_path / "1", **plain)))
    parts = weights(fit_epochs(phase(tmp_path / "n", **plain, micro=4)))
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("micro", [2, 4])
def test_micro_batches_take_the_step_of_the_whole_batch(tmp_path, micro):
    whole = fit_epochs(phase(tmp_path / "1", norm=False, dropout=0.0))
    parts = fit_epochs(phase(tmp_path / "n", norm=False, dropout=0.0, micro=micro))
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, parts.state_dict()[name], rtol=1e-5, atol=1e-6), name


def test_micro_batches_in_half_precision_take_the_step_of_the_whole_batch(tmp_path):
    """float16 with a scaler, for real: autocast on the CPU. Gradients round at 1e-3 of a step, and
    24 steps add up."""
    plain = dict(norm=False, dropout=0.0)
    single = weights(fit_epochs(phase(tmp_path / "fp32", **plain)))
    whole = weights(fit_epochs(phase(tmp_path / "fp16", **plain, dtype=torch.float16)))
    parts = weights(fit_epochs(phase(tmp_path / "parts", **plain, dtype=torch.float16, micro=2)))
    for name, value in whole.items():
        assert not torch.equal(value, single[name])
        assert (value - parts[name]).abs().max() < 2e-3, name


def test_micro_batches_update_batch_norm_once(tmp_path):
    network = fit_epochs(phase(tmp_path, micro=2, epochs=1))
    assert network.layers[1].num_batches_tracked == 6 * 2


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(ema=0.9, clip=0.5),
        dict(dtype=torch.float16, clip=0.5),
        dict(dtype=torch.bfloat16, micro=2),
        dict(mixing=Mixing(9, 0.4, 0.0), loss=CrossEntropy(), negatives=1.5, weights=WEIGHTS),
    ],
    ids=str,
)
def test_a_run_cut_at_any_step_ends_as_the_uncut_one(tmp_path, monkeypatch, changes):
    """In float16 the first steps overflow, so that the scaler skips them and what it has learnt is
    kept as well."""
    uncut = weights(fit_epochs(phase(tmp_path / "uncut", **changes)))
    total = phase(tmp_path, **changes).order.steps_per_epoch * 4
    for cut in (1, 5, 6, 13, total - 1):
        folder = tmp_path / f"cut{cut}"
        steps = iter(range(1, 100))
        with monkeypatch.context() as patched:
            patched.setattr(training, "agree", lambda _, steps=steps, cut=cut: next(steps) == cut)
            with pytest.raises(TimeLimitReached, match=f"step {cut} of {total}"):
                fit_epochs(phase(folder, **changes))
        assert equal(uncut, weights(fit_epochs(phase(folder, **changes))))
        assert log_lines(folder) == log_lines(tmp_path / "uncut")


def test_a_stop_signal_stops_after_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(Stop, "requested", True)
    with pytest.raises(TimeLimitReached, match="step 1 of 24"):
        fit_epochs(phase(tmp_path))
    assert (tmp_path / "finetuned.checkpoint.safetensors").exists()


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Stop, "requested", True)
    with pytest.raises(TimeLimitReached):
        fit_epochs(phase(tmp_path))
    with pytest.raises(UserError, match="another configuration"):
        fit_epochs(phase(tmp_path, key={"target": "t", "run": "another"}))


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(tmp_path):
    with pytest.raises(UserError, match=r"the loss is .*; lower the learning rate"):
        fit_epochs(phase(tmp_path, rate=lambda _: float("inf"), epochs=20))


@pytest.mark.parametrize("loss", [AUCMargin(), CrossEntropy()])
def test_scores_that_are_not_finite_stop_the_run_with_advice(tmp_path, loss):
    with pytest.raises(
        UserError,
        match=r"log\.jsonl: step \d+: .* scores are not finite: .*; lower the learning rate",
    ):
        fit_epochs(phase(tmp_path, loss=loss, rate=lambda _: float("inf"), epochs=20))


def test_a_network_that_diverges_in_an_epochs_last_step_stops_at_validation_with_advice(tmp_path):
    def validate(_):
        raise NotFinite("32 of 32 validation images get a score that is not finite")

    with pytest.raises(
        UserError,
        match=r"step 6: 32 of 32 validation images get a score .*; lower the learning rate",
    ):
        fit_epochs(phase(tmp_path, validate=validate))


def test_equal_scores_stop_the_run_within_100_steps(tmp_path):
    dead = phase(tmp_path, epochs=40, dropout=0.0, norm=False, rate=lambda _: 0.0)
    nn.init.zeros_(dead.network.layers[4].weight)
    with pytest.raises(UserError, match=r"step 100: the scores of some label have been equal"):
        fit_epochs(dead)


@pytest.mark.parametrize("loss", [AUCMargin(), CrossEntropy()])
def test_a_dead_network_whose_bias_still_moves_is_stopped_too(tmp_path, loss):
    dead = phase(tmp_path, epochs=40, dropout=0.0, norm=False, loss=loss, rate=lambda _: 0.01)
    nn.init.constant_(dead.network.layers[0].bias, -1e3)
    with pytest.raises(UserError, match=r"step 100: the scores of some label have been equal"):
        fit_epochs(dead)


def test_a_run_killed_before_its_weights_were_kept_keeps_them_when_run_again(tmp_path):
    def made(source: str) -> Phase:
        key = {"target": "t", "labels": ["y"]}
        return phase(tmp_path, loss=AUCMargin(), key=key, origin={"first_weights": source})

    expected = weights(fit_epochs(made("a package")))
    # Its first weights were the package's, whatever is at hand today.
    today = made("timm's download")
    keep(today, fit_epochs(today))
    assert equal(expected, read_tensors(tmp_path / "finetuned.safetensors"))
    header = read_weights_header(tmp_path / "finetuned.safetensors")
    assert header["first_weights"] == "a package"
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


def test_batches_of_one_class_are_counted_and_warned_of_elsewhere_only(tmp_path, capsys):
    few = torch.zeros(200, 1)
    few[0] = 1
    loss = AUCMargin()
    rare = phase(tmp_path, loss=loss, targets=few, key={"target": "t", "labels": ["y"]}, epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keep(rare, fit_epochs(rare))
    assert not caught
    assert f"nothing: y {int(loss.one_class[0])} of 6" in capsys.readouterr().out
    with pytest.warns(OneClassWarning):
        AUCMargin()(torch.zeros(4), torch.ones(4))


def test_a_log_line_that_a_full_disk_cut_is_dropped_by_the_next_run(tmp_path):
    tmp_path.joinpath("log.jsonl").write_text(
        '{"phase": "pretrained", "step": 1}\n{"phase": "finetuned", "st'
    )
    fit_epochs(phase(tmp_path))
    assert log_lines(tmp_path)[0] == {"phase": "pretrained", "step": 1}


def test_a_log_shorter_than_its_checkpoint_says_is_not_filled_up(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched, pytest.raises(TimeLimitReached):
        steps = iter(range(1, 100))
        patched.setattr(training, "agree", lambda _: next(steps) == 9)
        fit_epochs(phase(tmp_path))
    log = tmp_path / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
    fit_epochs(phase(tmp_path))
    assert "shorter than at the checkpoint" in capsys.readouterr().out
    assert [line["step"] for line in log_lines(tmp_path) if "loss" in line] == [
        1,
        2,
        3,
        4,
        *range(10, 25),
    ]


def test_positives_that_cannot_be_had_are_a_users_mistake(tmp_path):
    none = phase(tmp_path, positives=2, targets=torch.zeros(200, 1))
    with pytest.raises(
        UserError, match="positives=2: label 0 has no positive among the training images"
    ):
        fit_epochs(none)
    many = (torch.rand(200, 10, generator=torch.Generator().manual_seed(0)) < 0.02).float()
    many[range(10), range(10)] = 1
    with pytest.raises(
        UserError, match=r"positives=4: a batch of 32 has no room .* 10 labels; raise batch_size"
    ):
        phase(tmp_path, positives=4, targets=many).order.epoch_batches(0)


def test_too_little_memory_names_the_settings_that_need_less(tmp_path):
    full = phase(tmp_path)

    def forward(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    full.network.forward = forward
    with pytest.raises(
        UserError, match=r"batch_size=32.*accumulate=2.*checkpointing=True.*precision='bf16'"
    ):
        fit_epochs(full)


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD", "1")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        fit_epochs(phase(tmp_path))


def test_the_log_has_every_step_once_and_an_auc_per_epoch(tmp_path):
    fit_epochs(phase(tmp_path))
    lines = log_lines(tmp_path)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 25))
    assert [line["epoch"] for line in lines if "valid_auc" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "window" in line] == [20]


def test_a_batch_that_cannot_be_shared_evenly_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "world", lambda: (0, 3))
    with pytest.raises(UserError, match="batch_size=32 cannot be shared evenly by 3"):
        fit_epochs(phase(tmp_path))


def test_a_folds_seed_depends_on_its_own_name_only():
    assert fold_seed("melanoma/b5_384/fold0", "finetuned", 0) == fold_seed(
        "melanoma/b5_384/fold0", "finetuned", 0
    )
    seeds = {
        fold_seed(f"melanoma/b5_384/fold{k}", name, s)
        for k in range(5)
        for name in ("pretrained", "finetuned")
        for s in range(2)
    }
    assert len(seeds) == 20
