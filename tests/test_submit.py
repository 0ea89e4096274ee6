"""From an ensemble to the organiser's file, the lab book, and Kaggle's client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kaggle.cli
import numpy as np
import pandas as pd
import pytest

import pipeline.competitions
from pipeline import submit
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission import kaggle as kaggle_client
from pipeline.core.submission import lab_book as labbook

COMPETITION = '''
"""Two findings in pictures of nothing."""
from pathlib import Path
import pandas as pd
from pipeline.core.config.task import Blend, Submission, Task

task = Task(title="Findings", labels=("a", "b"), slug="findings-2026")
runs, blend = (), Blend()
submission = Submission(file="submission.csv", id_column="id", columns={"a": "A", "b": "B"})

def read_raw(raw: Path) -> pd.DataFrame:
    return pd.read_csv(raw / "train.csv", dtype={"image_id": "str", "unit_id": "str"})

def sample(raw: Path) -> pd.DataFrame:
    return pd.read_csv(raw / "sample_submission.csv", dtype={"id": "str"})
'''
IDS = [f"{i:05d}" for i in range(30)]


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A competition with an ensemble, in a folder of its own, and no Kaggle credentials."""
    for name in ("DATA", "MODELS", "SUBMISSIONS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nothing"))
    (tmp_path / "findings.py").write_text(COMPETITION)
    monkeypatch.setattr(
        pipeline.competitions, "__path__", [*pipeline.competitions.__path__, str(tmp_path)]
    )
    raw = tmp_path / "data/findings/raw"
    models = tmp_path / "models/findings"
    raw.mkdir(parents=True)
    models.mkdir(parents=True)
    pd.DataFrame({"id": IDS[::-1], "A": 0.5, "B": 0.5}).to_csv(
        raw / "sample_submission.csv", index=False
    )
    write_ensemble(models)
    yield tmp_path
    sys.modules.pop("pipeline.competitions.findings", None)


def write_ensemble(models: Path, seed: int = 0) -> None:
    scores = np.random.default_rng(seed).random((60, 2))
    table = pd.DataFrame(
        {
            "unit_id": [f"t{one}" for one in IDS] + IDS,
            "split": ["train"] * 30 + ["test"] * 30,
            "a": scores[:, 0],
            "b": scores[:, 1],
        }
    )
    table.to_csv(models / "ensemble.csv", index=False)
    (models / "ensemble.json").write_text(
        json.dumps(
            {
                "members": ["b5_384/fold0", "metadata/fold0"],
                "runs": ["b5_384"],
                "stages": {},
                "folds": [0],
                "weights": {},
            }
        )
    )


def run(*arguments: str) -> None:
    submit.main(submit.parser().parse_args(["findings", *arguments]))


def submission(house: Path) -> Path:
    return house / "submissions/findings/submission.csv"


def test_the_submission_is_the_sample_filled_in(house):
    run()
    table = pd.read_csv(submission(house), dtype={"id": "str"})
    ensemble = pd.read_csv(house / "models/findings/ensemble.csv").set_index("unit_id")
    assert table.columns.tolist() == ["id", "A", "B"] and table["id"].tolist() == IDS[::-1]
    np.testing.assert_allclose(table["B"], ensemble.loc[IDS[::-1], "b"], rtol=1e-8)
    (line,) = labbook.read_lab_book()
    assert line["members"] == "b5_384/fold0, metadata/fold0" and len(line["sha256"]) == 12


def test_the_same_file_is_entered_once_and_another_again(house):
    run()
    run()
    assert len(labbook.read_lab_book()) == 1
    write_ensemble(house / "models/findings", seed=1)
    run()
    assert len(labbook.read_lab_book()) == 2


