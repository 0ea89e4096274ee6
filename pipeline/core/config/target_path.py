"""Targets: which competition, run and fold a command is about, written as a path: `melanoma`,
`melanoma/b5_384` or `melanoma/b5_384/fold0`.

A shorter target means all below it.
"""

import re
from dataclasses import dataclass

from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import METADATA, Metadata, Run
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Target:
    """A competition, one of its runs ("" = all), and one of its folds (None = all)."""

    competition: str
    run: str = ""
    fold: int | None = None

    def __str__(self) -> str:
        fold = "" if self.fold is None else f"fold{self.fold}"
        return "/".join(part for part in (self.competition, self.run, fold) if part)


def parse_target(text: str) -> Target:
    """`melanoma/b5_384/fold0` as a Target; a UserError says what is wrong with any other text."""
    # competition / run / fold<k>; a last slash, as shells complete folders, is no mistake.
    match = re.fullmatch(r"([a-z][a-z0-9_]*)(?:/([A-Za-z0-9_.\-]+))?(?:/fold(\d+))?/?", text)
    if not match:
        raise UserError(
            f"{text!r} is not a target: write melanoma, melanoma/b5_384 or melanoma/b5_384/fold0"
        )
    return Target(match[1], match[2] or "", None if match[3] is None else int(match[3]))


def expand(
    texts: list[str], folds: dict[str, list[int]], metadata: bool = False
) -> list[tuple[Competition, Run | Metadata, int]]:
    """Every (competition, run, fold) that the targets mean, each once, in order.

    `folds` maps a competition's name to the folds it has. With `metadata` the metadata network
    stands for the runs; a competition without one gives nothing.
    """
    members_of = metadata_of if metadata else runs_of
    jobs = []
    for target in map(parse_target, texts):
        competition = load_competition(target.competition)
        known = folds[target.competition]
        if target.fold is not None and target.fold not in known:
            raise UserError(f"{target}: folds.csv has the folds {', '.join(map(str, known))}")

        # Every run and fold below the target, unless an earlier target meant it already.
        wanted = known if target.fold is None else [target.fold]
        for member in members_of(competition, target):
            for fold in wanted:
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
