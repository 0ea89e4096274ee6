"""What a split by image would report: its AUC, beside the one by groups of patients.

Two cheap models that remember patients rather than learn disease are scored out-of-fold under both
splits: a random forest on the patient columns and the number of the patient's images, and a kernel
average over thumbnails (the score of an image is the mean label of the training images, weighted
by likeness). The difference is what a split by image would have added to a reported AUC for
nothing; it is zero in expectation where each patient has one image.
"""

import cv2
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from tqdm import tqdm

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import data_folder, image_path
from pipeline.core.artifacts.prepared_images import PreparedImage, prepared_images
from pipeline.core.config.task import Task
from pipeline.core.folds.balanced_search import group_table, iterative_stratification, split_groups
from pipeline.core.folds.groups import links, patient_groups
from pipeline.core.folds.split import patient_keys, scored, taking_part
from pipeline.core.images.views import read_prepared_image
from pipeline.core.metrics import auc

FOLDS = 5
REPEATS = 5  # splits; their spread is the standard error, .0055 on SIIM's 33,126 images
COLUMN_ROWS = 40_000  # all of SIIM, a sixth of CheXpert
PIXEL_ROWS = 4_000  # the likeness of all pairs of 4,000 thumbnails is a matrix of 128 MB
# Side in pixels: enough to know a patient's skin or frame by, few to see a disease by.
THUMBNAIL = 16
PIXEL_KERNEL_WIDTH = 0.1  # mean squared difference of standardised pixels
TREES = 50
FEWEST = 10  # positives that a label needs to be scored


def leakage(name: str, images: pd.DataFrame, dropped: pd.DataFrame, task: Task) -> list[dict]:
    """One row per model and label: AUC by image, by group, their difference and its standard error
    over REPEATS splits.

    The standard error is that of the splits, not of the sample of patients.
    """
    # The rows that an out-of-fold AUC is about.
    groups = patient_groups(images, links(images, task))
    rows = images[scored(images, task) & taking_part(images, dropped)].reset_index(drop=True)
    rows = rows.assign(**{label: pd.to_numeric(rows[label]) for label in task.labels})
    table = []

    # The patient columns, where the competition has any.
    if task.numeric or task.categorical:
        part = some_groups(rows, groups, COLUMN_ROWS)
        scores = forest_scores(split_columns(part, task))
        table += split_rows("patient columns", part, groups, task, scores)

    # The pixels, where they are prepared.
    part = some_groups(rows, groups, PIXEL_ROWS)
    if pictures := prepared_everywhere(name, part):
        alike = likeness(pictures)
        table += split_rows("pixels", part, groups, task, likeness_scores(alike))
    return table


def some_groups(rows: pd.DataFrame, groups: pd.Series, most: int) -> pd.DataFrame:
    """At most `most` rows where there are more: those of whole groups, drawn at random."""
    # Whole groups: a patient cut in half would be remembered less, and the difference be too small.
    group = groups.loc[patient_keys(rows)].to_numpy()
    order = np.random.RandomState(0).permutation(group.max() + 1)
    size = np.bincount(group)[order]
    # At least the largest group's size, so that no draw is empty.
    drawn = order[np.cumsum(size) <= max(most, size.max())]
    return rows[np.isin(group, drawn)].reset_index(drop=True)


def split_columns(rows: pd.DataFrame, task: Task) -> np.ndarray:
    """(rows, columns) float: numbers (-1 where missing), categories as 0 and 1, images of the
    patient."""
    # -1 lies below every age and count, so that one cut of a tree sets the missing ones apart.
    columns = []
    for name in (name for name in task.numeric if name in rows):
        columns.append(pd.to_numeric(rows[name], errors="coerce").fillna(-1))
    for name in (name for name in task.categorical if name in rows):
        columns.append(pd.get_dummies(rows[name], dummy_na=True, dtype=float))

    # The number of a patient's images is all but a fingerprint: SIIM has 84 different ones.
    keys = patient_keys(rows)
    columns.append(keys.map(keys.value_counts()))
    return np.column_stack(columns).astype(float)


def forest_scores(x: np.ndarray):
    """A random forest as a function (train, test, targets, seed) -> scores, for all labels."""

    def scores(train: np.ndarray, test: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
        # A regressor: the mean of 0 and 1 in a leaf is a score, and it takes many labels at once.
        forest = RandomForestRegressor(TREES, min_samples_leaf=5, random_state=seed)
        # scikit-learn warns of a single label as a column.
        forest.fit(x[train], targets[train].squeeze())
        return forest.predict(x[test]).reshape(len(test), -1)

    return scores


def prepared_everywhere(name: str, rows: pd.DataFrame) -> list[PreparedImage]:
    """The prepared images of the rows at the smallest size that has them all; [] where none has."""
    folder = data_folder(name) / "images"
    if not folder.is_dir():
        return []
    for size in sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()):
        if all(image_path(name, size, image).is_file() for image in rows["image_id"]):
            return prepared_images(name, size, rows["image_id"])
    return []


