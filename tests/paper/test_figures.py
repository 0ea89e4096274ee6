"""Figures 2 to 5 and Table 5 from records and tables already there: what is drawn is what was
recorded."""

import argparse

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core.metrics import auc
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.errors import UserError
from pipeline.paper import figure2, figure3, figure4, plots, synthetic, table5
from pipeline.paper.benchmark import store as results
from tests.cases.records import record_of


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Training is replaced by a formula, figures go to a temporary folder."""
    monkeypatch.setattr(
        results, "run", lambda trial, _, **_kept: record_of(trial, 0.6 + trial.seed / 100)
    )
    monkeypatch.setattr(plots.save, "__defaults__", (tmp_path,))
    return tmp_path


def test_figure3_draws_a_bar_for_each_normaliser(drawn):
    out = drawn / "f.jsonl"
    arguments = ["--datasets", "cifar10", "stl10", "--epochs", "2", "--seeds", "2"]
    figure3.main(figure3.parser().parse_args([*arguments, "--out", str(out)]))
    assert (drawn / "figure3.png").is_file()
    records = results.read_lines(out)
    assert len(records) == 2 * 2 * 2 * 2
    assert {record["normalize"] for record in records} == {"none", "l2"}
    assert {record["batch_size"] for record in records if record["dataset"] == "stl10"} == {32}


def test_figure4_uses_the_papers_margins_and_parts(drawn):
    out = drawn / "f.jsonl"
    arguments = ["--epochs", "2", "--seeds", "1", "--out", str(out)]
    figure4.main(figure4.parser().parse_args(arguments))
    records = results.read_lines(out)
    fields = ("loss", "margin", "noisy", "easy", "constrained")
    assert {tuple(record[name] for name in fields) for record in records} == {
        ("aucm", 0.3, 0.01, 0.0, True),
        ("aucs", 1.0, 0.01, 0.0, True),
        ("aucm", 0.3, 0.0, 0.1, True),
        ("aucs", 1.0, 0.0, 0.1, True),
        ("aucm", 0.1, 0.01, 0.4, True),
        ("aucm", 0.1, 0.01, 0.4, False),
    }
    assert (drawn / "figure4.png").is_file()


@pytest.fixture
def predicted(tmp_path, monkeypatch):
    """PatchCamelyon's images.csv and one run predicted by two folds."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    ids = [f"p{i}" for i in range(60)]
    images = pd.DataFrame(
        {
            "image_id": ids,
            "file": ids,
            "patient_id": ids,
            "unit_id": ids,
            "split": ["train"] * 20 + ["test"] * 40,
            "source": "x",
            "tumor": np.arange(60) % 2,
        }
    )
    (tmp_path / "data/patchcamelyon").mkdir(parents=True)
    images.to_csv(tmp_path / "data/patchcamelyon/images.csv", index=False)
    random = np.random.default_rng(0)
    tables = []
    for fold in range(2):
        rows = images.iloc[[*range(fold * 10, fold * 10 + 10), *range(20, 60)]]
        table = rows[["image_id", "split"]].assign(
            fold=fold, tumor=rows["tumor"] * 0.3 + random.random(50) * 0.5
        )
        tables.append(table.sample(frac=1, random_state=fold))
        path = tmp_path / f"models/patchcamelyon/densenet121_96_aucm/fold{fold}/predictions.csv"
        write_predictions(path, tables[-1], {})
    return images, tables


def test_table5_averages_the_folds_by_id(predicted, capsys):
    images, tables = predicted
    table5.main(argparse.Namespace(competitions=["patchcamelyon"]))
    parts = [table[table["split"] == "test"].set_index("image_id") for table in tables]
    scores = sum(part["tumor"].sort_index() for part in parts) / 2
    truth = images.set_index("image_id")["tumor"][scores.index]
    out = capsys.readouterr().out
    assert f"AUC-M  paper 0.8896  ours {auc(scores.to_numpy(), truth.to_numpy()):.4f} [" in out
    assert (
        "not run: make prepare folds pretrain finetune predict COMP=patchcamelyon "
        "RUN=densenet121_96_ce" in out
    )


def test_figure2_shows_out_of_fold_rows_only(predicted):
    images, tables = predicted
    _, scores, labels = figure2.run_panel("patchcamelyon/densenet121_96_aucm")
    parts = [table[table["split"] == "train"] for table in tables]
    own = pd.concat(parts).set_index("image_id").sort_index()
    assert scores == pytest.approx(own["tumor"].to_numpy())
    assert labels.tolist() == images.set_index("image_id")["tumor"][own.index].tolist()
    with pytest.raises(UserError, match="no predictions"):
        figure2.run_panel("patchcamelyon/densenet121_96_ce")


def test_synthetic_data_can_be_learnt_better_than_chance(monkeypatch):
    monkeypatch.setattr(synthetic, "TRAINING_STEPS", 500)
    history = synthetic.train_synthetic(
        dict(normalize="none", dual="closed_form"), seed=0, margin=0.8
    )
    assert len(history) == synthetic.TRAINING_STEPS // synthetic.MEASURED_EVERY
    assert history[-1] > 0.65


def test_histograms_of_a_panel():
    _, axes = plots.axes_grid(1, 1)
    labels = np.repeat([0, 1], 50)
    scores = labels + torch.rand(100).numpy() / 10
    figure2.draw_histograms(axes[0, 0], ("x", scores, labels))
    assert "AUC 1.000" in axes[0, 0].get_title()
