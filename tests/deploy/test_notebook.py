"""Notebooks and metadata, held against Kaggle's own client and nbformat; the cells, run where
things fail."""

import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from kaggle.api.kaggle_api_extended import KaggleApi
from requests.exceptions import HTTPError

from pipeline.core.artifacts.files import read_json, write_sealed
from pipeline.core.runtime.errors import UserError
from pipeline.deploy import notebook
from pipeline.deploy.kaggle import SCRIPTS, write_kernel
from pipeline.deploy.wheels import repack

SLUG = "findings-2026"


@pytest.fixture
def client(monkeypatch):
    """Kaggle's client with everything but the network: what it would upload and save is kept in its
    `seen`."""
    api = KaggleApi()
    api.config_values = {"username": "me"}
    api.seen = {}

    def save(request):
        api.seen["kernel"] = request
        return SimpleNamespace(error="")

    @contextmanager
    def build_kaggle_client():
        datasets = SimpleNamespace(
            create_dataset=lambda request: SimpleNamespace(error="", request=request)
        )
        yield SimpleNamespace(
            kernels=SimpleNamespace(kernels_api_client=SimpleNamespace(save_kernel=save)),
            datasets=SimpleNamespace(dataset_api_client=datasets),
        )

    def upload_blob(path, *_):
        api.seen.setdefault("files", []).append(Path(path).name)
        return "token"

    def no_such_dataset(_reference):
        raise HTTPError("404")

    monkeypatch.setattr(api, "build_kaggle_client", build_kaggle_client)
    monkeypatch.setattr(api, "_upload_blob", upload_blob)
    monkeypatch.setattr(api, "dataset_status", no_such_dataset)
    return api


@pytest.mark.parametrize("script", ["notebook_predict.py", "notebook_train.py"])
def test_the_client_pushes_the_kernel_as_it_is(tmp_path, client, capsys, script):
    metadata = notebook.kernel_metadata(
        "me", "melanoma predict", SLUG, "me/melanoma-package", ("me/melanoma-train",)
    )
    write_kernel(tmp_path, script, {"SLUG": SLUG, "HOURS": 8.5}, metadata)
    client.kernels_push(str(tmp_path))
    request = client.seen["kernel"]
    # The client's warning about titles and ids that do not go together.
    assert "does not resolve" not in capsys.readouterr().out
    assert (request.slug, request.new_title) == ("me/melanoma-predict", "melanoma predict")
    assert request.enable_internet is False
    assert request.is_private is True
    assert request.enable_gpu is True
    assert request.dataset_data_sources == ["me/melanoma-package"]
    assert request.competition_data_sources == [SLUG]
    assert f"SLUG = '{SLUG}'" in request.text
    nbformat.validate(nbformat.read(tmp_path / "notebook.ipynb", as_version=4))


def dataset(
    title: str = "melanoma package",
    subtitle: str = "Networks and code for melanoma",
    licence: str = "apache-2.0",
) -> dict:
    return notebook.dataset_metadata("me", title, subtitle, licence, {"timm": "Apache-2.0"})


def test_the_client_creates_the_dataset_and_skips_nothing(tmp_path, client, capsys):
    metadata = dataset("melanoma package", "Networks and code for melanoma")
    (tmp_path / "dataset-metadata.json").write_text(json.dumps(metadata))
    for name in ("package.json", "code.zip", "b5_384-fold0.safetensors"):
        (tmp_path / name).write_text("x")
    result = client.dataset_create_new(str(tmp_path))
    assert result.error is None
    assert result.request.slug == "melanoma-package"
    assert result.request.is_private
    assert sorted(client.seen["files"]) == ["b5_384-fold0.safetensors", "code.zip", "package.json"]
    assert "Skipping" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "call, part",
    [
        (lambda: notebook.kernel_metadata("me", "m p", SLUG, "me/melanoma-package"), "5 to 50"),
        (lambda: notebook.kernel_metadata("me", "m" * 51, SLUG, "me/melanoma-package"), "5 to 50"),
        (
            lambda: notebook.kernel_metadata(
                "My Name", "melanoma predict", SLUG, "me/melanoma-package"
            ),
            "not a Kaggle user name",
        ),
        (
            lambda: dataset("m pac", "Networks and code for melanoma"),
            "6 to 50",
        ),
        (lambda: dataset("melanoma package", "too short"), "20 to 80"),
        (lambda: dataset(licence="CC0-1.0"), "apache-2.0, .*public domain"),
        (lambda: dataset(licence=""), "LICENCE='' is none of apache-2.0"),
    ],
)
def test_what_kaggle_refuses_is_refused_here(call, part):
    with pytest.raises(UserError, match=part):
        call()


def test_slugs_are_the_clients():
    from slugify import slugify

    for title in ("melanoma package", "ISIC 2024: predict!", "a_b  c--d", " x "):
        assert notebook.slug(title) == slugify(title)


# ---- the cells of the predicting notebook, as a program ----

GOOD = "import shutil, sys; shutil.copy(sys.argv[2] + '/answer.csv', sys.argv[3])"
IDS = ["0015719", "b", "c"]


