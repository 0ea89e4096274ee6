"""SIIM-ISIC Melanoma Classification (Kaggle, 2020): is the lesion in this image a melanoma?

Raw, at data/melanoma/raw, as it is downloaded; zips need not be unpacked:
    train.csv test.csv sample_submission.csv     the organiser's, or the community's with
                                                 `tfrecord,width,height`
    jpeg/{train,test}/*.jpg                      or train/*.dcm test/*.dcm, or the resized sets'
                                                 train/*.jpg test/*.jpg
    ISIC_2020_Training_Duplicates.csv            optional: pairs of images of one lesion
    ISIC_2020_Training_GroundTruth_v2.csv        optional: names the lesion of each image
    external/<name>/                             optional: more images to train on, e.g. of ISIC
                                                 2019, in the form of train.csv, or ISIC's
                                                 `image,MEL,...` with its `_Metadata.csv`

`log_images`, log(1 + images of the patient), is counted in train.csv and in test.csv each by
itself. On the real train.csv it lifts a logistic regression on patient columns, by patient and
out-of-fold, from AUC .680 to .744; without it in `numeric`, the entry is one "without patient
context". External images always train and are never scored. They have no patient ids: each is a
patient of its own, unless its lesion is named. Rows of `tfrecord` -1 are duplicates by the
community's list and are left out (434; the paper too).

Expected (the paper's, private leaderboard): one EfficientNet-B5 at 384 .9345 with cross-entropy,
.9393 with the AUC margin loss, .9423 blended with metadata; the mean of ten .9438 (public .9685).
Cost (an estimate, not the paper's): one epoch is 37,000 images; pretraining and finetuning are 51
epochs a fold, so a B5 at 384 sees 1.9 million images a fold: about 6 hours on one 40 GB GPU; the
ten runs of five folds, 30 GPU days. The paper says B3, B5 and B6 over 256, 384, 512 and 768 and a
mean of ten models, not which ten; here they are all twelve but the largest network at the smallest
size and the smallest network at the largest.
"""

import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline.core import raw as source
from pipeline.core.config.modern import MODERN_RUN, MODERN_STEPS
from pipeline.core.config.run import Augment, Auxiliary, Finetune, Metadata, Pretrain, Run
from pipeline.core.config.task import Blend, Resize, Submission, Task
from pipeline.core.runtime.errors import UserError

SITE = "anatom_site_general_challenge"
NEEDED = ("image_name", "patient_id", "sex", "age_approx", SITE)
# Where Kaggle, ISIC and the community's resized sets put the images; the first with any is read.
FOLDERS = {
    "train": ("jpeg/train", "train", "jpeg-train", "ISIC_2020_Training_JPEG", "train/train"),
    "test": ("jpeg/test", "test", "jpeg-test", "ISIC_2020_Test_Input", "test/test"),
}
# ISIC 2019's columns, in the words of 2020's `diagnosis` where it has them.
ISIC_CLASSES = {
    "MEL": "melanoma",
    "NV": "nevus",
    "BCC": "basal cell carcinoma",
    "AK": "actinic keratosis",
    "BKL": "benign keratosis",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
    "SCC": "squamous cell carcinoma",
}

task = Task(
    title="SIIM-ISIC Melanoma Classification",
    labels=("target",),
    numeric=("age_approx", "log_images"),
    categorical=("sex", SITE),
    # The centre square, as the community's resized sets have it: predictions compare.
    resize=Resize(fit="short", channels=3),
    folds=5,
    scored_source="siim",  # external sets have other cameras, and far more melanomas than 1.8 %
    slug="siim-isic-melanoma-classification",
)

# The paper's values: two cycles of 8 epochs; then 35 with the rate halved every 10.
pretrain = Pretrain(
    lr=3e-5, lr_max=2.4e-4, cycle_epochs=8, weight_decay=1e-5, epochs=16, batch_size=256
)
finetune = Finetune(
    loss="aucm",
    normalize="sigmoid",  # as in the authors' notebooks: in [0, 1] a margin of 0.8 can be met
    lr=0.01,
    gamma=1 / 500,
    weight_decay=1e-5,
    margin=0.8,
    epochs=35,
    batch_size=256,
    milestones=(10, 20, 30),
    milestone_unit="epoch",
    divide=2.0,
)
# A lesion has no upright: any rotation. The paper names the kinds, not the amounts.
augment = Augment(flip=True, rotate=180, scale=0.1, translate=0.05, shear=5, holes=8, hole_size=0.1)

