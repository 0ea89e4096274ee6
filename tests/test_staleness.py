"""Nothing stale unnoticed: what exists is compared with what today's configuration makes, through
make. Each test changes one thing in a copy of the project with a finished competition."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.artifacts.files import read_json, write_sealed

ROOT = Path(__file__).parents[1]
RUN = "b3_256"
FOLD = f"home/models/melanoma/{RUN}/fold0"


class Project:
    """A copy of the project, and the roots beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.competition = folder / "pipeline/competitions/melanoma.py"

    def environment(self, smoke: str = "1") -> dict[str, str]:
        home = self.folder / "home"
        roots = {name: str(home / name.lower()) for name in ("DATA", "MODELS", "SUBMISSIONS")}
        return os.environ | roots | {"SMOKE": smoke, "WORKERS": "0", "OMP_NUM_THREADS": "1"}

    def make(self, target: str, *arguments: str, smoke: str = "1") -> subprocess.CompletedProcess:
        command = ["make", f"PYTHON={sys.executable}", target, "COMP=melanoma", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(smoke),
            capture_output=True,
            text=True,
            timeout=600,
        )

    def file(self, name: str) -> Path:
        return self.folder / name


def report(project: Project, *arguments: str, smoke: str = "1") -> subprocess.CompletedProcess:
    return project.make("report", f"RUN={RUN}", *arguments, smoke=smoke)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The project with a finished smoke run of two folds on synthetic data."""
    folder = tmp_path_factory.mktemp("project") / "it"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=ignored)
    project = Project(folder)
    demo = ["-m", "pipeline.demo", "--images", "240", "--side", "64", "--competition", "melanoma"]
    done = subprocess.run([sys.executable, *demo], cwd=folder, env=project.environment())
    assert done.returncode == 0
    done = report(project, "K=2")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy that a test may change."""
    shutil.copytree(finished, tmp_path / "it", symlinks=True)
    return Project(tmp_path / "it")


def assert_refused(done: subprocess.CompletedProcess, *parts: str) -> None:
    """make ended with 2 and one `error:` line, which has these parts, and without a traceback."""
    lines = [line for line in done.stderr.splitlines() if "error:" in line.lower()]
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


def kept(project: Project) -> dict[str, bytes]:
    """The dear artifacts."""
    found = sorted(project.file("home/models").rglob("*.safetensors"))
    found += sorted(project.file("home/models").rglob("predictions*.csv"))
    return {str(path): path.read_bytes() for path in found}


def test_nothing_is_done_when_nothing_has_changed(project):
    done = report(project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_comment_and_a_time_limit_change_nothing(project):
    with project.competition.open("a") as file:
        file.write("\n# a comment\n")
    done = report(project, "TIME_LIMIT=1h")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_weights_of_a_smoke_run_are_no_weights_of_the_real_run(project):
    before = kept(project)
    done = project.make("finetune", f"RUN={RUN}", smoke="0")
    assert_refused(done, "pretrained.safetensors", "network=", "test_resnet", "make forget")
    assert kept(project) == before


def test_a_changed_recipe_is_refused_and_forget_lets_it_be_made(project):
    before = kept(project)
    text = project.competition.read_text()
    old = re.search(r"margin=[0-9.]+", text)[0]
    project.competition.write_text(text.replace(old, "margin=0.31"))
    done = report(project)
    command = f"make forget COMP=melanoma RUN={RUN} FOLDS=0 STAGE=finetune"
    assert_refused(done, "finetuned.safetensors", "finetune.margin", "0.31", command)
    assert kept(project) == before

    # The command that the error names lists what it removes, keeps stage 1, and lets make go on.
    for fold in ("0", "1"):
        done = project.make("forget", f"RUN={RUN}", f"FOLDS={fold}", "STAGE=finetune")
        assert done.returncode == 0 and "finetuned.safetensors" in done.stdout, done.stderr
        assert not project.file(f"home/models/melanoma/{RUN}/fold{fold}/predictions.csv").exists()
        assert project.file(
            f"home/models/melanoma/{RUN}/fold{fold}/pretrained.safetensors"
        ).exists()
    # The network on patient columns has the same margin, so it is forgotten too.
    done = project.make("forget", "RUN=metadata")
    assert done.returncode == 0, done.stderr
    done = report(project)
    assert done.returncode == 0, done.stderr
    header = read_header(project.file(f"{FOLD}/finetuned.safetensors"))
    assert header["run"]["finetune"]["margin"] == 0.31


def read_header(path: Path) -> dict:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["pipeline"])


