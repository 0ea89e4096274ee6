"""Folds compared: 0 shared patients is not enough.

    python -m tests.bench.bench_folds            real SIIM-ISIC train.csv, and a table of CheXpert's
                                                 size
    python -m tests.bench.bench_folds --siim     the first only

Columns: patients in two folds; positives per fold; the largest deviation of a fold's images from a
fifth of them; the largest Kolmogorov-Smirnov distance between the images per patient of a fold and
of all; seconds. Randomised methods: seed 0, and in brackets the best of seeds 0 to 9, picked for
each column by itself.

The CheXpert-sized table is made here: 223,414 images of 64,540 patients, the published counts of 1,
0, -1 and blank for 14 labels, correlated within patients.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

from pipeline.core.folds.audit_text import distance
from pipeline.core.folds.balanced_search import group_table, iterative_stratification, split_groups

SHARED = Path(os.environ.get("SHARED_DATA", "../shared/data"))
FOLDS = 5
SEEDS = 10
CATEGORIES = ("sex", "anatom_site_general_challenge")
# The community's map: which shards make a fold, as the competition's first place did it, and by
# number.
FIRST_PLACE = {
    shard: fold
    for fold, shards in enumerate(((2, 4, 5), (1, 10, 13), (0, 9, 12), (3, 8, 11), (6, 7, 14)))
    for shard in shards
}
# 1, -1 and 0 among CheXpert's 223,414 training images; what is left is blank.
CHEXPERT = {
    "No Finding": (22381, 0, 0),
    "Enlarged Cardiomediastinum": (10798, 12403, 21638),
    "Cardiomegaly": (27000, 8087, 11116),
    "Lung Opacity": (105581, 5598, 6599),
    "Lung Lesion": (9186, 1488, 1270),
    "Edema": (52246, 12984, 20726),
    "Consolidation": (14783, 27742, 28097),
    "Pneumonia": (6039, 18770, 2799),
    "Atelectasis": (33376, 33739, 1328),
    "Pneumothorax": (19448, 3145, 56341),
    "Pleural Effusion": (86187, 11628, 35396),
    "Pleural Other": (3523, 2653, 316),
    "Fracture": (9040, 642, 2484),
    "Support Devices": (116001, 1079, 6137),
}
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def chexpert_sized(images: int = 223_414, patients: int = 64_540, seed: int = 0) -> pd.DataFrame:
    """patient_id and 14 labels; sizes of patients are heavy-tailed (median 2, largest some
    hundreds)."""
    random = np.random.RandomState(seed)
    weight = random.lognormal(0, 1.4, patients)
    patient = np.repeat(
        np.arange(patients), 1 + random.multinomial(images - patients, weight / weight.sum())
    )
    table = pd.DataFrame({"patient_id": [f"patient{number + 1:05d}" for number in patient]})
    for label, (ones, uncertain, zeros) in CHEXPERT.items():
        severity = 0.8 * random.normal(size=patients)[patient] + 0.6 * random.normal(size=images)
        values = np.repeat(
            [1, -1, 0, np.nan], [ones, uncertain, zeros, images - ones - uncertain - zeros]
        )
        table.loc[np.argsort(-severity), label] = values
    return table


def splitter(kind: Callable, table: pd.DataFrame, label: str) -> Callable[[int], np.ndarray]:
    """A scikit-learn splitter as a function seed -> fold of every row."""

    def split(seed: int) -> np.ndarray:
        fold = np.empty(len(table), dtype=int)
        groups = None if kind is StratifiedKFold else table["patient_id"]
        parts = kind(n_splits=FOLDS, shuffle=True, random_state=seed).split(
            table, table[label] == 1, groups
        )
        for number, (_, rows) in enumerate(parts):
            fold[rows] = number
        return fold

    return split


def grouped(
    method: Callable,
    table: pd.DataFrame,
    labels: tuple[str, ...],
    categorical: tuple[str, ...] = (),
) -> Callable[[int], np.ndarray]:
    """A splitter of the group table as a function seed -> fold of every row."""

    def split(seed: int) -> np.ndarray:
        patient = pd.factorize(table["patient_id"], sort=True)[0]
        return method(group_table(table, patient, patient, labels, categorical), seed)[patient]

    return split


def at_random(table: pd.DataFrame) -> Callable[[int], np.ndarray]:
    """Equal numbers of patients, drawn; scikit-learn's GroupKFold does this, in three minutes at
    CheXpert's size."""
    patient, names = pd.factorize(table["patient_id"], sort=True)
    return lambda seed: (np.random.RandomState(seed).permutation(len(names)) % FOLDS)[patient]


def plain(groups: pd.DataFrame, seed: int) -> np.ndarray:
    return iterative_stratification(groups, FOLDS, np.random.RandomState(seed))


def searched(groups: pd.DataFrame, seed: int) -> np.ndarray:
    return split_groups(groups, FOLDS, seed)


def sizes(patients: pd.Series) -> np.ndarray:
    return np.sort(patients.value_counts().to_numpy())


