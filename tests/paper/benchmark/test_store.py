"""The store of results, the sweeps over it, and the page written from it."""

import argparse
import json
import math
from dataclasses import replace

import pytest

from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.paper import diagnosis, levers, published, render, table1
from pipeline.paper.benchmark import store as results
from pipeline.paper.benchmark.trial import LOSSES, Trial
from tests.cases.records import record_of

BASE = Trial(dataset="cifar10", epochs=2)


@pytest.fixture
def runs(monkeypatch):
    """Stand in for training: the AUC is a function of the trial, and every run is counted."""
    done = []

    def run(trial, _device, **_):
        done.append(trial)
        return record_of(trial, 0.5 + trial.margin / 10 + trial.gamma + trial.seed / 1000)

    monkeypatch.setattr(results, "run", run)
    return done


def test_the_last_epoch_counts_and_not_the_best():
    assert results.result(record_of(BASE, 0.7)) == 0.7
    assert results.result(record_of(replace(BASE, held_out=0.1), 0.6)) == 0.6


def test_mean_and_sample_deviation():
    assert results.mean_and_std([1, 2, 3]) == (2.0, 1.0)
    assert math.isnan(results.mean_and_std([1])[1])


def test_a_sweep_runs_only_what_is_missing(tmp_path, runs):
    out = tmp_path / "a.jsonl"
    trials = [replace(BASE, seed=seed) for seed in range(3)]
    first = results.sweep(trials[:2], out)
    every = results.sweep(trials, out)
    assert [trial.seed for trial in runs] == [0, 1, 2]
    assert every[:2] == first
    assert [record["seed"] for record in every] == [0, 1, 2]


def test_results_of_two_machines_merge_by_lying_in_one_folder(tmp_path, runs):
    results.append(tmp_path / "there.jsonl", record_of(BASE, 0.8))
    results.append(tmp_path / "there.jsonl", record_of(BASE, 0.9))
    (record,) = results.sweep([BASE], tmp_path / "here.jsonl")
    assert results.result(record) == 0.8
    assert not runs


def test_a_line_cut_by_a_crash_is_left_out_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    results.append(path, record_of(BASE, 0.8))
    whole = path.read_text()
    path.write_text(whole + whole[:50])
    assert len(results.read_lines(path)) == 1
    path.write_text(whole[:50] + "\n" + whole)
    with pytest.raises(UserError, match=r"a.jsonl: row 1: this is not JSON"):
        results.read_lines(path)


