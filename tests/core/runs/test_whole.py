"""The network of all rows: its epochs from the folds' logs, and whose place it takes."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from pipeline.core.artifacts.paths import data_folder, fold_folder
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.run import ALL
from pipeline.core.runs.job import Job
from pipeline.core.runs.whole import averaged_folds, epochs_to_train
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition


def house(whole: str):
    """A competition with the runs `one`, which has such a network, and `two`."""
    made = competition()
    return replace(made, runs=(replace(made.runs[0], whole=whole), made.runs[1]))


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    table = pd.DataFrame({"patient_id": list("abcd"), "fold": [0, 1, 2, -1]})
    write_csv(data_folder(NAME) / "folds.csv", table)


def write_log(fold: int, aucs: list[float], phase: str = "pretrained") -> None:
    folder = fold_folder(NAME, "one", fold)
    folder.mkdir(parents=True)
    lines = [
        {"phase": phase, "step": 5 * n, "epoch": n, "valid_auc": {"mean": auc}}
        for n, auc in enumerate(aucs, 1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_best_is_the_median_of_the_folds_best_epochs():
    write_log(0, [0.7, 0.8, 0.8, 0.75])
    write_log(1, [0.7, 0.71, 0.72, 0.73])
    write_log(2, [0.7, float("nan"), 0.9, 0.7])
    run = house("best").runs[0]
    assert epochs_to_train(Job(house("best"), run, ALL), "pretrained", 9) == 3
    # A fold's own training, and a run that says so, take the recipe's.
    assert epochs_to_train(Job(house("best"), run, 0), "pretrained", 9) == 9
    recipe = house("recipe")
    assert epochs_to_train(Job(recipe, recipe.runs[0], ALL), "pretrained", 9) == 9
    with pytest.raises(UserError, match=r"no epoch of phase finetuned; .*lesions/one/fold0 first"):
        epochs_to_train(Job(house("best"), run, ALL), "finetuned", 9)


def test_without_a_validation_auc_there_is_no_best():
    for fold in range(3):
        write_log(fold, [float("nan")])
    with pytest.raises(UserError, match="write whole='recipe'"):
        epochs_to_train(Job(house("best"), house("best").runs[0], ALL), "pretrained", 9)


def test_it_stands_for_all_folds_of_its_run_and_for_nobody_else():
    made = house("recipe")
    assert averaged_folds(made, "one", (0, 1, 2)) == (0, 1, 2, ALL)
    assert averaged_folds(made, "one", (0, 1)) == (0, 1)
    assert averaged_folds(made, "two", (0, 1, 2)) == (0, 1, 2)
    assert averaged_folds(made, "from_elsewhere", (0, 1, 2)) == (0, 1, 2)
