"""What trained the runs, as their weights record it: recipe, hardware, date, seconds."""

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import FINETUNED, fold_folder
from pipeline.core.artifacts.provenance import read_weights_header
from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import STAGE_2
from pipeline.core.runs.predictions import is_imported


@dataclass(frozen=True)
class Trained:
    """One run of the ensemble.

    imported  its predictions are from elsewhere
    recipe    the values of `config.run.Run` that its weights record; {} for predictions from
              elsewhere and for the metadata network
    hardware  what trained its folds, made: the last fold's date, commits: of all folds; empty where
              older weights do not say
    seconds   of training and validation, all folds; None where a log does not say
    """

    name: str
    imported: bool
    recipe: dict
    hardware: tuple[str, ...]
    made: str
    commits: tuple[str, ...]
    seconds: float | None


def trained_run(competition: str, run: str, folds: tuple[int, ...]) -> Trained:
    """What the weights and logs of a run's folds say."""
    headers = []
    seconds = 0.0
    known = True
    for fold in folds:
        folder = fold_folder(competition, run, fold)
        if (folder / FINETUNED).is_file():
            headers.append(read_weights_header(folder / FINETUNED))
            warn_of_another_log(folder / "log.jsonl", headers[-1])
        own = logged_seconds(folder / "log.jsonl")
        known &= own > 0
        seconds += own
    imported = is_imported(competition, run)
    recipe = {} if imported or not headers or run == METADATA else headers[0]["run"]
    return Trained(
        name=run,
        imported=imported,
        recipe=recipe,
        hardware=tuple(sorted({str(h["hardware"]) for h in headers if h.get("hardware")})),
        made=max((str(h["made"]) for h in headers if h.get("made")), default=""),
        commits=tuple(sorted({str(h["commit"]) for h in headers if h.get("commit")})),
        seconds=seconds if known else None,
    )


def warn_of_another_log(path: Path, header: dict) -> None:
    """Say where a log is not the one that training wrote; weights made before logs were recorded
    do not tell."""
    if path.is_file() and header.get("log", file_hash(path)) != file_hash(path):
        print(
            f"warning: {path}: differs from what training wrote (lines are gone, or another fold's "
            "log); its curves and seconds may be wrong",
            file=sys.stderr,
        )


def logged_seconds(path: Path) -> float:
    """The seconds of all epochs that a log has; 0 for none, or an older log."""
    return sum(float(line.get("seconds") or 0) for line in read_log(path))


def recipe_lines(runs: list[Trained]) -> list[tuple[str, str]]:
    """(networks, recipe in words), runs of one recipe together."""
    groups: dict[str, list[Trained]] = {}
    for run in runs:
        groups.setdefault(recipe_text(run), []).append(run)
    return [(", ".join(map(network_text, members)), text) for text, members in groups.items()]


def network_text(run: Trained) -> str:
    """`b5_384 (tf_efficientnet_b5.ns_jft_in1k, 384 px)`."""
    if not run.recipe:
        return run.name
    return f"{run.name} ({run.recipe['network']}, {run.recipe['size']} px)"


def recipe_text(run: Trained) -> str:
    """A run's recipe in one sentence, without its network and size."""
    recipe = run.recipe
    if run.name == METADATA:
        return "two layers on patient columns"
    if run.imported:
        return "predictions made elsewhere; their training is not known here"
    if not recipe:
        return "its weights are not here, so its recipe is not known"
    parts = [f"from {recipe['weights']} weights"]
    parts.append(pretrain_text(recipe["pretrain"]))
    parts.append(finetune_text(recipe["finetune"]))
    parts.append(augment_text(recipe["augment"]))
    for one in recipe.get("auxiliary", ()):
        parts.append(f"beside them {one['column']} with weight {one['weight']:g}")
    if recipe.get("hierarchy"):
        pairs = ", ".join(f"{child} under {one}" for child, one in recipe["hierarchy"].items())
        parts.append(f"conditional on parents: {pairs}")
    for name in ("ema", "dropout", "drop_path"):
        if recipe.get(name):
            parts.append(f"{name} {recipe[name]:g}")
    if recipe.get("pool", "avg") != "avg":
        parts.append(f"pooled by {recipe['pool']}")
    if recipe.get("bag"):
        parts.append(bag_text(recipe))
    parts.append(f"{recipe['views']} test-time views")
    if recipe.get("whole"):
        parts.append("test images scored by one more network, of all training rows")
    return "; ".join(part for part in parts if part)


def bag_text(recipe: dict) -> str:
    """Which images a network sees at once, in words."""
    how = {"max": "the largest of their scores", "attention": "attention over their features"}
    return (
        f"all images of a unit at once, by {how[recipe['bag']]}, at most {recipe['bag_images']} in "
        "training"
    )


