"""What a package holds: which networks, in which order, which code; and what it refuses."""

import json
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import pipeline.competitions
from pipeline.core.artifacts.files import write_json
from pipeline.core.artifacts.paths import FINETUNED
from pipeline.core.artifacts.provenance import data_digest, table_hashes
from pipeline.core.config.competition import load_competition
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job
from pipeline.core.runs.missing import ensemble_facts, request_for
from pipeline.core.runtime.errors import UserError
from pipeline.deploy import codalab, kaggle
from pipeline.deploy.away.stream import read_package, require_packed
from pipeline.deploy.package import modules, require_contents, write_package
from tests.cases.imports import MODULES, ROOT, reached

COMPETITION = '''
"""Two findings."""
from pipeline.core.config import Blend, Finetune, Metadata, Pretrain, Run, Submission, Task

task = Task(title="Findings", labels=("a", "b"), numeric=("{column}",), slug="findings-2026")
recipe = dict(network="none", size=32, pretrain=Pretrain(lr=1e-3), finetune=Finetune())
runs = tuple(Run(named=name, **recipe) for name in ("x", "y", "twin"))
metadata = Metadata()
blend = Blend()
submission = Submission(file="submission.csv", id_column="id", columns={{"a": "A", "b": "B"}})
read_raw = sample = None
'''
MEMBERS = ("x", "y", "twin", "metadata")


def write_weights(name: str, fold: int) -> None:
    """A weights file that records what today's configuration decides."""
    competition = load_competition("findings")
    run = competition.metadata if name == "metadata" else competition.run(name)
    job = Job(competition, run, fold)
    path = job.folder / FINETUNED
    tensors = {"w": np.zeros(3, np.float32)}
    save_file(tensors, path)
    header = {**facts_of(job, FINETUNED), "digest": data_digest(path)}
    save_file(tensors, path, {"pipeline": json.dumps(header)})


@pytest.fixture
def house(tmp_path, monkeypatch):
    """An ensemble of four members over two folds, one a near-duplicate of weight 0."""
    for name in ("DATA", "MODELS", "SUBMISSIONS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "findings.py").write_text(COMPETITION.format(column="age"))
    monkeypatch.setattr(
        pipeline.competitions, "__path__", [*pipeline.competitions.__path__, str(tmp_path)]
    )
    data = tmp_path / "data/findings"
    models = tmp_path / "models/findings"
    data.mkdir(parents=True)
    pd.DataFrame(
        {
            "image_id": ["i", "j", "k", "t"],
            "patient_id": ["p", "p", "q", "t"],
            "split": ["train"] * 3 + ["test"],
            "a": [1, 0, 0, None],
            "b": [1, 1, 0, None],
        }
    ).to_csv(data / "images.csv", index=False)
    (data / "folds.csv").write_text("patient_id,fold\np,0\nq,1\n")
    hashes = table_hashes("findings")
    for name in MEMBERS:
        for fold in (0, 1):
            (models / name / f"fold{fold}").mkdir(parents=True)
            write_weights(name, fold)
    weights = {"x": {"a": 0.5, "b": 0.5}, "y": {"a": 0.5, "b": 0.5}, "twin": {"a": 0.0, "b": 0.0}}
    write_json(
        models / "ensemble.json",
        {
            "members": list(MEMBERS),
            "runs": [name for name in MEMBERS if name != "metadata"],
            "stages": {},
            "folds": [0, 1],
            "labels": ["a", "b"],
            "method": "mean",
            "metadata": 0.5,
            "weights": weights,
            "hashes": hashes,
            "predictions": dict.fromkeys(MEMBERS),
            "decided_by": ensemble_facts(
                request_for(load_competition("findings"), MEMBERS, (0, 1))
            ),
        },
    )
    (models / "quantiles.json").write_text("{}")
    rows = [
        (name, stage, label, auc)
        for name, auc in (("x", 0.8), ("y", 0.9), ("twin", 0.7), ("metadata", 0.6))
        for stage in ("CE", "AUC-M")
        for label in ("a", "b", "mean")
    ]
    pd.DataFrame(rows, columns=["member", "stage", "label", "auc"]).to_csv(
        models / "scores.csv", index=False
    )
    yield tmp_path
    sys.modules.pop("pipeline.competitions.findings", None)


def test_networks_are_listed_in_order_of_value_and_those_of_no_weight_stay(house):
    package = write_package(load_competition("findings"), house / "out", zipped=True)
    assert [one["file"] for one in package["networks"]] == [
        "y-fold0.safetensors",
        "x-fold0.safetensors",
        "y-fold1.safetensors",
        "x-fold1.safetensors",
        "metadata-fold0.safetensors",
        "metadata-fold1.safetensors",
    ]
    assert sorted(path.name for path in (house / "out").iterdir()) == sorted(
        [one["file"] for one in package["networks"]]
        + ["code.zip", "package.json", "quantiles.json"]
    )
    assert package["prior"] == pytest.approx({"a": 1 / 3, "b": 2 / 3}, abs=1e-6)
    assert package["resize"]["fit"] == "square" and package["columns"] == {"a": "A", "b": "B"}
    with zipfile.ZipFile(house / "out/code.zip") as archive:
        assert "pipeline/deploy/away/kaggle.py" in archive.namelist()


@pytest.mark.parametrize("place", [0.5, 0.999])
def test_a_file_that_is_not_the_one_packed_is_named(house, place):
    package = write_package(load_competition("findings"), house / "out", zipped=True)
    for entry in package["networks"]:
        path = house / "out" / entry["file"]
        require_packed(path, entry)
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match="not the file that was packed: its sha256 is"):
            require_packed(path, entry)
        path.unlink()
        with pytest.raises(UserError, match=r"and package\.json names it"):
            require_packed(path, entry)