def measure(table: pd.DataFrame, fold: np.ndarray, labels: tuple[str, ...]) -> dict:
    """The figures of one split; rows of fold -1 are in none."""
    table, fold = table[fold >= 0], fold[fold >= 0]
    counts = np.bincount(fold)
    whole = sizes(table["patient_id"])
    positives = np.array([np.bincount(fold, table[label] == 1) for label in labels])
    return {
        "shared": int(
            (pd.Series(fold).groupby(table["patient_id"].to_numpy()).nunique() > 1).sum()
        ),
        "positives": positives.astype(int),
        "images": float(np.abs(counts / counts.mean() - 1).max()),
        "labels": np.abs(positives / positives.mean(axis=1, keepdims=True) - 1).max(axis=1),
        "sizes": max(distance(sizes(table["patient_id"][fold == k]), whole) for k in range(FOLDS)),
    }


def timed(split: Callable[[int], np.ndarray], seed: int) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return split(seed), time.perf_counter() - start


def siim() -> None:
    """The table on the real SIIM-ISIC train.csv."""
    table = pd.read_csv(SHARED / "siim_isic" / "train.csv")
    shards = pd.read_csv(SHARED / "siim_isic" / "siim_isic_train_tfrecord_folds.csv.gz").set_index(
        "image_name"
    )
    shard = table["image_name"].map(shards["tfrecord"]).to_numpy()
    fixed = {
        "community map, shard modulo 5": np.where(shard >= 0, shard % FOLDS, -1),
        "community map, first place's": np.array([FIRST_PLACE.get(number, -1) for number in shard]),
    }
    methods = {
        "by image, stratified": splitter(StratifiedKFold, table, "target"),
        "GroupKFold": splitter(GroupKFold, table, "target"),
        "StratifiedGroupKFold": splitter(StratifiedGroupKFold, table, "target"),
        "iterative stratification": grouped(plain, table, ("target",), CATEGORIES),
        "this pipeline": grouped(searched, table, ("target",), CATEGORIES),
    }
    print(
        f"SIIM-ISIC 2020, {len(table)} images, {table['patient_id'].nunique()} patients, "
        f"{table['target'].sum()} positives, {FOLDS} folds; the community's map is without its "
        "434 duplicates\n"
    )
    print(
        "| folds | patients in two folds | positives per fold | images, largest deviation | "
        "images per patient, KS "
        "| seconds |\n|---|---|---|---|---|---|"
    )
    for name, fold in fixed.items():
        print(siim_line(name, [measure(table, fold, ("target",))], None))
    for name, split in methods.items():
        found = [timed(split, seed) for seed in range(SEEDS)]
        print(
            siim_line(
                name,
                [measure(table, fold, ("target",)) for fold, _ in found],
                float(np.median([seconds for _, seconds in found])),
            )
        )


def siim_line(name: str, found: list[dict], seconds: float | None) -> str:
    """One line of the table: seed 0, and the best of all seeds in brackets."""
    spread = [figures["positives"].max() - figures["positives"].min() for figures in found]
    best = found[int(np.argmin(spread))]
    cells = [
        name,
        found[0]["shared"],
        ranges(found[0]) + (f" ({ranges(best)})" if len(found) > 1 else ""),
    ]
    for key, form in (("images", "{:.2%}"), ("sizes", "{:.4f}")):
        values = [figures[key] for figures in found]
        cells.append(
            form.format(values[0]) + (f" ({form.format(min(values))})" if len(found) > 1 else "")
        )
    cells.append("given" if seconds is None else f"{seconds:.2f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def ranges(figures: dict) -> str:
    """116-117, the least and the most positives of a fold."""
    return f"{figures['positives'].min()}-{figures['positives'].max()}"


def chexpert() -> None:
    """The table on CheXpert's size."""
    table = chexpert_sized()
    labels = tuple(CHEXPERT)
    methods = {
        "patients at random": at_random(table),
        "iterative stratification": grouped(plain, table, labels),
        "this pipeline": grouped(searched, table, labels),
    }
    print(
        f"\nCheXpert's size, {len(table)} images, {table['patient_id'].nunique()} patients, "
        f"{len(labels)} labels, "
        f"{FOLDS} folds, seed 0\n"
    )
    print(
        "| folds | patients in two folds | five scored labels, largest deviation | all 14 | "
        "images | images per "
        "patient, KS | seconds |\n|---|---|---|---|---|---|---|"
    )
    for name, split in methods.items():
        fold, seconds = timed(split, 0)
        found = measure(table, fold, labels)
        five = max(found["labels"][labels.index(label)] for label in FIVE)
        print(
            f"| {name} | {found['shared']} | {five:.3%} | {found['labels'].max():.3%} | "
            f"{found['images']:.3%} | "
            f"{found['sizes']:.4f} | {seconds:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--siim", action="store_true", help="only the real SIIM-ISIC table")
    siim()
    if not parser.parse_args().siim:
        chexpert()


if __name__ == "__main__":
    main()