def test_a_picture_that_prepare_could_not_read_gets_the_mean(house, capsys):
    """... and is named; an id that is missing for any other reason is an error."""
    ensemble = house / "models/findings/ensemble.csv"
    raw = house / "data/findings/raw"
    table = pd.read_csv(ensemble, dtype={"unit_id": "str"})
    table[table["unit_id"] != IDS[3]].to_csv(ensemble, index=False)
    pd.DataFrame({"image_id": IDS, "unit_id": IDS, "split": "test"}).to_csv(
        raw / "train.csv", index=False
    )
    with pytest.raises(UserError, match="1 of the organiser's 30 ids have no score, first '00003'"):
        run()
    pd.DataFrame({"image_id": [IDS[3]], "file": ["x"], "reason": ["empty"]}).to_csv(
        raw.parent / "prepare_errors.csv", index=False
    )
    run()
    written = pd.read_csv(submission(house), dtype={"id": "str"}).set_index("id")
    assert written.loc[IDS[3], "A"] == pytest.approx(written["A"].drop(IDS[3]).mean())
    assert "00003 has no readable image" in capsys.readouterr().out


def test_a_bad_submission_is_not_written(house):
    path = house / "models/findings/ensemble.csv"
    pd.read_csv(path).assign(b=0.5).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"column B: every score is 0.5"):
        run()
    assert not submission(house).exists() and not labbook.book().exists()
    assert list(submission(house).parent.iterdir()) == []


def test_check_says_what_is_wrong(house, capsys):
    run()
    run("--check", str(submission(house)))
    bad = house / "bad.csv"
    pd.read_csv(submission(house), dtype="str").iloc[1:].rename(columns={"A": "b"}).to_csv(
        bad, index=False
    )
    with pytest.raises(UserError, match=r"bad.csv: 3 errors; the first: missing columns: A"):
        run("--check", str(bad))
    said = capsys.readouterr().out
    assert "error: ids of the organiser's 30 that are missing (1): '00029'" in said
    run("--check", str(submission(house)), "--sample", str(submission(house)))
    with pytest.raises(UserError, match="no such file"):
        run("--check", str(house / "none.csv"))


@pytest.mark.usefixtures("house")
def test_the_lab_book_keeps_its_text_and_its_cells():
    labbook.book().parent.mkdir(parents=True)
    labbook.book().write_text("# Ours\n\nSome text.\n")
    run()
    hash12 = labbook.read_lab_book()[0]["sha256"]
    assert labbook.note("findings", hash12, message="a | b\nand more", public="0.95")
    text = labbook.book().read_text()
    assert text.startswith("# Ours\n\nSome text.\n\n| date |")
    assert (
        labbook.read_lab_book()[0]["message"] == "a \\| b and more"
        and labbook.read_lab_book()[0]["public"] == "0.95"
    )
    assert not labbook.note("findings", hash12, public="0.95")


@pytest.mark.usefixtures("house")
def test_without_credentials_it_says_what_to_set_up_and_what_it_would_send(capsys):
    run()
    with pytest.raises(
        UserError,
        match=r"no Kaggle credentials: create a token .* would have run: kaggle competitions "
        r"submit findings-2026 -f .*submission.csv -m 'first try",
    ):
        run("--send", "--message", "first try")
    run("--send", "--message", "first try", "--dry-run")
    assert "would run: kaggle competitions submit findings-2026" in capsys.readouterr().out
    with pytest.raises(UserError, match="no Kaggle credentials"):
        run("--scores")


@pytest.fixture
def client(house, monkeypatch):
    """A stand-in for Kaggle's client that writes down its arguments and answers from a file;
    returns its folder."""
    folder = house / "client"
    (folder / "kaggle").mkdir(parents=True)
    (folder / "kaggle/__main__.py").write_text(
        "import json, os, sys, pathlib\n"
        "here = pathlib.Path(__file__).parent.parent\n"
        "with (here / 'calls').open('a') as calls: calls.write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "print((here / sys.argv[2]).read_text().replace('TOKEN', os.environ['KAGGLE_API_TOKEN']))\n"
    )
    (folder / "kaggle/__init__.py").touch()
    (folder / "submit").write_text("token TOKEN\nSuccessfully submitted to Findings")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret")
    return folder