def test_a_package_json_that_was_changed_is_named(house):
    write_package(load_competition("findings"), house / "out", zipped=True)
    path = house / "out/package.json"
    path.write_text(path.read_text().replace('"fold": 1', '"fold": 0'))
    with pytest.raises(UserError, match=r"package\.json: differs from what was written"):
        read_package(house / "out")


def test_every_file_of_what_is_sent_is_held_against_what_was_written(house):
    kaggle.main(kaggle.parser().parse_args(["findings", "--owner", "me", "--licence", "other"]))
    folder = house / "submissions/findings/kaggle"
    require_contents(folder, "make kaggle")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in paths}
    assert {"code.zip", "package.json", "notebook.ipynb", "dataset-metadata.json"} <= names
    for path in paths:
        before = path.read_bytes()
        for place in (0, len(before) // 2, len(before) - 1):
            changed = bytearray(before)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(UserError, match=path.name):
                require_contents(folder, "make kaggle")
        path.write_bytes(before)
    (folder / "predict/notebook.ipynb").unlink()
    with pytest.raises(UserError, match=r"notebook\.ipynb: differs .* `make kaggle` makes it"):
        require_contents(folder, "make kaggle")
    (folder / "contents.json").unlink()
    require_contents(folder, "make kaggle")  # the user's own changes


def test_the_code_that_travels_is_what_may_run_there():
    names = set(modules("melanoma"))
    assert {
        "pipeline/competitions/melanoma.py",
        "pipeline/competitions/__init__.py",
        "pipeline/core/ensemble/averages.py",
        "pipeline/deploy/away/kaggle.py",
        "pipeline/finetune.py",
    } <= names
    at_home = ("pipeline/paper/", "pipeline/demo/", "pipeline/deploy/rehearsal/")
    assert not any(name.startswith(at_home) for name in names)
    assert "pipeline/competitions/chexpert.py" not in names


def test_the_code_that_travels_imports_nothing_that_stays():
    names = set(modules("melanoma"))
    starts = [name.removesuffix(".py").replace("/", ".") for name in names]
    project = {MODULES[name] for name in reached(starts) if name in MODULES}
    assert {path.relative_to(ROOT).as_posix() for path in project} <= names


def test_the_same_package_twice_is_the_same_bytes(house):
    for name in ("one", "two"):
        write_package(load_competition("findings"), house / name, zipped=True)
    for path in (house / "one").iterdir():
        assert path.read_bytes() == (house / "two" / path.name).read_bytes(), path.name


def test_weights_of_other_tables_do_not_travel(house):
    path = house / "data/findings/images.csv"
    path.write_text(path.read_text() + "u,p,test,,\n")
    with pytest.raises(UserError, match=r"made from another images\.csv"):
        write_package(load_competition("findings"), house / "out", zipped=True)
    assert not (house / "out").exists()


def test_patient_columns_that_only_prepare_knows_are_refused(house):
    sys.modules.pop("pipeline.competitions.findings")
    (house / "findings.py").write_text(COMPETITION.format(column="width"))
    with pytest.raises(UserError, match="'width' is measured by `prepare`"):
        write_package(load_competition("findings"), house / "out", zipped=True)


def test_the_kaggle_folder(house):
    kaggle.main(
        kaggle.parser().parse_args(
            ["findings", "--owner", "me", "--licence", "other", "--time-limit", "30m"]
        )
    )
    folder = house / "submissions/findings/kaggle"
    metadata = json.loads((folder / "dataset/dataset-metadata.json").read_text())
    assert metadata["id"] == "me/findings-package"
    metadata = json.loads((folder / "predict/kernel-metadata.json").read_text())
    assert metadata["enable_internet"] is False
    assert metadata["dataset_sources"] == ["me/findings-package"]
    assert "HOURS = 0.5" in (folder / "predict/notebook.ipynb").read_text()
    assert not (folder / "train").exists()
    # Kaggle's client would leave folders out.
    assert not any(path.is_dir() for path in (folder / "dataset").iterdir())


def test_training_notebooks_need_no_ensemble(house):
    (house / "models/findings/ensemble.json").unlink()
    with pytest.raises(UserError, match="make ensemble COMP=findings"):
        kaggle.main(kaggle.parser().parse_args(["findings", "--owner", "me", "--licence", "other"]))
    kaggle.main(
        kaggle.parser().parse_args(
            ["findings", "--owner", "me", "--licence", "other", "--train", "findings"]
        )
    )
    folder = house / "submissions/findings/kaggle"
    assert json.loads((folder / "dataset/package.json").read_text())["networks"] == []
    assert (folder / "train/notebook.ipynb").is_file() and not (folder / "predict").exists()


def test_a_bundle_is_for_studies(house):
    assert house.is_dir()
    with pytest.raises(UserError, match="scores images"):
        codalab.main(codalab.parser().parse_args(["findings"]))