def lay_out(
    root: Path, program: str, zipped: bool, rows: list[str] | None = None, **changes
) -> None:
    """Mounts with a sample, an answer, and a package whose code is `program`."""
    rows = IDS if rows is None else rows
    raw = root / "input" / "competitions" / SLUG
    package = root / "input" / "datasets" / "me" / "findings-package"
    raw.mkdir(parents=True)
    package.mkdir(parents=True)
    pd.DataFrame({"id": rows, "A": 0}).to_csv(raw / "sample_submission.csv", index=False)
    answer = pd.DataFrame({"id": rows, "A": [0.1 * number for number in range(len(rows))]})
    answer.to_csv(raw / "answer.csv", index=False)
    contents = {
        "competition": "findings",
        "file": "submission.csv",
        "id_column": "id",
        "columns": {"a": "A"},
        "prior": {"a": 0.25},
        "wheels": {},
        **changes,
    }
    (package / "package.json").write_text(json.dumps(contents))
    code = {
        "pipeline/__init__.py": "",
        "pipeline/deploy/__init__.py": "",
        "pipeline/deploy/away/kaggle.py": program,
    }
    if zipped:
        with zipfile.ZipFile(package / "code.zip", "w") as archive:
            for name, text in code.items():
                archive.writestr(name, text)
    else:
        for name, text in code.items():
            (package / "code" / name).parent.mkdir(parents=True, exist_ok=True)
            (package / "code" / name).write_text(text)


def run_cells(root: Path, hours: float = 1.0) -> tuple[pd.DataFrame, str]:
    """The submission that the notebook's cells leave, and what they printed."""
    settings = {"SLUG": SLUG, "PACKAGE": "findings", "HOURS": hours}
    book = notebook.notebook(SCRIPTS / "notebook_predict.py", settings)
    cells = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]
    script = root / "cells.py"
    script.write_text("\n\n".join(cells))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "KAGGLE_ROOT": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return pd.read_csv(root / "working" / "submission.csv", dtype={"id": "str"}), done.stdout


@pytest.mark.parametrize("zipped", [True, False])
def test_the_notebook_takes_what_the_program_wrote(tmp_path, zipped):
    lay_out(tmp_path, GOOD, zipped)
    table, said = run_cells(tmp_path)
    assert table["id"].tolist() == IDS and table["A"].tolist() == [0.0, 0.1, 0.2]
    assert "ended with status 0" in said


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(2)",
        "import os; os.kill(os.getpid(), 9)",
        "import a_package_that_is_not_there",
        GOOD.replace("answer", "sample_submission") + "; open(sys.argv[3], 'a').write('d,nan\\n')",
        "import sys; open(sys.argv[3], 'w').write('id,A\\nb,0.5\\n')",
        "import sys; open(sys.argv[3], 'w').write('id,A\\n0015719,0.5\\nb,\\nc,inf\\n')",
        "import sys; open(sys.argv[3], 'w').write('')",
        "import os, sys; os.remove(sys.argv[3])",
        "import sys; open(sys.argv[3], 'wb').write(b'\\xff\\xfe')",
    ],
)
def test_a_failing_program_leaves_the_fallback(tmp_path, program):
    lay_out(tmp_path, program, zipped=False)
    table, _ = run_cells(tmp_path)
    assert table["id"].tolist() == IDS and table["A"].tolist() == [0.25] * 3


def test_a_program_that_hangs_is_ended_in_time(tmp_path):
    lay_out(tmp_path, GOOD + "\nimport time; time.sleep(60)", zipped=False)
    table, said = run_cells(tmp_path, hours=1.5 / 3600)
    assert table["A"].tolist() == [0.0, 0.1, 0.2] and "status -9" in said


def test_packages_that_are_missing_or_too_old_come_from_the_dataset(tmp_path):
    """Only they are asked of pip; what the program imports is then the dataset's."""
    wheels = {
        "tqdm": "tqdm",
        "iterstrat": "iterative-stratification>=99",
        "nothing": "nothing-like-it",
    }
    lay_out(tmp_path, GOOD, zipped=False, wheels=wheels)
    _, said = run_cells(tmp_path)
    assert "pip install iterative-stratification>=99 nothing-like-it: status 1" in said
    assert "status 0" in said
    repack("tqdm", tmp_path / "input/datasets/me/findings-package")
    package = tmp_path / "input/datasets/me/findings-package/package.json"
    contents = read_json(package) | {"wheels": {"a_module_of_tqdm": "tqdm"}}
    write_sealed(package, contents)
    program = tmp_path / "input/datasets/me/findings-package/code/pipeline/deploy/away/kaggle.py"
    program.write_text("import tqdm; print('tqdm at', tqdm.__file__)\n" + GOOD)
    _, said = run_cells(tmp_path)
    assert "pip install tqdm: status 0" in said and "site/tqdm/__init__.py" in said


def test_no_rows_to_predict(tmp_path):
    lay_out(tmp_path, "raise SystemExit(2)", zipped=False, rows=[])
    assert (run_cells(tmp_path)[0].columns == ["id", "A"]).all()


def test_the_mounts_are_found_where_they_used_to_be(tmp_path):
    lay_out(tmp_path, GOOD, zipped=False)
    inputs = tmp_path / "input"
    (inputs / "competitions" / SLUG).rename(inputs / SLUG)
    (inputs / "datasets" / "me" / "findings-package").rename(inputs / "findings-package")
    assert "status 0" in run_cells(tmp_path)[1]


def test_many_images_in_a_folder_do_not_hide_the_mounts(tmp_path):
    lay_out(tmp_path, GOOD, zipped=False)
    images = tmp_path / "input" / "another-data-set"
    images.mkdir()
    for number in range(2100):
        (images / f"{number}.jpg").touch()
    assert "status 0" in run_cells(tmp_path)[1]


def test_nothing_in_a_notebook_reaches_out():
    for script in SCRIPTS.glob("notebook_*.py"):
        assert not re.search(
            r"https?://|pip install(?! \{)|!pip|requests|urllib", script.read_text()
        ), script
