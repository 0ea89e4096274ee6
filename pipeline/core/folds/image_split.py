"""Why folds go by patient: the AUC that a split by image reports, beside the one by groups.

Two cheap models that remember patients rather than learn disease are scored out of fold under both
splits: a random forest on the patient columns and the number of the patient's images, and a kernel
average over thumbnails (the score of a picture is the mean label of the training pictures, weighted
by likeness). The difference is what a split by image would have added to a reported AUC for
nothing; it is zero in expectation where each patient has one image.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from tqdm import tqdm

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import data_folder, image_path
from pipeline.core.config.task import Task
from pipeline.core.folds.groups import links, patient_groups
from pipeline.core.folds.search import group_table, iterative_stratification, split_groups
from pipeline.core.folds.split import patient_keys, scored, taking_part
from pipeline.core.metrics import auc

FOLDS, REPEATS = 5, 5
COLUMN_ROWS, PIXEL_ROWS = (
    40_000,
    4_000,
)  # the likeness of all pairs of 4,000 thumbnails is a matrix of 128 MB
THUMBNAIL, WIDTH = 16, 0.1  # side in pixels; mean squared difference of standardised pixels
TREES = 50
FEWEST = 10  # positives that a label needs to be scored


def leakage(name: str, images: pd.DataFrame, dropped: pd.DataFrame, task: Task) -> list[dict]:
    """One row per model and label: AUC by image, by group, their difference and its standard error
    over REPEATS splits.

    The standard error is that of the splits, not of the sample of patients.
    """
    groups = patient_groups(images, links(images, task))
    rows = images[scored(images, task) & taking_part(images, dropped)].reset_index(drop=True)
    rows = rows.assign(**{label: pd.to_numeric(rows[label]) for label in task.labels})
    found = []
    if task.numeric or task.categorical:
        part = some_groups(rows, groups, COLUMN_ROWS)
        found += compare(
            "patient columns", part, groups, task, forest_scores(columns_of(part, task))
        )
    part = some_groups(rows, groups, PIXEL_ROWS)
    if paths := thumbnails_there(name, part):
        found += compare("pixels", part, groups, task, likeness_scores(likeness(paths)))
    return found


def some_groups(rows: pd.DataFrame, groups: pd.Series, most: int) -> pd.DataFrame:
    """All rows, or those of whole groups drawn at random until there are `most`."""
    group = groups.loc[patient_keys(rows)].to_numpy()
    size = np.bincount(group)[order := np.random.RandomState(0).permutation(group.max() + 1)]
    return rows[np.isin(group, order[np.cumsum(size) <= max(most, size.max())])].reset_index(
        drop=True
    )


def columns_of(rows: pd.DataFrame, task: Task) -> np.ndarray:
    """(rows, columns) float: numbers (-1 where missing), categories as 0 and 1, images of the
    patient."""
    numbers = [
        pd.to_numeric(rows[name], errors="coerce").fillna(-1)
        for name in task.numeric
        if name in rows
    ]
    categories = [
        pd.get_dummies(rows[name], dummy_na=True, dtype=float)
        for name in task.categorical
        if name in rows
    ]
    keys = patient_keys(rows)
    return np.column_stack([*numbers, *categories, keys.map(keys.value_counts())]).astype(float)


def forest_scores(x: np.ndarray):
    """A function (train, test, targets, seed) -> scores: one forest for all labels."""

    def scores(train: np.ndarray, test: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
        forest = RandomForestRegressor(TREES, min_samples_leaf=5, random_state=seed)
        return (
            forest.fit(x[train], targets[train].squeeze()).predict(x[test]).reshape(len(test), -1)
        )

    return scores


def thumbnails_there(name: str, rows: pd.DataFrame) -> list[Path]:
    """The prepared pictures of the rows at the smallest size that has them all; [] where none
    has."""
    folder = data_folder(name) / "images"
    sizes = (
        sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        if folder.is_dir()
        else []
    )
    for size in sizes:
        paths = [image_path(name, size, image) for image in rows["image_id"]]
        if all(path.is_file() for path in paths):
            return paths
    return []


def likeness(paths: list[Path]) -> np.ndarray:
    """(n, n) float64: exp(-d / WIDTH), d the mean squared difference of two standardised gray
    thumbnails."""
    small = [
        cv2.resize(
            cv2.imread(str(path), cv2.IMREAD_GRAYSCALE),
            (THUMBNAIL, THUMBNAIL),
            interpolation=cv2.INTER_AREA,
        ).ravel()
        for path in tqdm(paths, "thumbnails", unit="image")
    ]
    x = np.array(small, dtype=float)
    x = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-6)
    square = (x * x).sum(axis=1)
    return np.exp(-np.maximum(square[:, None] + square - 2 * x @ x.T, 0) / (WIDTH * x.shape[1]))


def likeness_scores(alike: np.ndarray):
    """A function (train, test, targets, seed) -> scores: mean targets of the training rows,
    weighted by likeness."""

    def scores(train: np.ndarray, test: np.ndarray, targets: np.ndarray, _seed: int) -> np.ndarray:
        weight = alike[np.ix_(test, train)]
        return (weight @ targets[train]) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)

    return scores


def compare(model: str, rows: pd.DataFrame, groups: pd.Series, task: Task, scores) -> list[dict]:
    """One row per label with enough positives, and one for their mean."""
    given = truth(rows, task.labels, task)
    labels = [
        number for number in range(len(task.labels)) if (given[:, number] == 1).sum() >= FEWEST
    ]
    if not labels:
        return []
    aucs = [
        [
            label_aucs(out_of_fold(fold, given, scores, seed), given, labels)
            for fold in both_splits(rows, groups, task, seed)
        ]
        for seed in tqdm(range(REPEATS), model, unit="split")
    ]
    table = np.array(aucs)  # (repeats, by image or by group, labels and their mean)
    names = [*(task.labels[number] for number in labels), "mean"]
    facts = {"images": len(rows), "patients": int(patient_keys(rows).nunique()), "splits": REPEATS}
    return [
        {"model": model, "label": name, **line(table[:, :, number]), **facts}
        for number, name in enumerate(names)
        if name != "mean" or len(labels) > 1
    ]


def label_aucs(out: np.ndarray, given: np.ndarray, labels: list[int]) -> list[float]:
    """The AUC of every label over the rows where it is known, and their mean."""
    known = [~np.isnan(given[:, number]) for number in labels]
    found = [auc(out[rows, number], given[rows, number]) for rows, number in zip(known, labels)]
    return [*found, float(np.mean(found))]


def line(pairs: np.ndarray) -> dict:
    """The figures of one label from (repeats, 2) AUCs."""
    difference = pairs[:, 0] - pairs[:, 1]
    return {
        "by_image": float(pairs[:, 0].mean()),
        "by_group": float(pairs[:, 1].mean()),
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
    }


def both_splits(
    rows: pd.DataFrame, groups: pd.Series, task: Task, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The fold of every row, (rows,), once by image and once by group, both stratified by label.

    (Where folds differ in prevalence, scores pooled over them rank worse: a fold with more
    positives is scored by models that saw fewer.)
    """
    patient = patient_keys(rows).to_numpy()
    group = groups.loc[patient].to_numpy()
    table = group_table(rows, group, patient, task.labels, task.categorical)
    fold = pd.Series(split_groups(table, FOLDS, seed), index=table.index)
    each = np.arange(len(rows))
    by_image = iterative_stratification(
        group_table(rows, each, each, task.labels), FOLDS, np.random.RandomState(seed)
    )
    return by_image, fold.loc[group].to_numpy()


def out_of_fold(fold: np.ndarray, given: np.ndarray, scores, seed: int) -> np.ndarray:
    """(rows, labels) scores of every row by the model that did not see its fold."""
    out, targets = np.empty(given.shape), np.nan_to_num(given)
    for k in range(FOLDS):
        test, train = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        out[test] = scores(train, test, targets, seed)
    return out


def leakage_text(found: list[dict]) -> str:
    """The rows as a printed table."""
    lines = [f"{'model':<16}{'label':<20}{'by image':>10}{'by group':>10}{'difference':>12}"]
    lines += [
        f"{row['model']:<16}{row['label']:<20}{row['by_image']:>10.4f}{row['by_group']:>10.4f}"
        f"{row['difference']:>+12.4f} ± {row['standard_error']:.4f}  ({row['images']} images, "
        f"{row['patients']} patients)"
        for row in found
    ]
    return "\n".join(lines)
