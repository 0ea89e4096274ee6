"""PatchCamelyon (Veeling et al., 2018), with 1 % positives as in the paper's Table 5: is there
tumour in this patch's centre?

Raw, at data/patchcamelyon/raw, each .h5.gz of the download unpacked with gunzip:
    camelyonpatch_level_2_split_{train,valid,test}_x.h5          "x": (N, 96, 96, 3) uint8
    camelyonpatch_level_2_split_{train,valid,test}_y.h5          "y": (N, 1, 1, 1), 1 = tumour
    camelyonpatch_level_2_split_{train,valid,test}_meta.csv      optional: the slide (wsi) of each
                                                                 patch

As in the paper, training and validation parts are one training set (294,912 patches) of which all
negatives and, drawn once with seed 0, so many positives stay that they are 1 %; the test part is
whole and balanced. With the slides known a slide is in one fold only; without them each patch
counts as a patient of its own, and validation is optimistic.

Expected (the paper's Table 5, test AUC): cross-entropy .8394, focal .8556, AUC square .8703, AUC
margin .8896. Its cross-entropy and focal rows are one stage of 5 epochs; here their second stage is
one epoch more. Cost (an estimate): 149,000 patches of 96 px; 5 epochs and 1 epoch of DenseNet121,
about 20 minutes on one 40 GB GPU.
"""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.config.modern import MODERN_RUN, MODERN_STEPS
from pipeline.core.config.run import Augment, Finetune, Pretrain, Run
from pipeline.core.config.task import Blend, Resize, Submission, Task
from pipeline.core.raw.read import hdf5_array
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runtime.errors import UserError

STEM = "camelyonpatch_level_2_split"
SPLIT_OF_FILE = {"train": "train", "valid": "train", "test": "test"}  # of the files -> of the paper
IMRATIO = 0.01  # positives, of the training set
SEED = 0

# 10 folds: the paper tunes on a tenth of the training set.
task = Task(
    title="PatchCamelyon, 1 % positive",
    labels=("tumor",),
    resize=Resize(fit="square", channels=3),
    folds=10,
)

# The paper's epochs, batch, decay and margin. Of the rates 0.1 to 0.001 and gamma 1/300, 1/500 or
# 1/800 that it tuned over, the middle ones.
pretrain = Pretrain(lr=1e-4, weight_decay=1e-5, epochs=5, batch_size=64)
aucm = Finetune(
    loss="aucm",
    lr=0.01,
    gamma=1 / 500,
    weight_decay=0.0,
    margin=0.7,
    normalize="sigmoid",
    epochs=1,
    batch_size=64,
)
augment = Augment(flip=True)  # the paper does not state any; tissue has no left and right


def loss_run(loss: str, **changes: object) -> Run:
    """DenseNet121 at 96 px, the second stage with one of the four losses."""
    finetune = Finetune(**{**vars(aucm), "loss": loss, **changes})
    return Run(
        network="densenet121.ra_in1k",
        size=96,
        pretrain=pretrain,
        finetune=finetune,
        augment=augment,
        views=8,
        tag=loss,
    )


runs = (loss_run("aucm"), loss_run("aucs", margin=1.0), loss_run("ce"), loss_run("focal"))

# Today's network and recipe beside the paper's: `make report COMP=patchcamelyon RUN=modern`. The
# rates are those usual for such weights; none has been tried on these patches, which are turned
# too: tissue has no upright. Stage 1 takes ten negatives a positive, drawn anew for each epoch.
# Cost (an estimate): 20 epochs of 15,000 patches and 2 of 134,000, the work of 4 of DenseNet121's
# epochs: a quarter of an hour a fold on one 40 GB GPU.
modern = (
    Run(
        network="convnextv2_nano.fcmae_ft_in22k_in1k",
        size=96,
        augment=replace(augment, rotate=180),
        views=8,
        pretrain=Pretrain(
            lr=2e-4, warmup_epochs=1, negatives=10.0, epochs=20, batch_size=128, **MODERN_STEPS
        ),
        finetune=replace(
            aucm,
            lr=2e-5,
            dual="closed_form",
            epochs=2,
            milestones=(1,),
            positives=4,
            batch_size=128,
            **MODERN_STEPS,
        ),
        **MODERN_RUN,
    ),
)
metadata = None
blend = Blend(metadata=0.0, method="mean")
submission = Submission(
    file="predictions.csv", id_column="image_id", columns={"tumor": "tumor"}, probability=False
)
published = (
    ("CE", 0.8394, "is cross-entropy on the test set, 1 % positives in training"),
    ("Focal", 0.8556, "the focal loss"),
    ("AUC-S", 0.8703, "the AUC square loss"),
    ("AUC-M", 0.8896, "the AUC margin loss"),
)