def pretrain_text(recipe: dict) -> str:
    """Stage 1 in words."""
    if not recipe["epochs"]:
        return "no stage 1"
    rate = f"rate {recipe['lr']:g}"
    if recipe.get("lr_max"):
        rate += f" to {recipe['lr_max']:g} in triangles of {recipe['cycle_epochs']} epochs"
    rate += cosine_text(recipe)
    optimizer = {"adamw": "AdamW"}.get(recipe.get("optimizer"), "Adam")
    return (
        f"cross-entropy, {optimizer}, {recipe['epochs']} epochs, batches of "
        f"{recipe['batch_size']}, {rate}{shared_text(recipe)}{rows_text(recipe)}"
    )


def rows_text(recipe: dict) -> str:
    """Which rows stage 1 learns where it is not all with their own labels, in words."""
    text = ""
    if recipe.get("negatives"):
        text += f", {recipe['negatives']:g} negatives a positive, drawn anew for each epoch"
    if recipe.get("labels_file"):
        text += f", labels and weights of {recipe['labels_file']}"
    return text


def cosine_text(recipe: dict) -> str:
    """A cosine of the rate in words, "" for none."""
    if recipe.get("schedule") != "cosine":
        return ""
    return f" on a cosine after {recipe['warmup_epochs']:g} epochs of warm-up"


def shared_text(recipe: dict) -> str:
    """What is not at its default of the fields that both stages have, in words; older weights do
    not record them."""
    named = {
        "backbone_lr": ", backbone at {:g} of the rate",
        "layer_decay": ", {:g} of it from layer to layer",
    }
    parts = [text.format(recipe[name]) for name, text in named.items() if recipe.get(name, 1) != 1]
    named = {
        "clip": ", gradients up to {:g}",
        "smoothing": ", labels smoothed by {:g}",
        "mixup": ", mixup {:g}",
        "cutmix": ", CutMix {:g}",
    }
    parts += [text.format(recipe[name]) for name, text in named.items() if recipe.get(name)]
    return "".join(parts)


def finetune_text(recipe: dict) -> str:
    """Stage 2 in words."""
    if not recipe["epochs"]:
        return "no stage 2"
    optimizer = {"adamw": "PESG in AdamW's direction"}.get(recipe.get("optimizer"), "PESG")
    if recipe.get("inner_lr"):
        optimizer = f"PDSCA (inner rate {recipe['inner_lr']:g})"
    if recipe.get("site_column"):
        optimizer = f"CODA over {recipe['site_column']}, {recipe['site_steps']} steps a round"
    text = (
        f"{STAGE_2[recipe['loss']]}{hard_images_text(recipe)}, {optimizer}, {recipe['epochs']} "
        f"epochs, batches of {recipe['batch_size']}, rate {recipe['lr']:g}{cosine_text(recipe)}"
    )
    unit = recipe["milestone_unit"]
    if recipe["milestones"] and recipe.get("schedule") != "cosine":
        places = ", ".join(map(str, recipe["milestones"]))
        text += f" divided by {recipe['divide']:g} at {unit} {places}"
    if recipe.get("first_stage"):
        grows = f"in stages of PPD-SG, the first of {recipe['first_stage']} {unit}s"
        text += f" divided by {recipe['divide']:g} {grows}"
    text += shared_text(recipe)
    if recipe.get("layers") == "head":
        text += ", the classifier alone"
    return f"{text}, margin {recipe['margin']}, scores normalised by {recipe['normalize']}"


def hard_images_text(recipe: dict) -> str:
    """Which images count most in a loss over pairs, in words; "" where all count alike."""
    parts = []
    for side in ("negatives", "positives"):
        # Recipes older than these fields do not have them.
        share = recipe.get(f"hardest_{side}", 1)
        if share < 1:
            parts.append(f"the hardest {share:.0%} of {side}")
        temperature = recipe.get(f"temperature_{side}")
        if temperature is not None:
            parts.append(f"{side} at temperature {temperature:g}")
    return f" ({', '.join(parts)})" if parts else ""


def augment_text(recipe: dict) -> str:
    """The random views of training in words."""
    parts = ["flips"] if recipe["flip"] else []
    for name, unit in (("rotate", "°"), ("translate", ""), ("scale", ""), ("shear", "°")):
        if recipe[name]:
            parts.append(f"{name} {recipe[name]:g}{unit}")
    if recipe["holes"]:
        parts.append(f"{recipe['holes']} holes")
    if recipe["photometric"]:
        parts.append("colour, blur, noise")
    return "augmented by " + ", ".join(parts) if parts else "no augmentation"
