"""What the notebook runs: predict the test set of a competition's mount with a package, in order of
value.

    python -m pipeline.deploy.away.kaggle PACKAGE RAW SUBMISSION

reads   the package; RAW, the competition's files as Kaggle mounts them, with whatever test set is
        there today
writes  SUBMISSION, replaced after each step: patients, the best network, all networks there is time
        for

TIME_LIMIT bounds it. Unreadable pictures and ids without a picture get a neutral score and are
named.
"""

import argparse
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import Competition, load
from pipeline.core.runtime.command import run_stage, time_left
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.organiser_file import fill
from pipeline.deploy.away.combine import combine
from pipeline.deploy.away.stream import (
    Scores,
    image_members,
    patients,
    pictures_for,
    quantiles,
    read_package,
    stream,
    tell_unreadable,
)

PART, RESERVE = (
    0.05,
    60.0,
)  # part of the time that is kept in reserve, and its upper bound in seconds
WRITES = 3  # as many times what the first writing took are kept for the last


def main(arguments: argparse.Namespace) -> None:
    package, raw, submission = arguments.package, arguments.raw, arguments.submission
    about, whole = read_package(package), time_left()
    competition = load(about["competition"])
    table = competition.module.read_raw(raw)
    rows, sample = (
        table[table["split"] == "test"].reset_index(drop=True),
        competition.module.sample(raw),
    )
    print(f"{len(rows):,} test pictures, {len(sample):,} ids to score", flush=True)
    scores = Scores()

    def write(step: str) -> None:
        units = combine(
            about, quantiles(package), rows, scores.made, competition.task, scores.unreadable
        )
        write_csv(submission, complete(sample, units, about, competition))
        print(f"{submission}: {step}", flush=True)

    patients(package, about, rows, scores)
    started = time_left()
    write("patients only" if scores.made else "prior only")
    reserve = min(PART * whole, RESERVE) + WRITES * (
        started - time_left() if whole < float("inf") else 0.0
    )

    def left() -> float:
        return time_left() - reserve

    members = image_members(package, about, leave_out=True)
    if len(rows) and members:
        stream(
            members[:1], pictures_for(members[:1], raw, rows["file"]), left, scores, partial=True
        )
        write("the first network")
    if len(rows) and len(members) > 1:
        stream(members[1:], pictures_for(members[1:], raw, rows["file"]), left, scores)
        write(f"{len(scores.made)} networks")
    tell_unreadable(scores)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("package", "raw", "submission"):
        made.add_argument(name, type=Path)
    return made


def complete(
    sample: pd.DataFrame, units: pd.DataFrame, about: dict, competition: Competition
) -> pd.DataFrame:
    """The sample filled in; an id that is not among the units takes the mean of those that are, or
    the prior."""
    asked = pd.Index(sample[competition.submission.id_column].astype("str").map(plain_id)).unique()
    table = units.set_index(units["unit_id"].map(plain_id))[about["labels"]].reindex(asked)
    strangers = table.index[table.isna().any(axis=1)]
    if len(strangers):
        print(
            f"{len(strangers)} ids of the sample have no picture, first {strangers[0]!r}",
            flush=True,
        )
    table = table.fillna(table.mean()).fillna(about["prior"])
    return fill(sample, table.rename_axis("unit_id").reset_index(), competition.submission)


if __name__ == "__main__":
    run_stage(main, parser())
