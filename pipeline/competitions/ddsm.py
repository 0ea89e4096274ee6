"""DDSM+ (DDSM and CBIS-DDSM tiles, Scuccimarra's Kaggle set "DDSM Mammography"): is there an
abnormality in this tile?

Raw, at data/ddsm/raw, as downloaded; the files may also lie in folders of their own name:
    training10_{0..4}.tfrecords                  records of image (299 x 299 gray bytes), label,
                                                 label_normal
    test10_data.npy test10_labels.npy            (N, 299, 299, 1) and 0 to 4, 0 = normal
    cv10_data.npy cv10_labels.npy                the other half of the test data (its author:
                                                 combine the two)

TensorFlow is not needed. The files name no patients: each tile counts as a patient of its own,
though the three crops of one abnormality are near copies, so cross-validation within the training
set is optimistic. The test data are other patients' (CBIS-DDSM's own division).

Expected (the paper's Table 5, test AUC): cross-entropy .9392, focal .9495, AUC square .9469, AUC
margin .9544, on 55,000 training and 13,900 test tiles; the public files hold 55,890 (about 14 %
positive) and 15,364, so figures compare only roughly. The paper's cross-entropy and focal rows are
one stage of 5 epochs; here their second stage is one epoch more, as that of the AUC losses. Cost
(an estimate): 5 epochs and 1 epoch of DenseNet121 at 224, about an hour on one 40 GB GPU.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.config.modern import MODERN_RUN, MODERN_STEPS
from pipeline.core.config.run import Augment, Finetune, Pretrain, Run
from pipeline.core.config.task import Blend, Resize, Submission, Task
from pipeline.core.raw import tfrecords
from pipeline.core.runtime.errors import UserError

PARTS = ("test10", "cv10")

# 10 folds: the paper tunes on a tenth of the training set.
task = Task(title="DDSM+", labels=("abnormal",), resize=Resize(fit="square", channels=1), folds=10)

# The paper's epochs, batch, decay and margin. Of the rates 0.1 to 0.001 and gamma 1/300, 1/500 or
# 1/800 that it tuned over, the middle ones.
pretrain = Pretrain(lr=1e-4, weight_decay=1e-5, epochs=5, batch_size=32)
aucm = Finetune(
    loss="aucm",
    lr=0.01,
    gamma=1 / 500,
    weight_decay=0.0,
    margin=0.5,
    normalize="sigmoid",
    epochs=1,
    batch_size=32,
)
augment = Augment(flip=True)  # the paper does not state any; left and right breasts mirror


def loss_run(loss: str, **changes: object) -> Run:
    """DenseNet121 at 224 px, the second stage with one of the four losses."""
    finetune = Finetune(**{**vars(aucm), "loss": loss, **changes})
    return Run(
        network="densenet121.ra_in1k",
        size=224,
        pretrain=pretrain,
        finetune=finetune,
        augment=augment,
        views=8,
        tag=loss,
    )


runs = (loss_run("aucm"), loss_run("aucs", margin=1.0), loss_run("ce"), loss_run("focal"))

# Today's networks and recipe beside the paper's: `make report COMP=ddsm RUN=modern`. The rates are
# those usual for such weights; none has been tried on these tiles. Cost (an estimate): 8 epochs of
# half as much work again as a DenseNet121's, two hours a fold and run by the measure above.
modern = tuple(
    Run(
        network=network,
        size=224,
        named=name,
        augment=augment,
        views=8,
        pretrain=Pretrain(lr=2e-4, warmup_epochs=0.5, epochs=6, batch_size=64, **MODERN_STEPS),
        finetune=replace(
            aucm,
            lr=2e-5,
            dual="closed_form",
            epochs=2,
            milestones=(1,),
            batch_size=64,
            **MODERN_STEPS,
        ),
        **MODERN_RUN,
    )
    for name, network in (
        ("convnext_tiny_224", "convnext_tiny.in12k_ft_in1k"),
        ("eva02_tiny_224", "eva02_tiny_patch14_224.mim_in22k"),
    )
)
metadata = None
blend = Blend(metadata=0.0, method="mean")
submission = Submission(
    file="predictions.csv", id_column="image_id", columns={"abnormal": "abnormal"}
)
published = (
    ("CE", 0.9392, "is cross-entropy on the test set"),
    ("Focal", 0.9495, "the focal loss"),
    ("AUC-S", 0.9469, "the AUC square loss"),
    ("AUC-M", 0.9544, "the AUC margin loss"),
)


def read_raw(raw: Path) -> pd.DataFrame:
    """One row a tile: the training records, then both halves of the test data."""
    training = [read_records(raw, path) for path in record_files(raw)]
    test = [read_half(raw, part) for part in PARTS]
    return pd.concat([*training, *test], ignore_index=True)


def sample(raw: Path) -> pd.DataFrame:
    """The test tiles' ids in the files' order, a score of 0 each."""
    ids = pd.concat([read_half(raw, part)["image_id"] for part in PARTS], ignore_index=True)
    return pd.DataFrame({"image_id": ids, "abnormal": 0.0})


def tile_rows(ids: pd.Series, files: pd.Series, split: str, labels: np.ndarray) -> pd.DataFrame:
    """Tiles as rows of the raw table, each a patient and a unit of its own."""
    return pd.DataFrame(
        {
            "image_id": ids,
            "file": files,
            "patient_id": ids,
            "unit_id": ids,
            "split": split,
            "source": "ddsm",
            "abnormal": labels.astype(float),
        }
    )


def record_files(raw: Path) -> list[Path]:
    """training10_*.tfrecords, each in `raw` or in a folder of it."""
    paths = [*raw.glob("training10_*.tfrecords"), *raw.glob("*/training10_*.tfrecords")]
    paths.sort(key=lambda path: path.name)
    if not paths:
        raise UserError(f"{raw}: there is no training10_*.tfrecords; unpack the download there")
    return paths


def read_records(raw: Path, path: Path) -> pd.DataFrame:
    """A row a record: its label, and a locator with the byte it begins at."""
    # Only the labels are read here; `prepare` comes back for the images, 89,401 bytes each.
    starts = []
    labels = []
    try:
        for start in tfrecords.record_starts(path):
            label = tfrecords.parse_example(path, start, ("label_normal",)).get("label_normal", [])
            if label not in ([0], [1]):
                raise ValueError(f"the record at byte {start}: label_normal {label} is not 0 or 1")
            starts.append(start)
            labels.append(label[0])
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {error}") from None

    # Named by file and number, located by file and byte.
    ids = f"{path.stem}_" + pd.Series(range(len(starts)), dtype="str").str.zfill(5)
    files = f"{path.relative_to(raw).as_posix()}::" + pd.Series(starts, dtype="str")
    return tile_rows(ids, files, "train", np.array(labels))


def need(raw: Path, name: str) -> Path:
    """A file in `raw` or in a folder of it."""
    paths = [*raw.glob(name), *raw.glob(f"*/{name}")]
    if not paths:
        reason = "there is no such file, nor one of that name in a folder beside it"
        raise UserError(f"{raw / name}: {reason}")
    return paths[0]


def read_half(raw: Path, part: str) -> pd.DataFrame:
    """test10 or cv10: label 0 is normal, 1 to 4 an abnormality."""
    images = need(raw, f"{part}_data.npy")
    truth = need(raw, f"{part}_labels.npy")
    try:
        labels = np.load(truth, allow_pickle=False).reshape(-1)
        count = len(tfrecords.npy(images))
    except (ValueError, OSError, EOFError) as error:
        either = f"{truth} or {images.name}"
        raise UserError(f"{either}: this is not a whole .npy array ({error})") from None

    # As many labels as images, each one of the author's five.
    if len(labels) != count:
        raise UserError(f"{truth}: {len(labels)} labels for {count} images in {images.name}")
    if not np.isin(labels, range(5)).all():
        row = int(np.argmin(np.isin(labels, range(5))))
        raise UserError(f"{truth}: row {row}: {labels[row]} is not 0, 1, 2, 3 or 4")

    # Five digits, so that ids in the order of the alphabet are in the order of the file.
    numbers = pd.Series(range(count), dtype="str")
    ids = f"{part}_" + numbers.str.zfill(5)
    return tile_rows(ids, f"{images.relative_to(raw).as_posix()}::" + numbers, "test", labels > 0)