def test_send_and_scores(house, client, capsys):
    run()
    run("--send", "--message", "first try")
    hash12 = labbook.read_lab_book()[0]["sha256"]
    call = json.loads((client / "calls").read_text())
    assert call == [
        "competitions",
        "submit",
        "findings-2026",
        "-f",
        str(submission(house)),
        "-m",
        f"first try [{hash12}]",
    ]
    assert labbook.read_lab_book()[0]["public"] == "pending"
    (client / "submissions").write_text(
        "Warning: Looks like you're using an outdated API Version\n"
        "ref,fileName,date,description,status,publicScore,privateScore\n"
        "9,submission.csv,2026-11-22,first try "
        f"[{hash12}],SubmissionStatus.COMPLETE,0.9685,0.9438\n"
        "8,submission.csv,2026-11-21,older,SubmissionStatus.COMPLETE,0.5,0.5\n"
    )
    run("--scores")
    (line,) = labbook.read_lab_book()
    assert (line["message"], line["public"], line["private"]) == ("first try", "0.9685", "0.9438")
    everything = capsys.readouterr().out + labbook.book().read_text()
    assert "KGAT_secret" not in everything and "token ***" in everything


@pytest.mark.usefixtures("house")
def test_a_refused_submission_is_an_error(client):
    run()
    (client / "submit").write_text("Could not submit to competition")
    with pytest.raises(UserError, match="Kaggle did not take"):
        run("--send", "--message", "m")
    assert labbook.read_lab_book()[0]["public"] == ""


def test_the_installed_client_understands_our_arguments(monkeypatch, tmp_path):
    """Kaggle's own parser, with its functions replaced by one that writes down what it was called
    with."""
    calls = []
    monkeypatch.setattr(kaggle.api, "_authenticated", True)
    for name in ("competition_submit_cli", "competition_submissions_cli"):
        monkeypatch.setattr(kaggle.api, name, lambda **given: calls.append(given), raising=True)
    commands = [
        kaggle_client.submit_command("slug", tmp_path / "s.csv", "why"),
        kaggle_client.submit_command("slug", tmp_path / "s.csv", "why", "me/book-one", 3),
        ["competitions", "submissions", "slug", "--csv", "--page-size", "100"],
    ]
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["kaggle", *command])
        kaggle.cli.main()
    assert calls[0]["competition"] == "slug" and calls[0]["file_name"] == str(tmp_path / "s.csv")
    assert (calls[1]["kernel"], calls[1]["version"], calls[1]["file_name"]) == (
        "me/book-one",
        "3",
        "s.csv",
    )
    assert calls[2]["csv_display"] is True and calls[2]["page_size"] == 100


@pytest.mark.usefixtures("house")
def test_the_real_client_without_credentials_is_a_user_error():
    with pytest.raises(UserError, match="kaggle competitions submissions findings-2026"):
        kaggle_client.submissions("findings-2026")


def test_exit_status():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.submit", "nothing"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "error: no competition is called 'nothing'"
    )


def test_other_tables_in_the_lab_book_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMISSIONS", str(tmp_path))
    above = "# Lab book\n\n| rate | AUC |\n|---|---|\n| 1 | .8 |"
    below = "## Experiments\n\n| a | b |\n|---|---|\n| c | d |"
    head = "| " + " | ".join(labbook.COLUMNS) + " |\n|" + "---|" * len(labbook.COLUMNS)
    labbook.book().write_text(f"{above}\n\n{head}\n\n{below}\n")
    for number in range(2):
        labbook.add("melanoma", tmp_path / "s.csv", f"{number}" * 64, "c" * 40, "b5_384", "0.9")
    text = labbook.book().read_text()
    assert (
        text.startswith(above)
        and text.rstrip().endswith(below)
        and len(labbook.read_lab_book()) == 2
    )