def test_weights_of_another_fold_are_refused(project):
    shutil.copy(
        project.file(f"home/models/melanoma/{RUN}/fold1/pretrained.safetensors"),
        project.file(f"{FOLD}/pretrained.safetensors"),
    )
    assert_refused(report(project), "fold0/pretrained.safetensors", "target=", "fold1")


def test_weights_of_another_stage_are_refused(project):
    folder = project.file(f"home/models/melanoma/{RUN}/fold0")
    shutil.copy(folder / "finetuned.safetensors", folder / "pretrained.safetensors")
    assert_refused(report(project), "fold0/pretrained.safetensors", "holds the finetuned weights")


def test_predictions_of_weights_trained_again_are_made_again(project):
    """The fold's stage 2 is forgotten but not its predictions: they are of other weights now."""
    path = project.file(f"{FOLD}/predictions.csv")
    sidecar = project.file(f"{FOLD}/predictions.json")
    facts = read_json(sidecar)
    facts["weights"]["finetuned"] = "0" * 64
    write_sealed(sidecar, facts)
    before = path.read_bytes()
    done = project.make("predict", f"RUN={RUN}")
    assert done.returncode == 0 and "made with other weights" in done.stdout, done.stderr
    assert path.read_bytes() == before
    assert json.loads(sidecar.read_text())["weights"]["finetuned"] != "0" * 64


def test_another_number_of_views_is_refused(project):
    sidecar = project.file(f"{FOLD}/predictions.json")
    facts = read_json(sidecar)
    facts["run"]["views"] = 99
    write_sealed(sidecar, facts)
    assert_refused(report(project), "predictions.csv", "views=99", "STAGE=predict")


def test_an_edited_prediction_is_refused(project):
    path = project.file(f"{FOLD}/predictions.csv")
    table = pd.read_csv(path, dtype=str)
    table.loc[0, "melanoma" if "melanoma" in table else table.columns[-1]] = "0.5"
    table.to_csv(path, index=False)
    assert_refused(report(project), "predictions.csv", "differ from what was written")


def test_a_flipped_byte_in_the_weights_is_found_when_they_are_read(project):
    path = project.file(f"{FOLD}/finetuned.safetensors")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    for name in ("predictions.csv", "predictions.json"):
        project.file(f"{FOLD}/{name}").unlink()
    assert_refused(project.make("predict", f"RUN={RUN}"), "finetuned.safetensors", "data differ")


def test_an_edited_resize_does_not_let_old_weights_see_new_pixels(project):
    text = project.competition.read_text()
    project.competition.write_text(re.sub(r'fit="\w+"', 'fit="long"', text))
    before = project.file("home/data/melanoma/prepare.json").read_bytes()
    assert_refused(report(project), "safetensors", "fit='short'")
    assert project.file("home/data/melanoma/prepare.json").read_bytes() == before


def test_an_edited_blend_is_averaged_again(project):
    text = project.competition.read_text()
    new = 'Blend(metadata=0.1, method="rank")'
    project.competition.write_text(re.sub(r"Blend\([^)]*\)", new, text))
    before = kept(project)
    done = report(project)
    assert done.returncode == 0, done.stderr
    assert "ensemble.csv: made with configuration.blend" in done.stderr
    assert "submission.csv" in done.stderr and "report.html" in done.stderr
    facts = json.loads(project.file("home/models/melanoma/ensemble.json").read_text())
    assert facts["method"] == "rank" and kept(project) == before


