"""Synthetic downloads: in the organisers' form, the same for a seed, learnable, leaking by image,
and never over the user's files."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.competitions import chexpert, melanoma
from pipeline.core.runtime.errors import UserError
from pipeline.demo import __main__ as demo
from pipeline.demo import files
from pipeline.demo import melanoma as melanoma_files
from pipeline.demo.drawings import chest, chest_style
from pipeline.demo.patients import DRAWN, SITE, chest_rows, happens, numbered, skin_rows
from tests.cases.raw_downloads import SHARED

HEADS = {
    "melanoma/raw/train.csv": "image_name,patient_id,sex,age_approx,"
    "anatom_site_general_challenge,diagnosis,benign_malignant,target",
    "melanoma/raw/test.csv": "image_name,patient_id,sex,age_approx,anatom_site_general_challenge",
    "melanoma/raw/sample_submission.csv": "image_name,target",
    "chexpert/raw/CheXpert-v1.0-small/train.csv": "Path,Sex,Age,Frontal/Lateral,AP/PA,"
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices",
    "chexpert/raw/CheXpert-v1.0-small/test_image_paths.csv": "Path",
}


def run(**options):
    """`python -m pipeline.demo` with these options."""
    demo.main(demo.parser().parse_args([f"--{name}={value}" for name, value in options.items()]))


def digest(folder: Path) -> str:
    """A hash of every path and every byte below a folder."""
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both competitions at 300 images of 64 pixels."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA", str(folder))
        run(images=300, side=64)
    return folder


@pytest.mark.parametrize("name", HEADS)
def test_headers_are_the_organisers(data, name):
    assert (data / name).read_text().splitlines()[0] == HEADS[name]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real tables are not here")
@pytest.mark.parametrize(
    ("synthetic", "real"),
    [
        ("melanoma/raw/train.csv", "siim_isic/train.csv"),
        ("melanoma/raw/test.csv", "siim_isic/test.csv"),
        ("melanoma/raw/sample_submission.csv", "siim_isic/sample_submission.csv"),
        *(
            (f"chexpert/raw/{name}", f"chexpert/{name}")
            for name in (
                "CheXpert-v1.0-small/train.csv",
                "CheXpert-v1.0-small/valid.csv",
                "CheXpert-v1.0-small/test_image_paths.csv",
            )
        ),
    ],
)
def test_cells_have_the_form_of_the_real_ones(data, synthetic, real):
    """The same header, and in each column cells of the same shape: letters as `a`, digits as `0`,
    runs as one."""

    def shapes(path):
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        return {
            name: set(
                cells[name]
                .str.replace(r"[A-Za-z]+", "a", regex=True)
                .str.replace(r"\d+", "0", regex=True)
            )
            for name in cells.columns
        }

    ours = shapes(data / synthetic)
    theirs = shapes(SHARED / real)
    assert list(ours) == list(theirs)
    # The real set's excerpt has no -1.
    labels = {"", "0.0", "-0.0"} if synthetic.startswith("chexpert") else {"", "a", "0"}
    for name, cells in ours.items():
        assert cells <= theirs[name] | labels, name


def test_the_same_seed_gives_the_same_bytes_however_many_draw(data, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "again"))
    monkeypatch.setattr(files, "ONE_PROCESS_BELOW", 0)
    run(images=300, side=64, competition="melanoma")
    assert digest(tmp_path / "again/melanoma/raw") == digest(data / "melanoma/raw")
    monkeypatch.setenv("DATA", str(tmp_path / "other"))
    run(images=300, side=64, competition="melanoma", seed=1)
    assert digest(tmp_path / "other/melanoma/raw") != digest(data / "melanoma/raw")


def test_a_folder_of_yours_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    yours = tmp_path / "melanoma/raw/train.csv"
    yours.parent.mkdir(parents=True)
    yours.write_text("mine")
    (tmp_path / "chexpert").mkdir()
    (tmp_path / "chexpert/raw").symlink_to(tmp_path / "nowhere")
    for name in ("melanoma", "chexpert"):
        with pytest.raises(UserError, match="was not made by this program"):
            run(images=50, competition=name)
    assert yours.read_text() == "mine" and len(list(tmp_path.rglob("*"))) == 5


def test_what_stands_is_left_and_other_arguments_are_refused(data, monkeypatch):
    monkeypatch.setenv("DATA", str(data))
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    run(images=300, side=64)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    with pytest.raises(UserError, match="delete it to make it anew"):
        run(images=301, side=64)


def test_a_run_that_died_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    monkeypatch.setattr(melanoma_files, "write_isic2019_tables", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(images=50, side=32, competition="melanoma")
    assert not (tmp_path / "melanoma/raw").exists()
    monkeypatch.undo()
    monkeypatch.setenv("DATA", str(tmp_path))
    run(images=50, side=32, competition="melanoma")
    assert [path.name for path in (tmp_path / "melanoma").iterdir()] == ["raw"]


def whole(path: Path) -> bool:
    return path.read_bytes().endswith(b"\xff\xd9")


def test_melanoma_holds_what_makes_real_data_hard(data):
    raw = data / "melanoma/raw"
    table = melanoma.read_raw(raw).query("split == 'train'")
    own = table[table["source"] == "siim"]
    other = table[table["source"] != "siim"]
    assert all((raw / file).is_file() for file in table["file"])
    assert 0.05 < own["target"].mean() < 0.09 and other["target"].mean() > 0.15
    assert (other["patient_id"] == other["image_id"]).all()
    assert own["patient_id"].nunique() < len(own) / 2
    assert own[["sex", "age_approx", SITE]].isna().any().all()
    broken = [file for file in own["file"] if not whole(raw / file)]
    assert len(broken) == 1 and own.set_index("file")["target"][broken[0]] == 0
    first = own.iloc[0]
    twin = own.iloc[-1]
    assert twin["patient_id"] != first["patient_id"]
    assert (own["patient_id"] == twin["patient_id"]).sum() == 1
    first, twin = raw / first["file"], raw / twin["file"]
    assert first.read_bytes() != twin.read_bytes()
    small = [
        cv2.resize(cv2.imread(str(path)), (32, 32), interpolation=cv2.INTER_AREA).astype(float)
        for path in (first, twin)
    ]
    assert np.abs(small[0] - small[1]).mean() < 4


def test_chexpert_holds_what_makes_real_data_hard(data):
    home = data / "chexpert/raw/CheXpert-v1.0-small"
    train = pd.read_csv(home / "train.csv")
    valid = pd.read_csv(home / "valid.csv")
    listed = pd.read_csv(home / "test_image_paths.csv")["Path"]
    assert (train["Sex"] == "Unknown").sum() == 1
    assert (train["Age"] == 0).sum() == 1
    assert "LL" in set(train["AP/PA"])
    assert train.loc[train["Frontal/Lateral"] == "Lateral", "AP/PA"].isna().all()
    assert set(np.unique(train[list(DRAWN)].fillna(9))) == {-1, 0, 1, 9}
    assert set(np.unique(valid.iloc[:, 5:])) == {0, 1}
    assert not valid.iloc[:, 5:].isna().any(axis=None)
    assert sum(not whole(home.parent / path) for path in train["Path"]) == 1
    patients = [
        set(paths.str.extract(r"(patient\d+)")[0])
        for paths in (train["Path"], valid["Path"], listed)
    ]
    assert not patients[0] & patients[1] and not (patients[0] | patients[1]) & patients[2]
    studies = listed.str.rpartition("/")[0]
    assert studies.duplicated().any(), "a study of several views"
    with_frontal = listed.str.contains("frontal").groupby(studies).any()
    assert not with_frontal.all(), "a study without a frontal"
    assert set(chexpert.sample(home.parent)["Study"]) == set(studies)


def out_of_fold(features: np.ndarray, labels: np.ndarray, patients: pd.Series) -> float:
    """AUC of a logistic regression, out-of-fold over two folds by patient."""
    scores = np.zeros(len(labels))
    odd = patients.to_numpy() % 2 == 1
    for train, test in ((odd, ~odd), (~odd, odd)):
        model = LogisticRegression(max_iter=300, C=0.1).fit(features[train], labels[train])
        scores[test] = model.decision_function(features[test])
    return roc_auc_score(labels, scores)


def test_metadata_carry_a_signal_but_not_all_of_it():
    """20,000 rows, so that the bounds are 5 standard errors away."""
    rows = skin_rows(np.random.default_rng(0), 20_000, 0.07)
    columns = pd.get_dummies(rows[["sex", SITE]].astype(object), dummy_na=True).astype(float)
    features = np.column_stack([rows["age_approx"].fillna(50) / 16, columns])
    assert 0.65 < out_of_fold(features, rows["target"].to_numpy(), rows["number"]) < 0.76
    chests = chest_rows(np.random.default_rng(0), "train", 20_000, 1)
    features = np.column_stack(
        [chests["Age"] / 17, chests["Sex"] == "Male", chests["AP/PA"] == "AP"]
    ).astype(float)
    for name in DRAWN:
        sick = (chests[name] == 1).to_numpy()
        assert 0.6 < out_of_fold(features, sick, chests["number"]) < 0.8


@pytest.fixture(scope="module")
def drawn():
    """600 lesions of 32 pixels and their rows."""
    rows = skin_rows(np.random.default_rng(3), 600, 0.2)
    small = []
    for job in files.skin_jobs(rows, 0, 3, 32):
        jpeg = np.frombuffer(files.skin_jpeg(job), np.uint8)
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        small.append(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).ravel())
    small = np.array(small, float)
    return (small - small.mean(axis=0)) / small.std(axis=0), rows


def test_lesions_show_their_label_but_not_plainly(drawn):
    features, rows = drawn
    labels = rows["target"].to_numpy()
    assert 0.65 < out_of_fold(features, labels, rows["number"]) < 0.95
    assert 0.9 < roc_auc_score(labels, rows["severity"]) < 1  # the best that any image could show


def test_a_split_by_image_leaks(drawn):
    """The nearest other image's label: with the patient's own images in reach it says more."""
    features, rows = drawn
    labels = rows["target"].to_numpy(float)
    gaps = ((features[:, None] - features[None]) ** 2).mean(axis=2)
    np.fill_diagonal(gaps, np.inf)
    patients = rows["number"].to_numpy()
    strangers = np.where(np.equal.outer(patients, patients), np.inf, gaps)
    by_image = roc_auc_score(labels, np.exp(-4 * gaps) @ labels)
    by_patient = roc_auc_score(labels, np.exp(-4 * strangers) @ labels)
    assert by_image > by_patient + 0.03


@pytest.mark.parametrize("finding", range(5))
def test_xrays_show_each_finding(finding):
    """The mean image with a finding differs from the one without by more than chance allows."""
    style = chest_style(np.random.default_rng(0))

    def mean_image(severity, seeds):
        small = []
        for seed in seeds:
            image = chest(np.random.default_rng(seed), style, severity, "PA", 64, 64)
            small.append(cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA))
        return np.mean(small, axis=0)

    seeds = np.random.default_rng(finding).integers(0, 1 << 30, (3, 12))
    without = mean_image(np.zeros(5), seeds[0])
    again = mean_image(np.zeros(5), seeds[1])
    present = mean_image(np.eye(5)[finding], seeds[2])
    assert np.abs(present - without).max() > 3 * np.abs(again - without).max()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.floats(0.02, 0.9), st.integers(0, 1000))
def test_events_come_in_the_number_asked_for(count, rate, seed):
    rng = np.random.default_rng(seed)
    assert abs(happens(rng, rng.normal(0, 2, count), rate).sum() - rate * count) < 1


def test_events_have_their_chances():
    """Odds 0 and 2 at a mean rate of 0.4: p and q with (p + q) / 2 = 0.4 and logit q - logit p =
    2."""
    p = 0.180535
    q = 0.619465
    assert (p + q) / 2 == pytest.approx(0.4)
    assert np.log(q * (1 - p) / (p * (1 - q))) == pytest.approx(2, abs=1e-4)
    rng = np.random.default_rng(0)
    odds = np.repeat([0.0, 2.0], 10)
    drawn = np.mean([happens(rng, odds, 0.4) for _ in range(2000)], axis=0)
    assert drawn[:10] == pytest.approx(p, abs=0.05)
    assert drawn[10:] == pytest.approx(q, abs=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 500), st.integers(0, 100))
def test_numbers_are_all_different(count, seed):
    numbers = numbered(np.random.default_rng(seed), count, below=600)
    assert len(set(numbers)) == count and numbers.min() >= 0 and numbers.max() < 600


@pytest.mark.parametrize("option", [{"images": 10}, {"side": 8}])
def test_sizes_too_small_are_refused(option):
    with pytest.raises(UserError, match="at least 50 images of 32 pixels"):
        run(**option)
