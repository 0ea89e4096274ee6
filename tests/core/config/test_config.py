"""Configurations: names, variants, what is refused at load, and every competition file there is."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.config import run
from pipeline.core.config.competition import competition_names, load_competition
from pipeline.core.config.run import ALL, Finetune, Pretrain, Run, as_json, from_json
from pipeline.core.config.target_path import expand, parse_target
from pipeline.core.config.task import Resize, Task, Uncertain
from pipeline.core.losses import AUCMargin, AUCSquare, CrossEntropy, Focal, Pairwise, PartialAUC
from pipeline.core.losses.normalize import NORMALIZERS
from pipeline.core.losses.partial import FORMS
from pipeline.core.networks.image import import_timm
from pipeline.core.runs.missing import request_of
from pipeline.core.runtime.environment import parse_duration
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.recipe import make_loss

RUN = Run(
    network="tf_efficientnet_b5.ns_jft_in1k",
    size=384,
    pretrain=Pretrain(lr=1e-5),
    finetune=Finetune(),
)


@pytest.mark.parametrize("name", competition_names())
def test_every_competition_file_loads_and_its_smoke_form_keeps_the_names(name, monkeypatch):
    full = load_competition(name)
    monkeypatch.setenv("SMOKE", "1")
    tiny = load_competition(name)
    assert [run.name for run in tiny.runs] == [run.name for run in full.runs]
    assert all(run.size <= 96 for run in tiny.runs)


def test_the_papers_runs():
    assert len(load_competition("melanoma").runs) == 10
    assert {run.network.split(".")[0] for run in load_competition("chexpert").runs} == {
        "densenet121",
        "densenet161",
        "densenet169",
        "densenet201",
        "inception_resnet_v2",
    }


def test_names_come_from_values():
    assert RUN.name == "b5_384"
    assert replace(RUN, size=512).name == "b5_512" and replace(RUN, tag="ext").name == "b5_384_ext"
    assert replace(RUN, network="densenet121.tv_in1k", size=320).name == "densenet121_320"


def test_json_and_back():
    finetune = replace(RUN.finetune, margin=(0.5,), milestones=(3, 9))
    changed = replace(RUN, labels=("a",), finetune=finetune)
    assert from_json(Run, as_json(changed)) == changed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(RUN, size=8), "size=8"),
        (lambda: replace(RUN, precision="int8"), "precision='int8'"),
        (lambda: replace(RUN, weights="imagnet"), "weights='imagnet'"),
        (lambda: Finetune(milestones=(9, 3)), "do not increase"),
        (lambda: Finetune(loss="auc"), "loss='auc'"),
        (lambda: Finetune(positives=32, batch_size=32), "no room for negatives"),
        (lambda: Pretrain(lr=1e-3, lr_max=1e-2), "go together"),
        (lambda: Resize(fit="stretch"), "fit='stretch'"),
        (lambda: Uncertain(policy="ones", low=0.9, high=0.2), "not a part of"),
        (lambda: Task(title="t", labels=()), "labels is empty"),
        (lambda: Task(title="t", labels=("a",), folds=0), "folds=0"),
        (lambda: Task(title="t", labels=("a",), folds=1), "folds=1"),
        (
            lambda: Task(
                title="t",
                labels=("a",),
                uncertain_finetune={"a": Uncertain(policy="ones", low=0, high=1)},
            ),
            "hard",
        ),
        (lambda: load_competition("melanom"), "no competition is called 'melanom'"),
        (
            lambda: load_competition("melanoma").run("b5_38"),
            "no run is called 'b5_38'; the runs are b3_256",
        ),
        (lambda: parse_target("melanoma/b5_384/0"), "not a target"),
        (
            lambda: expand(["melanoma/b5_384/fold7"], {"melanoma": [0, 1]}),
            "folds.csv has the folds 0, 1",
        ),
        (lambda: parse_duration("TIME_LIMIT", "soon"), "not a duration"),
    ],
)
def test_a_wrong_value_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_names_of_normalisers_and_losses_are_those_that_the_losses_know():
    assert run.NORMALIZERS == NORMALIZERS
    assert run.PARTIAL == FORMS
    needed = {
        "sopa": dict(hardest_positives=0.2),
        "sopa_s": dict(temperature_positives=1.0),
        "sota_s": dict(temperature_negatives=1.0, temperature_positives=2.0),
    }
    recipes = [Finetune(loss=name, **needed.get(name, {})) for name in run.LOSSES]
    kinds = [type(make_loss(recipe, 2, 10)) for recipe in recipes]
    assert kinds == [AUCMargin, AUCSquare, Pairwise, *[PartialAUC] * 3, CrossEntropy, Focal]


def test_a_misspelt_field_is_a_type_error():
    with pytest.raises(TypeError, match="epoch"):
        Pretrain(lr=1e-3, epoch=3)


@pytest.mark.parametrize("name", competition_names())
def test_modern_runs_are_made_when_they_are_named(name):
    """timm knows their networks, at these sizes; RUN=modern stands for them all, and the file says
    what they cost."""
    found = load_competition(name)
    assert found.modern
    text = Path(found.module.__file__).read_text(encoding="utf-8")
    said = text[text.index("RUN=modern") :][:1200].replace("\n# ", " ")
    assert "Cost (an estimate)" in said
    assert not set(found.modern) & {run.name for run in found.runs}
    assert request_of(name, "modern metadata").runs == found.modern
    timm = import_timm()
    for one in map(found.run, found.modern):
        cfg = timm.get_pretrained_cfg(one.network)
        own = one.size in (cfg.input_size[-1], (cfg.test_input_size or [0])[-1])
        assert own or not cfg.fixed_input_size
        assert one.smoke().auxiliary == () and one.smoke().finetune.lr < 0.01


def test_targets_expand_once_in_order():
    targets = ["melanoma/b5_384", "melanoma/b5_384/fold1", "melanoma/b3_256/fold0"]
    expanded = expand(targets, {"melanoma": [0, 1]})
    names = [(member.name, fold) for _, member, fold in expanded]
    assert names == [("b5_384", 0), ("b5_384", 1), ("b3_256", 0)]
    # The network of all rows is the last fold of a run that has one.
    assert parse_target("melanoma/b5_384/all").fold == ALL
    assert str(parse_target("melanoma/b5_384/all")) == "melanoma/b5_384/all"
    with pytest.raises(UserError, match="b5_384 has no network of all rows"):
        expand(["melanoma/b5_384/all"], {"melanoma": [0, 1]})
    of_metadata = expand(["melanoma"], {"melanoma": [0]}, metadata=True)
    assert [member.name for _, member, _ in of_metadata] == ["metadata"]


def test_durations():
    texts = ("8.5h", "30m", "90s")
    assert [parse_duration("TIME_LIMIT", text) for text in texts] == [30600, 1800, 90]
