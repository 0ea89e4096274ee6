"""Shortcuts: can the file alone, not what the image shows, predict a label?

    found = shortcuts(images, folds, dropped, task)
    print(shortcut_text(found))

A hospital that photographs its malignant cases with another camera gives images of another size; a
network learns that, and fails elsewhere. Gradient boosting on what images.csv says of a file (its
sides, their ratio, mean brightness, bytes), each alone and all together, is scored out of fold by
patient; a label is reported with its interval over patients, and warned of where that interval
lies above LIMIT. No image is read. Facts that images.csv does not have are named.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pipeline.core.artifacts.labels import truth
from pipeline.core.config.task import Task
from pipeline.core.folds.split import fold_of, patient_keys, scored, taking_part
from pipeline.core.metrics import auc, auc_interval

LIMIT = 0.6  # of the AUC: what lies above it with its whole interval is warned of
FEWEST = 10  # positives, and negatives, that a label needs
IMAGES_LOOKED_AT = 40_000  # images that are looked at, of patients drawn at random
FOLDS_OF_ONE = 5  # where folds.csv validates one fold only
# Small trees: a shortcut worth a warning is a plain one.
TREE_SETTINGS = {"max_iter": 40, "max_leaf_nodes": 8, "learning_rate": 0.2, "random_state": 0}
FACTS = {
    "size": ("width", "height"),
    "aspect ratio": ("width", "height"),
    "brightness": ("brightness",),
    "bytes of the file": ("file_bytes",),
}
TOGETHER = "all together"


def shortcuts(images: pd.DataFrame, folds: pd.DataFrame, dropped: pd.DataFrame, task: Task) -> dict:
    """What folds_audit.json has as "shortcuts": "limit", "images" looked at, "unknown" facts,
    "few" (labels with too few positives or negatives), and "found", a row a label and fact: label,
    fact, auc, low, high, n, positives."""
    part = taking_part(images, dropped) & scored(images, task)
    rows = some_patients(with_folds(images[part], folds))
    facts = known_facts(rows)
    result = {
        "limit": LIMIT,
        "images": len(rows),
        "unknown": [name for name in FACTS if name not in facts],
        "few": [],
        "found": [],
    }
    if not facts:
        return result
    if len(facts) > 1:
        facts[TOGETHER] = np.concatenate(list(facts.values()), axis=1)

    known = truth(rows, task.labels, task)
    patients = patient_keys(rows).to_numpy()
    fold = rows["fold"].to_numpy()
    for label, values in zip(tqdm(task.labels, "shortcuts", unit="label", leave=False), known.T):
        used = ~np.isnan(values)
        positives = int(np.count_nonzero(values == 1))
        if min(positives, np.count_nonzero(values == 0)) < FEWEST:
            result["few"].append(label)
            continue
        for fact, columns in facts.items():
            scores = out_of_fold(columns[used], values[used], fold[used])
            low, high = auc_interval(scores, values[used], patients[used])
            result["found"].append(
                {
                    "label": label,
                    "fact": fact,
                    "auc": auc(scores, values[used]),
                    "low": low,
                    "high": high,
                    "n": int(used.sum()),
                    "positives": positives,
                }
            )
    return result


def with_folds(rows: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """The rows that folds.csv validates, with their fold; where it validates one fold only, all
    rows, in FOLDS folds by patient drawn at random."""
    fold = fold_of(rows, folds)
    if fold[fold >= 0].nunique() > 1:
        return rows.assign(fold=fold)[fold >= 0]
    names, number = np.unique(patient_keys(rows), return_inverse=True)
    drawn = np.random.default_rng(0).permutation(len(names)) % FOLDS_OF_ONE
    return rows.assign(fold=drawn[number])


def some_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows, or those of patients drawn at random until there are MOST."""
    keys = patient_keys(rows)
    names = np.sort(keys.unique())
    order = np.random.default_rng(0).permutation(len(names))
    size = keys.value_counts().reindex(names).to_numpy()
    drawn = names[order][np.cumsum(size[order]) <= IMAGES_LOOKED_AT]
    return rows[keys.isin(drawn).to_numpy()]


