"""Maps made elsewhere: the community's shards, tables of patients, and what is wrong with some."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.runtime.errors import UserError
from tests.cases.synthetic_images import fold_map, images_of, load_like, made, run, twelve


def community_map(folder: Path, images: pd.DataFrame, **columns: object) -> Path:
    patient = pd.factorize(images["patient_id"])[0]
    pd.DataFrame({"image_name": images["image_id"], "tfrecord": patient % 15}).assign(
        **columns
    ).to_csv(folder / "map.csv", index=False)
    return folder / "map.csv"


def test_the_community_map_keeps_its_shards_or_takes_them_modulo(tmp_path):
    images = images_of([f"p{i // 3:02d}" for i in range(90)])
    path = community_map(tmp_path, images)
    assert fold_map(made(images, path=path)[0]) == {f"p{i:02d}": i % 15 for i in range(30)}
    assert fold_map(made(images, path=path, folds=5)[0]) == {
        f"p{i:02d}": i % 15 % 5 for i in range(30)
    }


def test_removed_duplicates_of_the_community_map_are_dropped(tmp_path):
    images = images_of([f"p{i // 3:02d}" for i in range(90)])
    images.loc[0, "phash"] = images["phash"][
        4
    ]  # of p00 and p01, so removed from p00 by the map's makers
    shards = pd.Series(pd.factorize(images["patient_id"])[0] % 15).where(
        ~images.index.isin([0, 87, 88, 89]), -1
    )
    folds, dropped, _ = made(images, path=community_map(tmp_path, images, tfrecord=shards))
    fold = fold_map(folds)
    assert fold["p00"] == 0 and fold["p01"] == 1 and fold["p29"] == -1
    assert set(dropped["image_id"]) == {f"owntrain{i}" for i in (0, 87, 88, 89)}
    assert set(dropped["reason"]) == {"removed by map.csv"}


def test_a_members_own_fold_column_is_a_map(tmp_path):
    """An out-of-fold file as it is: several rows an image, scores, images of another set."""
    images = images_of([f"p{i // 3:02d}" for i in range(90)])
    fold = pd.factorize(images["patient_id"])[0] % 5
    member = pd.DataFrame({"image_name": images["image_id"], "fold": fold, "target": 0.5})
    foreign = pd.DataFrame({"image_name": ["ISIC_2019"], "fold": [3], "target": [0.1]})
    pd.concat([member, foreign, member.assign(target=0.4)]).to_csv(
        tmp_path / "oof.csv.gz", index=False
    )
    folds = fold_map(made(images, path=tmp_path / "oof.csv.gz")[0])
    assert folds == {f"p{i:02d}": i % 5 for i in range(30)}
    torn = member.assign(fold=[1, *fold[1:]])
    torn.to_csv(tmp_path / "torn.csv", index=False)
    with pytest.raises(UserError, match="patient p00 is in folds 0, 1"):
        made(images, path=tmp_path / "torn.csv")


def test_an_imported_map_that_leaks_is_refused(tmp_path):
    images = load_like("melanoma", 60)
    images.loc[0, "phash"] = images["phash"][4]
    result = run(tmp_path / "data", images, "--import", str(community_map(tmp_path, images)))
    assert result.returncode == 2 and result.stdout == ""
    assert images["image_id"][0] in result.stderr and images["image_id"][4] in result.stderr
    assert not (tmp_path / "data/melanoma/folds.csv").exists()


@pytest.mark.parametrize(
    "rows, message",
    [
        ({"patient_id": ["p00", "p00"], "fold": [0, 1]}, "patient p00 is in folds 0, 1"),
        (
            {"patient_id": ["p00"], "fold": [0]},
            r"patient p01 of images.csv is not in it \(11 such patients\)",
        ),
        (
            {"patient_id": ["p00", "p01"], "fold": [0, "x"]},
            "row 3, column fold: 'x' is not a whole number",
        ),
        (
            {"patient": ["p00"], "fold": [0]},
            "columns patient, fold; a fold map has image_name or image_id or patient_id",
        ),
    ],
)
def test_maps_that_cannot_be_taken(tmp_path, rows, message):
    pd.DataFrame(rows).to_csv(tmp_path / "map.csv", index=False)
    with pytest.raises(UserError, match=message):
        made(twelve(), path=tmp_path / "map.csv")


def test_a_map_by_patient_with_always_training_patients(tmp_path):
    pd.DataFrame({"patient_id": [f"p{i:02d}" for i in range(12)], "fold": [-1, 0, 1] * 4}).to_csv(
        tmp_path / "m.csv"
    )
    assert fold_map(made(twelve(), path=tmp_path / "m.csv")[0]) == {
        f"p{i:02d}": (-1, 0, 1)[i % 3] for i in range(12)
    }
