"""The SIIM-ISIC files: every layout they come in, the real tables' known counts, one line for each
kind of mistake."""

import numpy as np
import pandas as pd
import pytest

from pipeline.competitions import melanoma
from pipeline.core.runtime.errors import UserError
from tests.cases.raw_downloads import SHARED, contents, pack, write

HEAD = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge"
TABLES = {
    "train.csv": f"{HEAD},diagnosis,benign_malignant,target\n"
    "ISIC_0000001,IP_1,male,45.0,torso,nevus,benign,0\n"
    "ISIC_0000002,IP_1,,,,unknown,malignant,1\n"
    "ISIC_0000003,IP_2,female,30.0,head/neck,unknown,benign,0\n",
    "test.csv": f"{HEAD}\nISIC_0000009,IP_3,female,50.0,\nISIC_0000008,IP_4,male,20.0,torso\n",
    "sample_submission.csv": "image_name,target\nISIC_0000009,0\nISIC_0000008,0\n",
}
TRAIN = ("ISIC_0000001", "ISIC_0000002", "ISIC_0000003")
TEST = ("ISIC_0000009", "ISIC_0000008")


def images(train: str, test: str, suffix: str) -> dict[str, str]:
    """The image files of both splits, each holding its own name."""
    return {f"{train}{name}{suffix}": name for name in TRAIN} | {
        f"{test}{name}{suffix}": name for name in TEST
    }


def folder(raw, **changed):
    """A raw folder with the tables, some of them changed, and the organiser's JPEGs."""
    tables = TABLES | {name.replace("_csv", ".csv"): text for name, text in changed.items()}
    return write(raw, tables | images("jpeg/train/", "jpeg/test/", ".jpg"))


@pytest.mark.parametrize(
    ("train", "test", "suffix"),
    [
        ("jpeg/train/", "jpeg/test/", ".jpg"),
        ("train/", "test/", ".dcm"),
        ("train/", "test/", ".jpg"),
        ("ISIC_2020_Training_JPEG/", "ISIC_2020_Test_Input/", ".jpg"),
        ("train/", "test/", ".png"),
    ],
)
def test_unpacked_layouts(tmp_path, train, test, suffix):
    raw = write(tmp_path, TABLES | images(train, test, suffix))
    assert contents(raw, melanoma.read_raw(raw)) == {name: name for name in TRAIN + TEST}


@pytest.mark.parametrize(
    "zips",
    [
        {"siim.zip": TABLES | images("jpeg/train/", "jpeg/test/", ".jpg")},
        {"siim.zip": TABLES | images("train/", "test/", ".dcm")},
        {
            "all.zip": {
                f"download/{k}": v
                for k, v in (TABLES | images("jpeg/train/", "jpeg/test/", ".jpg")).items()
            }
        },
        {"tables.zip": TABLES, "jpeg.zip": images("train/", "test/", ".jpg")},
        {
            **{f"{name}.zip": {name: text} for name, text in TABLES.items()},
            "train.zip": {f"{name}.jpg": name for name in TRAIN},
            "test.zip": {f"{name}.jpg": name for name in TEST},
        },
    ],
)
def test_zips_are_read_as_they_come(tmp_path, zips):
    for archive, files in zips.items():
        pack(tmp_path, archive, files)
    assert contents(tmp_path, melanoma.read_raw(tmp_path)) == {name: name for name in TRAIN + TEST}
    assert list(melanoma.sample(tmp_path)["image_name"]) == list(TEST)


def test_values(tmp_path):
    table = melanoma.read_raw(folder(tmp_path)).set_index("image_id")
    assert list(table["split"]) == ["train"] * 3 + ["test"] * 2 and set(table["source"]) == {"siim"}
    assert list(table["target"].fillna(-9)) == [0, 1, 0, -9, -9]
    assert table.loc["ISIC_0000002", ["sex", "age_approx", melanoma.SITE]].isna().all()
    assert np.allclose(np.expm1(table["log_images"]), [2, 2, 1, 1, 1])
    assert list(table["unit_id"]) == list(table.index)
    assert "lesion_id" not in table and "duplicate_of" not in table


