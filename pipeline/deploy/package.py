"""What travels: the networks of an ensemble, how they are averaged, and the code, in one folder.

    package.json                what there is and how it is put together
    quantiles.json              frozen maps from score to quantile, for the blend that needs them
    <run>-fold<k>.safetensors   networks, each with its run, labels and resize specification in its
                                header
    metadata-fold<k>.safetensors
    code.zip or pipeline/       this package of Python modules, without the paper's

Sub-folders are avoided because Kaggle's client leaves them out.
"""

import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.files import file_hash, write_json
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import fold_folder, models_folder
from pipeline.core.artifacts.provenance import (
    provenance,
    read_weights_header,
    require_hashes,
    table_hashes,
)
from pipeline.core.artifacts.tables import read_csv, read_images
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA, as_json
from pipeline.core.runtime.errors import UserError

MADE_LATER = ("width", "height", "phash")  # columns that images.csv has only after `prepare`
NOTHING = {"members": [], "folds": [], "method": "mean", "metadata": 0.0, "weights": {}}
LEFT_OUT = ("paper", "__pycache__")


def write_package(
    competition: Competition, folder: Path, zipped: bool, code_only: bool = False
) -> dict:
    """Fill a new folder with the package of a competition's ensemble and return what package.json
    says."""
    ensemble = NOTHING if code_only else read_ensemble(competition)
    growing = folder.with_name(f".{folder.name}.new")
    for old in (growing, folder):
        shutil.rmtree(old, ignore_errors=True)
    growing.mkdir(parents=True)
    networks = copy_networks(competition, ensemble, growing)
    if networks:
        shutil.copyfile(
            models_folder(competition.name) / "quantiles.json", growing / "quantiles.json"
        )
    (zip_code if zipped else copy_code)(growing, competition.name)
    about = provenance(
        competition=competition.name,
        file=competition.submission.file,
        id_column=competition.submission.id_column,
        method=ensemble["method"],
        metadata=ensemble["metadata"],
        weights=ensemble["weights"],
        labels=list(competition.task.labels),
        columns=dict(competition.submission.columns),
        prior={} if code_only else prior(competition),
        resize=as_json(competition.task.resize),
        networks=networks,
        wheels={},
    )
    write_json(growing / "package.json", about)
    growing.replace(folder)
    return about


def read_ensemble(competition: Competition) -> dict:
    """ensemble.json, made from today's tables; UserError where the metadata network wants what only
    `prepare` knows."""
    path, task = models_folder(competition.name) / "ensemble.json", competition.task
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file; `make ensemble COMP={competition.name}` makes it"
        )
    facts = json.loads(path.read_text(encoding="utf-8"))
    require_hashes(path, facts["hashes"], table_hashes(competition.name))
    for column in (*task.numeric, *task.categorical):
        if column in MADE_LATER and METADATA in facts["members"]:
            raise UserError(
                f"patient column {column!r} is measured by `prepare`, which a package does not "
                "run; leave "
                f"it out of numeric and categorical in pipeline/competitions/{competition.name}.py"
            )
    return facts


def copy_networks(competition: Competition, ensemble: dict, folder: Path) -> list[dict]:
    """Copy the weights and list them in order of value: every run's first fold, the best run first,
    then the second folds, ...; the metadata networks are listed last and cost nothing."""
    value, networks = out_of_fold(competition) if ensemble["members"] else {}, []
    for name in filter(lambda member: counts(member, ensemble), ensemble["members"]):
        for turn, fold in enumerate(ensemble["folds"]):
            path = fold_folder(competition.name, name, fold) / "finetuned.safetensors"
            require_hashes(path, read_weights_header(path)["hashes"], ensemble["hashes"])
            file = f"{name}-fold{fold}.safetensors"
            shutil.copyfile(path, folder / file)
            networks.append(
                {
                    "member": name,
                    "fold": fold,
                    "file": file,
                    "sha256": file_hash(path),
                    "turn": turn,
                    "auc": value.get(name, 0.0),
                }
            )
    return sorted(
        networks,
        key=lambda one: (one["member"] == METADATA, one["turn"], -one["auc"], one["member"]),
    )


def counts(member: str, ensemble: dict) -> bool:
    """False for a member of weight 0: a near-duplicate, or metadata that is not blended in."""
    return (
        ensemble["metadata"] > 0
        if member == METADATA
        else any(ensemble["weights"][member].values())
    )


def out_of_fold(competition: Competition) -> dict[str, float]:
    """member -> its mean out-of-fold AUC after stage 2 (over the labels it predicts)."""
    table = read_csv(
        models_folder(competition.name) / "scores.csv", ("member", "stage", "label", "auc")
    )
    table = table[(table["stage"] != "CE") & (table["label"] != "mean")]
    return table.groupby("member")["auc"].mean().fillna(0.0).to_dict()


def prior(competition: Competition) -> dict[str, float]:
    """Label -> share of positives among the training images."""
    task, images = competition.task, read_images(competition.name)
    train = images[images["split"] == "train"]
    shares = (
        pd.DataFrame(truth(train, task.labels, task), columns=list(task.labels)).mean().fillna(0.5)
    )
    return {label: round(float(share), 6) for label, share in shares.items()}


def modules(competition: str) -> dict[str, Path]:
    """Path inside the package -> file: all of `pipeline` but the paper's programs, and of the
    competitions this one and what begins with an underscore."""
    root, found = Path(__file__).parents[1], {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        other = (
            inside.parts[0] == "competitions"
            and inside.stem != competition
            and not inside.stem.startswith("_")
        )
        if not other and inside.parts[0] not in LEFT_OUT:
            found[f"pipeline/{inside.as_posix()}"] = path
    return found


def copy_code(folder: Path, competition: str) -> None:
    for inside, path in modules(competition).items():
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / inside)


def zip_code(folder: Path, competition: str) -> None:
    """code.zip, with fixed times so that the same code gives the same bytes."""
    with zipfile.ZipFile(folder / "code.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, path in modules(competition).items():
            archive.writestr(
                zipfile.ZipInfo(inside, (2020, 1, 1, 0, 0, 0)),
                path.read_bytes(),
                zipfile.ZIP_DEFLATED,
            )