def test_another_stage_of_a_run_remakes_what_is_cheap(project):
    """Stage 1's weights score the test images that they had left out; nothing is trained again."""
    text = project.competition.read_text()
    old = "accumulate=MICRO_BATCHES[size],"
    assert old in text
    project.competition.write_text(text.replace(old, f'{old} stage="both",'))
    before = kept(project)
    done = report(project)
    assert done.returncode == 0, done.stderr
    assert "stage='both' needs scores of the test images too" in done.stdout
    changed = {name for name, content in kept(project).items() if content != before[name]}
    assert {Path(name).name for name in changed} == {"predictions_pretrained.csv"}

    # Told in the log, the page and the lab book.
    facts = json.loads(project.file("home/models/melanoma/ensemble.json").read_text())
    assert facts["members"] == [f"{RUN}-pretrained", RUN, "metadata"]
    sentence = f"{RUN}: CE and AUC-M are averaged (stage='both')"
    assert sentence in done.stdout
    page = project.file("home/submissions/melanoma/report.html").read_text()
    assert sentence in html.unescape(page)
    assert "stage='both', CE and AUC-M" in project.file("home/submissions/LOG.md").read_text()
    assert report(project).stdout == ""

    # Back again: only the average and what is made of it.
    before = kept(project)
    project.competition.write_text(text)
    done = report(project)
    assert done.returncode == 0 and "made with" in done.stderr, done.stderr
    assert kept(project) == before
    facts = json.loads(project.file("home/models/melanoma/ensemble.json").read_text())
    assert facts["members"] == [RUN, "metadata"]


def test_one_fold_is_not_all_folds(project):
    assert report(project, "FOLDS=0").returncode == 0
    path = project.file("home/models/melanoma/ensemble.json")
    assert json.loads(path.read_text())["folds"] == [0]
    done = report(project)
    assert done.returncode == 0 and "folds" in done.stderr
    assert json.loads(path.read_text())["folds"] == [0, 1]


@pytest.mark.parametrize(
    "name",
    ["models/melanoma/scores.csv", "models/melanoma/ensemble.csv", "models/melanoma/ensemble.json"]
    + ["submissions/melanoma/submission.csv", "submissions/melanoma/report.html"],
)
def test_a_damaged_cheap_artifact_is_made_anew(project, name):
    path = project.file(f"home/{name}")
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    done = report(project)
    assert done.returncode == 0 and "making it anew" in done.stderr, done.stderr
    if name.endswith(".csv"):
        assert path.read_bytes() == before
    assert len(path.read_bytes()) > len(before) // 2


def test_another_number_of_folds_is_refused(project):
    assert_refused(report(project, "K=4"), "K=4", "2 folds already", "make clean-folds")


def test_a_file_that_git_does_not_have_is_marked(project):
    """The copy is no checkout: the commit is unknown; in one, an untracked file adds a '+'."""
    for command in (["init", "-q"], ["add", "-A", "pipeline"]):
        subprocess.run(["git", *command], cwd=project.folder, check=True)
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *name, "commit", "-qm", "x"], cwd=project.folder, check=True)
    asked = (
        "from pipeline.core.artifacts.provenance import commit, competition_file as f; "
        "print(commit()[40:], f('melanoma')['state'], f('new')['state'])"
    )

    def states() -> str:
        command = [sys.executable, "-c", asked]
        done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
        return done.stdout.strip()

    assert states() == "committed unknown"
    shutil.copy(project.competition, project.competition.with_name("new.py"))
    assert states() == "+ committed untracked"
    project.competition.write_text(project.competition.read_text() + "\n# more\n")
    assert states() == "+ changed untracked"


def test_smoke_and_synthetic_are_said_everywhere(project):
    page = project.file("home/submissions/melanoma/report.html").read_text()
    assert '<p class="notice" role="alert">SMOKE RUN, SYNTHETIC DATA</p>' in page
    assert set(pd.read_csv(project.file("home/models/melanoma/scores.csv"))["notice"]) == {
        "SMOKE RUN, SYNTHETIC DATA"
    }
    book = project.file("home/submissions/LOG.md").read_text()
    assert "SMOKE RUN, SYNTHETIC DATA" in book
    for name in ("models/melanoma/ensemble.json", "submissions/melanoma/submission.json"):
        facts = json.loads(project.file(f"home/{name}").read_text())
        assert facts["notice"] == "SMOKE RUN, SYNTHETIC DATA"
    assert "SYNTHETIC DATA" in read_header(project.file(f"{FOLD}/finetuned.safetensors"))["notice"]


