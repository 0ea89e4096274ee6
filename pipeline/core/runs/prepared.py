"""Which sizes of a competition's pictures stand, and which the named runs need.

    python -m pipeline.core.runs.prepared melanoma [melanoma/b5_384 ...]      exit 0 when nothing is missing, else 1
"""
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict

from pipeline.core.artifacts.tables import data_folder
from pipeline.core.config.competition import Competition, load, parse_target, runs_of
from pipeline.core.runtime.command import run_stage, stage_parser


def needed_sizes(competition: Competition, targets: Iterable[str]) -> set[int]:
    """The sizes of the runs that the targets mean; those of other competitions are passed over."""
    parsed = [target for target in map(parse_target, targets) if target.competition == competition.name]
    return {run.size for target in parsed for run in runs_of(competition, target)}


def standing_sizes(competition: Competition) -> set[int]:
    """The sizes that prepare.json says stand, made by today's resize specification; none without images.csv."""
    folder = data_folder(competition.name)
    if not (folder / "images.csv").is_file() or not (folder / "prepare.json").is_file():
        return set()
    made = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))
    return set(made["sizes"]) if made["resize"] == asdict(competition.task.resize) else set()


def main(arguments) -> None:
    competitions = [load(name) for name in dict.fromkeys(parse_target(t).competition for t in arguments.targets)]
    sys.exit(any(needed_sizes(each, arguments.targets) - standing_sizes(each) for each in competitions))


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
