"""Which sizes of images are prepared, which the runs need, and how the pixels were made.

Read from data/<comp>/prepare.json, which `pipeline.prepare` writes last.
"""

from collections.abc import Iterable

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import data_folder
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import as_json
from pipeline.core.config.target_path import parse_target, runs_of


def needed_sizes(competition: Competition, targets: Iterable[str]) -> set[int]:
    """The sizes of the runs that the targets mean; targets of other competitions do not count."""
    sizes = set()
    for target in map(parse_target, targets):
        if target.competition == competition.name:
            sizes |= {run.size for run in runs_of(competition, target)}
    return sizes


def prepared_sizes(competition: Competition) -> set[int]:
    """The sizes made by today's resize specification; empty without images.csv."""
    folder = data_folder(competition.name)
    if not (folder / "images.csv").is_file() or not (folder / "prepare.json").is_file():
        return set()
    facts = read_json(folder / "prepare.json", needed=("sizes", "resize"))
    return set(facts["sizes"]) if facts["resize"] == as_json(competition.task.resize) else set()


def pixels(competition: Competition) -> dict | None:
    """How the prepared images were resized: {"resize": ..., "method": ...}.

    Weights and predictions carry it. None where no prepare.json says it: images of the user's own.
    """
    path = data_folder(competition.name) / "prepare.json"
    if not path.is_file():
        return None
    facts = read_json(path, needed=("resize",))
    return {"resize": facts["resize"], "method": facts.get("method")}
