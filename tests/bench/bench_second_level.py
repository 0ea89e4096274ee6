"""How long the second level takes on ISIC 2024's size: 401,000 rows, 10 members, 5 x 5 nested fits.

    python -m tests.bench.bench_second_level                   all of it
    python -m tests.bench.bench_second_level --rows 50000 --fits 5

Reads    nothing: scores are drawn at random, for 1,042 patients with very different numbers of
         images, 393 positives
Writes   nothing; prints seconds
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd

from pipeline.core.ensemble.second_level.learners import learner_logits
from pipeline.core.ensemble.second_level.nested import (
    Recipe,
    fit_rows,
    out_of_fold_members,
    stacking_rows,
)
from pipeline.core.ensemble.second_level.patient_context import (
    Columns,
    category_levels,
    context_columns,
)
from pipeline.core.metrics import auc

COLUMNS = Columns(("age",), ("sex", "site"), "site")


def drawn(rows: int, members: int, patients: int, positives: int) -> tuple:
    """(patients, members, labels, fold) at random."""
    generator = np.random.default_rng(0)
    weight = generator.lognormal(0, 1.2, patients)
    code = np.concatenate(
        [np.arange(patients), generator.choice(patients, rows - patients, p=weight / weight.sum())]
    )
    labels = np.zeros(rows)
    labels[generator.choice(rows, positives, replace=False)] = 1
    level = generator.normal(size=patients)[code]
    noise = (
        level[:, None] + generator.normal(size=(rows, 1)) + generator.normal(size=(rows, members))
    )
    scores = 1 / (1 + np.exp(-(noise + 2.5 * labels[:, None] - 3)))
    table = pd.DataFrame(
        {
            "patient_id": np.char.add("p", code.astype(str)),
            "age": generator.integers(4, 18, rows) * 5.0,
            "sex": np.where(code % 2, "female", "male"),
            "site": generator.choice(["torso", "arm", "leg", "head", "palm"], rows),
        }
    )
    return (
        table,
        out_of_fold_members([f"m{k}" for k in range(members)], scores, code % 5),
        labels,
        code % 5,
    )


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rows", type=int, default=401_000)
    made.add_argument("--members", type=int, default=10)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument(
        "--fits",
        type=int,
        default=25,
        help="of the 25 (5 outer, each with 4 inner): the first this many",
    )
    made.add_argument("--threads", type=int, default=1)
    asked = made.parse_args()
    patients = max(10, asked.rows // 385)
    positives = max(20, asked.rows // 1020)

    # The columns.
    table, members, labels, fold = drawn(asked.rows, asked.members, patients, positives)
    started = time.perf_counter()
    columns = context_columns(table, members, COLUMNS, category_levels(table, COLUMNS))
    print(
        f"columns: {columns.shape[0]:,} rows x {columns.shape[1]}: "
        f"{time.perf_counter() - started:.1f} s",
        flush=True,
    )
    del columns
    data = stacking_rows(table, members, labels, fold, COLUMNS)

    # Each outer fold, and within it each inner one.
    recipe = Recipe(seeds=tuple(range(asked.seeds)), threads=asked.threads)
    tasks = [(outer, None) for outer in range(5)]
    tasks += [(outer, inner) for outer in range(5) for inner in range(5) if inner != outer]
    started = time.perf_counter()
    outer_scores = np.full(asked.rows, np.nan)
    for outer, inner in tasks[: asked.fits]:
        held = fold == (outer if inner is None else inner)
        learners = fit_rows(data, (fold != outer) & ~held, recipe)
        found = learner_logits(learners, data.table[held])
        if inner is None:
            outer_scores[held] = found
        print(f"  fold {outer}, inner {inner}: {time.perf_counter() - started:.0f} s", flush=True)
    seconds = time.perf_counter() - started
    fits = min(asked.fits, len(tasks))
    known = ~np.isnan(outer_scores)
    print(
        f"{fits} fits of {asked.seeds} seeds: {seconds:.0f} s, {seconds / fits:.1f} s each, so "
        f"{25 * seconds / fits:.0f} s "
        f"for 25; {asked.threads} thread(s); memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB; "
        f"AUC {auc(outer_scores[known], labels[known]):.4f}, mean of members "
        f"{auc(data.quantiles.mean(axis=0)[known], labels[known]):.4f}"
    )


if __name__ == "__main__":
    main()