def known_facts(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Fact -> float64 (n, 1 or 2), NaN where it is unknown; facts that no row has are left out."""
    facts = {}
    for name, columns in FACTS.items():
        if not all(column in rows for column in columns):
            continue
        values = rows[list(columns)].to_numpy(np.float64)
        if name == "aspect ratio":
            values = values[:, :1] / values[:, 1:]
        if not np.isnan(values).all():
            facts[name] = values
    return facts


def out_of_fold(columns: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """(n,) each fold's rows by trees fitted on the other folds; their share of positives where
    these hold one class only."""
    scores = np.empty(len(labels))
    for number in np.unique(fold):
        held = fold == number
        if len(np.unique(labels[~held])) < 2:
            scores[held] = labels[~held].mean() if (~held).any() else 0.5
            continue
        # Its threads gain little on columns this few, and on a busy machine wait for each other:
        # 711 images took 8 minutes on two cores that others used too.
        with threadpool_limits(1):
            model = HistGradientBoostingClassifier(**TREE_SETTINGS).fit(
                columns[~held], labels[~held]
            )
            scores[held] = model.predict_proba(columns[held])[:, 1]
    return scores


def shortcut_warnings(found: Mapping) -> list[str]:
    """A sentence for each label that a file alone predicts: by which single fact best, or by all
    together where no single one does."""
    warnings = []
    rows = pd.DataFrame(found["found"], columns=["label", "fact", "auc", "low", "high"])
    for label, of_label in rows[rows["low"] > found["limit"]].groupby("label", sort=False):
        single = of_label[of_label["fact"] != TOGETHER]
        candidates = single if len(single) else of_label
        best = candidates.loc[candidates["low"].idxmax()]
        warnings.append(
            f"{label}: a shortcut: {subject(best['fact'])} predicts it without the image, AUC "
            f"{interval_text(best)}, its interval above {found['limit']:g}; a network may learn "
            "that instead of the disease"
        )
    return warnings


def subject(fact: str) -> str:
    """A fact as the subject of a sentence.

    >>> subject("size"), subject("all together")
    ("the image's size alone", 'size, aspect ratio, brightness and bytes of the file together')
    """
    if fact == TOGETHER:
        return f"{', '.join(list(FACTS)[:-1])} and {list(FACTS)[-1]} together"
    return f"the image's {fact} alone"


def interval_text(row: Mapping) -> str:
    """`0.712 [0.664, 0.760]`."""
    return f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def shortcut_table(found: Mapping) -> list[list[str]]:
    """The head and a row for each label: its AUC by each fact, with its interval."""
    facts = list(dict.fromkeys(row["fact"] for row in found["found"]))
    labels = dict.fromkeys(row["label"] for row in found["found"])
    cells = {(row["label"], row["fact"]): interval_text(row) for row in found["found"]}
    return [
        ["label", *facts],
        *([label, *(cells[label, one] for one in facts)] for label in labels),
    ]


def shortcut_lines(found: Mapping) -> list[str]:
    """What was not looked at, in sentences."""
    lines = []
    if found["unknown"]:
        lines.append(
            f"Shortcuts: images.csv does not say {', '.join(found['unknown'])} (`make prepare` on "
            "new data measures them)."
        )
    if found["few"]:
        lines.append(
            f"Shortcuts: fewer than {FEWEST} positives or negatives: {', '.join(found['few'])}."
        )
    return lines


def shortcut_text(found: Mapping) -> str:
    """The check as it is printed."""
    lines = []
    if found["found"]:
        head, *rows = shortcut_table(found)
        lines.append(
            f"shortcuts: AUC of a label by facts of the file alone, out of fold by patient, "
            f"{found['images']:,} images"
        )
        lines.append(pd.DataFrame(rows, columns=head).set_index("label").to_string())
    return "\n".join([*lines, *shortcut_lines(found)])