# Micro-batches of 128, 64, 32 and 16 images fit in 40 GB; the losses see all 256 whatever the
# number.
MICRO_BATCHES = {256: 2, 384: 4, 512: 8, 768: 16}
TEN = (
    ("b3", 256),
    ("b3", 384),
    ("b3", 512),
    ("b5", 256),
    ("b5", 384),
    ("b5", 512),
    ("b5", 768),
    ("b6", 384),
    ("b6", 512),
    ("b6", 768),
)

runs = tuple(
    Run(
        network=f"tf_efficientnet_{network}.ns_jft_in1k",
        size=size,
        pretrain=pretrain,
        finetune=finetune,
        augment=augment,
        accumulate=MICRO_BATCHES[size],
        checkpointing=size == 768,  # activations are computed twice, to fit in 40 GB
    )
    for network, size in TEN
)

# Today's networks and recipe beside the paper's: `make report COMP=melanoma RUN=modern`. The rates
# are those usual for such weights; none has been tried on all of the data. Beside melanoma the
# first stage learns the diagnosis, as the competition's first place did. On 5,274 skin images that
# and fresh undersampling (`negatives`) helped a small network; mixup and CutMix did not
# (tests/bench/RESULTS.md). Cost (an estimate): 18 epochs a fold are 0.67 million images, each of
# some 1 to 2 times the work of a B5 at 384: 2 to 4 hours on one 40 GB GPU, some 2 GPU days for the
# three runs of five folds.
DIAGNOSES = ("melanoma", "nevus", "seborrheic keratosis", "unknown")
modern = tuple(
    Run(
        network=network,
        size=size,
        named=name,
        augment=augment,
        auxiliary=(Auxiliary(column="diagnosis", classes=DIAGNOSES, weight=0.5),),
        accumulate=MICRO_BATCHES[384],
        pretrain=Pretrain(
            lr=2e-4,
            warmup_epochs=1,
            epochs=12,
            batch_size=128,
            **MODERN_STEPS,
        ),
        finetune=replace(
            finetune,
            dual="closed_form",
            lr=2e-5,
            warmup_epochs=0.5,
            epochs=6,
            batch_size=128,
            milestones=(3,),
            positives=4,
            **MODERN_STEPS,
        ),
        **MODERN_RUN,
    )
    for name, network, size in (
        ("convnext_tiny_384", "convnext_tiny.in12k_ft_in1k_384", 384),
        ("v2s_384", "tf_efficientnetv2_s.in21k_ft_in1k", 384),
        ("eva02_small_336", "eva02_small_patch14_336.mim_in22k_ft_in1k", 336),
    )
)

# For two CPU cores, to see real images go through every stage before a GPU is rented: from random
# weights, and, slower, from ImageNet's, which may be an installed package
# (core/networks/imagenet.py). Their rates are first guesses, not tuned.
trials = (
    Run(
        network="resnet10t",
        size=96,
        weights="random",
        augment=augment,
        views=8,
        pretrain=Pretrain(lr=1e-4, lr_max=2e-3, cycle_epochs=6, epochs=6, batch_size=64),
        finetune=replace(finetune, lr=1.0, epochs=3, batch_size=64, milestones=(2,), positives=4),
    ),
    Run(
        network="tf_efficientnet_lite0.in1k",
        size=160,
        augment=augment,
        views=8,
        pretrain=Pretrain(lr=1e-4, lr_max=1e-3, cycle_epochs=4, epochs=4, batch_size=64),
        finetune=replace(
            finetune,
            dual="closed_form",
            lr=0.1,
            epochs=3,
            batch_size=64,
            milestones=(2,),
            positives=4,
        ),
    ),
)

# The paper gives it stage 2's loss and schedule. From random weights a small network needs the
# larger rate: on 5,274 public skin images its validation AUC is .68 at 0.01 and .74 at 1.
metadata = Metadata(hidden=(256, 128), finetune=replace(finetune, lr=1.0))
# The paper's half and half is submitted; the second level is scored beside it.
blend = Blend(metadata=0.5, method="mean", second_level=True)
submission = Submission(file="submission.csv", id_column="image_name", columns={"target": "target"})
published = (  # the paper's table 4: private leaderboard, 30 views
    ("CE", 0.9345, "is one EfficientNet-B5 at 384 with cross-entropy on the private leaderboard"),
    ("AUC-M", 0.9393, "the same with the AUC margin loss"),
    ("blend", 0.9423, "the same blended with metadata"),
    ("final", 0.9438, "the mean of ten models"),
)


