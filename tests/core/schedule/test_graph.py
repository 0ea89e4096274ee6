"""The graph of commands, from what is missing, which is made up here."""

from dataclasses import replace

import pytest

from pipeline.competitions import melanoma
from pipeline.core.runs.missing import request_of
from pipeline.core.schedule import graph
from pipeline.core.schedule.graph import Step, command_of, next_command, steps_of


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """Roots with nothing in them."""
    for name in ("DATA", "MODELS", "SUBMISSIONS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lacking(monkeypatch):
    """What the stages lack; nothing at first."""
    found = {name: [] for name in graph.LACKING}
    monkeypatch.setattr(graph, "LACKING", {name: lambda _, n=name: found[n] for name in found})
    monkeypatch.setattr(graph, "expected_folds", lambda _: [0, 1])
    return found


def names(steps: list[Step]) -> dict[str, set[str]]:
    return {step.name: set(step.after) for step in steps}


def test_from_nothing_each_fold_is_a_chain():
    found = names(steps_of("report", request_of("melanoma", "b3_256", "", "2")))
    fold = "melanoma/b3_256/fold"
    patients = "metadata melanoma/metadata/fold0 melanoma/metadata/fold1"
    expected = {
        "prepare melanoma/b3_256": set(),
        "folds melanoma --folds 2": {"prepare melanoma/b3_256"},
        patients: {"folds melanoma --folds 2"},
        "ensemble melanoma/b3_256": {f"predict {fold}0", f"predict {fold}1", patients},
        "submit melanoma": {"ensemble melanoma/b3_256"},
        "report melanoma": {"submit melanoma"},
    }
    for number in "01":
        tables = {"prepare melanoma/b3_256", "folds melanoma --folds 2"}
        expected[f"pretrain {fold}{number}"] = tables
        expected[f"finetune {fold}{number}"] = {f"pretrain {fold}{number}"}
        expected[f"predict {fold}{number}"] = {f"finetune {fold}{number}"}
    assert found == expected


def test_steps_come_after_what_they_wait_for_and_chains_stay_together():
    steps = steps_of("report", request_of("melanoma", "b3_256 b5_384", "", "3"))
    order = [step.name for step in steps]
    for step in steps:
        assert all(order.index(name) < order.index(step.name) for name in step.after)
    chain = [step.arguments for step in steps if step.stage in graph.CHAIN]
    assert chain == [one for one in dict.fromkeys(chain) for _ in graph.CHAIN]


def test_all_runs_of_all_competitions_from_nothing():
    """ISIC 2024 has no network on patient columns; CheXpert's only fold is the organiser's."""
    stages = {
        name: [step.stage for step in steps_of("report", request_of(name))]
        for name in ("melanoma", "chexpert", "isic2024")
    }
    assert "metadata" in stages["melanoma"]
    chexpert = steps_of("predict", request_of("chexpert"))
    assert {step.target.fold for step in chexpert if step.stage == "predict"} == {0}


@pytest.mark.usefixtures("lacking")
def test_when_all_is_there_nothing_is_left():
    request = request_of("melanoma", "b3_256")
    assert steps_of("report", request) == []
    assert names(steps_of("prepare", request)) == {"prepare melanoma/b3_256": set()}


def test_new_weights_ask_for_what_is_made_from_them(lacking):
    lacking["pretrain"] = ["melanoma/b3_256/fold1"]
    lacking["predict"] = ["melanoma/b3_256/fold0"]
    found = names(steps_of("submit", request_of("melanoma", "b3_256")))
    assert found == {
        "predict melanoma/b3_256/fold0": set(),
        "pretrain melanoma/b3_256/fold1": set(),
        "finetune melanoma/b3_256/fold1": {"pretrain melanoma/b3_256/fold1"},
        "predict melanoma/b3_256/fold1": {"finetune melanoma/b3_256/fold1"},
        "ensemble melanoma/b3_256": {
            "predict melanoma/b3_256/fold0",
            "predict melanoma/b3_256/fold1",
        },
        "submit melanoma": {"ensemble melanoma/b3_256"},
    }


def test_a_network_of_all_rows_waits_for_the_folds_whose_epochs_it_may_take(monkeypatch):
    runs = (replace(melanoma.runs[0], whole="best"), *melanoma.runs[1:])
    monkeypatch.setattr(melanoma, "runs", runs)
    found = names(steps_of("predict", request_of("melanoma", "b3_256 b5_384", "", "2")))
    own = "melanoma/b3_256/"
    tables = {"prepare melanoma/b3_256 melanoma/b5_384", "folds melanoma --folds 2"}
    folds = {stage: {f"{stage} {own}fold0", f"{stage} {own}fold1"} for stage in graph.CHAIN}
    assert found[f"pretrain {own}all"] == tables | folds["pretrain"]
    assert found[f"finetune {own}all"] == {f"pretrain {own}all"} | folds["finetune"]
    assert found[f"predict {own}all"] == {f"finetune {own}all"}
    assert not any("b5_384/all" in name for name in found)


@pytest.mark.usefixtures("lacking")
def test_a_network_of_all_rows_waits_for_nobody_who_is_done(lacking, monkeypatch):
    monkeypatch.setattr(melanoma, "runs", (replace(melanoma.runs[0], whole="best"),))
    lacking["finetune"] = ["melanoma/b3_256/all"]
    found = names(steps_of("finetune", request_of("melanoma", "b3_256")))
    assert found == {"finetune melanoma/b3_256/all": set()}


def test_images_that_are_missing_alone_make_no_ensemble_anew(lacking):
    lacking["prepare"] = ["melanoma/b3_256"]
    found = names(steps_of("report", request_of("melanoma", "b3_256")))
    assert found == {"prepare melanoma/b3_256": set()}


def test_sizes_that_are_missing_are_prepared_before_there_are_folds(lacking):
    lacking["folds"] = ["melanoma"]
    lacking["prepare"] = ["melanoma/b3_256"]
    request = request_of("melanoma", "b3_256", "0")
    found = names(steps_of("pretrain", request))
    assert found["pretrain melanoma/b3_256/fold0"] == {"prepare melanoma/b3_256", "folds melanoma"}
    assert next_command("pretrain", request) == ["prepare", "melanoma/b3_256"]


def test_an_outdated_page_alone_is_made_anew(lacking):
    lacking["submit"] = ["melanoma"]
    found = names(steps_of("report", request_of("melanoma", "b3_256")))
    assert found == {"submit melanoma": set(), "report melanoma": {"submit melanoma"}}


def test_only_the_folds_asked_for(lacking):
    lacking["pretrain"] = ["melanoma/b3_256/fold1"]
    found = names(steps_of("pretrain", request_of("melanoma", "b3_256", "1")))
    assert found == {"pretrain melanoma/b3_256/fold1": set()}


def test_commands():
    step = Step("pretrain", ("melanoma/b3_256/fold0",))
    assert command_of(step)[1:] == ["-m", "pipeline.pretrain", "melanoma/b3_256/fold0"]
    words = " ".join(command_of(step, 8))
    assert "runtime.torchrun --standalone --nproc-per-node 8 -m pipeline.pretrain" in words
    words = " ".join(command_of(step, 8, 2))
    assert "--nnodes 2 --rdzv-backend c10d --nproc-per-node 8 -m pipeline.pretrain" in words
    assert "torchrun" not in " ".join(command_of(Step("report", ("melanoma",)), 8))


def test_logs_lie_beside_what_is_made(tmp_path):
    fold = Step("finetune", ("melanoma/b3_256/fold0",))
    assert fold.log == tmp_path / "models/melanoma/b3_256/fold0/finetune.log"
    average = Step("ensemble", ("melanoma/b3_256", "melanoma/b5_384"))
    assert average.log == tmp_path / "models/melanoma/ensemble.log"
