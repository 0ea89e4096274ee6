"""The files that `pipeline.ensemble` writes together, read only as they were written."""

from pipeline.core.artifacts.files import first_changed, read_json
from pipeline.core.artifacts.paths import models_folder
from pipeline.core.config.competition import Competition
from pipeline.core.runtime.errors import UserError


def read_average_facts(competition: Competition) -> dict:
    """ensemble.json; UserError where it is missing or damaged, or where ensemble.csv, scores.csv or
    quantiles.json beside it is not the one that was written with it."""
    folder = models_folder(competition.name)
    made_by = f"make ensemble COMP={competition.name}"
    needed = ("members", "runs", "stages", "folds", "weights")
    facts = read_json(folder / "ensemble.json", made_by, needed)
    changed = changed_file(competition, facts)
    if changed:
        raise UserError(
            f"{folder / changed}: differs from what was written (damaged, or changed by hand); "
            f"`{made_by}` makes it again"
        )
    return facts


def changed_file(competition: Competition, facts: dict) -> str:
    """The first of the files whose digests `facts` has that is not as it was written, "" when all
    are."""
    # Written one after the other, so a killed run or a hand's edit leaves them at odds.
    return first_changed(models_folder(competition.name), facts.get("digests", {}))