def read_raw(raw: Path) -> pd.DataFrame:
    """One row an image: training, external and test rows; `lesion_id` and `duplicate_of` where the
    files name them."""
    external = [read_external(raw, name) for name in externals(raw)]
    table = pd.concat([read_train(raw), *external, read_test(raw)], ignore_index=True)

    # An image that trains and is predicted would make the test score meaningless.
    train = table["image_id"][table["split"] == "train"]
    both = table["image_id"][(table["split"] == "test") & table["image_id"].isin(train)]
    if len(both):
        where = f"{raw / 'test.csv'}: column image_name"
        raise UserError(f"{where}: {both.iloc[0]!r} is in train.csv too")

    # images.csv has the columns that the optional files gave, and no empty ones.
    unknown = [name for name in ("lesion_id", "duplicate_of") if table[name].isna().all()]
    return table.drop(columns=unknown)


def auxiliary(raw: Path) -> pd.DataFrame:
    """image_id and `diagnosis` of the training images, as train.csv and the external sets name it;
    blank where a table does not."""
    locator = source.need_table(raw, "train.csv")
    table = source.read_table(raw, locator, ("image_name",))
    parts = [diagnoses(table, source.names(raw / locator, table, "image_name"))]
    for name in externals(raw):
        locator, table = external_table(raw, f"external/{name}")
        ids = f"{source.clean_name(name)}_" + source.names(raw / locator, table, "image_name")
        parts.append(diagnoses(table, ids))
    return pd.concat(parts, ignore_index=True)


