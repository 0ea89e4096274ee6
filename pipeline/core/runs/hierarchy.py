"""Labels in a tree (`Run.hierarchy`): parents made positive by their children, and what each node
is taught, P(node | all its ancestors are positive) (Pham et al., arXiv 1911.06475)."""

import numpy as np
import pandas as pd

from pipeline.core.config.label_tree import LabelTree
from pipeline.core.runs.auxiliary_columns import auxiliary_column, label_numbers
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError


def closed_upward(
    job: Job, rows: pd.DataFrame, tree: LabelTree
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows with a column for each node, in which a positive child has made a blank or uncertain
    parent positive; and in words how many cells that changed.

    A parent that is negative stays so; how many have a positive child is said too.
    """
    columns = [label_numbers(auxiliary_column(job, rows, name), name) for name in tree.names]
    values, contradictions = close_values(np.stack(columns, axis=1), tree)
    changed = [
        f"{name} {count}"
        for name, before, after in zip(tree.names, columns, values.T)
        if (count := int((after == 1).sum() - (before == 1).sum()))
    ]
    total = sum(int(text.rpartition(" ")[2]) for text in changed)
    notes = [f"hierarchy: {total} cells became positive for a positive child: {', '.join(changed)}"]
    if not changed:
        notes = ["hierarchy: 0 cells became positive for a positive child"]
    if contradictions:
        notes.append(f"hierarchy: {contradictions} negative cells above a positive child stay")
    return rows.assign(**dict(zip(tree.names, values.T))), tuple(notes)


def close_values(values: np.ndarray, tree: LabelTree) -> tuple[np.ndarray, int]:
    """float64 (N, nodes) of 1, 0, -1, NaN, closed upward; and how many cells are 0 above a 1."""
    closed = values.copy()
    contradictions = 0
    for node in reversed(tree.from_roots()):
        parent = tree.parents[node]
        if parent is None:
            continue
        positive = closed[:, node] == 1
        contradictions += int((positive & (closed[:, parent] == 0)).sum())
        open_cell = np.isnan(closed[:, parent]) | (closed[:, parent] == -1)
        closed[positive & open_cell, parent] = 1.0
    return closed, contradictions


def given_ancestors(job: Job, targets: np.ndarray, tree: LabelTree) -> np.ndarray:
    """Targets (N, nodes) with NaN where not all of a node's ancestors are 1; UserError for a node
    that no row is left to teach."""
    kept = targets.copy()
    for node, name in enumerate(tree.names):
        for above in tree.ancestors(node):
            kept[targets[:, above] != 1, node] = np.nan
        if tree.parents[node] is not None and np.isnan(kept[:, node]).all():
            raise UserError(
                f"{job.target}: hierarchy: no training row teaches {name!r}: in none are all its "
                "ancestors positive and itself known"
            )
    return kept
