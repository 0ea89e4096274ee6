"""What stage 1 of a fold is taught: its rows and labels, those of a file (soft labels, weights,
pseudo-labels of test images), and auxiliary columns.

reads   data/<comp>/<Pretrain.labels_file>   image_id | labels weight fold, as `Pretrain` says
        data/<comp>/auxiliary.csv            see `auxiliary_columns.py`
        the .json beside either              where there is one, the digest of what was written

Rows of images that do not train in this fold change nothing: nobody's validation is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.labels import targets
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.tables import check_id_column
from pipeline.core.config.label_tree import LabelTree, label_tree
from pipeline.core.config.run import ALL
from pipeline.core.folds.split import patient_keys
from pipeline.core.runs.auxiliary_columns import AUXILIARY, auxiliary_targets, read_extra_table
from pipeline.core.runs.bags import bags_of, drawn_once, mean_of_bags, of_bags
from pipeline.core.runs.hierarchy import closed_upward, given_ancestors
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError

# The facts of stage 1's weights about such tables: their digests.
EXTRA_TABLES = ("labels_file", "auxiliary_table")


@dataclass(frozen=True)
class Lesson:
    """What a fold's stage 1 learns, N images or (`Run.bag`) units.

    rows       of images.csv, a row an image
    labels     float32 (N, K), NaN = left out; with a hierarchy also where an ancestor is not
               positive
    auxiliary  float32 (N, A), the outputs of the run's auxiliary columns
    weights    float32 (N, K + A), None = all count alike
    notes      what is worth a line before it begins
    """

    rows: pd.DataFrame
    labels: np.ndarray
    auxiliary: np.ndarray
    weights: np.ndarray | None
    notes: tuple[str, ...]


def extra_tables(job: Job) -> dict[str, str]:
    """The digests of the tables that the run's stage 1 learns from beside images.csv, "" for one
    that is not there; nothing for a run without."""
    run = job.run
    folder = data_folder(job.competition.name)
    facts = {}
    if run.pretrain.labels_file:
        facts["labels_file"] = hash_or_blank(folder / run.pretrain.labels_file)
    if any(one.column not in job.tables.images for one in run.auxiliary):
        facts["auxiliary_table"] = hash_or_blank(folder / AUXILIARY)
    return facts


def hash_or_blank(path: Path) -> str:
    return file_hash(path) if path.is_file() else ""


def lesson(job: Job, seed: int) -> Lesson:
    """The rows, labels and weights of a fold's stage 1; UserError for a cell that is none."""
    # The training rows with their own labels.
    task = job.competition.task
    rows = job.training()
    tree = label_tree(job.run, job.labels)
    if tree:
        return conditional_lesson(job, rows, tree, seed)
    bags = bags_of(job.run, rows)
    named = drawn_once(rows, bags)
    labels = targets(named, job.labels, task, task.uncertain_pretrain, seed)
    weights = None
    notes: tuple[str, ...] = ()

    # Those of a file over them, and the test rows that it names behind them.
    name = job.run.pretrain.labels_file
    if name:
        path = data_folder(job.competition.name) / name
        table = read_labels_file(path, job)
        added = added_rows(job, table)
        unknown = np.full((len(added), len(job.labels)), np.nan, np.float32)
        rows = pd.concat([rows, added], ignore_index=True)
        given = table.set_index("image_id").reindex(rows["image_id"])
        labels = overwritten(np.concatenate([labels, unknown]), given, job.labels)
        weights = given["weight"].fillna(1.0).to_numpy(np.float32)
        notes = file_notes(job, path, rows, table, added)
        bags = bags_of(job.run, rows)
        weights = mean_of_bags(weights, bags)

    # One weight a row, for each of its columns.
    labels = of_bags(labels, bags)
    auxiliary = of_bags(auxiliary_targets(job, rows, job.run.auxiliary), bags)
    if weights is not None:
        columns = labels.shape[1] + auxiliary.shape[1]
        weights = np.repeat(weights[:, None], columns, axis=1)
    return Lesson(rows, labels, auxiliary, weights, notes)


