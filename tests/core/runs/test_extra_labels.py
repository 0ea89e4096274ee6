"""What stage 1 is taught: labels, weights and test rows of a file, auxiliary columns, and what a
user may get wrong in them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.provenance import write_sidecar
from pipeline.core.config.run import Auxiliary, Finetune, Pretrain, Run, as_json, from_json
from pipeline.core.config.task import Task
from pipeline.core.runs.extra_labels import extra_tables, lesson
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError

RUN = Run(
    network="n", size=32, pretrain=Pretrain(lr=1.0, labels_file="own.csv"), finetune=Finetune()
)
PLAIN = replace(RUN, pretrain=Pretrain(lr=1.0))
TASK = Task(title="t", labels=("y", "z"), blank="negative")
IMAGES = pd.DataFrame(
    {
        "image_id": list("abcdtuv"),
        "patient_id": list("abcdtua"),  # the test image v is of the patient of a
        "split": ["train"] * 4 + ["test"] * 3,
        "y": [1, 0, 0, 1, np.nan, np.nan, np.nan],
        "z": [0, 1, np.nan, 0, np.nan, np.nan, np.nan],
        "kind": ["red", "green", "red", None, "green", None, None],
    }
)
FOLDS = pd.DataFrame({"patient_id": list("abcd"), "fold": [0, 1, 1, -1]})
DROPPED = pd.DataFrame({"image_id": [], "reason": [], "twin": []}, dtype="str")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A function run, fold -> its job; `own.csv` may be written in `folder`."""
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "comp"
    (folder / "raw").mkdir(parents=True)
    tables = SimpleNamespace(images=IMAGES, folds=FOLDS, dropped=DROPPED)
    monkeypatch.setattr(Job, "tables", property(lambda _: tables))
    module = SimpleNamespace(
        auxiliary=lambda _: pd.DataFrame({"image_id": list("abcd"), "depth": [1, 0, -1, None]})
    )
    labels = lambda run: tuple(label for label in TASK.labels)  # noqa: E731, ARG005
    competition = SimpleNamespace(name="comp", task=TASK, labels=labels, module=module)

    def make(run: Run, fold: int = 0, file: str = "") -> Job:
        if file:
            (folder / "own.csv").write_text(file)
        return Job(competition, run, fold)

    make.folder = folder
    return make


def test_without_a_file_it_is_the_training_rows(job):
    taught = lesson(job(PLAIN), 0)
    assert list(taught.rows["image_id"]) == ["b", "c", "d"]
    np.testing.assert_array_equal(taught.labels, [[0, 1], [0, 0], [1, 0]])
    assert taught.weights is None and taught.auxiliary.shape == (3, 0) and taught.notes == ()
    assert extra_tables(job(PLAIN)) == {}


def test_a_file_gives_soft_labels_weights_and_test_rows(job):
    file = "image_id,y,weight,fold\nb,0.3,0.5,\nd,,2,\nt,0.9,0.25,0\nt,0.1,0.25,1\nv,1,1,0\n"
    taught = lesson(job(RUN, 0, file), 0)
    # v is of a patient whom fold 0 validates; t has a row for each fold.
    assert list(taught.rows["image_id"]) == ["b", "c", "d", "t"]
    expected = [[0.3, 1], [0, 0], [1, 0], [0.9, np.nan]]
    np.testing.assert_allclose(taught.labels, expected, rtol=1e-6)
    np.testing.assert_allclose(taught.weights, np.repeat([[0.5], [1], [2], [0.25]], 2, 1))
    assert "labels or weights for 2 training images; 1 test images train" in taught.notes[0]
    assert len(taught.notes) == 1
    assert lesson(job(RUN, 1), 0).labels[-1, 0] == np.float32(0.1)


