"""What decides the artifacts of a fold, as plain values: recorded in each, compared before use.

Weights and predictions take hours, so they are never deleted or made again by themselves:
`require_current` refuses those that today's configuration would make otherwise. A comment in the
competition's file, a time limit, the number of processes decide nothing and are not recorded here.
"""

import json
from dataclasses import fields
from pathlib import Path

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import (
    FINETUNED,
    PREDICTIONS,
    PRETRAINED,
    STAGE_1_PREDICTIONS,
    fold_folder,
)
from pipeline.core.artifacts.prepared_images import pixels
from pipeline.core.artifacts.provenance import (
    first_difference,
    read_weights_header,
    recorded_facts,
    require_hashes,
)
from pipeline.core.config.run import ALL, METADATA, Metadata, Run, as_json, from_json
from pipeline.core.config.task import Uncertain
from pipeline.core.runs.extra_labels import EXTRA_TABLES, extra_tables
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError

# The fields of a run that decide its weights. Left out: views (predictions only), checkpointing
# (recomputes the same numbers), the names. A field that is missing here can be changed without
# anyone noticing that the weights are another network's.
TRAINING = (
    "network",
    "size",
    "weights",
    "auxiliary",
    "hierarchy",
    "augment",
    "dropout",
    "drop_path",
    "pool",
    "bag",
    "bag_images",
    "precision",
    "accumulate",
    "ema",
    "seed",
    "pretrain",
)
# The fields that decide what the same weights predict: augment sets the range of the views.
SCORING = ("network", "size", "augment", "views", "precision")
PREDICTED = (STAGE_1_PREDICTIONS, PREDICTIONS)
# The facts that are recipes, and what they are rebuilt as.
RECIPES = {"run": Run, "metadata": Metadata}


def facts_of(job: Job, artifact: str) -> dict:
    """What decides an artifact of this fold today: plain JSON values by name."""
    if artifact in PREDICTED:
        facts = prediction_facts(job)
    elif job.run.name == METADATA:
        facts = metadata_facts(job)
    else:
        facts = weights_facts(job, artifact)
    # Through JSON and back, as a file holds them: a tuple becomes a list, so equal values compare
    # as equal.
    return json.loads(json.dumps({"target": job.target, "hashes": job.tables.hashes, **facts}))


def weights_facts(job: Job, artifact: str) -> dict:
    """Of stage-1 weights; those of stage 2 add their recipe and the weights they start from."""
    # Stage 2's recipe is no fact of stage 1: another margin must not cost stage 1 again.
    task = job.competition.task
    run = as_json(job.run)
    names = TRAINING if artifact == PRETRAINED else (*TRAINING, "finetune")
    policies = task.uncertain_pretrain if artifact == PRETRAINED else task.uncertain_finetune
    facts = {
        "run": {name: run[name] for name in names},
        "labels": list(job.labels),
        "label_values": label_values(job, policies),
        "resize": as_json(task.resize),
        "pixels": pixels(job.competition),
    }
    # Tables that a run may learn from beside images.csv; runs without one have no such fact.
    if artifact == PRETRAINED:
        facts.update(extra_tables(job))
    # How long a network of all rows trained.
    if job.fold == ALL:
        facts["whole"] = job.run.whole
    # Named by content: stage 1 trained again makes stage 2 out of date, a copied file does not.
    if artifact == FINETUNED:
        facts["stage_1"] = digest_of(job.folder / PRETRAINED)
    return facts


def metadata_facts(job: Job) -> dict:
    """Of the weights of the network on patient columns."""
    # Images play no part, unless it was trained through an image network: then its weights do.
    task = job.competition.task
    config = job.competition.metadata
    through = ""
    if config.through:
        folder = fold_folder(job.competition.name, config.through, job.fold)
        through = digest_of(folder / FINETUNED)
    return {
        "metadata": as_json(config),
        "labels": list(task.labels),
        "label_values": label_values(job, task.uncertain_finetune),
        "columns": {"numeric": list(task.numeric), "categorical": list(task.categorical)},
        "through": through,
    }


def prediction_facts(job: Job) -> dict:
    """Of a fold's predictions: the weights they are of, and the views they average."""
    facts = {"labels": list(job.labels), "weights": weights_of(job)}
    if job.run.name == METADATA:
        return facts

    # Pixels too: training and inference must see images that were resized in the same way.
    run = as_json(job.run)
    names = (*SCORING, "hierarchy") if job.run.hierarchy else SCORING
    scoring = {name: run[name] for name in names}
    resize = as_json(job.competition.task.resize)
    return {**facts, "run": scoring, "resize": resize, "pixels": pixels(job.competition)}


def weights_of(job: Job) -> dict[str, str]:
    """Phase -> digest of the weights that predictions are made with."""
    names = (FINETUNED,) if job.run.name == METADATA else (PRETRAINED, FINETUNED)
    return {name.split(".")[0]: digest_of(job.folder / name) for name in names}


