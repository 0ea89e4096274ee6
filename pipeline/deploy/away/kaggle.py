"""Predict the test set of a competition's mount with a package, the most valuable networks first;
this is what the notebook runs.

    python -m pipeline.deploy.away.kaggle PACKAGE RAW SUBMISSION

reads   the package; RAW, the competition's files as Kaggle mounts them, with whatever test set is
        there today
writes  SUBMISSION, replaced after each step: patients, the best network, all networks there is time
        for, the earned combination of these where the package has one

TIME_LIMIT bounds it. Unreadable images and ids without an image get a neutral score and are
printed.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.runtime.command import run_stage, time_left
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.organiser_file import fill
from pipeline.deploy.away.combine import combine_runs
from pipeline.deploy.away.earned import (
    SECONDS_A_ROW,
    earned_scores,
    read_package_combinations,
)
from pipeline.deploy.away.stream import (
    Progress,
    load_scorers,
    print_unreadable,
    raw_images,
    read_package,
    read_quantiles,
    score_metadata,
    stream,
    units_together,
)

RESERVED_PART = 0.05  # of the time, kept for what comes after the last network
RESERVED_SECONDS = 60.0  # at most
WRITES = 3  # as many times what the first writing took are kept in reserve besides


def main(arguments: argparse.Namespace) -> None:
    # The test set as it is mounted today: of ISIC 2024, 3 public rows or some 500,000 hidden ones.
    whole = time_left()
    raw = arguments.raw
    package = read_package(arguments.package)
    competition = load_competition(package["competition"])
    table = competition.module.read_raw(raw)
    rows = table[table["split"] == "test"].reset_index(drop=True)
    units = None
    if competition.task.unit == "study":
        rows = units_together(rows)
        units = rows["unit_id"].tolist()
    sample = competition.module.sample(raw)
    print(f"{len(rows):,} test images, {len(sample):,} ids to score", flush=True)
    scores = Progress()
    quantiles = read_quantiles(arguments.package)
    combinations = read_package_combinations(arguments.package, package)
    task = competition.task

    # Replaces the whole file: whenever the session is cut, the last one that was written counts.
    def write(step: str, earned: np.ndarray | None = None) -> None:
        tables = scores.tables
        units = combine_runs(package, quantiles, rows, tables, task, scores.unreadable, earned)
        write_csv(arguments.submission, complete(sample, units, package, competition))
        print(f"{arguments.submission}: {step}", flush=True)

    # Patients, or the prior alone: seconds, and a valid file from here on.
    score_metadata(arguments.package, package, rows, scores)
    before = time_left()
    write("patients only" if scores.tables else "prior only")
    reserve = min(RESERVED_PART * whole, RESERVED_SECONDS)
    if whole < float("inf"):
        reserve += WRITES * (before - time_left())
        folds = {network["fold"] for network in package["networks"]}
        reserve += SECONDS_A_ROW * len(rows) * len(folds) * len(combinations)

    def left() -> float:
        return time_left() - reserve

    # The best network, as far as the time goes; then all others that get to the end in it.
    scorers = load_scorers(arguments.package, package, leave_out=True)
    first = scorers[:1]
    others = scorers[1:]
    if len(rows) and first:
        images = raw_images(first, raw, rows["file"])
        stream(first, images, left, scores, partial=True, units=units)
        write("the first network")
    if len(rows) and others:
        stream(others, raw_images(others, raw, rows["file"]), left, scores, units=units)
        write(f"{len(scores.tables)} networks")

    # The earned combination last: the mean stands until all of it is there.
    if len(rows) and combinations:
        tables = scores.tables
        found = earned_scores(combinations, package, quantiles, rows, tables, scores.unreadable)
        if found is not None:
            write("the earned combination", found)
    print_unreadable(scores)


def complete(
    sample: pd.DataFrame, units: pd.DataFrame, package: dict, competition: Competition
) -> pd.DataFrame:
    """The sample filled in; an id that is not among the units takes the mean of those that are, or
    the prior."""
    # By id, in the order of the sample.
    ids = sample[competition.submission.id_column].astype("str").map(plain_id)
    asked = pd.Index(ids).unique()
    scores = units.set_index(units["unit_id"].map(plain_id))[package["labels"]].reindex(asked)

    # Never an error here: in the rerun nobody could read it, and the submission would be lost.
    strangers = scores.index[scores.isna().any(axis=1)]
    if len(strangers):
        count = len(strangers)
        print(f"{count} ids of the sample have no image, first {strangers[0]!r}", flush=True)
    scores = scores.fillna(scores.mean()).fillna(package["prior"])
    return fill(sample, scores.rename_axis("unit_id").reset_index(), competition.submission)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("package", "raw", "submission"):
        options.add_argument(name, type=Path)
    return options


if __name__ == "__main__":
    run_stage(main, parser())