@pytest.mark.usefixtures("runs")
def test_a_run_after_a_cut_line_does_not_join_it(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": "cut')
    results.sweep([BASE], path)
    assert [record["key"] for record in results.read_lines(path)] == [BASE.key]


def test_a_time_limit_stops_between_runs(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(results, "time_left", lambda: 1.0 if len(runs) < 2 else -1.0)
    with pytest.raises(TimeLimitReached):
        results.sweep([replace(BASE, seed=seed) for seed in range(5)], tmp_path / "a.jsonl")
    assert len(runs) == 2
    assert len(results.read_lines(tmp_path / "a.jsonl")) == 2


def test_a_gpu_that_is_not_there_is_a_users_mistake(monkeypatch):
    monkeypatch.setattr(results.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        results.torch_device("cuda:1")


def test_tuning_takes_the_best_validation_and_never_the_test_set(tmp_path, runs):
    options = argparse.Namespace(out=tmp_path / "a.jsonl", device="cpu", jobs=1, compile=False)
    (best,) = table1.tuned([BASE], options)
    assert (best.margin, best.gamma, best.held_out) == (1.0, 1 / 100, 0.0)
    assert len(runs) == 25
    assert all(trial.held_out == 0.1 for trial in runs)
    assert table1.tuned([replace(BASE, loss="ce"), BASE], options) == [
        replace(BASE, loss="ce"),
        best,
    ]
    assert len(runs) == 25


def test_the_grids_are_the_papers():
    assert {loss: len(table1.GRIDS[loss]) for loss in LOSSES} == {
        "ce": 1,
        "focal": 9,
        "aucs": 5,
        "aucm": 25,
    }
    gammas = {1 / 100, 1 / 300, 1 / 500, 1 / 700, 1 / 1000}
    margins = {0.1, 0.3, 0.5, 0.7, 1.0}
    assert {point["gamma"] for loss in ("aucs", "aucm") for point in table1.GRIDS[loss]} == gammas
    assert {(p["gamma"], p["margin"]) for p in table1.GRIDS["aucm"]} == {
        (g, m) for g in gammas for m in margins
    }
    assert {(p["focal_alpha"], p["focal_gamma"]) for p in table1.GRIDS["focal"]} == {
        (a, g) for a in (0.25, 0.5, 0.75) for g in (1, 2, 5)
    }


def test_table1_prints_and_resumes(tmp_path, runs, capsys):
    out = str(tmp_path / "t.jsonl")
    arguments = ["--epochs", "2", "--seeds", "2", "--out", out, "--losses", "aucm"]
    for _ in range(2):
        table1.main(table1.parser().parse_args(arguments))
    assert (
        "cifar10 resnet20 1% aucm: test AUC after 2 epochs 0.5825 ± 0.0007 (n = 2)"
        in capsys.readouterr().out
    )
    assert len(runs) == 2


def test_the_published_tables_are_whole():
    for cells in published.TABLE_1_AND_8.values():
        assert len(cells) == 8
        assert all(
            len(row) == 4 and all(0.5 < mean < 1 and 0 < std < 0.1 for mean, std in row)
            for row in cells.values()
        )
    # Sums of all means and all deviations, added up from the paper's pages.
    for imratio, mean, std in ((0.01, 21.655, 0.595), (0.1, 26.427, 0.236)):
        cells = [cell for row in published.TABLE_1_AND_8[imratio].values() for cell in row]
        assert round(sum(cell[0] for cell in cells), 3) == mean
        assert round(sum(cell[1] for cell in cells), 3) == std


def test_render_puts_the_papers_number_beside_ours(tmp_path, monkeypatch):
    for name, value in (("HERE", tmp_path), ("FOLDER", tmp_path)):
        monkeypatch.setattr(render, name, value)
    (tmp_path / "ABOUT.md").write_text("# Results\n")
    trial = table1.base_trial("cifar10", "resnet20", 0.01, "aucm", 100)
    for seed, value in enumerate((0.70, 0.72)):
        results.append(tmp_path / "table1.jsonl", record_of(replace(trial, seed=seed), value))
    results.append(tmp_path / "table1.jsonl", record_of(replace(trial, held_out=0.1), 0.99))
    results.append(tmp_path / "table1.jsonl", record_of(replace(trial, epochs=10), 0.6))
    render.main(argparse.Namespace())
    page = (tmp_path / "RESULTS.md").read_text()
    row = next(line for line in page.split("\n") if line.startswith("| C10 (R)"))
    assert "0.715 ± 0.008 | **0.710 ± 0.014** | 2 | margin=0.8" in row
    assert "10 epochs, not the paper's 100: not comparable with it" in page
    assert "0.99" not in page
    assert "| DDSM+ | AUC-M | 0.9544 | not run" in page
    assert "| PatchCamelyon, 1 % positive | CE | 0.8394 | not run" in page
    assert "imratio 1%, 100 epochs, 5 seeds, not or not wholly run: C2 (D), C10 (D)" in page


def test_levers_choose_on_validation_and_test_once(tmp_path, runs, capsys):
    shared = ["--epochs", "2", "--seeds", "2", "--out", str(tmp_path / "l.jsonl")]
    shared += ["--variants", "paper", "margin 0.3"]
    levers.main(levers.parser().parse_args(shared))
    assert all(trial.held_out == 0.1 for trial in runs)
    levers.main(levers.parser().parse_args([*shared, "--final"]))
    assert [(trial.margin, trial.held_out) for trial in runs[4:]] == [(0.8, 0.0)] * 2
    assert "paper: test AUC 0.5825" in capsys.readouterr().out
    page = "\n".join(levers.levers_section(results.read_lines(tmp_path / "l.jsonl")))
    assert "| C10 (R), 1% | 2 | margin 0.3 |" in page
    with pytest.raises(UserError, match="no variant is called 'magic'"):
        levers.main(levers.parser().parse_args(["--variants", "magic"]))


def test_every_lever_is_a_trial_of_its_own():
    variants = levers.variants(Trial(dataset="cifar10", margin=0.8, epochs=10))
    assert len({trial.key for trial in variants.values()}) == len(variants)
    for name, trial in variants.items():
        assert levers.name_of(replace(trial, seed=3, held_out=0.1)) == name


def test_every_setting_of_the_diagnosis_is_a_trial_of_its_own_and_has_a_row():
    named = diagnosis.settings("cats_dogs", "resnet20", 0.01, 2)
    assert len({trial.key for trial in named.values()}) == len(named)
    records = []
    for name, trial in named.items():
        assert diagnosis.setting_of(replace(trial, seed=3)) == name
        records += [record_of(replace(trial, seed=seed), 0.6) for seed in (0, 1)]
    records[0]["score_norm"] = [3.0, 4.0]
    page = "\n".join(diagnosis.diagnosis_section(records))
    assert "| C2 (R), 1% | faithful | 2 of 2 | 2 | 0.6 | – | – | – | 4 | 0.2 |" in page
    assert "| C2 (R), 1% | CE, crop | 1 of 2 | 2 |" in page
    assert diagnosis.diagnosis_section([]) == []


def test_lines_are_plain_json(tmp_path):
    results.append(tmp_path / "a.jsonl", record_of(BASE, 0.5))
    assert json.loads((tmp_path / "a.jsonl").read_text())["test_auc"] == [0.9, 0.5]


@pytest.mark.usefixtures("runs")
def test_a_file_named_after_its_program_and_machine_is_rendered_too(tmp_path, monkeypatch):
    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(render, name, tmp_path)
    (tmp_path / "ABOUT.md").write_text("# Results\n")
    trial = table1.base_trial("cifar10", "resnet20", 0.01, "ce", 100)
    results.append(tmp_path / "table1-lab2.jsonl", record_of(replace(trial, seed=0), 0.7))
    results.append(tmp_path / "table1.jsonl", record_of(replace(trial, seed=1), 0.8))
    render.main(argparse.Namespace())
    assert "**0.750 ± 0.071** | 2 |" in (tmp_path / "RESULTS.md").read_text()


def test_a_run_that_another_program_made_is_in_both_files(tmp_path, runs):
    results.append(tmp_path / "table1.jsonl", record_of(BASE, 0.8))
    results.sweep([BASE], tmp_path / "figure3.jsonl")
    results.sweep([BASE], tmp_path / "figure3.jsonl")
    assert not runs
    assert [record["key"] for record in results.stored("figure3", tmp_path)] == [BASE.key]


def test_a_whole_last_line_without_an_end_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record_of(BASE, 0.8)))
    results.append(path, record_of(replace(BASE, seed=1), 0.9))
    assert [record["seed"] for record in results.read_lines(path)] == [0, 1]


def test_a_run_that_diverged_is_a_result_and_says_so(tmp_path, monkeypatch):
    for name in ("HERE", "FOLDER"):
        monkeypatch.setattr(render, name, tmp_path)
    (tmp_path / "ABOUT.md").write_text("# Results\n")
    trial = table1.base_trial("cifar10", "resnet20", 0.01, "aucs", 100)
    results.append(
        tmp_path / "table1.jsonl", record_of(trial, 0.5) | {"diverged": ["scores are not finite"]}
    )
    render.main(argparse.Namespace())
    assert "**0.500 (1 diverged, counted as 0.5)**" in (tmp_path / "RESULTS.md").read_text()
