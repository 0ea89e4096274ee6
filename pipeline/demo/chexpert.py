"""A synthetic CheXpert download: CheXpert-v1.0-small/{train,valid,test}/, train.csv, valid.csv and
the list of test views."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.demo.files import draw_all, save_again, truncate, write_chest
from pipeline.demo.patients import chest_rows

DOWNLOAD_FOLDER = "CheXpert-v1.0-small"


def write(raw: Path, images: int, seed: int, side: int) -> None:
    """Write the download with `images` training views and a quarter as many for validation and for
    test; `side` is their short side in pixels."""
    home = raw / DOWNLOAD_FOLDER
    rng = np.random.default_rng((seed, 12))

    # Patients and images, both numbered through the three tables.
    tables = {}
    jobs = []
    first_patient = 1
    for split, count in (("train", images), ("valid", images // 4), ("test", images // 4)):
        rows = chest_rows(rng, split, count, first_patient)
        tables[split] = rows
        jobs += chest_jobs(home, rows, len(jobs), seed, side)
        first_patient = int(rows["number"].max()) + 1
    draw_all(write_chest, jobs, "chexpert")

    # Tables; of the test set the paths alone are public. How to draw is left out.
    tables["train"] = spoil(home, tables["train"], first_patient)
    for split, rows in tables.items():
        rows = rows.drop(columns=["number", "severity", "view"])
        rows["Path"] = f"{DOWNLOAD_FOLDER}/" + rows["Path"]
        if split == "test":
            rows[["Path"]].to_csv(home / "test_image_paths.csv", index=False)
        else:
            rows.to_csv(home / f"{split}.csv", index=False)


def chest_jobs(home: Path, rows: pd.DataFrame, first: int, seed: int, side: int) -> list[tuple]:
    """The jobs of write_chest for a table, its folders made; `first` is the number of its first
    image."""
    # A folder for each study; os.path is ten times as fast here as Path.
    folders = {os.path.dirname(path) for path in rows["Path"]}  # noqa: PTH120
    for folder in folders:
        (home / folder).mkdir(parents=True)

    # The image's number, not its place in the table, seeds its drawing.
    return [
        (str(home / row.Path), seed, row.number, number, row.severity, row.view, side)
        for number, row in enumerate(rows.itertuples(), first)
    ]


def spoil(home: Path, train: pd.DataFrame, patient: int) -> pd.DataFrame:
    """The rows with a sex Unknown, an age 0, a frontal of view LL, a truncated file, and an image
    that appears twice, the second time under the number `patient`."""
    # What the real train.csv has too: one sex Unknown among 223,414, 16 frontals LL, ages of 0. A
    # different row for each, so that a test can find what became of it.
    frontals = train.index[train["Frontal/Lateral"] == "Frontal"]
    train.loc[frontals[1], "Sex"] = "Unknown"
    train.loc[frontals[2], "Age"] = 0
    train.loc[frontals[3], "AP/PA"] = "LL"
    truncate(home / train.loc[frontals[4], "Path"])

    # Only the pixels say that the twin is one: `folds` must keep the two patients together.
    twin_path = f"train/patient{patient:05d}/study1/view1_frontal.jpg"
    save_again(home / train.loc[frontals[5], "Path"], home / twin_path)
    twin = train.loc[[frontals[5]]].assign(Path=twin_path)
    return pd.concat([train, twin], ignore_index=True)