def test_the_diagnosis_is_an_auxiliary_column_where_a_table_has_it(tmp_path):
    raw = folder(tmp_path)
    write(raw, {"external/old/train.csv": f"{HEAD},target\nISIC_1,x,male,45.0,torso,0\n"})
    table = melanoma.auxiliary(raw)
    assert list(table["image_id"]) == [*TRAIN, "old_ISIC_1"]
    assert table["diagnosis"].fillna("").tolist() == ["nevus", "unknown", "unknown", ""]
    assert not melanoma.read_raw(folder(tmp_path / "plain")).columns.str.contains("diagnosis").any()


def test_lesions_and_both_forms_of_the_list_of_duplicates(tmp_path):
    folder(tmp_path)
    second = "image_name,patient_id,lesion_id\nISIC_0000003,IP_2,IL_7\n"
    write(tmp_path, {"ISIC_2020_Training_GroundTruth_v2.csv": second})
    for head in ("image_name_1,image_name_2", "ISIC_id,ISIC_id_paired"):
        listed = f"{head}\nISIC_0000001,ISIC_0000003\nISIC_0000001,ISIC_7777777\n"
        write(tmp_path, {"ISIC_2020_Training_Duplicates.csv": listed})
        table = melanoma.read_raw(tmp_path).set_index("image_id")
        assert table["duplicate_of"].dropna().to_dict() == {"ISIC_0000003": "ISIC_0000001"}
        assert table["lesion_id"].dropna().to_dict() == {"ISIC_0000003": "IL_7"}


def test_external_sets_in_both_forms(tmp_path):
    folder(tmp_path)
    write(
        tmp_path / "external/ISIC 2019",
        {
            "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV\n"
            "ISIC_0000001,1.0,0.0\nISIC_5,0.0,1.0\n",
            "ISIC_2019_Training_Metadata.csv": "image,"
            "age_approx,anatom_site_general,lesion_id,sex\n"
            "ISIC_5,20.0,anterior torso,L1,male\nISIC_0000001,,,,\n",
            "ISIC_2019_Training_Input/ISIC_0000001.jpg": "isic_2019_ISIC_0000001",
            "ISIC_2019_Training_Input/ISIC_5.jpg": "isic_2019_ISIC_5",
        },
    )
    rows = "ISIC_6,-1,male,60,torso,1,3,6,4\nISIC_7,-1,male,60,torso,0,-1,6,4\n"
    community = f"{HEAD},target,tfrecord,width,height\n{rows}"
    write(
        tmp_path / "external/malignant-v2",
        {"train.csv": community, "train/ISIC_6.jpg": "malignant_v2_ISIC_6"},
    )
    table = melanoma.read_raw(tmp_path).set_index("image_id")
    rows = table[table["source"] != "siim"]
    assert list(rows.index) == ["isic_2019_ISIC_0000001", "isic_2019_ISIC_5", "malignant_v2_ISIC_6"]
    assert list(rows["target"]) == [1, 0, 1] and list(rows["patient_id"]) == list(rows.index)
    assert rows.loc["isic_2019_ISIC_5", ["sex", melanoma.SITE, "lesion_id"]].tolist() == [
        "male",
        "torso",
        "L1",
    ]
    assert set(rows["split"]) == {"train"} and rows["log_images"].isna().all()
    told = melanoma.auxiliary(tmp_path).set_index("image_id")["diagnosis"]
    assert told.loc[rows.index].fillna("").tolist() == ["melanoma", "nevus", ""]
    read = contents(tmp_path, rows.reset_index())
    assert read == {name: name for name in rows.index}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "train_csv",
            TABLES["train.csv"].replace("benign,0\nISIC_0000002", "benign,maybe\nISIC_0000002"),
            r"train.csv: row 2, column target: 'maybe' is not 0, 1 or -1",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("malignant,1", "malignant,"),
            "row 3, column target: '' is not",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("IP_2", ""),
            "row 4, column patient_id: '' is blank",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("ISIC_0000003", "ISIC_0000001"),
            "row 4, column image_name: 'ISIC_0000001' occurs twice",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("ISIC_0000003", "../../passwd"),
            "row 4, column image_name: .* not a plain",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("45.0", "old"),
            "row 2, column age_approx: 'old' is not a number",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("45.0", "inf"),
            "row 2, column age_approx: 'inf' is not a number",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("sex", "gender"),
            "train.csv: the column 'sex' is missing",
        ),
        ("train_csv", TABLES["train.csv"][:-12], "the last row.* has 6 of 8 columns"),
        (
            "train_csv",
            TABLES["train.csv"].replace("diagnosis", "sex"),
            "two columns are called 'sex'",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace("torso,nevus", "torso,a,b"),
            "rows have more columns than its header",
        ),
        (
            "train_csv",
            TABLES["train.csv"].replace(",,,,unknown", ",,,,,unknown"),
            "not a CSV file: .* line 3, saw 9",
        ),
        ("train_csv", "", "this is not a CSV file"),
        (
            "test_csv",
            TABLES["test.csv"].replace("ISIC_0000009", "ISIC_0000001"),
            "'ISIC_0000001' is in train.csv too",
        ),
        (
            "test_csv",
            TABLES["test.csv"].replace("IP_3", " "),
            "test.csv: row 2, column patient_id: '' is blank",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, file, text, message):
    raw = folder(tmp_path, **{file: text})
    with pytest.raises(UserError, match=message) as raised:
        melanoma.read_raw(raw)
    assert "\n" not in str(raised.value).split(": this is not a CSV file")[0]


