"""What the second level learned from: which columns mattered on held-out patients, and its learning
curve.

    what_mattered(data, learners)     a row for each kind of column, and the columns of most gain
    learning_curve(data, learners)    a row for each number of boosting rounds

Reads    `second_level.StackingRows` and, for each fold, the learners fitted on the other folds
Writes   nothing

Columns are strongly correlated, so that a single permutation understates each: the kinds together
say more.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline.core.ensemble.second_level.candidates import METRICS
from pipeline.core.ensemble.second_level.learners import Learners, learner_logits
from pipeline.core.ensemble.second_level.nested import StackingRows

COLUMNS_LISTED = 12  # single columns that are listed
ROUNDS = (3, 10, 30, 100, 200, 300)  # boosting rounds at which the curve is read


def what_mattered(
    data: StackingRows, learners: Mapping[int, Learners], shown: int = COLUMNS_LISTED
) -> list[dict]:
    """Rows column, gain, fall: the share of the trees' gain, and the fall of the metric on held-out
    patients when the columns are permuted among them, both means over folds.

    First the kinds of columns, then the single ones of most gain.
    """
    area = METRICS[data.metric]
    gain = np.mean([gain_shares(one) for one in learners.values()], axis=0)
    names = list(data.table.columns)
    largest = [names[position] for position in np.argsort(-gain)[:shown]]
    parts = {**kinds_of(data), **{name: [name] for name in largest}}
    fall = dict.fromkeys(parts, 0.0)
    generator = np.random.default_rng(0)
    for fold, one in learners.items():
        held = data.fold == fold
        table = data.table[held]
        truth = data.labels[held]
        before = area(learner_logits(one, table), truth)
        for name, columns in parts.items():
            mixed = table.copy()
            mixed[columns] = table[columns].to_numpy()[generator.permutation(len(table))]
            after = area(learner_logits(one, mixed), truth)
            fall[name] += (before - after) / len(learners)
    return [
        {
            "column": name,
            "kind": len(columns) > 1,
            "gain": float(gain[[names.index(column) for column in columns]].sum()),
            "fall": float(fall[name]),
        }
        for name, columns in parts.items()
    ]


def gain_shares(learners: Learners) -> np.ndarray:
    """(F,) each column's share of the trees' gain; 0 without trees."""
    import lightgbm

    total = np.zeros(len(learners.features))
    for text in learners.trees:
        total += lightgbm.Booster(model_str=text).feature_importance("gain")
    return total / max(total.sum(), 1e-12)


def kinds_of(data: StackingRows) -> dict[str, list[str]]:
    """{kind: its columns}, the kinds that there are."""
    kinds = {"scores": [], "scores against the patient's own": [], "passes": [], "patient": []}
    for name in data.table:
        _, _, form = name.partition(": ")
        if name in data.alone:
            kinds["patient"].append(name)
        elif form.endswith("pass") or form == "pass spread":
            kinds["passes"].append(name)
        elif form in ("", "logit") or name.startswith("members: "):
            kinds["scores"].append(name)
        else:
            kinds["scores against the patient's own"].append(name)
    return {f"all {kind} columns": columns for kind, columns in kinds.items() if columns}


def learning_curve(data: StackingRows, learners: Mapping[int, Learners]) -> list[dict]:
    """Rows rounds, training, held_out: the metric of the trees' first rounds (one seed), mean over
    folds; [] without trees."""
    area = METRICS[data.metric]
    rows = []
    for rounds in ROUNDS:
        training = []
        held_out = []
        for fold, one in learners.items():
            if not one.trees:
                continue
            trees = replace(one, trees=one.trees[:1], lines=(), share=1.0)
            logits = learner_logits(trees, data.table, rounds)
            held = data.fold == fold
            training.append(area(logits[~held], data.labels[~held]))
            held_out.append(area(logits[held], data.labels[held]))
        if training:
            row = {"training": float(np.mean(training)), "held_out": float(np.mean(held_out))}
            rows.append({"rounds": rounds, **row})
    return rows
