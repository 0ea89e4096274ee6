"""`python -m pipeline.score`: the organiser's figures on the real files where these are there, and
its errors."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline import score as stage
from pipeline.core.runtime.errors import UserError

SHARED = Path(os.environ.get("SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
CHEXPERT = SHARED / "chexpert_test"
SIIM = SHARED / "siim_isic"
TASKS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
needs_chexpert = pytest.mark.skipif(
    not CHEXPERT.is_dir(), reason=f"no released CheXpert test files in {SHARED}"
)
needs_siim = pytest.mark.skipif(
    not SIIM.is_dir(), reason=f"the SIIM-ISIC out-of-fold files are not in {SHARED}"
)

# The official evaluator's output on the released files: mean AUC, then AUC and readers below the
# curve per task.
OFFICIAL = {
    "drnet": (0.925527617, (0.884284, 0.936982, 0.916099, 0.930095, 0.960179), (3, 3, 2, 3, 2)),
    "ihil": (0.926628208, (0.884284, 0.942485, 0.916099, 0.930095, 0.960179), (3, 3, 2, 3, 2)),
    "jfaboy": (0.925552128, (0.888418, 0.928462, 0.931913, 0.920950, 0.958018), (3, 3, 3, 3, 3)),
    "sensexdr": (0.926643388, (0.884284, 0.942561, 0.916099, 0.930095, 0.960179), (3, 3, 2, 3, 2)),
    "uestc": (0.924016212, (0.884284, 0.930853, 0.916099, 0.928667, 0.960179), (3, 3, 2, 3, 2)),
    "yww211": (0.923129048, (0.869432, 0.929904, 0.925836, 0.929518, 0.960956), (1, 3, 3, 3, 2)),
}


def run(capsys, *arguments) -> tuple[dict, str]:
    """(the last line as JSON, everything printed) of the stage run in this process."""
    stage.main(stage.parser().parse_args([str(argument) for argument in arguments]))
    printed = capsys.readouterr().out
    return json.loads(printed.splitlines()[-1]), printed


@needs_chexpert
@pytest.mark.parametrize("entry", OFFICIAL)
def test_the_official_evaluators_figures(entry, capsys):
    mean, aucs, readers = OFFICIAL[entry]
    found, _ = run(
        capsys,
        "chexpert",
        "--file",
        CHEXPERT / "predictions" / f"{entry}.csv",
        "--truth",
        CHEXPERT / "groundtruth.csv",
        "--readers",
        CHEXPERT / "benchmark_radiologists",
    )
    assert found["mean_auc"] == pytest.approx(mean, abs=6e-10)
    assert [found["auc"][task] for task in TASKS] == pytest.approx(aucs, abs=6e-7)
    assert [found["nrbc"][task] for task in TASKS] == list(readers)
    assert found["mean_nrbc"] == pytest.approx(sum(readers) / 5)
    assert 0.90 < found["interval"][0] < mean < found["interval"][1] < 0.945


@needs_chexpert
def test_the_readers_points_are_the_published_ones():
    competition = stage.load_competition("chexpert")
    known = stage.read_truth(competition, CHEXPERT / "groundtruth.csv")
    points = stage.read_readers(competition, CHEXPERT / "benchmark_radiologists", known)
    assert np.round(points["Atelectasis"], 6).tolist() == [
        [0.786744, 0.803922],
        [0.824207, 0.712418],
        [0.685879, 0.921569],
    ]
    assert np.round(points["Consolidation"], 6).tolist() == [
        [0.889597, 0.655172],
        [0.910828, 0.482759],
        [0.96603, 0.448276],
    ]


@needs_chexpert
def test_the_average_of_six_entries(capsys):
    """Recomputed here with pandas ranks and scikit-learn; the interval of the paired gain excludes
    0."""
    paths = sorted((CHEXPERT / "predictions").glob("*.csv"))
    found, printed = run(
        capsys,
        "chexpert",
        "--method",
        "rank",
        "--file",
        *paths,
        "--truth",
        CHEXPERT / "groundtruth.csv",
    )
    known = pd.read_csv(CHEXPERT / "groundtruth.csv", index_col="Study")
    ranks = sum(
        pd.read_csv(path, index_col="Study").loc[known.index, list(TASKS)].rank() for path in paths
    )
    for task in TASKS:
        assert found["auc"][task] == pytest.approx(
            roc_auc_score(known[task], ranks[task]), abs=1e-12
        )
    assert found["mean_auc"] == pytest.approx(0.931932, abs=1e-6)
    assert found["interval"] == pytest.approx([0.9191, 0.9430], abs=0.002)
    assert "average - sensexdr: +0.0053 [+0.00" in printed and "average is better" in printed
    assert (
        "near-duplicates: drnet and ihil on 4 of 5: Edema, Consolidation, Atelectasis, Pleural "
        "Effusion" in printed
    )


@needs_siim
def test_whether_the_weaker_model_helps(capsys):
    """Out-of-fold AUCs of the 33,126 rows of 2020 are .9085 and .8642; averaging in the weaker one
    costs."""
    files = [SIIM / f"siim_oof_model{number}.csv.gz" for number in (1, 2)]
    options = (
        "--truth",
        SIIM / "train.csv",
        "--where",
        "source=ISIC20",
        "--column",
        "target=tta_mean",
    )
    for file, expected in zip(files, (0.9085, 0.8642)):
        assert run(capsys, "melanoma", "--file", file, *options)[0]["mean_auc"] == pytest.approx(
            expected, abs=5e-5
        )
    found, printed = run(capsys, "melanoma", "--method", "rank", "--file", *files, *options)
    assert 0.8642 < found["mean_auc"] < 0.9085
    line = next(line for line in printed.splitlines() if "with siim_oof_model2" in line)
    assert line.strip().startswith("with siim_oof_model2 - without siim_oof_model2: -0.0088 [-0.01")
    assert line.endswith("without siim_oof_model2 is better")


@pytest.fixture
def files(tmp_path):
    """A melanoma truth and two prediction files, gzipped or not, rows and columns in different
    orders."""
    generator = np.random.default_rng(0)
    truth = pd.DataFrame(
        {
            "image_name": [f"ISIC_{i:07d}" for i in range(200)],
            "patient_id": [f"IP_{i // 4}" for i in range(200)],
            "target": generator.integers(0, 2, 200),
        }
    )
    for name in ("one", "two"):
        scores = truth[["image_name"]].assign(
            more=1, target=truth["target"] + generator.normal(size=200) + 5
        )
        shuffled = scores.sample(frac=1, random_state=1)[["target", "more", "image_name"]]
        shuffled.to_csv(tmp_path / f"{name}.csv", index=False)
    with gzip.open(tmp_path / "truth.csv.gz", "wt") as file:
        truth.to_csv(file, index=False)
    return tmp_path


def test_rows_are_aligned_by_id_and_scores_may_be_any_numbers(files, capsys):
    found, _ = run(
        capsys, "melanoma", "--file", files / "one.csv", "--truth", files / "truth.csv.gz"
    )
    both = pd.read_csv(files / "one.csv").merge(
        pd.read_csv(files / "truth.csv.gz"), on="image_name"
    )
    expected = roc_auc_score(both["target_y"], both["target_x"])
    assert found == {
        "mean_auc": pytest.approx(expected),
        "auc": {"target": pytest.approx(expected)},
        "interval": [
            pytest.approx(expected - 0.06, abs=0.04),
            pytest.approx(expected + 0.06, abs=0.04),
        ],
    }


def test_folds_in_the_files_are_ranked_apart(files, capsys):
    """Fold 1 of both files is shifted by 10; ranks within folds undo that, so the AUC is nearly the
    unshifted one."""
    straight, _ = run(
        capsys,
        "melanoma",
        "--method",
        "mean",
        "--file",
        files / "one.csv",
        files / "two.csv",
        "--truth",
        files / "truth.csv.gz",
    )
    for name in ("one", "two"):
        table = pd.read_csv(files / f"{name}.csv")
        fold = table["image_name"].str[-1].astype(int) % 2
        table.assign(fold=fold, target=table["target"] + 10 * fold).to_csv(
            files / f"{name}.csv", index=False
        )
    options = ("--file", files / "one.csv", files / "two.csv", "--truth", files / "truth.csv.gz")
    shifted, _ = run(capsys, "melanoma", "--method", "mean", *options)
    ranked, _ = run(capsys, "melanoma", "--method", "rank", *options)
    assert shifted["mean_auc"] < straight["mean_auc"] - 0.1
    assert ranked["mean_auc"] == pytest.approx(straight["mean_auc"], abs=0.02)


def test_duplicates_may_count_once(files, capsys):
    (files / "copy.csv").write_text((files / "one.csv").read_text())
    options = ("--method", "mean", "--truth", files / "truth.csv.gz", "--file", files / "one.csv")
    both, _ = run(capsys, "melanoma", *options, files / "two.csv")
    thrice, printed = run(capsys, "melanoma", *options, files / "copy.csv", files / "two.csv")
    once, _ = run(
        capsys, "melanoma", *options, files / "copy.csv", files / "two.csv", "--drop-duplicates"
    )
    assert "near-duplicates: one and copy on 1 of 1: target" in printed
    assert thrice["mean_auc"] != both["mean_auc"] and once["mean_auc"] == both["mean_auc"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.iloc[1:],
            r"one\.csv: 1 of the 200 rows of the truth are missing: ISIC_",
        ),
        (
            lambda table: pd.concat([table, table.iloc[:1]]),
            r"one\.csv: column image_name: ISIC_\d+ more than once",
        ),
        (
            lambda table: table.replace(table["image_name"][3], "ISIC_9"),
            r"one\.csv: 1 of the 200 rows",
        ),
        (
            lambda table: pd.concat([table, table.iloc[:1].assign(image_name="x")]),
            "1 rows are not among the 200 .*: x",
        ),
        (
            lambda table: table.assign(target="high"),
            r"one\.csv: row 2, column target: 'high' is not a finite number",
        ),
        (
            lambda table: table.assign(target=np.nan),
            r"one\.csv: row 2, column target: 'nan' is not a finite number",
        ),
        (
            lambda table: table.assign(target=np.inf),
            r"one\.csv: row 2, column target: 'inf' is not a finite number",
        ),
        (lambda table: table.drop(columns="target"), r"one\.csv: the column 'target' is missing"),
        (
            lambda table: table.assign(image_name=np.nan),
            r"one\.csv: row 2, column image_name: blank",
        ),
    ],
)
def test_errors_in_a_file(files, change, message, capsys):
    change(pd.read_csv(files / "one.csv")).to_csv(files / "one.csv", index=False)
    with pytest.raises(UserError, match=message):
        run(capsys, "melanoma", "--file", files / "one.csv", "--truth", files / "truth.csv.gz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.assign(target=2), "row 2, column target: 2 is not 0, 1, -1 or blank"),
        (lambda table: table.assign(target=1), "column target has one class only"),
        (
            lambda table: table.assign(target=np.nan),
            "row 2, column target: 'nan' is not a finite number",
        ),
    ],
)
def test_errors_in_the_truth(files, change, message, capsys):
    change(pd.read_csv(files / "truth.csv.gz")).to_csv(files / "truth.csv", index=False)
    with pytest.raises(UserError, match=message):
        run(capsys, "melanoma", "--file", files / "one.csv", "--truth", files / "truth.csv")


def chexpert_files(folder: Path) -> tuple[Path, Path, Path]:
    """Truth, predictions with trailing slashes on the ids, and a folder with one reader who never
    errs."""
    generator = np.random.default_rng(1)
    truth = pd.DataFrame(
        {
            "Study": [f"CheXpert-v1.0/test/patient{i:05d}/study1" for i in range(60)],
            **{task: generator.integers(0, 2, 60) for task in TASKS},
        }
    )
    noisy = {task: truth[task] + generator.normal(size=60) for task in TASKS}
    scores = truth.assign(Study=truth["Study"] + "/", **noisy)
    (folder / "readers").mkdir()
    truth.to_csv(folder / "truth.csv", index=False)
    truth.sample(frac=1, random_state=0).to_csv(folder / "readers" / "bc1.csv", index=False)
    scores.to_csv(folder / "scores.csv", index=False)
    return folder / "truth.csv", folder / "scores.csv", folder / "readers"


def test_a_reader_without_error_is_below_by_the_organisers_rule(tmp_path, capsys):
    """Specificity 1 is x = 0, where the organiser reads the last point of the curve."""
    truth, scores, readers = chexpert_files(tmp_path)
    found, _ = run(capsys, "chexpert", "--file", scores, "--truth", truth, "--readers", readers)
    assert found["nrbc"] == dict.fromkeys(TASKS, 1) and found["mean_nrbc"] == 1
    assert set(found) == {"mean_auc", "auc", "interval", "nrbc", "mean_nrbc"}


def test_errors_in_readers(tmp_path, capsys):
    truth, scores, readers = chexpert_files(tmp_path)
    table = pd.read_csv(readers / "bc1.csv")
    table.assign(Edema=2).to_csv(readers / "bc1.csv", index=False)
    with pytest.raises(UserError, match="column Edema: a call is not 0 or 1"):
        run(capsys, "chexpert", "--file", scores, "--truth", truth, "--readers", readers)
    with pytest.raises(UserError, match="no CSV file of a reader"):
        run(capsys, "chexpert", "--file", scores, "--truth", truth, "--readers", tmp_path / "none")


def test_the_command_line(files):
    command = [
        sys.executable,
        "-m",
        "pipeline.score",
        "melanoma",
        "--truth",
        str(files / "truth.csv.gz"),
        "--file",
    ]
    done = subprocess.run(
        [*command, str(files / "one.csv")], capture_output=True, text=True, check=True
    )
    assert 0.5 < json.loads(done.stdout.splitlines()[-1])["mean_auc"] < 1
    done = subprocess.run(
        [*command, str(files / "none.csv")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "none.csv: there is no such file" in done.stderr
