"""Targets: which competition, run and fold a command is about, written as a path: `melanoma`,
`melanoma/b5_384`, `melanoma/b5_384/fold0` or, where the run has `whole`, `melanoma/b5_384/all`.

A shorter target means all below it.
"""

import re
from dataclasses import dataclass

from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import ALL, METADATA, Metadata, Run, fold_name
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Target:
    """A competition, one of its runs ("" = all), and one of its folds (None = all of them, ALL =
    the one of all rows)."""

    competition: str
    run: str = ""
    fold: int | str | None = None

    def __str__(self) -> str:
        fold = "" if self.fold is None else fold_name(self.fold)
        return "/".join(part for part in (self.competition, self.run, fold) if part)


def parse_target(text: str) -> Target:
    """`melanoma/b5_384/fold0` as a Target; a UserError says what is wrong with any other text."""
    # competition / run / fold<k>; a last slash, as shells complete folders, is no mistake.
    run = r"([a-z][a-z0-9_]*)(?:/([A-Za-z0-9_.\-]+))?"
    match = re.fullmatch(rf"{run}(?:/(?:fold(\d+)|({ALL})))?/?", text)
    if not match:
        raise UserError(
            f"{text!r} is not a target: write melanoma, melanoma/b5_384 or melanoma/b5_384/fold0"
        )
    fold = match[4] if match[3] is None else int(match[3])
    return Target(match[1], match[2] or "", fold)


def expand(
    texts: list[str], folds: dict[str, list[int]], metadata: bool = False
) -> list[tuple[Competition, Run | Metadata, int | str]]:
    """Every (competition, run, fold) that the targets mean, each once, in order; ALL is the last
    fold of a run with `whole`.

    `folds` maps a competition's name to the folds it has. With `metadata` the metadata network
    stands for the runs; a competition without one gives nothing.
    """
    members_of = metadata_of if metadata else runs_of
    jobs = []
    for target in map(parse_target, texts):
        competition = load_competition(target.competition)
        known = folds[target.competition]
        if target.fold not in (None, ALL, *known):
            raise UserError(f"{target}: folds.csv has the folds {', '.join(map(str, known))}")

        # Every run and fold below the target, unless an earlier target meant it already.
        for member in members_of(competition, target):
            of_all = [ALL] if isinstance(member, Run) and member.whole else []
            if target.fold == ALL and not of_all:
                raise UserError(f"{target}: {member.name} has no network of all rows; set whole")
            for fold in [*known, *of_all] if target.fold is None else [target.fold]:
                if (competition, member, fold) not in jobs:
                    jobs.append((competition, member, fold))
    return jobs


def runs_of(competition: Competition, target: Target) -> tuple[Run, ...]:
    """The run that the target names, or all."""
    return (competition.run(target.run),) if target.run else competition.runs


def metadata_of(competition: Competition, target: Target) -> tuple[Metadata, ...]:
    """The competition's metadata network; nothing where it has none."""
    if target.run not in ("", METADATA):
        raise UserError(
            f"{target}: this stage takes {competition.name} or {competition.name}/{METADATA}"
        )
    return (competition.metadata,) if competition.metadata else ()