def test_test_rows_for_every_fold_are_warned_of(job):
    notes = lesson(job(RUN, 0, "image_id,y\nt,0.9\n"), 0).notes
    assert "WARNING" in notes[1] and "would flatter" in notes[1]
    assert len(lesson(job(RUN, 0, "image_id,y\nb,0.9\n"), 0).notes) == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("image_id,y\nb,1.5\n", r"own\.csv: row 2, column y: '1\.5' is not from 0 to 1"),
        ("image_id,y\nc,1\nb,yes\n", r"row 3, column y: 'yes'"),
        ("image_id,weight\nb,-1\n", "row 2, column weight: '-1' is not 0 or more"),
        ("image_id,weight\nb,inf\n", "column weight"),
        ("image_id,y\nq,1\n", "row 2, column image_id: 'q' is not in images.csv"),
        ("image_id,y\nb,1\nb,0\n", "row 3, column image_id: 'b' is there twice"),
        ("name,y\nb,1\n", "the column 'image_id' is missing"),
    ],
)
def test_a_wrong_cell_is_named(job, file, message):
    with pytest.raises(UserError, match=message):
        lesson(job(RUN, 0, file), 0)


def test_the_digest_of_the_file_is_a_fact(job):
    assert extra_tables(job(RUN)) == {"labels_file": ""}
    first = extra_tables(job(RUN, 0, "image_id,y\nb,1\n"))["labels_file"]
    assert first and first != extra_tables(job(RUN, 0, "image_id,y\nb,0\n"))["labels_file"]
    with pytest.raises(UserError, match="there is no such file"):
        (job.folder / "own.csv").unlink()
        lesson(job(RUN), 0)


def test_auxiliary_columns_are_classes_or_labels(job):
    kind = Auxiliary(column="kind", classes=("green", "red"))
    run = replace(PLAIN, auxiliary=(kind, Auxiliary(column="depth")))
    taught = lesson(job(run, -9), 0)  # a fold that validates nobody
    expected = [[0, 1, 1], [1, 0, 0], [0, 1, np.nan], [np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(taught.auxiliary, expected)
    # `depth` is the competition's own: written once, and a fact from then on.
    assert extra_tables(job(run))["auxiliary_table"]
    assert (job.folder / "auxiliary.csv").is_file()
    assert from_json(Run, as_json(run)) == run
    # Any byte of it changed is told.
    path = job.folder / "auxiliary.csv"
    path.write_bytes(path.read_bytes().replace(b"-1", b"+1"))
    with pytest.raises(UserError, match=r"auxiliary\.csv: differs from what was written"):
        lesson(job(run, -9), 0)


def test_labels_that_a_stage_wrote_must_be_as_it_wrote_them(job):
    path = job.folder / "own.csv"
    path.write_text("image_id,y,weight\nb,1,0.5\n")
    write_sidecar(path, "comp")
    assert lesson(job(RUN), 0).weights.min() == 0.5
    path.write_text("image_id,y,weight\nb,1,0.7\n")
    with pytest.raises(UserError, match=r"delete own\.json where the change is yours"):
        lesson(job(RUN), 0)
    path.with_suffix(".json").unlink()
    assert lesson(job(RUN), 0).weights.min() == np.float32(0.7)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Auxiliary(column="kind", classes=("green", "reed")), "no training row is of class 'reed'"),
        (Auxiliary(column="kind"), "'red' is not 0, 1, -1 or blank"),
        (Auxiliary(column="width"), "the column 'width' is missing; there are depth"),
    ],
)
def test_a_wrong_auxiliary_column_is_named(job, one, message):
    with pytest.raises(UserError, match=message):
        lesson(job(replace(PLAIN, auxiliary=(one,)), -9), 0)


def test_wrong_values_of_the_fields_are_named():
    with pytest.raises(UserError, match="not the name of a"):
        Pretrain(lr=1.0, labels_file="../own.csv")
    with pytest.raises(UserError, match="none or two or more"):
        Auxiliary(column="kind", classes=("red",))
    with pytest.raises(UserError, match="negatives=-1"):
        Pretrain(lr=1.0, negatives=-1)
