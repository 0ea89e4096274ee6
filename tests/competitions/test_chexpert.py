"""CheXpert's files: every form of the download, what the quirks of its tables mean, a line for each
kind of mistake."""

import numpy as np
import pytest

from pipeline.competitions import chexpert
from pipeline.core.runtime.errors import UserError
from tests.cases.raw_downloads import SHARED, contents, pack, write

HEAD = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung "
    "Opacity,"
    "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural "
    "Other,Fracture,"
    "Support Devices"
)
VIEWS = {  # what follows Path in the tables
    "train/patient00001/study1/view1_frontal.jpg": "Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
    "train/patient00002/study2/view1_frontal.jpg": "Unknown,0,Frontal,LL,"
    ",,-1.0,1.0,,-1.0,0.0,,-1.0,,1.0,,1.0,",
    "train/patient21600/study1/view1_lateral.jpg": "Male,70,Lateral,,,,,,,,,,,,,,,",
    "valid/patient64541/study1/view1_frontal.jpg": "Male,73,Frontal,PA,0.0,1.0,1.0,1.0"
    + 10 * ",0.0",
}
TESTS = (
    "test/patient64742/study1/view2_lateral.jpg",
    "test/patient64741/study1/view1_frontal.jpg",
    "test/patient64742/study1/view1_frontal.jpg",
)
IDS = {path: path.removesuffix(".jpg").replace("/", "_") for path in (*VIEWS, *TESTS)}


ORGANISERS = ("train.csv", "valid.csv", "test_image_paths.csv")


def tables(prefix: str, names: tuple[str, str, str] = ORGANISERS) -> dict[str, str]:
    """The three tables with a prefix before every path."""
    rows = {
        split: "".join(
            f"{prefix}{path},{rest}\n" for path, rest in VIEWS.items() if path.startswith(split)
        )
        for split in ("train", "valid")
    }
    listed = "Path\n" + "".join(f"{prefix}{path}\n" for path in TESTS)
    return dict(zip(names, (f"{HEAD}\n{rows['train']}", f"{HEAD}\n{rows['valid']}", listed)))


def images(start: str = "") -> dict[str, str]:
    """Every image below a folder, holding its own id."""
    return {start + path: IDS[path] for path in IDS}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def small(raw, change=lambda text: text):
    """CheXpert-v1.0-small with train.csv changed."""
    made = tables("CheXpert-v1.0-small/")
    made["train.csv"] = change(made["train.csv"])
    return write(raw, below("CheXpert-v1.0-small", made | images()))


@pytest.mark.parametrize("name", ["CheXpert-v1.0-small", "CheXpert-v1.0"])
def test_the_two_releases_and_raw_being_the_folder_itself(tmp_path, name):
    raw = write(tmp_path, below(name, tables(f"{name}/") | images()))
    for place in (raw, raw / name):
        assert contents(place, chexpert.read_raw(place)) == {name: name for name in IDS.values()}


@pytest.mark.parametrize(
    "zips",
    [
        {"archive.zip": tables("CheXpert-v1.0-small/") | images()},
        {
            "CheXpert-v1.0-small.zip": below(
                "CheXpert-v1.0-small", tables("CheXpert-v1.0-small/") | images()
            )
        },
        {
            "tables.zip": tables("CheXpert-v1.0-small/"),
            "images.zip": images("somewhere/CheXpert-v1.0-small/"),
        },
    ],
)
def test_zips_are_read_as_they_come(tmp_path, zips):
    for archive, files in zips.items():
        pack(tmp_path, archive, files)
    assert contents(tmp_path, chexpert.read_raw(tmp_path)) == {name: name for name in IDS.values()}


def test_tables_taken_out_of_a_zip_that_holds_the_images(tmp_path):
    pack(write(tmp_path, tables("CheXpert-v1.0-small/")), "archive.zip", images())
    assert contents(tmp_path, chexpert.read_raw(tmp_path)) == {name: name for name in IDS.values()}


BATCHES = tuple(
    f"CheXpert-v1.0 batch {name}" for name in ("1 (validate & csv)", "2 (train 1)", "3 (train 2)")
)


def batches() -> dict[str, dict[str, str]]:
    """The full download: tables and validation in batch 1, training patients in the others, without
    a folder train."""
    made = {folder: {} for folder in BATCHES}
    for path, text in images().items():
        number = 0
        if path.startswith("train"):
            number = 1 if "patient0" in path else 2
        made[BATCHES[number]][path.removeprefix("train/")] = text
    made[BATCHES[0]] |= tables("CheXpert-v1.0/")
    return made


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_full_download_in_batches(tmp_path, zipped, nested):
    for folder, files in batches().items():
        files = below(folder, files) if nested or not zipped else files
        pack(tmp_path, f"{folder}.zip", files) if zipped else write(tmp_path, files)
    assert contents(tmp_path, chexpert.read_raw(tmp_path)) == {name: name for name in IDS.values()}


def test_chexlocalize(tmp_path):
    """`val/` for `valid/`, no prefix, tables of labels; nothing to train on."""
    made = tables("", ("train.csv", "val_labels.csv", "test_labels.csv"))
    made.pop("train.csv")
    made["val_labels.csv"] = made["val_labels.csv"].replace("valid/", "val/")
    files = {path.replace("valid/", "val/"): text for path, text in images().items()}
    table = chexpert.read_raw(write(tmp_path, below("CheXpert", made | files)))
    assert contents(tmp_path, table) == {
        name: name for path, name in IDS.items() if not path.startswith("train")
    }
    assert list(table["split"]) == ["valid", "test", "test", "test"]
    assert list(chexpert.sample(tmp_path)["Study"]) == [
        "test/patient64742/study1",
        "test/patient64741/study1",
    ]