def diagnoses(table: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    """image_id and diagnosis of a table's rows."""
    known = source.categories(table, "diagnosis") if "diagnosis" in table else None
    return pd.DataFrame({"image_id": ids, "diagnosis": known})


def sample(raw: Path) -> pd.DataFrame:
    """The organiser's sample_submission.csv: image_name (string) and target, in its order."""
    locator = source.need_table(raw, "sample_submission.csv")
    table = source.read_table(raw, locator, ("image_name", "target"))
    source.names(raw / locator, table, "image_name")
    return table[["image_name", "target"]].assign(target=0.0).reset_index(drop=True)


def read_train(raw: Path) -> pd.DataFrame:
    """The rows of train.csv, without those marked as duplicates."""
    locator = source.need_table(raw, "train.csv")
    table = source.read_table(raw, locator, (*NEEDED, "target"))
    rows = common(raw, raw / locator, table, "train")
    rows["target"] = source.labels(raw / locator, table, "target", blank=False)
    rows = without_marked_images(raw / locator, table, rows)

    # What joins images beyond their patient, for the folds.
    rows["lesion_id"] = rows["image_id"].map(lesions(raw))
    rows["duplicate_of"] = rows["image_id"].map(duplicates(raw, rows["image_id"]))
    return rows


def read_test(raw: Path) -> pd.DataFrame:
    """The rows of test.csv."""
    locator = source.need_table(raw, "test.csv")
    table = source.read_table(raw, locator, NEEDED)
    return common(raw, raw / locator, table, "test")


def common(raw: Path, where: Path, table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The columns that training and test rows share."""
    ids = source.names(where, table, "image_name")
    prefix, suffix = source.find_images(raw, FOLDERS[split])
    # The logarithm: patients have 2 to 115 images.
    count = table.groupby("patient_id")["patient_id"].transform("size")
    return pd.DataFrame(
        {
            "image_id": ids,
            "file": prefix + ids + suffix,
            "patient_id": source.present(where, table, "patient_id"),
            "unit_id": ids,
            "split": split,
            "source": "siim",
            "age_approx": source.numbers(where, table, "age_approx"),
            "log_images": np.log1p(count),
            "sex": source.categories(table, "sex"),
            SITE: source.categories(table, SITE),
            "target": float("nan"),
        }
    )


def without_marked_images(where: Path, table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those that the community's shard map marks as duplicates (`tfrecord` -1);
    their number is printed on stderr."""
    if "tfrecord" not in table.columns:
        return rows
    duplicate = source.numbers(where, table, "tfrecord") == -1
    if duplicate.any():
        marked = f"{duplicate.sum():,} rows with tfrecord -1 (duplicates)"
        print(f"{where}: {marked} are left out", file=sys.stderr)
    return rows[~duplicate].copy()


def lesions(raw: Path) -> dict[str, str]:
    """image_name -> lesion_id from ISIC's second ground truth file, where it exists."""
    locator = source.find_table(raw, ("ISIC_2020_Training_GroundTruth_v2.csv", "train_v2.csv"))
    if locator is None:
        return {}
    table = source.read_table(raw, locator, ("image_name", "lesion_id"))
    known = table[table["lesion_id"] != ""]  # blanks are not one lesion
    return dict(zip(known["image_name"], known["lesion_id"]))


def duplicates(raw: Path, ids: pd.Series) -> dict[str, str]:
    """image_name -> the image it repeats, from ISIC's list of pairs (either of its two forms),
    where it exists."""
    locator = source.find_table(raw, ("ISIC_2020_Training_Duplicates.csv",))
    if locator is None:
        return {}

    # 425 pairs; an older copy of the list has other names for its columns.
    table = source.read_table(raw, locator)
    pair = ("ISIC_id", "ISIC_id_paired")
    if "image_name_1" in table.columns:
        pair = ("image_name_1", "image_name_2")
    for column in pair:
        if column not in table.columns:
            where = raw / locator
            present = ", ".join(table.columns)
            raise UserError(f"{where}: the column {column!r} is missing; there are {present}")

    # Pairs with an image that is left out, or not in train.csv, say nothing.
    first, second = pair
    known = table[table[first].isin(ids) & table[second].isin(ids)]
    return dict(zip(known[second], known[first]))


def externals(raw: Path) -> list[str]:
    """The names of the folders under raw/external."""
    return sorted(path.name for path in raw.glob("external/*") if path.is_dir())


def read_external(raw: Path, name: str) -> pd.DataFrame:
    """Another set's images, all for training; ids begin with the set's name, since sets share
    ISIC's numbers."""
    folder = f"external/{name}"
    origin = source.clean_name(name)
    locator, table = external_table(raw, folder)
    where = raw / locator
    ids = source.names(where, table, "image_name")
    folders = ("jpeg/train", "train", "jpeg", "images", "ISIC_2019_Training_Input", "")
    prefix, suffix = source.find_images(raw, folders, inside=folder)

    # 2020's file has one kind of torso where the older sets have three.
    torso = r"^(anterior|posterior|lateral) torso$"
    site = source.categories(table, SITE).replace(torso, "torso", regex=True)
    rows = pd.DataFrame(
        {
            "image_id": f"{origin}_" + ids,
            "file": prefix + ids + suffix,
            "patient_id": f"{origin}_" + ids,
            "unit_id": f"{origin}_" + ids,
            "split": "train",
            "source": origin,
            "age_approx": source.numbers(where, table, "age_approx"),
            "log_images": float("nan"),  # without patients there is nothing to count
            "sex": source.categories(table, "sex"),
            SITE: site,
            "target": source.labels(where, table, "target", blank=False),
            "lesion_id": source.optional_ids(table, "lesion_id"),
        }
    )
    return without_marked_images(where, table, rows)


def external_table(raw: Path, folder: str) -> tuple[str, pd.DataFrame]:
    """An external set's table in train.csv's columns: its own train.csv, or ISIC's truth and
    metadata joined."""
    # Its own train.csv.
    locator = source.find_table(raw, ("train.csv",), (folder,))
    if locator:
        needed = ("image_name", "sex", "age_approx", SITE, "target")
        return locator, source.read_table(raw, locator, needed)

    # ISIC's two files.
    tables = [path.relative_to(raw).as_posix() for path in sorted((raw / folder).glob("*.csv"))]
    truth = next((table for table in tables if table.endswith("GroundTruth.csv")), None)
    facts = next((table for table in tables if table.endswith("Metadata.csv")), None)
    if truth is None or facts is None:
        needed = "neither train.csv nor a pair *_GroundTruth.csv and *_Metadata.csv"
        raise UserError(f"{raw / folder}: {needed} exists")
    table = source.read_table(raw, truth, ("image", "MEL"))
    known = source.read_table(raw, facts, ("image", "age_approx", "sex", "anatom_site_general"))
    source.names(raw / facts, known, "image")

    # A left join: an image without metadata still trains. Its rows keep their numbers for messages.
    told = table[["image", "MEL"]].assign(diagnosis=isic_diagnosis(table))
    joined = told.merge(known, on="image", how="left").fillna("")
    joined = joined.set_index(table.index)
    renamed = {"image": "image_name", "MEL": "target", "anatom_site_general": SITE}
    return PurePosixPath(truth).as_posix(), joined.rename(columns=renamed)


def isic_diagnosis(table: pd.DataFrame) -> pd.Series:
    """The diagnosis of a row of ISIC 2019's truth, a column a class; blank where none is 1."""
    found = pd.Series("", index=table.index)
    for column, name in ISIC_CLASSES.items():
        if column in table:
            found = found.mask(pd.to_numeric(table[column], errors="coerce") == 1, name)
    return found