def likeness(images: list[PreparedImage]) -> np.ndarray:
    """How alike images look, (n, n) float64 from 0 to 1.

    exp(-d / PIXEL_KERNEL_WIDTH), d the mean squared difference of two standardised gray thumbnails.
    """
    thumbnails = []
    for image in tqdm(images, "thumbnails", unit="image"):
        gray = read_prepared_image(image, 1)
        small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnails.append(small.ravel())
    x = np.array(thumbnails, dtype=float)

    # Standardised, so that exposure does not count; |a - b|^2 = |a|^2 + |b|^2 - 2 a.b.
    x = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-6)
    square = (x * x).sum(axis=1)
    difference = np.maximum(square[:, None] + square - 2 * x @ x.T, 0)  # rounding may go below 0
    return np.exp(-difference / (PIXEL_KERNEL_WIDTH * x.shape[1]))


def likeness_scores(alike: np.ndarray):
    """A kernel average as a function (train, test, targets, seed) -> scores: the mean target of the
    training rows, weighted by likeness."""

    def scores(train: np.ndarray, test: np.ndarray, targets: np.ndarray, _seed: int) -> np.ndarray:
        weight = alike[np.ix_(test, train)]
        return (weight @ targets[train]) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)

    return scores


def split_rows(model: str, rows: pd.DataFrame, groups: pd.Series, task: Task, scores) -> list[dict]:
    """One row per label with enough positives, and one for their mean.

    scores: a function (train, test, targets, seed) -> (test, labels) float.
    """
    # With fewer than 10 positives in 5 folds, the noise of an AUC hides any difference.
    given = truth(rows, task.labels, task)
    labels = np.flatnonzero((given == 1).sum(axis=0) >= FEWEST).tolist()
    if not labels:
        return []

    # (repeats, by image or by group, labels and their mean); the same seed for both splits.
    aucs = np.empty((REPEATS, 2, len(labels) + 1))
    for seed in tqdm(range(REPEATS), model, unit="split"):
        for kind, fold in enumerate(both_splits(rows, groups, task, seed)):
            out = out_of_fold_scores(fold, given, scores, seed)
            aucs[seed, kind] = label_aucs(out, given, labels)

    # The mean of a single label would be that label again.
    names = [task.labels[number] for number in labels]
    if len(labels) > 1:
        names.append("mean")
    facts = {"images": len(rows), "patients": int(patient_keys(rows).nunique()), "splits": REPEATS}
    return [
        {"model": model, "label": name, **label_figures(aucs[:, :, number]), **facts}
        for number, name in enumerate(names)
    ]


def label_aucs(out: np.ndarray, given: np.ndarray, labels: list[int]) -> list[float]:
    """The AUC of every label over the rows where it is known, and their mean."""
    aucs = []
    for number in labels:
        known = ~np.isnan(given[:, number])
        aucs.append(auc(out[known, number], given[known, number]))
    return [*aucs, float(np.mean(aucs))]


def label_figures(pairs: np.ndarray) -> dict:
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
    """The fold of every row, (rows,), once by image and once by group."""
    # Both stratified by label: where folds differ in prevalence, scores pooled over them rank
    # worse, since a fold with more positives is scored by models that saw fewer.
    patient = patient_keys(rows).to_numpy()
    group = groups.loc[patient].to_numpy()
    table = group_table(rows, group, patient, task.labels, task.categorical)
    fold = pd.Series(split_groups(table, FOLDS, seed), index=table.index)

    # By image: every row is a group and a patient of its own. No search: with groups of one image,
    # stratification leaves nothing to exchange.
    each = np.arange(len(rows))
    single = group_table(rows, each, each, task.labels)
    by_image = iterative_stratification(single, FOLDS, np.random.RandomState(seed))
    return by_image, fold.loc[group].to_numpy()


def out_of_fold_scores(fold: np.ndarray, given: np.ndarray, scores, seed: int) -> np.ndarray:
    """The scores of every row by the model that did not see its fold, (rows, labels) float64."""
    out = np.empty(given.shape)
    targets = np.nan_to_num(given)
    for k in range(FOLDS):
        test = np.flatnonzero(fold == k)
        train = np.flatnonzero(fold != k)
        out[test] = scores(train, test, targets, seed)
    return out


def leakage_text(rows: list[dict]) -> str:
    """The rows as a printed table."""
    lines = [f"{'model':<16}{'label':<20}{'by image':>10}{'by group':>10}{'difference':>12}"]
    for row in rows:
        name = f"{row['model']:<16}{row['label']:<20}"
        aucs = f"{row['by_image']:>10.4f}{row['by_group']:>10.4f}"
        difference = f"{row['difference']:>+12.4f} ± {row['standard_error']:.4f}"
        size = f"({row['images']} images, {row['patients']} patients)"
        lines.append(f"{name}{aucs}{difference}  {size}")
    return "\n".join(lines)