def read_raw(raw: Path) -> pd.DataFrame:
    """One row a patch: all negatives and 1 % positives of the training and validation files; the
    whole test file."""
    # Both first, then the drawing: 1 % of the two together.
    parts = {part: read_part(raw, part) for part in SPLIT_OF_FILE}
    train = with_fewer_positives(pd.concat([parts["train"], parts["valid"]]))
    return pd.concat([train, parts["test"]], ignore_index=True)


def sample(raw: Path) -> pd.DataFrame:
    """The test patches' ids in the file's order, a score of 0 each."""
    return pd.DataFrame({"image_id": read_part(raw, "test")["image_id"], "tumor": 0.0})


def read_part(raw: Path, part: str) -> pd.DataFrame:
    """The rows of one of the download's parts: train, valid or test."""
    labels = read_labels(raw, part)
    images = f"{STEM}_{part}_x.h5"
    if not (raw / images).is_file():
        cure = f"unpack {images}.gz there with gunzip"
        raise UserError(f"{raw / images}: there is no such file; {cure}")
    rows = pd.Series(range(len(labels)), dtype="str")
    ids = f"{part}_" + rows
    return pd.DataFrame(
        {
            "image_id": ids,
            "file": f"{images}::x/" + rows,
            "patient_id": slides(raw, part, ids),
            "unit_id": ids,
            "split": SPLIT_OF_FILE[part],
            "source": "patchcamelyon",
            "tumor": labels,
        }
    )


def read_labels(raw: Path, part: str) -> np.ndarray:
    """The labels (N,) float of one part."""
    path = raw / f"{STEM}_{part}_y.h5"
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; unpack {path.name}.gz there with gunzip")
    try:
        labels = hdf5_array(path, "y").reshape(-1).astype(float)
    except (UnreadableImage, ValueError, TypeError) as error:
        reason = "this is not a whole HDF5 file with a data set 'y'"
        raise UserError(f"{path}: {reason} ({error})") from None
    if not np.isin(labels, (0, 1)).all():
        row = int(np.argmin(np.isin(labels, (0, 1))))
        raise UserError(f"{path}: row {row}: {labels[row]:g} is not 0 or 1")
    return labels


def slides(raw: Path, part: str, ids: pd.Series) -> pd.Series:
    """The slide each patch was cut from, or the patch itself where the meta file is missing."""
    path = raw / f"{STEM}_{part}_meta.csv"
    if not path.is_file():
        return ids
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))

    # The file's rows are in the order of the patches, and nothing else joins them.
    if not rows or "wsi" not in rows[0]:
        raise UserError(f"{path}: the column 'wsi' is missing")
    if len(rows) != len(ids):
        raise UserError(f"{path}: {len(rows)} rows for {len(ids)} patches")
    return pd.Series([row["wsi"] for row in rows], index=ids.index)


def with_fewer_positives(table: pd.DataFrame) -> pd.DataFrame:
    """All negatives, and positives drawn at random until they are IMRATIO of the table."""
    positive = np.flatnonzero(table["tumor"] == 1)
    negatives = len(table) - len(positive)
    # Rounded to nine digits first, so that a floating-point error adds no positive.
    wanted = math.ceil(round(negatives * IMRATIO / (1 - IMRATIO), 9))

    # A permutation and its tail: a larger ratio keeps the same positives and more.
    dropped = np.random.default_rng(SEED).permutation(positive)[wanted:]
    return table[~np.isin(np.arange(len(table)), dropped)]
