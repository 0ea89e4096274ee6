"""The proof's page: every method's AUC, and its paired difference from cross-entropy's, with
intervals over patients and seeds."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from pipeline.core.metrics import auc, group_codes, percentiles
from pipeline.paper.proof.methods import ALL_METHODS, BASELINE, OURS, RANK_MEAN

BESIDE = Path(__file__).with_name("BESIDE.md")  # the page's end, written by hand
REPLICATES = 1000
NORMAL_95 = 1.96  # standard errors to the end of a 95 % interval
PAGE_COLUMNS = (*ALL_METHODS, RANK_MEAN)


@dataclass(frozen=True)
class ProofSettings:
    """What tells one run of the protocol from another."""

    size: int
    first_epochs: int
    second_epochs: int
    batch: int
    start: str

    def __str__(self) -> str:
        return (
            f"lite0 at {self.size} px from {self.start} weights, {self.first_epochs} + "
            f"{self.second_epochs} epochs, batches of {self.batch}"
        )


@dataclass(frozen=True)
class SetResult:
    """Of one set: by method the AUC in the mean over folds and seeds, and (difference from the
    baseline's, low and high end of its 95 % interval, standard error). `tested` says on what."""

    name: str
    tested: str
    aucs: dict[str, float]
    differences: dict[str, tuple[float, float, float, float]]


def with_ensemble(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of a fold and seed, (images, methods), and the mean rank of two of them."""
    ranks = (rankdata(table[BASELINE]) + rankdata(table[OURS])) / 2
    return table.assign(**{RANK_MEAN: ranks})


def resampled(table: pd.DataFrame, counts: np.ndarray, methods: tuple[str, ...]) -> np.ndarray:
    """Every method's AUC with each image counted as often as its patient was drawn."""
    rows = np.repeat(np.arange(len(table)), counts)
    labels = table["label"].to_numpy()[rows]
    return np.array([auc(table[method].to_numpy()[rows], labels) for method in methods])


def summarise(name: str, runs: dict[tuple[int, int], pd.DataFrame], seed: int = 0) -> SetResult:
    """AUCs and replicates of a set from its runs, (fold, seed) -> scores of every method.

    A replicate draws seeds with replacement, and within each fold patients, the same for all its
    seeds and methods.
    """
    runs = {key: with_ensemble(table) for key, table in runs.items()}
    seeds = sorted({key[1] for key in runs})
    first = next(iter(runs.values()))
    methods = tuple(method for method in PAGE_COLUMNS if method in first)
    whole = {
        key: resampled(table, np.ones(len(table), int), methods) for key, table in runs.items()
    }
    patients: dict[int, np.ndarray] = {}
    for fold, _ in runs:
        table = next(table for key, table in runs.items() if key[0] == fold)
        patients[fold] = group_codes(table["patient"].to_numpy(), len(table))
    random = np.random.default_rng(seed)
    replicates = np.full((REPLICATES, len(methods)), np.nan)
    for row in range(REPLICATES):
        drawn_seeds = random.choice(seeds, len(seeds))
        values = []
        for fold, codes in patients.items():
            groups = codes.max() + 1
            counts = random.multinomial(groups, np.full(groups, 1 / groups))[codes]
            for drawn in drawn_seeds:
                if (fold, drawn) in runs:
                    values.append(resampled(runs[fold, drawn], counts, methods))
        if values:
            replicates[row] = np.mean(values, axis=0)
    folds = sorted(patients)
    images = sum(len(next(runs[key] for key in runs if key[0] == fold)) for fold in folds)
    tested = f"{images:,} images, folds {', '.join(map(str, folds))}, {len(seeds)} seeds"
    aucs = dict(zip(methods, np.mean(list(whole.values()), axis=0).tolist(), strict=True))
    return SetResult(name, tested, aucs, paired_differences(aucs, replicates))


def paired_differences(
    aucs: dict[str, float], replicates: np.ndarray
) -> dict[str, tuple[float, float, float, float]]:
    """Of each method but the baseline, from (REPLICATES, methods) AUCs."""
    base = replicates[:, list(aucs).index(BASELINE)]
    found = {}
    for place, method in enumerate(aucs):
        if method != BASELINE:
            paired = replicates[:, place] - base
            low, high = percentiles(paired, 0.95)
            error = float(np.nanstd(paired, ddof=1))
            found[method] = (aucs[method] - aucs[BASELINE], float(low), float(high), error)
    return found


def pooled(results: list[SetResult], method: str) -> tuple[float, float, float]:
    """(mean difference over the sets that have the method, low, high): each set counts once. Sets
    share no patient, so their variances add."""
    found = [result.differences[method] for result in results if method in result.differences]
    value = float(np.mean([difference for difference, *_ in found]))
    error = np.sqrt(sum(error**2 for *_, error in found)) / len(found)
    return value, float(value - NORMAL_95 * error), float(value + NORMAL_95 * error)


def signed(value: float, low: float, high: float) -> str:
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def proof_page(records: list[dict], absent: dict[str, str]) -> str:
    """The page from the stored lines, a section for each settings, with the `note` that a line may
    have been given; `absent`: set -> why it may be missing here."""
    tables = by_settings(records)
    lines = ["# Does stage 2 help?", ""]
    if not tables:
        lines += ["Nothing has been run yet."]
    for settings, results in tables.items():
        found = list(results.values())
        notes = [
            record["note"]
            for record in records
            if "note" in record and read_as(ProofSettings, record) == settings
        ]
        missing = [f"{name} ({why})" for name, why in absent.items() if name not in results]
        lines += [
            f"## {settings}",
            "",
            first_paragraph(found),
            "",
            *(f"- {result.name}: {result.tested}" for result in found),
            *([f"- missing: {', '.join(missing)}"] if missing else []),
            *(f"- note: {text}" for text in notes),
            *method_tables(found),
            "",
        ]
    lines += [
        "",
        "Three rates each on inner validation. Intervals: bootstrap over patients within folds and "
        "over seeds, paired; of the mean over sets from their standard errors. Made by "
        "`make proof` (its options are the heading's values), from `results/proof*.jsonl`; the "
        "docstring of `pipeline/paper/proof/__main__.py` is the protocol.",
    ]
    return "\n".join(lines) + "\n\n" + BESIDE.read_text(encoding="utf-8")


def by_settings(records: list[dict]) -> dict[ProofSettings, dict[str, SetResult]]:
    """settings -> set -> its newest result, with methods that only an older line of the same folds
    and seeds has; settings with the most sets first."""
    tables: dict[ProofSettings, dict[str, SetResult]] = {}
    for record in records:
        sets = tables.setdefault(read_as(ProofSettings, record), {})
        newest = read_as(SetResult, record)
        older = sets.get(newest.name)
        if older and older.tested == newest.tested:
            aucs = older.aucs | newest.aucs
            newest = replace(newest, aucs=aucs, differences=older.differences | newest.differences)
        sets[newest.name] = newest
    return dict(sorted(tables.items(), key=lambda item: -len(item[1])))


def read_as(kind: type, record: dict) -> Any:
    """The dataclass `kind` from its fields in a stored line."""
    return kind(**{item.name: record[item.name] for item in fields(kind)})


def first_paragraph(results: list[SetResult]) -> str:
    """What a section says first."""
    value, low, high = pooled(results, OURS)
    above = sum(result.differences[OURS][0] > 0 for result in results)
    found = "above 0" if low > 0 else "below 0" if high < 0 else "no difference shown"
    return (
        f"{OURS} less {BASELINE}, the same image passes: {signed(value, low, high)} in the mean "
        f"over {len(results)} of 5 sets ({found}); it is above on {above}."
    )


def method_tables(results: list[SetResult]) -> list[str]:
    """AUCs, then differences from the baseline, a row a method and a column a set."""
    names = [result.name for result in results]
    lines = ["", "| AUC | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    shown = [method for method in PAGE_COLUMNS if any(method in one.aucs for one in results)]
    for method in shown:
        found = [result.aucs.get(method) for result in results]
        cells = ["" if value is None else f"{value:.4f}" for value in found]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", f"| less {BASELINE} [95 %] | " + " | ".join((*names, "mean")) + " |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for method in shown:
        if method != BASELINE:
            known = [result.differences.get(method) for result in results]
            cells = ["" if value is None else signed(*value[:3]) for value in known]
            cells.append(signed(*pooled(results, method)))
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines
