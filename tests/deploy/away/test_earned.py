"""What has earned its place at home gives the same scores away, whatever the hidden test set is;
where something is missing, the mean of the runs stands and the log says so."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.files import file_hash
from pipeline.core.config.task import Task
from pipeline.core.ensemble.combination import combine_nested
from pipeline.core.ensemble.earned import CANDIDATES, with_recipe
from pipeline.core.ensemble.fitted import COMBINATION, read_combinations, write_combinations
from pipeline.core.ensemble.members import Member, Rows, member_maps
from pipeline.core.ensemble.second_level import Recipe
from pipeline.deploy.away.combine import combine_runs
from pipeline.deploy.away.earned import earned_scores, read_package_combinations
from pipeline.deploy.rehearsal.memory import run_measured

TASK = Task(
    title="Lesions",
    labels=("target",),
    numeric=("age", "diameter"),
    categorical=("sex", "site", "grade"),
)
NAMES = ("b3", "b5")
FOLDS = (0, 1, 2)
QUICK = Recipe(seeds=(0,), rounds=30, least_rows=20)


def table(patients: int, split: str, seed: int) -> pd.DataFrame:
    """Images of patients who have 1 to 6 each; `grade` is a number with blanks."""
    generator = np.random.default_rng(seed)
    code = np.repeat(np.arange(patients), generator.integers(1, 7, patients))
    n = len(code)
    return pd.DataFrame(
        {
            "image_id": [f"{split}{number:06d}" for number in range(n)],
            "unit_id": [f"{split}{number:06d}" for number in range(n)],
            "patient_id": [f"{split}{number}" for number in code],
            "split": split,
            "age": generator.choice([40.0, 45.0, 50.0, np.nan], n),
            "diameter": generator.lognormal(size=n),
            "sex": np.where(code % 2, "female", "male"),
            "site": generator.choice(["torso", "arm", None], n),
            "grade": generator.choice([1.0, 2.0, np.nan], n),
            "target": (generator.random(n) < 0.2).astype(float) if split == "train" else np.nan,
            "fold": code % len(FOLDS),
        }
    )


def scores_of(images: pd.DataFrame, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    known = 1.5 * images["target"].fillna(0).to_numpy()
    return 1 / (1 + np.exp(-(known + generator.normal(size=len(images)))))


class House:
    """An ensemble at home with one candidate, and its package as `read_package` finds it."""

    def __init__(self, candidate: str, folder: Path) -> None:
        train = table(80, "train", 0)
        self.test = table(40, "test", 1)
        self.test.loc[3, "sex"] = "a sex unheard of"
        rows = Rows(train, self.test, FOLDS, {})
        members = [
            Member(
                name,
                "AUC-M",
                scores_of(train, seed)[:, None],
                np.stack([scores_of(self.test, 10 * seed + fold)[:, None] for fold in FOLDS]),
                1,
                "",
            )
            for seed, name in enumerate(NAMES)
        ]
        chosen = {candidate: with_recipe(QUICK)[candidate]}
        found = combine_nested(TASK, rows, members, candidates=chosen)
        self.home = found.test[:, 0]
        write_combinations(folder / COMBINATION, found.fitted)
        self.combinations = read_combinations(folder / COMBINATION)
        self.quantiles = {one.name: member_maps(one, rows, TASK.labels) for one in members}
        self.package = {
            "labels": ["target"],
            "method": "mean",
            "metadata": 0.0,
            "prior": {"target": 0.2},
            "weights": {name: {"target": 0.5} for name in NAMES},
            "networks": [{"member": name, "fold": fold} for name in NAMES for fold in FOLDS],
            "combination": file_hash(folder / COMBINATION),
        }
        self.tables = {
            (member.name, fold): pd.DataFrame({"target": member.test[fold, :, 0]})
            for member in members
            for fold in FOLDS
        }
        # raw tables hold text where images.csv, read back, holds numbers
        grade = self.test["grade"]
        self.raw = self.test.assign(grade=grade.map({1.0: "1", 2.0: "2"}).astype(object))

    def away(self, rows=None, tables=None, unreadable=()) -> np.ndarray | None:
        """The scores of these positions of the test set."""
        rows = np.arange(len(self.raw)) if rows is None else rows
        tables = self.tables if tables is None else tables
        some = {key: one.iloc[rows].reset_index(drop=True) for key, one in tables.items()}
        raw = self.raw.iloc[rows].reset_index(drop=True)
        return earned_scores(self.combinations, self.package, self.quantiles, raw, some, unreadable)


@pytest.fixture(scope="module", params=list(CANDIDATES))
def house(request, tmp_path_factory):
    return House(request.param, tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    return House("second level", tmp_path_factory.mktemp("stacked"))


def test_the_whole_test_set_scores_as_at_home(house):
    np.testing.assert_allclose(house.away()[:, 0], house.home, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_a_hidden_test_set_of_one_patient(house, count):
    size = house.test.groupby("patient_id")["patient_id"].transform("size").to_numpy()
    rows = np.flatnonzero(size == count)[:count]
    assert house.test["patient_id"].iloc[rows].nunique() == 1
    np.testing.assert_allclose(house.away(rows)[:, 0], house.home[rows], rtol=1e-6)


def test_a_member_without_time_is_left_out_by_fold_then_altogether(stacked, capsys):
    tables = {key: one for key, one in stacked.tables.items() if key != ("b5", 1)}
    assert np.isfinite(stacked.away(tables=tables)).all()
    assert "target: second level of folds 0, 2" in capsys.readouterr().out
    tables = {key: one for key, one in stacked.tables.items() if key[0] == "b3"}
    assert stacked.away(tables=tables) is None
    assert "no fold has whole scores of b3, b5: the mean instead" in capsys.readouterr().out
    partial = {key: one.assign(target=np.nan) for key, one in stacked.tables.items()}
    assert stacked.away(tables=partial) is None


def test_without_the_library_the_mean_stands(stacked, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert stacked.away() is None
    assert "the mean instead" in capsys.readouterr().out


def test_an_unreadable_image_takes_no_part_and_gets_the_mean(stacked):
    gone = 5
    spoilt = {key: one.copy() for key, one in stacked.tables.items()}
    for one in spoilt.values():
        one.iloc[gone] = np.nan
    found = stacked.away(tables=spoilt, unreadable=[gone])
    assert np.isnan(found[gone, 0])
    kept = np.delete(np.arange(len(found)), gone)
    np.testing.assert_allclose(found[kept, 0], stacked.away(kept)[:, 0], rtol=1e-12)
    units = combine_runs(
        stacked.package, stacked.quantiles, stacked.raw, spoilt, TASK, [gone], found
    )
    np.testing.assert_allclose(units["target"][kept], found[kept, 0])
    assert units["target"][gone] == pytest.approx(found[kept, 0].mean())


def test_a_file_that_is_not_the_packed_one_is_left_out(stacked, tmp_path, capsys):
    write_combinations(tmp_path / COMBINATION, {})
    assert read_package_combinations(tmp_path, stacked.package) == {}
    assert "not the file that was packed" in capsys.readouterr().out
    write_combinations(tmp_path / COMBINATION, stacked.combinations)
    assert set(read_package_combinations(tmp_path, stacked.package)) == {"target"}
    assert read_package_combinations(tmp_path, {}) == {}


SCORED = """
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.ensemble.fitted import combined_scores, read_combinations

