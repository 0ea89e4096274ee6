"""A package's earned combination, the second level among them, on the test set that is there.

It takes whole patients and all of its members: a fold counts where every member's network of that
fold has scored every readable image. Folds that there was no time for are left out; without any,
nothing is returned, the mean of what was scored stands, and that is printed.

    combinations = read_package_combinations(folder, package)
    scores = earned_scores(combinations, package, quantiles, rows, tables, unreadable)
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.tables import as_written
from pipeline.core.ensemble.second_level.fitted import (
    COMBINATION,
    FittedCombination,
    combined_scores,
    patient_table,
    read_combinations,
)
from pipeline.core.runtime.errors import UserError
from pipeline.deploy.away.combine import ScoreTables

# Measured with two members and five folds, one core: seconds a row and fold. `kaggle` keeps so much
# time for it.
SECONDS_A_ROW = 1e-4


def read_package_combinations(folder: Path, package: dict) -> dict[str, FittedCombination]:
    """{label: combination} of a package, {} where it averages its runs. A file that is not the one
    that was packed is printed and left out: the mean of the runs needs none."""
    # The package names the digest: another run's combination would give scores as well.
    wanted = package.get("combination", "")
    path = folder / COMBINATION
    if not wanted:
        return {}
    if not path.is_file() or file_hash(path) != wanted:
        print(f"second level: {path} is not the file that was packed; the mean instead", flush=True)
        return {}
    return read_combinations(path)


def earned_scores(
    combinations: Mapping[str, FittedCombination],
    package: dict,
    quantiles: Mapping,
    rows: pd.DataFrame,
    tables: ScoreTables,
    unreadable: Collection[int] = (),
) -> np.ndarray | None:
    """float64 (n, K) in [0, 1], NaN for images that cannot be read; None where a label has no whole
    fold.

    package, quantiles, rows, tables, unreadable: as `combine_runs` takes them; rows with patient_id
    and the patient columns.
    """
    # An image that cannot be read is not in images.csv at home either: a patient's number of images
    # counts only the others.
    readable = ~np.isin(np.arange(len(rows)), list(unreadable))
    patients = patient_table(as_written(rows[readable]))
    result = np.full((len(rows), len(package["labels"])), np.nan)

    # Label by label. Whatever fails is printed and the mean stands: nobody can look at the rerun.
    for k, label in enumerate(package["labels"]):
        combination = combinations[label]
        folds = whole_folds(combination, package, tables, readable, label)
        if not folds:
            names = ", ".join(combination.members)
            print(f"second level: no fold has whole scores of {names}: the mean instead")
            return None

        # A fold's networks go through the combination together, then the folds are averaged.
        try:
            parts = [
                fold_scores(combination, fold, label, quantiles, patients, tables, readable)
                for fold in folds
            ]
        except (ImportError, UserError) as error:
            print(f"second level: {error}: the mean instead", flush=True)
            return None
        result[readable, k] = np.mean(parts, axis=0)
        print(f"{label}: {combination.candidate} of folds {', '.join(map(str, folds))}", flush=True)
    return result


def whole_folds(
    combination: FittedCombination,
    package: dict,
    tables: ScoreTables,
    readable: np.ndarray,
    label: str,
) -> list[int]:
    """The folds in which every member has scored every readable image."""
    # A member's score is a column of the second level: without it the others mean something else.
    whole = []
    for fold in sorted({network["fold"] for network in package["networks"]}):
        scored = (
            (member, fold) in tables and tables[member, fold].loc[readable, label].notna().all()
            for member in combination.members
        )
        if all(scored):
            whole.append(fold)
    return whole


def fold_scores(
    combination: FittedCombination,
    fold: int,
    label: str,
    quantiles: Mapping,
    patients: pd.DataFrame,
    tables: ScoreTables,
    readable: np.ndarray,
) -> np.ndarray:
    """What the combination makes of one fold's networks, (readable.sum(),) float64."""
    # Each network's scores go through its own frozen map: folds are calibrated differently.
    members = combination.members
    scores = [tables[member, fold][label].to_numpy(np.float64)[readable] for member in members]
    maps = [quantiles[member][f"fold{fold}"][label] for member in members]
    return combined_scores(combination, patients, np.stack(scores, axis=1), maps)