def conditional_lesson(job: Job, rows: pd.DataFrame, tree: LabelTree, seed: int) -> Lesson:
    """The lesson of a run with a hierarchy: every node given that its ancestors are positive."""
    task = job.competition.task
    rows, notes = closed_upward(job, rows, tree)
    nodes = targets(rows, tree.names, task, task.uncertain_pretrain, seed)
    nodes = given_ancestors(job, nodes, tree)
    others = auxiliary_targets(job, rows, job.run.auxiliary[len(tree.columns) :])
    auxiliary = np.concatenate([nodes[:, tree.labels :], others], axis=1)
    return Lesson(rows, nodes[:, : tree.labels], auxiliary, None, notes)


def read_labels_file(path: Path, job: Job) -> pd.DataFrame:
    """The rows of a file of labels that are for this fold: image_id, weight, fold, and the labels
    that it has; checked."""
    table = read_extra_table(path)
    for name in ("weight", "fold"):
        if name not in table:
            table[name] = np.nan
    labels = [label for label in job.labels if label in table]
    for name, top in (("weight", np.inf), ("fold", np.inf), *((label, 1) for label in labels)):
        check_numbers(path, table, name, top)
    known = table["image_id"].isin(job.tables.images["image_id"])
    if not known.all():
        row = int(np.argmin(known))
        raise UserError(
            f"{path}: row {row + 2}, column image_id: {table['image_id'].iloc[row]!r} is not in "
            "images.csv"
        )
    if job.fold == ALL:
        return mean_over_folds(table, labels)
    own = table[table["fold"].isna() | (table["fold"] == job.fold)]
    check_id_column(path, own)
    return own


def mean_over_folds(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """One row an image: for a network that validates nobody, all folds' rows are as good."""
    numbers = table[["image_id", "weight", *labels]].astype(dict.fromkeys(labels, float))
    return numbers.groupby("image_id", sort=False).mean().reset_index().assign(fold=np.nan)


def check_numbers(path: Path, table: pd.DataFrame, name: str, top: float) -> None:
    """Raise a UserError that names the first cell that is neither blank nor from 0 to `top`."""
    values = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
    wrong = ~(((values >= 0) & (values <= top) & np.isfinite(values)) | table[name].isna())
    if wrong.any():
        row = int(np.argmax(wrong))
        cell = str(table[name].iloc[row])
        range_text = "0 or more" if top == np.inf else f"from 0 to {top}"
        raise UserError(f"{path}: row {row + 2}, column {name}: {cell!r} is not {range_text}")


def added_rows(job: Job, table: pd.DataFrame) -> pd.DataFrame:
    """The test rows of images.csv that a file of labels names, but for those of patients whom this
    fold validates."""
    test = job.test()
    named = test[test["image_id"].isin(table["image_id"])]
    validated = patient_keys(job.validation())
    return named[~patient_keys(named).isin(validated)]


def overwritten(labels: np.ndarray, given: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Labels (N, K) with the cells of the file that are not blank in their place."""
    new = given.reindex(columns=list(names)).to_numpy(np.float32)
    return np.where(np.isnan(new), labels, new)


def file_notes(
    job: Job, path: Path, rows: pd.DataFrame, table: pd.DataFrame, added: pd.DataFrame
) -> tuple[str, ...]:
    """What a file of labels does to a fold, in words, and a warning of labels that leak."""
    named = int(rows["image_id"].isin(table["image_id"]).sum()) - len(added)
    lines = [
        f"{path}: labels or weights for {named} training images; {len(added)} test images train"
    ]
    # A row for every fold was labelled by networks of every fold, this one's patients among theirs.
    own = table[table["image_id"].isin(added["image_id"])]
    if job.fold != ALL and own["fold"].isna().any():
        lines.append(
            f"{path}: WARNING: test rows without `fold` may have been labelled by networks that "
            "trained on the images validated here: out-of-fold scores would flatter"
        )
    return tuple(lines)