def test_blank_lines_do_not_shift_the_row_that_an_error_names(tmp_path):
    text = (
        TABLES["train.csv"]
        .replace("ISIC_0000002", "\n\nISIC_0000002")
        .replace("malignant,1", "malignant,7")
    )
    with pytest.raises(UserError, match="row 5, column target: '7'"):
        melanoma.read_raw(folder(tmp_path, train_csv=text))


def test_no_images_and_a_broken_zip(tmp_path):
    with pytest.raises(UserError, match="no folder jpeg/train"):
        melanoma.read_raw(write(tmp_path, TABLES))
    (tmp_path / "jpeg.zip").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match=r"jpeg\.zip: this is not a whole zip file"):
        melanoma.read_raw(tmp_path)


def test_ten_runs_as_the_paper_says():
    networks = {run.network.split("_")[2].split(".")[0] for run in melanoma.runs}
    assert len(melanoma.runs) == 10 and networks == {"b3", "b5", "b6"}
    assert {run.size for run in melanoma.runs} == {256, 384, 512, 768}
    assert {(run.pretrain.epochs, run.finetune.epochs) for run in melanoma.runs} == {(16, 35)}
    assert {run.finetune.gamma for run in melanoma.runs} == {1 / 500} and {
        run.views for run in melanoma.runs
    } == {30}


@pytest.mark.skipif(
    not (SHARED / "siim_isic/train.csv").exists(), reason="the real SIIM-ISIC tables are not here"
)
def test_the_real_tables(tmp_path):
    real = SHARED / "siim_isic"
    folds = pd.read_csv(real / "siim_isic_train_tfrecord_folds.csv.gz")
    table = pd.read_csv(real / "train.csv").merge(folds, on="image_name", validate="one_to_one")
    tables = {name: (real / name).read_text() for name in TABLES}
    write(tmp_path, tables | images("jpeg/train/", "jpeg/test/", ".jpg"))
    whole = melanoma.read_raw(tmp_path)
    train, test = (whole[whole["split"] == split] for split in ("train", "test"))
    assert (len(train), train["target"].sum(), train["patient_id"].nunique()) == (33126, 584, 2056)
    assert (len(test), test["patient_id"].nunique()) == (10982, 690)
    assert "jpeg/train/ISIC_0015719.jpg" in set(train["file"])
    table.to_csv(tmp_path / "train.csv", index=False)
    rows = melanoma.read_raw(tmp_path)["split"]
    assert (rows == "train").sum() == 32692  # the paper's 46,131 are these, 12,859 and 580