def label_values(job: Job, policies: dict[str, Uncertain]) -> dict:
    """What blank and uncertain labels become in training."""
    return {
        "blank": job.competition.task.blank,
        "uncertain": {label: as_json(policy) for label, policy in sorted(policies.items())},
    }


def digest_of(path: Path) -> str:
    """The digest that a weights file records of its tensors; "" where there is no such file."""
    return read_weights_header(path).get("digest", "") if path.is_file() else ""


def predicted_with_other_weights(job: Job, path: Path) -> bool:
    """True for predictions of weights that have been trained again since: they are worthless, and
    the only predictions that are made again without asking."""
    # Where weights are gone today, nothing says that the predictions are of others.
    recorded = recorded_facts(path).get("weights")
    today = weights_of(job)
    return all(today.values()) and recorded != today


def lacks_test_scores(job: Job, path: Path) -> bool:
    """True for predictions of stage 1 that leave the test images out although the run's `stage`
    may make stage 1 a member of the ensemble."""
    wanted = path.name == STAGE_1_PREDICTIONS and job.run.stage != "finetuned"
    return wanted and not recorded_facts(path).get("test_scored")


def require_current(job: Job, path: Path) -> None:
    """Raise a UserError where an existing artifact was made from something else than today's: it
    names the file, the field, both values, and the command that forgets it."""
    recorded = recorded_facts(path)
    today = facts_of(job, path.name)
    forget = forget_command(job, path)
    # The tables first: their message says which of the two has changed.
    require_hashes(path, recorded.get("hashes", {}), today["hashes"], forget)

    # Stage 2's weights under the name of stage 1's have the same target, tables and run.
    phase = recorded.get("phase", path.stem)
    if path.suffix == ".safetensors" and phase != path.stem:
        raise UserError(
            f"{path}: holds the {phase} weights, by its header; delete {path.parent} (`{forget}` "
            "does) and make it again, or restore that file"
        )

    # The other facts, to the first that differs. A run's fields are named as the competition's file
    # names them (`finetune.margin`), the rest with their fact (`resize.fit`).
    for name, value in today.items():
        if value_unknown(name, value):
            continue
        before = recorded.get(name)
        prefix = name
        if name in RECIPES:
            before = comparable_recipe(RECIPES[name], before, value)
            prefix = "" if name == "run" else name
        found = first_difference(before, value, prefix)
        if found:
            field, old, new = found
            raise UserError(
                f"{path}: made with {field}={old!r}, the configuration says {new!r}; delete "
                f"{path.parent} (`{forget}` does) and make it again, or restore that {field}"
            )

    # Last the data themselves. Weights check theirs as they are loaded: to hash them here, 113 MB
    # for each fold of a B5, would take make longer than all its other questions.
    if path.name in PREDICTED and recorded.get("digest") != file_hash(path):
        raise UserError(
            f"{path}: its data differ from what was written (damaged, or changed by hand); "
            f"`{forget}` removes it, then predict again"
        )


def value_unknown(name: str, value: object) -> bool:
    """True for facts about files that are gone today: there is nothing to compare with."""
    if name == "weights":
        return not all(value.values())
    return name in ("stage_1", "through", "pixels", *EXTRA_TABLES) and not value


def comparable_recipe(kind: type, recorded: object, today: dict) -> dict | None:
    """The recorded values of today's fields of a Run or Metadata; fields it does not know have
    their default, since an older version of this code did what the default does."""
    if not isinstance(recorded, dict):
        return None
    known = {item.name for item in fields(kind)}
    try:
        values = {name: value for name, value in recorded.items() if name in known}
        recipe = json.loads(json.dumps(as_json(from_json(kind, values))))
    except (TypeError, UserError):
        # No recipe of today's code, for want of a field or by a value it refuses: compared as it
        # is.
        recipe = recorded
    return {name: recipe.get(name) for name in today}


def same_key(recorded: dict, today: dict) -> bool:
    """Whether a checkpoint's key is today's, its recipe compared as `comparable_recipe` does."""
    recorded = dict(recorded)
    today = json.loads(json.dumps(today))
    for name, kind in RECIPES.items():
        if isinstance(today.get(name), dict):
            recorded[name] = comparable_recipe(kind, recorded.get(name), today[name])
    # As text, in which a NaN (the mean of a column without values) is equal to itself.
    return json.dumps(recorded, sort_keys=True) == json.dumps(today, sort_keys=True)


def forget_command(job: Job, path: Path) -> str:
    """The command that removes an artifact and what was made from it."""
    # No more than is needed: where stage 2 is out of date, the hours of stage 1 are kept.
    stage = {PRETRAINED: "", FINETUNED: " STAGE=finetune"}
    name = job.competition.name
    part = "" if job.run.name == METADATA else stage.get(path.name, " STAGE=predict")
    return f"make forget COMP={name} RUN={job.run.name} FOLDS={job.fold}{part}"
