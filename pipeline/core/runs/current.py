"""Is an average, a submission or a report made of what stands today? Judged by content; the
Makefile asks.

    python -m pipeline.core.runs.current ensemble melanoma/b5_384 melanoma/b6_512      exit 0 when it is, else 1
    python -m pipeline.core.runs.current submit melanoma
    python -m pipeline.core.runs.current report melanoma

An ensemble carries the digests of the predictions it was made of; a submission and a report carry
that of the ensemble.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from pipeline.core.artifacts.paths import models_folder, submissions_folder
from pipeline.core.artifacts.provenance import made_from_ensemble, predictions_digest, table_hashes
from pipeline.core.config.competition import Competition, load
from pipeline.core.config.run import METADATA
from pipeline.core.config.target import parse_target, runs_of
from pipeline.core.runtime.command import run_stage


def ensemble_is_current(competition: Competition, names: Sequence[str]) -> bool:
    """True when ensemble.csv averages just these runs, and the metadata network where there is one,
    as they stand."""
    folder = models_folder(competition.name)
    if not (folder / "ensemble.csv").is_file() or not (folder / "ensemble.json").is_file():
        return False
    facts = json.loads((folder / "ensemble.json").read_text(encoding="utf-8"))
    members = [*names, *([METADATA] if competition.metadata else [])]
    today = {name: predictions_digest(competition.name, name, facts["folds"]) for name in members}
    return facts["hashes"] == table_hashes(competition.name) and facts["predictions"] == today


def main(arguments: argparse.Namespace) -> None:
    targets = [parse_target(text) for text in arguments.targets]
    for competition in (
        load(name) for name in dict.fromkeys(target.competition for target in targets)
    ):
        runs = [
            run.name
            for target in targets
            if target.competition == competition.name
            for run in runs_of(competition, target)
        ]
        folder = submissions_folder(competition.name)
        current = {
            "ensemble": lambda c=competition, names=runs: ensemble_is_current(c, names),
            "submit": lambda c=competition, f=folder: made_from_ensemble(
                f / c.submission.file, c.name
            ),
            "report": lambda c=competition, f=folder: made_from_ensemble(f / "report.html", c.name),
        }
        if not current[arguments.stage]():
            sys.exit(1)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("stage", choices=("ensemble", "submit", "report"))
    made.add_argument("targets", nargs="+", metavar="TARGET")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
