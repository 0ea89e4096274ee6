"""A synthetic SIIM-ISIC download: train.csv, test.csv, sample_submission.csv, jpeg/{train,test}/
and external/isic2019/ without patient ids."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.demo.files import draw_all, save_again, skin_jobs, truncate, write_skin
from pipeline.demo.patients import MELANOMA_RATE, SITE, name_rows, skin_rows

EXTERNAL_RATE = 0.2  # of melanomas among the external images
LESION_KINDS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


def write(raw: Path, images: int, seed: int, side: int) -> None:
    """Write the download with `images` training images, a quarter as many test images and a sixth
    as many external ones; `side` is their short side in pixels."""
    # Patients: one numbering over the three tables, so that none is in two of them.
    rng = np.random.default_rng((seed, 11))
    train = skin_rows(rng, images, MELANOMA_RATE)
    test = skin_rows(rng, images // 4, MELANOMA_RATE, first=int(train["number"].max()) + 1)
    external = skin_rows(rng, images // 6, EXTERNAL_RATE, first=int(test["number"].max()) + 1)
    spare_image, spare_patient = name_rows(rng, (train, test, external), "image_name")

    # Images: numbered through the three tables.
    isic2019 = raw / "external/isic2019"
    folders = (raw / "jpeg/train", raw / "jpeg/test", isic2019 / "ISIC_2019_Training_Input")
    jobs = []
    for folder, rows in zip(folders, (train, test, external)):
        folder.mkdir(parents=True)
        files = [str(folder / f"{name}.jpg") for name in rows["image_name"]]
        jobs += zip(files, skin_jobs(rows, len(jobs), seed, side))
    draw_all(write_skin, jobs, "melanoma")

    # What makes it hard: an image that appears twice, and a truncated file of a negative.
    train = add_twin(raw / "jpeg/train", train, spare_image, spare_patient)
    negatives = train["image_name"][train["target"] == 0]
    truncate(raw / f"jpeg/train/{negatives.iloc[7]}.jpg")

    # Tables.
    columns = list(train.columns.drop(["number", "severity"]))
    train[columns].to_csv(raw / "train.csv", index=False)
    test[columns[:5]].to_csv(raw / "test.csv", index=False)  # up to the site; then the diagnosis
    sample = test[["image_name"]].assign(target=0)
    sample.to_csv(raw / "sample_submission.csv", index=False)
    write_isic2019_tables(isic2019, external)


def add_twin(folder: Path, train: pd.DataFrame, name: str, patient: str) -> pd.DataFrame:
    """The rows and one more: the first image saved again under another name and another patient,
    which no column says."""
    save_again(folder / f"{train['image_name'].iloc[0]}.jpg", folder / f"{name}.jpg")
    twin = train.iloc[[0]].assign(image_name=name, patient_id=patient)
    return pd.concat([train, twin], ignore_index=True)


def write_isic2019_tables(folder: Path, rows: pd.DataFrame) -> None:
    """ISIC 2019's two tables: nine kinds of lesion as 0.0 and 1.0, and the metadata."""
    truth = rows[["image_name"]].set_axis(["image"], axis=1)
    # One column a kind: a melanoma or a harmless mole (NV), none of the other seven.
    drawn = {"MEL": rows["target"], "NV": 1 - rows["target"]}
    for kind in LESION_KINDS:
        truth[kind] = drawn.get(kind, 0)
        truth[kind] = truth[kind].astype(float)
    truth.to_csv(folder / "ISIC_2019_Training_GroundTruth.csv", index=False)

    # Without patients; the lesion is named in the real one for some images only, here for none.
    metadata = pd.DataFrame(
        {
            "image": rows["image_name"],
            "age_approx": rows["age_approx"],
            "anatom_site_general": rows[SITE],
            "lesion_id": None,
            "sex": rows["sex"],
        }
    )
    metadata.to_csv(folder / "ISIC_2019_Training_Metadata.csv", index=False)