def test_the_organisers_folder_name_for_validation_differs_from_the_tables(tmp_path):
    files = {path.replace("valid/", "val/"): text for path, text in images().items()}
    raw = write(tmp_path, tables("CheXpert-v1.0/") | files)
    assert contents(raw, chexpert.read_raw(raw)) == {name: name for name in IDS.values()}


def test_the_findings_above_the_five(tmp_path):
    table = chexpert.auxiliary(small(tmp_path))
    assert list(table) == ["image_id", "Enlarged Cardiomediastinum", "Lung Opacity"]
    labelled = [path for path in VIEWS if not path.startswith("test")]
    assert list(table["image_id"]) == [IDS[path] for path in labelled]
    np.testing.assert_array_equal(table["Enlarged Cardiomediastinum"], [np.nan, np.nan, np.nan, 1])
    np.testing.assert_array_equal(table["Lung Opacity"], [np.nan, 1, np.nan, 1])
    assert set(chexpert.PARENTS) < set(chexpert.DISEASES)


def test_values(tmp_path):
    table = chexpert.read_raw(small(tmp_path)).set_index("image_id")
    second = table.loc["train_patient00002_study2_view1_frontal"]
    lateral = table.loc[IDS[list(VIEWS)[2]]]
    assert second[list(chexpert.DISEASES)].fillna(9).tolist() == [-1, -1, 0, -1, 1]
    assert (
        second[["Sex", "Age"]].isna().all()
        and second["AP/PA"] == "LL"
        and second["patient_id"] == "patient00002"
    )
    assert second["unit_id"] == "CheXpert-v1.0-small/train/patient00002/study2"
    assert (
        lateral["Frontal/Lateral"] == "Lateral"
        and lateral[["AP/PA", *chexpert.DISEASES]].isna().all()
    )
    tests = table[table["split"] == "test"]
    assert list(tests["Frontal/Lateral"]) == [
        "Lateral",
        "Frontal",
        "Frontal",
    ]  # told by the file's name alone
    assert tests[["Sex", "Age", "AP/PA", *chexpert.DISEASES]].isna().all(axis=None)


@pytest.mark.parametrize("name", chexpert.TEST_TABLES)
def test_the_sample_has_each_study_once_in_the_lists_order(tmp_path, name):
    raw = small(tmp_path)
    (raw / "CheXpert-v1.0-small/test_image_paths.csv").rename(raw / name)
    made = chexpert.sample(raw)
    assert list(made.columns) == ["Study", *chexpert.DISEASES]
    assert list(made["Study"]) == [
        f"CheXpert-v1.0-small/test/patient{number}/study1" for number in (64742, 64741)
    ]
    assert set(made["Study"]) == set(chexpert.read_raw(raw).query("split == 'test'")["unit_id"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("AP,1.0,,,,", "AP,1.0,,2,,", "row 2, column Cardiomegaly: '2' is not 0, 1, -1 or blank"),
        ("AP,1.0,,,,", "AP,1.0,,maybe,,", "row 2, column Cardiomegaly: 'maybe'"),
        ("AP,1.0,,,,", "AP,1.0,,nan,,", "row 2, column Cardiomegaly: 'nan'"),
        ("patient00002/study2", "patient00001/study1", "row 3, column Path: .* occurs twice"),
        (
            "small/train/patient00002",
            "small/train/../../x/train/patient00002",
            "row 3, column Path: .* is not a path inside",
        ),
        (
            "CheXpert-v1.0-small/train/patient00002",
            "/etc/train/patient00002",
            "row 3, column Path: .* is not a path inside",
        ),
        ("patient00002/", "p/", "row 3, column Path: .* is not <split>/patientN"),
        ("68,Frontal", "sixty,Frontal", "row 2, column Age: 'sixty' is not a number"),
        ("Edema", "Oedema", "train.csv: the column 'Edema' is missing"),
        (
            "CheXpert-v1.0-small/train/patient00002",
            "CheXpert-v1.0-small/valid/patient64541",
            "row 3",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, message):
    if message == "row 3":  # the same image in training and validation
        old = "train/patient00002/study2"
        new = "valid/patient64541/study1"
        message = "valid/patient64541/study1/view1_frontal.jpg is in two of"
    with pytest.raises(UserError, match=message):
        chexpert.read_raw(small(tmp_path, lambda text: text.replace(old, new, 1)))


def test_no_tables_and_no_list(tmp_path):
    with pytest.raises(UserError, match=r"no train\.csv"):
        chexpert.read_raw(tmp_path)
    with pytest.raises(UserError, match="no list of what to predict"):
        chexpert.sample(tmp_path)


def test_uncertain_labels_are_smoothed_in_pretraining_and_hard_in_finetuning():
    for name in chexpert.DISEASES:
        early = chexpert.task.uncertain_pretrain[name]
        late = chexpert.task.uncertain_finetune[name]
        ones = name in ("Edema", "Atelectasis")
        assert (early.low, early.high) == ((0.55, 0.85) if ones else (0.0, 0.3))
        assert late.policy == ("ones" if ones else "zeros") and not late.smooth


@pytest.mark.skipif(not (SHARED / "chexpert").is_dir(), reason="the real X-rays are not here")
def test_real_files():
    raw = SHARED / "chexpert"
    table = chexpert.read_raw(raw)
    assert table["split"].value_counts().to_dict() == {"train": 608, "test": 289, "valid": 103}
    assert all((raw / file).is_file() for file in table["file"])
    train = table[table["split"] == "train"]
    assert (train["Cardiomegaly"] == 1).sum() == 12 and table["patient_id"].nunique() == 682
