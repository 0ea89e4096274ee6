"""The proof's protocol on a set that is easy, and its page on scores whose answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from pipeline.core.metrics import delong
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.paper.proof import __main__ as proof
from pipeline.paper.proof import methods, page
from pipeline.paper.proof.sets import ImageSet


class Tiny(nn.Module):
    """Mean colour under one linear layer, as the real network: (B, S, S, 3) uint8 -> (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.source = "random"
        self.backbone = nn.BatchNorm1d(3)
        self.classifier = nn.Linear(3, 1)
        self.ancestors = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone(images.float().mean((1, 2))))


def tiny(_size: int, seed: int, _weights: str = "") -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


@pytest.fixture
def bright(monkeypatch, tmp_path) -> ImageSet:
    """120 patients of two images, two folds; positives are brighter."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(120) % 4 == 0, 2).astype(np.int64)
    noise = random.normal(100, 25, (240, 3, 8, 8)) + 8 * labels[:, None, None, None]
    data = ImageSet(
        "chexpert",
        noise.clip(0, 255).astype(np.uint8),
        labels,
        np.repeat([f"p{i}" for i in range(120)], 2),
        np.repeat(np.arange(120) % 8 // 4, 2),
    )
    monkeypatch.setattr(proof, "read_set", lambda *_: data)
    monkeypatch.setattr(
        proof, "why_missing", lambda name: "" if name == "chexpert" else "no folder"
    )
    monkeypatch.setattr(proof, "fresh_network", tiny)
    monkeypatch.setattr(methods, "fresh_network", tiny)
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(page, "REPLICATES", 50)
    return data


def options(tmp_path: Path, *more: str):
    arguments = ["--sets", "chexpert", "stl10", "--seeds", "2", "--epochs", "1", "1"]
    arguments += ["--batch", "16", "--out", str(tmp_path / "PROOF.md")]
    arguments += ["--store", str(tmp_path / "proof.jsonl"), *more]
    return proof.parser().parse_args(arguments)


def watched(monkeypatch) -> list[dict]:
    """Every training from here on: method's loss, images, labels, epochs."""
    seen = []
    train = methods.train

    def watch(network, method, rate, images, labels, epochs, batch_size, seed):
        seen.append(dict(images=images, passes=epochs * (len(images) // batch_size), rate=rate))
        train(network, method, rate, images, labels, epochs, batch_size, seed)

    monkeypatch.setattr(proof, "train", watch)
    return seen


@pytest.mark.usefixtures("bright")
def test_the_protocol_runs_is_resumed_and_says_what_is_missing(tmp_path, monkeypatch):
    seen = watched(monkeypatch)
    proof.main(options(tmp_path))
    text = (tmp_path / "PROOF.md").read_text()
    assert "stl10 (no folder)" in text
    assert "chexpert: 240 images, folds 0, 1, 2 seeds" in text
    for method in methods.PROOF_METHODS:
        assert f"| {method} | " in text
    # Of each fold: 3 tries of stage 1 and of each method; of each seed stage 1 and each method.
    count = len(methods.PROOF_METHODS)
    assert len(seen) == 2 * (3 + 3 * count + 2 * (1 + count))
    seen.clear()
    proof.main(options(tmp_path))
    proof.main(options(tmp_path, "--page"))
    assert not seen
    assert (tmp_path / "PROOF.md").read_text() == text


@pytest.mark.usefixtures("bright")
def test_results_of_machines_share_a_page_and_the_newest_of_equal_settings_counts(tmp_path):
    proof.main(options(tmp_path, "--folds", "0"))
    proof.main(options(tmp_path))
    line = proof.read_lines(tmp_path / "proof.jsonl")[-1]
    elsewhere = line | {"name": "stl10", "size": line["size"], "tested": "elsewhere"}
    proof.append(tmp_path / "proof-lab2.jsonl", elsewhere)
    proof.append(tmp_path / "proof-lab2.jsonl", elsewhere | {"size": 96})
    proof.main(options(tmp_path, "--page"))
    text = (tmp_path / "PROOF.md").read_text()
    assert text.count("\n## lite0 at") == 2 and text.index("160 px") < text.index("96 px")
    assert "in the mean over 2 of 5 sets" in text and "in the mean over 1 of 5 sets" in text
    assert "folds 0, 1, 2 seeds" in text and "folds 0, 2 seeds" not in text


def test_no_image_of_the_test_fold_trains_and_all_methods_see_as_many(
    bright, tmp_path, monkeypatch
):
    seen = watched(monkeypatch)
    proof.main(options(tmp_path, "--folds", "0"))
    tested = {image.tobytes() for image in bright.images[bright.folds == 0]}
    for training in seen:
        assert not tested & {image.tobytes() for image in training["images"]}
    assert {training["passes"] for training in seen if len(training["images"]) == 120} == {7}
    tries = (tmp_path / "models").rglob("tries.jsonl")
    names = [line["name"] for path in tries for line in proof.read_lines(path)]
    assert {names.count(name) for name in names} == {3}


@pytest.mark.usefixtures("bright")
def test_systems_join_a_protocol_that_has_been_run_and_are_rows_of_the_page(tmp_path, monkeypatch):
    small = ("--folds", "0", "--epochs", "2", "2")
    proof.main(options(tmp_path, *small))
    seen = watched(monkeypatch)
    proof.main(options(tmp_path, *small, "--methods", "systems", "focal"))
    # Of the new ones alone: three tries each, and one training for each of two seeds.
    assert len(seen) == (3 + 2) * len(methods.SYSTEMS)
    text = (tmp_path / "PROOF.md").read_text()
    for name in (*methods.SYSTEMS, methods.BASELINE, methods.OURS, "focal"):
        assert text.count(f"| {name} |") == 1 + (name != methods.BASELINE)
    assert "| AUC-S |" in text  # of the earlier line
    # Asked for less, nothing is forgotten; other settings of a system are refused.
    proof.main(options(tmp_path, *small, "--methods", "PDSCA"))
    other = replace(methods.SYSTEMS["PDSCA"], rates=(1.0, 2.0, 3.0))
    monkeypatch.setitem(methods.ALL_METHODS, "PDSCA", other)
    with pytest.raises(UserError, match=r"made with methods.PDSCA="):
        proof.main(options(tmp_path, *small, "--methods", "PDSCA"))


@pytest.mark.parametrize("name", methods.SYSTEMS)
def test_every_system_learns_the_easy_set(bright, name):
    network = tiny(0, 0)
    method = methods.SYSTEMS[name]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    methods.train(network, method, method.rates[-1], bright.images, bright.labels, 20, 16, 0)
    found = roc_auc_score(bright.labels, methods.mirrored_scores(network, bright.images))
    assert found > 0.8
    # An image counts once in BatchNorm, however often a step looks at it.
    steps = 20 * (240 // 16)
    tracked = network.backbone.num_batches_tracked - before["backbone.num_batches_tracked"]
    assert tracked == steps


def test_the_stages_of_ppd_sg_are_one_three_and_nine_thirteenths():
    growing = methods.SYSTEMS["PPD-SG"]
    assert methods.stage_ends(growing, 2, 130) == [10, 40]
    assert methods.stage_ends(methods.PROOF_METHODS["CE"], 3, 130 * 3) == [130]
    assert methods.stage_ends(methods.PROOF_METHODS["CE"], 1, 130) == []


def test_inner_validation_shares_no_patient_with_training(bright):
    rows, _ = bright.split(1)
    training, validation = proof.inner_split(bright, rows)
    assert not set(bright.patients[training]) & set(bright.patients[validation])
    assert sorted([*training, *validation]) == rows.tolist()


@pytest.mark.usefixtures("bright")
def test_a_time_limit_stops_between_trainings_and_the_next_call_goes_on(tmp_path, monkeypatch):
    left = iter([60.0] * 9 + [-1.0])
    with monkeypatch.context() as context:
        context.setattr(proof, "time_left", lambda: next(left))
        with pytest.raises(TimeLimitReached, match="the same command goes on"):
            proof.main(options(tmp_path, "--folds", "0"))
    seen = watched(monkeypatch)
    proof.main(options(tmp_path, "--folds", "0"))
    count = len(methods.PROOF_METHODS)
    assert len(seen) == 3 + 3 * count + 2 * (1 + count) - 9


@pytest.mark.usefixtures("bright")
def test_runs_of_other_methods_are_refused_and_not_mixed_in(tmp_path, monkeypatch):
    proof.main(options(tmp_path, "--folds", "0"))
    other = replace(methods.ALL_METHODS["focal"], rates=(1.0, 2.0, 3.0))
    monkeypatch.setitem(methods.ALL_METHODS, "focal", other)
    with pytest.raises(UserError, match=r"protocol.json: made with methods.focal="):
        proof.main(options(tmp_path, "--folds", "0"))


def scores(seed: int, gains: dict[str, float]) -> pd.DataFrame:
    """Scores of 60 patients, two images each, whose means differ by 1 and a method's gain."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(60) % 3 == 0, 2).astype(int)
    noise = random.normal(size=120)
    table = pd.DataFrame({"patient": np.repeat(np.arange(60).astype(str), 2), "label": labels})
    for method in methods.PROOF_METHODS:
        table[method] = noise + (1 + gains.get(method, 0)) * labels
    return table


def test_the_page_gives_the_mean_auc_and_the_paired_difference(monkeypatch):
    monkeypatch.setattr(page, "REPLICATES", 200)
    runs = {(f, s): scores(10 * f + s, {methods.OURS: 0.5}) for f in (0, 1) for s in (0, 1)}
    result = page.summarise("chexpert", runs)
    for method in (methods.BASELINE, methods.OURS, "focal"):
        expected = np.mean([roc_auc_score(t["label"], t[method]) for t in runs.values()])
        assert result.aucs[method] == pytest.approx(expected)
    assert result.differences["focal"] == (0, 0, 0, 0)
    value, low, high = page.pooled([result], methods.OURS)
    assert 0 < low < value < high
    assert "above 0" in page.first_paragraph([result]) and "above on 1" in page.first_paragraph(
        [result]
    )


def test_intervals_over_patients_are_as_wide_as_delongs(monkeypatch):
    monkeypatch.setattr(page, "REPLICATES", 400)
    table = scores(3, {})
    # A patient's two images are equal, so that there are 60 independent rows.
    for method in methods.PROOF_METHODS:
        table[method] = table[method].to_numpy().reshape(60, 2)[:, :1].repeat(2, 1).ravel()
    table[methods.OURS] = other = np.random.default_rng(4).normal(size=60).repeat(2)
    *_, spread = page.summarise("chexpert", {(0, 0): table}).differences[methods.OURS]
    both = np.stack([table[methods.BASELINE][::2], other[::2]], axis=1)
    _, covariance = delong(both, table["label"][::2])
    assert spread == pytest.approx(np.sqrt(np.array([1, -1]) @ covariance @ [1, -1]), rel=0.2)


def test_the_mean_over_sets_has_their_variances_added():
    equal = dict.fromkeys(page.PAGE_COLUMNS, 0.5)
    sets = [
        page.SetResult("a", "", equal, {methods.OURS: (0.02, 0, 0, 0.03)}),
        page.SetResult("b", "", equal, {methods.OURS: (0.04, 0, 0, 0.04)}),
    ]
    value, low, high = page.pooled(sets, methods.OURS)
    assert (value, low, high) == pytest.approx((0.03, 0.03 - 1.96 * 0.025, 0.03 + 1.96 * 0.025))