def test_a_smoke_run_has_roots_of_its_own_by_default(tmp_path):
    asked = "from pipeline.core.artifacts.paths import root; print(*map(root, %r))"
    names = ("DATA", "MODELS", "SUBMISSIONS")
    plain = {key: value for key, value in os.environ.items() if key not in names}

    def roots(**variables: str) -> str:
        command = [sys.executable, "-c", asked % (names,)]
        done = subprocess.run(
            command, cwd=ROOT, env=plain | variables, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert roots(SMOKE="") == "data models submissions"
    assert roots(SMOKE="1") == "data models/smoke submissions/smoke"
    assert roots(SMOKE="1", MODELS=str(tmp_path)) == f"data {tmp_path} submissions/smoke"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["COMP=melanom"], ["melanom", "melanoma"]),
        (["COMP="], ["COMP is empty"]),
        (["COMP=melanoma chexpert"], ["names 2"]),
        (["RUN=b3_999"], ["b3_999", RUN]),
        (["FOLDS=0,1"], ["FOLDS='0,1'", 'FOLDS="0 1"']),
        (["FOLDS=7"], ["fold7", "0, 1"]),
        (["FOLDS=²"], ["FOLDS='²'"]),
        (["K=x"], ["K='x'"]),
        (["K=²"], ["K='²'"]),
        (["K=1"], ["K=1", "at least 2"]),
    ],
)
def test_mistakes_are_one_line_through_make(project, arguments, parts):
    command = ["make", f"PYTHON={sys.executable}", "report", "COMP=melanoma", f"RUN={RUN}"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert_refused(done, *parts)


def test_a_file_beside_the_page_that_has_changed_is_made_anew(project):
    folder = project.file("home/submissions/melanoma/report_files")
    path = sorted(folder.glob("*.csv"))[0]
    before = path.read_bytes()
    path.write_bytes(before + b"x")
    done = report(project)
    assert done.returncode == 0 and path.read_bytes() == before
    assert f"report_files/{path.name} has changed since it was made; making it anew" in done.stderr


def test_paths_with_spaces_work_everywhere(project):
    """A folder called `my home`: an up-to-date report, and `clean-folds`, which removes the folds
    and nothing else."""
    home = project.file("home")
    spaced = project.file("my home")
    home.rename(spaced)
    roots = {name: str(spaced / name.lower()) for name in ("DATA", "MODELS", "SUBMISSIONS")}
    environment = project.environment() | roots

    def make(*arguments: str) -> subprocess.CompletedProcess:
        command = ["make", f"PYTHON={sys.executable}", *arguments, "COMP=melanoma"]
        return subprocess.run(
            command,
            cwd=project.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    (project.file("my")).write_text("not to be removed")
    done = make("report", f"RUN={RUN}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    done = make("clean-folds")
    assert done.returncode == 0 and "folds.csv" in done.stdout
    assert not (spaced / "data/melanoma/folds.csv").exists()
    assert project.file("my").read_text() == "not to be removed"


def test_folds_need_images_csv_only(tmp_path):
    data = tmp_path / "data" / "melanoma"
    data.mkdir(parents=True)
    rows = [
        f"i{number},x.jpg,p{number},i{number},train,siim,{number % 4 == 0:d}"
        for number in range(40)
    ]
    head = "image_id,file,patient_id,unit_id,split,source,target"
    (data / "images.csv").write_text("\n".join([head, *rows]) + "\n")
    environment = os.environ | {"DATA": str(tmp_path / "data"), "SMOKE": ""}
    command = ["make", f"PYTHON={sys.executable}", "folds", "COMP=melanoma", "K=2"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (data / "folds.csv").is_file() and not (data / "prepare.json").exists()


def test_status_says_what_is_done_refused_interrupted_and_missing(project):
    done = project.make("status", f"RUN={RUN}")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 done" in done.stdout

    # Fold 0 lost its stage 2 half-way; fold 1's margin was edited afterwards.
    folder = project.file(FOLD)
    (folder / "finetuned.safetensors").rename(folder / "finetuned.checkpoint.safetensors")
    (folder / "predictions.csv").unlink()
    text = project.competition.read_text()
    project.competition.write_text(text.replace("margin=0.8", "margin=0.7"))
    lines = project.make("status", f"RUN={RUN}").stdout.splitlines()
    first = next(line for line in lines if line.startswith(f"{RUN}/fold0"))
    second = next(line for line in lines if line.startswith(f"{RUN}/fold1"))
    assert re.search(r"done \.\d{4} +interrupted +missing", first)
    assert re.search(r"done \.\d{4} +refused", second)
    assert any("margin" in line for line in lines)