count = int(sys.argv[2])
combination = read_combinations(Path(sys.argv[1]))["target"]
generator = np.random.default_rng(0)
patients = pd.DataFrame({
    "patient_id": generator.integers(0, count // 20 + 1, count).astype(str),
    "age": generator.integers(4, 18, count) * 5.0, "diameter": generator.random(count),
    "sex": "male", "site": generator.choice(["arm", "unheard of"], count), "grade": 1.0})
maps = [{"values": [0.0, 1.0], "quantiles": [0.0, 1.0]}] * 2
scores = combined_scores(combination, patients, generator.random((count, 2)), maps)
assert scores.shape == (count,) and ((scores >= 0) & (scores <= 1)).all()
"""


@pytest.mark.slow
def test_half_a_million_rows_take_little_more_memory_than_fifty_thousand(stacked, tmp_path):
    write_combinations(tmp_path / COMBINATION, stacked.combinations)
    script = tmp_path / "scored.py"
    script.write_text(SCORED)
    peaks = []
    root = str(Path(__file__).parents[3])
    for count in (50_000, 500_000):
        command = [sys.executable, str(script), str(tmp_path / COMBINATION), str(count)]
        variables = {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
        status, peak = run_measured(command, tmp_path, variables)
        assert status == 0
        peaks.append(peak)
    # the rows themselves, as text, take some 200 MB
    assert peaks[1] < peaks[0] + 400
