"""The site file: sections override each other, mistakes are named, options are sbatch's."""

import pytest

from pipeline.core.runtime.errors import UserError
from pipeline.core.schedule import slurm
from pipeline.core.schedule.graph import Step
from pipeline.core.schedule.site import read_site

TEXT = """
[all]
account = "skin"
time = "01:00:00"

[gpu]
gpus-per-node = 1
time = "08:00:00"

[finetune]
time = "02:00:00"
exclusive = true

[prepare]
jobs = 16
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes the site file that SITE names."""
    monkeypatch.setenv("SITE", str(tmp_path / "site.toml"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    return (tmp_path / "site.toml").write_text


def test_the_more_particular_section_wins(write):
    write(TEXT)
    site = read_site()
    assert site.options("report") == {"account": "skin", "time": "01:00:00"}
    assert site.options("predict")["time"] == "08:00:00"
    assert site.options("finetune") == {
        "account": "skin",
        "gpus-per-node": 1,
        "time": "02:00:00",
        "exclusive": True,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gpus]\n", r"\[gpus\] is none of all, gpu"),
        ("account = 'skin'\n", r"\[account\] is none of"),
        ("[all]\ndependency = 'x'\n", "dependency='x': the launcher itself"),
        ("[all]\nmem = 1.5\n", "mem=1.5: write text"),
        ("[gpu]\njobs = 3\n", "jobs=3: a number from 1 on"),
        ("[prepare]\njobs = 0\n", "jobs=0: a number from 1 on"),
        ("[all]\nnotice = true\n", "notice=True: a number of seconds"),
        ("[all\n", "site.toml: Expected"),
    ],
)
def test_a_mistake_is_named(write, text, said):
    write(text)
    with pytest.raises(UserError, match=said):
        read_site()


@pytest.mark.usefixtures("write")
def test_a_file_that_is_named_must_be_there():
    with pytest.raises(UserError, match=r"site.toml: is not a file"):
        read_site()


def test_without_a_file_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("SITE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert read_site().options("report") == {}


def submitted(monkeypatch, step: Step, *before: str, **machine: int) -> list[str]:
    """What sbatch would be called with."""
    calls = []
    monkeypatch.setattr(slurm, "slurm", lambda *words: calls.append(words) or "12;cluster")
    assert slurm.submit_step(step, read_site(), list(before), **machine) == "12"
    return list(calls[0])


def test_what_sbatch_is_called_with(write, monkeypatch, tmp_path):
    write(TEXT)
    step = Step("finetune", ("melanoma/b3_256/fold0",))
    words = submitted(monkeypatch, step, "7", "8")
    script = words.index(str(slurm.JOB_SCRIPT))
    assert words[script + 3 :] == ["-m", "pipeline.finetune", "melanoma/b3_256/fold0"]
    assert {
        "--job-name=finetune melanoma/b3_256/fold0",
        f"--comment={tmp_path}/models/melanoma",
        f"--output={tmp_path}/models/melanoma/b3_256/fold0/finetune.log",
        "--dependency=afterok:7:8",
        "--signal=B:USR1@120",
        "--requeue",
        "--exclusive",
        "--time=02:00:00",
    } <= {*words[:script]}


def test_images_are_shared_by_the_jobs_of_an_array(write, monkeypatch):
    write(TEXT)
    words = submitted(monkeypatch, Step("prepare", ("melanoma",)))
    assert "--array=0-15" in words
    assert not any(word.startswith("--jobs") for word in words)
    assert any(word.endswith("/prepare.%a.log") for word in words)


def test_several_gpus_and_machines(write, monkeypatch):
    write(TEXT)
    step = Step("pretrain", ("melanoma/b3_256/fold0",))
    words = submitted(monkeypatch, step, processes=4, machines=2)
    assert {"--gpus-per-node=4", "--nodes=2", "--ntasks-per-node=1"} <= {*words}
    script = words.index(str(slurm.JOB_SCRIPT))
    assert words[script + 2] == "srun"
    # What takes no GPU stays one process on one machine.
    words = submitted(monkeypatch, Step("report", ("melanoma",)), processes=4, machines=2)
    assert not any(word.startswith(("--nodes", "--gpus", "srun")) for word in words)


def test_the_notice_of_a_site(write, monkeypatch):
    write("[all]\nnotice = 300\n")
    words = submitted(monkeypatch, Step("report", ("melanoma",)))
    assert "--signal=B:USR1@300" in words
    assert words[words.index(str(slurm.JOB_SCRIPT)) + 1] == "300"
