"""The proof's page: every method's AUC, and its paired difference from cross-entropy's, with
intervals over patients and seeds."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pipeline.core.metrics import auc, group_codes, percentiles
from pipeline.paper.proof.methods import BASELINE, OURS, PROOF_METHODS, RANK_MEAN

REPLICATES = 1000
PAGE_COLUMNS = (*PROOF_METHODS, RANK_MEAN)


@dataclass(frozen=True)
class SetResult:
    """Of one set: AUCs (methods,) in the mean over folds and seeds, and bootstrap replicates
    (REPLICATES, methods)."""

    name: str
    tested: str
    aucs: np.ndarray
    replicates: np.ndarray

    def difference(self, method: str) -> tuple[float, np.ndarray]:
        """(AUC less the baseline's, its replicates)."""
        own = PAGE_COLUMNS.index(method)
        base = PAGE_COLUMNS.index(BASELINE)
        return self.aucs[own] - self.aucs[base], self.replicates[:, own] - self.replicates[:, base]


def with_ensemble(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of a fold and seed, (images, methods), and the mean rank of two of them."""
    ranks = (rankdata(table[BASELINE]) + rankdata(table[OURS])) / 2
    return table.assign(**{RANK_MEAN: ranks})


def resampled(table: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """Every method's AUC with each image counted as often as its patient was drawn."""
    rows = np.repeat(np.arange(len(table)), counts)
    labels = table["label"].to_numpy()[rows]
    return np.array([auc(table[method].to_numpy()[rows], labels) for method in PAGE_COLUMNS])


def summarise(name: str, runs: dict[tuple[int, int], pd.DataFrame], seed: int = 0) -> SetResult:
    """AUCs and replicates of a set from its runs, (fold, seed) -> scores of every method.

    A replicate draws seeds with replacement, and within each fold patients, the same for all its
    seeds and methods.
    """
    runs = {key: with_ensemble(table) for key, table in runs.items()}
    seeds = sorted({key[1] for key in runs})
    whole = {key: resampled(table, np.ones(len(table), int)) for key, table in runs.items()}
    patients: dict[int, np.ndarray] = {}
    for fold, _ in runs:
        table = next(table for key, table in runs.items() if key[0] == fold)
        patients[fold] = group_codes(table["patient"].to_numpy(), len(table))
    random = np.random.default_rng(seed)
    replicates = np.full((REPLICATES, len(PAGE_COLUMNS)), np.nan)
    for row in range(REPLICATES):
        drawn_seeds = random.choice(seeds, len(seeds))
        values = []
        for fold, codes in patients.items():
            groups = codes.max() + 1
            counts = random.multinomial(groups, np.full(groups, 1 / groups))[codes]
            for drawn in drawn_seeds:
                if (fold, drawn) in runs:
                    values.append(resampled(runs[fold, drawn], counts))
        if values:
            replicates[row] = np.mean(values, axis=0)
    folds = sorted(patients)
    images = sum(len(next(runs[key] for key in runs if key[0] == fold)) for fold in folds)
    tested = f"{images:,} images, folds {', '.join(map(str, folds))}, {len(seeds)} seeds"
    return SetResult(name, tested, np.mean(list(whole.values()), axis=0), replicates)


def pooled(results: list[SetResult], method: str) -> tuple[float, float, float]:
    """(mean difference over the sets, low, high): each set counts once."""
    found = [result.difference(method) for result in results]
    low, high = percentiles(np.mean([replicates for _, replicates in found], axis=0), 0.95)
    return float(np.mean([value for value, _ in found])), low, high


def signed(value: float, low: float, high: float) -> str:
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def first_paragraph(results: list[SetResult]) -> str:
    """The page's first paragraph."""
    if not results:
        return "Nothing has been run yet."
    value, low, high = pooled(results, OURS)
    above = sum(result.difference(OURS)[0] > 0 for result in results)
    found = "above 0" if low > 0 else "below 0" if high < 0 else "no difference shown"
    return (
        f"{OURS} less {BASELINE}, the same image passes: {signed(value, low, high)} in the mean "
        f"over {len(results)} of 5 sets ({found}); it is above on {above}."
    )


def method_tables(results: list[SetResult]) -> list[str]:
    """AUCs, then differences from the baseline, a row a method and a column a set."""
    names = [result.name for result in results]
    lines = ["", "| AUC | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for place, method in enumerate(PAGE_COLUMNS):
        cells = [f"{result.aucs[place]:.4f}" for result in results]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", f"| less {BASELINE} [95 %] | " + " | ".join((*names, "mean")) + " |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for method in PAGE_COLUMNS:
        if method != BASELINE:
            cells = []
            for result in results:
                value, replicates = result.difference(method)
                cells.append(signed(value, *percentiles(replicates, 0.95)))
            cells.append(signed(*pooled(results, method)))
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines
