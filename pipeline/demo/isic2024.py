"""A synthetic ISIC 2024 download: {train,test}-image.hdf5 of JPEGs by id, {train,test}-metadata.csv
and sample_submission.csv, with three test rows."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.demo.files import draw_all, skin_jobs, skin_jpeg
from pipeline.demo.patients import MELANOMA_RATE, name_rows, tile_metadata

# Columns that only the training rows have.
TRAINING_ONLY = (
    "target",
    "lesion_id",
    "iddx_full",
    *(f"iddx_{level}" for level in range(1, 6)),
    "mel_mitotic_index",
    "mel_thick_mm",
    "tbp_lv_dnn_lesion_confidence",
)
TEST_ROWS = [0, 20, 40]  # of 50: three, as in the public test set


def write(raw: Path, images: int, seed: int, side: int) -> None:
    """Write the download with `images` training images; `side` is their short side in pixels."""
    # Patients: numbered on from train to test, so that none is in both.
    rng = np.random.default_rng((seed, 13))
    train = tile_metadata(rng, images, MELANOMA_RATE)
    test = tile_metadata(rng, 50, MELANOMA_RATE, first=int(train["number"].max()) + 1)
    test = test.iloc[TEST_ROWS].reset_index(drop=True)
    name_rows(rng, (train, test), "isic_id")

    # Images.
    write_images(raw / "train-image.hdf5", train, 0, seed, side)
    write_images(raw / "test-image.hdf5", test, len(train), seed, side)

    # Tables: without the columns that say how to draw; the test's without what gives the diagnosis.
    columns = list(train.columns.drop(["number", "severity"]))
    public = [name for name in columns if name not in TRAINING_ONLY]
    train[columns].to_csv(raw / "train-metadata.csv", index=False)
    test[public].to_csv(raw / "test-metadata.csv", index=False)
    sample = test[["isic_id"]].assign(target=0.3)
    sample.to_csv(raw / "sample_submission.csv", index=False)


def write_images(path: Path, rows: pd.DataFrame, first: int, seed: int, side: int) -> None:
    """An HDF5 file with a JPEG under each id; `first` is the number of the table's first image."""
    import h5py  # only this layout needs it

    jpegs = draw_all(skin_jpeg, skin_jobs(rows, first, seed, side), f"isic2024 {path.stem}")
    with h5py.File(path, "w") as file:
        for name, content in zip(rows["isic_id"], jpegs):
            file[name] = np.void(content)  # opaque bytes: a string would lose zeros at its end
