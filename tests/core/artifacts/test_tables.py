"""Ids are strings: whatever an id looks like, every reader gives it back as it was written."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import submit
from pipeline.core.artifacts import tables
from pipeline.core.config.competition import load_competition
from pipeline.core.folds import audit
from pipeline.core.folds.groups import check_patients
from pipeline.core.folds.import_map import read_map
from pipeline.core.raw import optional_ids, read_table
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission import truth
from pipeline.member import read_member_table as read_member
from tests.cases.synthetic_images import TASK, made, twelve

# Words that readers of tables take for blank, numbers or truth values.
WORDS = ("NA", "N/A", "nan", "NaN", "None", "null", "NULL", "#N/A", "<NA>", "n/a", "-nan")
WORDS += ("inf", "1e5", "0012", "12", "1.0", "True", "false", "2020-01-01", "-", "0x1F", "1_000")


def written(folder, column: str = "image_id", **columns):
    """A CSV whose ids are WORDS."""
    path = folder / "ids.csv"
    pd.DataFrame({column: WORDS, **columns}).to_csv(path, index=False)
    return path


def test_every_reader_keeps_every_id(tmp_path):
    melanoma = load_competition("melanoma")
    read = {
        "artifact": tables.read_csv(written(tmp_path))["image_id"],
        "raw": read_table(tmp_path, written(tmp_path).name)["image_id"],
        "optional": optional_ids(read_table(tmp_path, written(tmp_path).name), "image_id"),
        "map": read_map(written(tmp_path, fold=0))[2]["image_id"],
        "member": read_member(written(tmp_path), melanoma)[0]["image_id"],
        "truth": truth.read_truth_table(written(tmp_path, "image_name"), (), "image_name")[
            "image_name"
        ],
        "sample": submit.asked(melanoma, written(tmp_path, "image_name"))["image_name"],
    }
    for reader, ids in read.items():
        assert list(ids) == list(WORDS), reader


def test_the_tables_of_stages_keep_ids_and_names(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    (tmp_path / "made").mkdir()
    images = dict.fromkeys(("image_id", "patient_id", "unit_id", "lesion_id"), WORDS)
    tables.write_csv(tmp_path / "made/images.csv", pd.DataFrame({**images, "split": "train"}))
    tables.write_csv(tmp_path / "made/folds.csv", pd.DataFrame({"patient_id": WORDS, "fold": 0}))
    for name in images:
        assert list(tables.read_images("made")[name]) == list(WORDS)
    assert list(tables.read_folds("made")["patient_id"]) == list(WORDS)
    scores = pd.DataFrame(dict.fromkeys(tables.SCORE_NAMES, WORDS))
    tables.write_csv(tmp_path / "scores.csv", scores.assign(auc=0.5))
    back = tables.read_csv(tmp_path / "scores.csv", ids=tables.SCORE_NAMES)
    assert all(list(back[name]) == list(WORDS) for name in tables.SCORE_NAMES)


# What a CSV cannot hold is left out: NUL, half of a surrogate pair, and lone carriage returns.
ids = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), min_size=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(WORDS), ids), min_size=1, unique=True))
def test_ids_come_back_as_they_were_written(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("ids") / "ids.csv"
    table = pd.DataFrame({"patient_id": values, "target": np.arange(len(values)) / 7})
    tables.write_csv(path, table)
    back = tables.read_csv(path)
    assert list(back["patient_id"]) == values
    assert np.allclose(back["target"], table["target"])


PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": lambda data: zipped(data),
}


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", data)
    return file.getvalue()


@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_table_is_read_bounded_or_told(tmp_path, monkeypatch, ending):
    text = "image_id,x\n" + "".join(f"{n},{n * 7919 % 1009}\n" for n in range(2000))
    path = tmp_path / f"t.csv{ending}"
    whole = PACKED[ending](text.encode())
    path.write_bytes(whole)
    assert list(tables.read_csv(path)["image_id"]) == [str(n) for n in range(2000)]
    for damaged in (whole[: len(whole) // 2], whole[:300] + bytes(300) + whole[600:], b"", b"x"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"t\.csv\.\w+: this is not a CSV file"):
            tables.read_csv(path)
    # A bomb: a thousandth of what it unpacks to.
    monkeypatch.setattr(tables, "LARGEST_TABLE", 1 << 22)
    path.write_bytes(PACKED[ending](b"image_id\n" + b"a\n" * (1 << 22)))
    with pytest.raises(UserError, match=r"too large for a table: [58],.* bytes unpacked"):
        tables.read_csv(path)


def test_an_empty_cell_is_blank_and_numbers_may_say_so_in_words(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_id,age\n,1\nb,NA\nc,nan\nd,\n")
    table = tables.read_csv(path)
    assert table["image_id"].isna().tolist() == [True, False, False, False]
    assert table["age"].isna().tolist() == [False, True, True, True]


def test_a_patient_called_na_stays_in_one_fold(tmp_path, monkeypatch):
    """The leak that was: three images of patient `NA`, read as three patients without a name."""
    monkeypatch.setenv("DATA", str(tmp_path))
    (tmp_path / "melanoma").mkdir()
    images = pd.concat([twelve(), twelve().iloc[:3].assign(image_id=["x", "y", "z"])])
    images.loc[images["image_id"].isin(["x", "y", "z"]), "patient_id"] = "NA"
    images.loc[images["image_id"].isin(["x", "y", "z"]), "phash"] = ["0" * 16, "f" * 16, "9" * 16]
    path = tmp_path / "melanoma/images.csv"
    images.to_csv(path, index=False)
    task = replace(TASK, patient_missing="own_group")
    read = tables.read_images("melanoma")
    check_patients(path, read, task)
    folds, _, _ = made(read, task, folds=3)
    assert (folds["patient_id"] == "NA").sum() == 1
    audit.require_whole_patients(path, read, folds)


def test_the_audit_finds_a_patient_that_a_reader_took_apart(tmp_path):
    path = tmp_path / "images.csv"
    images = twelve().reset_index(drop=True)
    images.loc[:5, "patient_id"] = "NA"
    images.to_csv(path, index=False)
    careless = pd.read_csv(path)  # `NA` becomes blank, so that each image is a patient
    task = replace(TASK, patient_missing="own_group")
    folds, dropped, _ = made(careless, task, folds=3)
    assert audit.find_leaks(path, careless, folds, dropped, task) == []  # the table itself hides it
    with pytest.raises(UserError, match="patient 'NA' is in folds 0, 1, 2"):
        audit.require_whole_patients(path, careless, folds)


@pytest.mark.parametrize(
    "column, value",
    [("width", "torso"), ("height", "0"), ("brightness", "inf"), ("width", "1e+99")],
)
def test_a_measure_that_is_none_is_named(tmp_path, monkeypatch, column, value):
    monkeypatch.setenv("DATA", str(tmp_path))
    table = twelve().astype({"image_id": str}).assign(width=8, height=8, brightness=0.5)
    path = tmp_path / "melanoma/images.csv"
    tables.write_csv(path, table)
    assert len(tables.read_images("melanoma")) == len(table)
    cells = table[column].astype(object)
    cells.iloc[1] = value
    tables.write_csv(path, table.assign(**{column: cells}))
    with pytest.raises(UserError, match=f"row 3, column {column}: '{re.escape(value)}' is not"):
        tables.read_images("melanoma")
