"""The package of an ensemble: its networks, how they are averaged, and the code, in one folder.

    package.json                what there is and how it is put together
    combination.json            the earned combination, where the submission is of one: trees as
                                LightGBM's text, coefficients as numbers
    quantiles.json              frozen maps from score to quantile, for the blend that needs them
    <run>-fold<k>.safetensors   networks, each with its run, labels and resize specification in its
                                header
    metadata-fold<k>.safetensors
    code.zip or pipeline/       this package of Python modules, without what never runs away from
                                home: the paper's programs, the demo, the rehearsals

There are no sub-folders where the code is zipped, because Kaggle's client leaves them out.
"""

import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.artifacts.files import (
    file_hash,
    file_hashes,
    first_changed,
    read_json,
    write_sealed,
)
from pipeline.core.artifacts.labels import prevalence
from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED, fold_folder, models_folder
from pipeline.core.artifacts.provenance import check_data, provenance, require_hashes, table_hashes
from pipeline.core.artifacts.tables import SCORE_NAMES, read_csv, read_images
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import ALL, METADATA, as_json, fold_name, stage_1_member
from pipeline.core.config.stages import EARNED, MEAN_LABEL, STAGE_1
from pipeline.core.ensemble.second_level.fitted import COMBINATION
from pipeline.core.runs.average_files import read_average_facts
from pipeline.core.runs.facts import require_current
from pipeline.core.runs.job import Job
from pipeline.core.runs.missing import ensemble_facts, reason_of, request_for
from pipeline.core.runs.predictions import is_imported
from pipeline.core.runs.whole import averaged_folds
from pipeline.core.runtime.errors import UserError

MEASURED_BY_PREPARE = ("width", "height", "phash")  # columns of images.csv that raw tables lack
# What a package of code alone says of its ensemble.
NO_ENSEMBLE = {
    "members": [],
    "runs": [],
    "folds": [],
    "method": "mean",
    "metadata": 0.0,
    "weights": {},
}
# Folders of `pipeline` that do not travel.
FOLDERS_LEFT_HOME = ("paper", "demo", "deploy/rehearsal")
CONTENTS = "contents.json"  # beside what is sent: the sha256 of every file of it
ZIP_TIME = (2020, 1, 1, 0, 0, 0)  # of every file in an archive: same content, same bytes


def write_package(
    competition: Competition, folder: Path, zipped: bool, code_only: bool = False
) -> dict:
    """Fill a new folder with the package of a competition's ensemble and return what package.json
    says. An older folder of that name is deleted."""
    # Filled under another name: a package that was cut in the middle would be uploaded as if whole.
    ensemble = NO_ENSEMBLE if code_only else read_ensemble(competition)
    unfinished = folder.with_name(f".{folder.name}.new")
    for old in (unfinished, folder):
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir(parents=True)

    # Networks, and the maps that their blend may need.
    models = models_folder(competition.name)
    networks = copy_networks(trained_networks(competition, ensemble), models, unfinished)
    if networks:
        shutil.copyfile(models / "quantiles.json", unfinished / "quantiles.json")
        if is_earned(ensemble):
            shutil.copyfile(models / COMBINATION, unfinished / COMBINATION)

    # Code.
    if zipped:
        zip_code(unfinished, competition.name)
    else:
        copy_code(unfinished, competition.name)

    # What there is; add_wheels completes `wheels`.
    contents = provenance(
        **ensemble_contents(competition, ensemble, networks),
        prior={} if code_only else prior(competition),
        combination=file_hash(unfinished / COMBINATION) if is_earned(ensemble) else "",
        ensemble="" if code_only else file_hash(models / "ensemble.json"),
        wheels={},
    )
    write_sealed(unfinished / "package.json", contents)
    unfinished.replace(folder)
    return contents


def ensemble_contents(competition: Competition, ensemble: dict, networks: list[dict]) -> dict:
    """What package.json says of the networks and of how they are averaged."""
    return {
        "competition": competition.name,
        "file": competition.submission.file,
        "id_column": competition.submission.id_column,
        "method": ensemble["method"],
        "metadata": ensemble["metadata"],
        "weights": ensemble["weights"],
        "labels": list(competition.task.labels),
        "columns": dict(competition.submission.columns),
        "resize": as_json(competition.task.resize),
        "networks": networks,
    }


def record_contents(folder: Path, parts: Iterable[str]) -> None:
    """Write contents.json: the sha256 of every file of these files and folders below `folder`,
    which `require_contents` holds against them before they are sent."""
    paths = [path for part in parts for path in (folder / part, *(folder / part).rglob("*"))]
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    write_sealed(folder / CONTENTS, file_hashes(folder, names))


def require_contents(folder: Path, made_by: str) -> None:
    """Raise a UserError that names the first file that is not as it was written."""
    contents = folder / CONTENTS
    changed = first_changed(folder, read_json(contents)) if contents.exists() else ""
    if changed:
        raise UserError(
            f"{folder / changed}: differs from what was written (damaged, or changed by hand); "
            f"`{made_by}` makes it again; delete {contents} where the change is yours"
        )


def read_ensemble(competition: Competition) -> dict:
    """ensemble.json, made from today's tables; UserError where the metadata network needs columns
    that only `prepare` measures."""
    path = models_folder(competition.name) / "ensemble.json"
    ensemble = read_average_facts(competition)
    require_hashes(path, ensemble["hashes"], table_hashes(competition.name))

    # Members without weights cannot travel.
    for member in ensemble["members"]:
        if is_imported(competition.name, member):
            raise UserError(
                f"{path}: {member} was taken from elsewhere and has no weights to travel; make an "
                "ensemble without it"
            )

    # The average that travels must be of today's predictions and configuration.
    request = request_for(competition, runs_averaged(ensemble), ensemble["folds"])
    reason = reason_of(ensemble.get("decided_by"), ensemble_facts(request))
    if reason:
        raise UserError(f"{path}: {reason}; `make ensemble COMP={competition.name}` makes it anew")

    # Patient columns must be in the organiser's own test table, which is all there is there.
    if METADATA in ensemble["members"] or is_earned(ensemble):
        for column in (*competition.task.numeric, *competition.task.categorical):
            if column in MEASURED_BY_PREPARE:
                raise UserError(
                    f"patient column {column!r} is measured by `prepare`, which a package does not "
                    "run; leave it out of numeric and categorical in "
                    f"pipeline/competitions/{competition.name}.py"
                )
    return ensemble


def runs_averaged(ensemble: dict) -> list[str]:
    """The runs that were averaged, by name, whichever of their stages are members."""
    return list(ensemble["runs"])


def require_current_package(folder: Path, competition: Competition, target: str) -> None:
    """Raise where a package was made of another average than today's; `make <target>` makes it."""
    path = folder / "package.json"
    made_by = f"make {target} COMP={competition.name}"
    package = read_json(path, made_by)
    average = models_folder(competition.name) / "ensemble.json"
    if average.is_file() and package.get("ensemble") != file_hash(average):
        raise UserError(f"{path}: made of another average than today's; `{made_by}` makes it anew")


def copy_networks(networks: list[dict], models: Path, folder: Path) -> list[dict]:
    """Copy the weights of `trained_networks` below `models` into one folder; the list with the
    copies' names."""
    copied = []
    for network in networks:
        file = f"{network['member']}-{fold_name(network['fold'])}.safetensors"
        shutil.copyfile(models / network["file"], folder / file)
        copied.append({**network, "file": file})
    return copied


def trained_networks(competition: Competition, ensemble: dict) -> list[dict]:
    """The networks of an ensemble in order of value, their weights checked: every member's first
    fold, the best member first, then the second folds, and so on; the metadata networks are last
    and cost nothing. `file` is relative to the competition's folder of models."""
    # In order of value, because there the clock may stop it: what has been averaged by then should
    # be the best of every member.
    models = models_folder(competition.name)
    aucs = out_of_fold_aucs(competition) if ensemble["members"] else {}
    networks = []
    for member, run, weights in weights_of_members(ensemble):
        averaged = averaged_folds(competition, run, ensemble["folds"])
        for turn, fold in enumerate([ALL] if ALL in averaged else averaged):
            # Checked to the byte: a damaged one would be found on the organiser's machine only.
            path = fold_folder(competition.name, run, fold) / weights
            recipe = competition.metadata if run == METADATA else competition.run(run)
            require_current(Job(competition, recipe, fold), path)
            check_data(path)
            networks.append(
                {
                    "member": member,
                    "fold": fold,
                    "file": path.relative_to(models).as_posix(),
                    "sha256": file_hash(path),
                    "turn": turn,
                    "auc": aucs.get(member, 0.0),
                }
            )
    return sorted(networks, key=rank)


def weights_of_members(ensemble: dict) -> list[tuple[str, str, str]]:
    """(member, its run, its weights' file) of every member that has a weight in the average."""
    found = []
    for run in ensemble["runs"]:
        found += [(run, run, FINETUNED), (stage_1_member(run), run, PRETRAINED)]
    found.append((METADATA, METADATA, FINETUNED))
    averaged = [member for member in ensemble["members"] if has_weight(member, ensemble)]
    return [one for one in found if one[0] in averaged]


def rank(network: dict) -> tuple:
    """Sorting key: image networks first, one fold of every run before the next, the best first."""
    is_metadata = network["member"] == METADATA
    return is_metadata, network["turn"], -network["auc"], network["member"]


def is_earned(ensemble: dict) -> bool:
    """True where the submission is of the earned combination
    (`core.ensemble.second_level.candidates`)."""
    return ensemble.get("final_stage") == EARNED


def has_weight(member: str, ensemble: dict) -> bool:
    """False for a member of weight 0: a near-duplicate, or metadata that is not blended in. An
    earned combination takes all its members."""
    if is_earned(ensemble):
        return True
    if member == METADATA:
        return ensemble["metadata"] > 0
    return any(ensemble["weights"][member].values())


def out_of_fold_aucs(competition: Competition) -> dict[str, float]:
    """Member -> its mean out-of-fold AUC over the labels that it predicts."""
    path = models_folder(competition.name) / "scores.csv"
    table = read_csv(path, (*SCORE_NAMES, "auc"), ids=SCORE_NAMES)
    # A run that predicts some labels only has no row for their mean, hence the mean taken here.
    table = table[table["label"] != MEAN_LABEL]
    earlier = table["stage"] == STAGE_1
    member = table["member"].mask(earlier, table["member"].map(stage_1_member))
    return table["auc"].groupby(member).mean().fillna(0.0).to_dict()


def prior(competition: Competition) -> dict[str, float]:
    """Label -> share of positives among the training images, 0.5 where no label is known."""
    shares = prevalence(read_images(competition.name), competition.task).fillna(0.5)
    return {label: round(float(share), 6) for label, share in shares.items()}


def modules(competition: str) -> dict[str, Path]:
    """Path inside the package -> file: all of `pipeline` but FOLDERS_LEFT_HOME, and of the
    competitions this one and those whose names begin with an underscore."""
    root = Path(__file__).parents[1]
    left_home = tuple(f"{folder}/" for folder in FOLDERS_LEFT_HOME)
    paths = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if inside.as_posix().startswith(left_home):
            continue
        # The files of other competitions have no business there.
        shared = inside.stem.startswith("_")
        if inside.parts[0] == "competitions" and inside.stem != competition and not shared:
            continue
        paths[f"pipeline/{inside.as_posix()}"] = path
    return paths


def copy_code(folder: Path, competition: str) -> None:
    """The code as folders, where nothing unpacks it."""
    for inside, path in modules(competition).items():
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / inside)


def zip_code(folder: Path, competition: str) -> None:
    """code.zip, the same bytes for the same code."""
    with zipfile.ZipFile(folder / "code.zip", "w") as archive:
        for inside, path in modules(competition).items():
            add_to_zip(archive, inside, path.read_bytes())


def add_to_zip(archive: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    """Add one compressed file whose bytes do not depend on the clock."""
    archive.writestr(zipfile.ZipInfo(name, ZIP_TIME), content, zipfile.ZIP_DEFLATED)


def megabytes(paths: Iterable[Path]) -> float:
    """The size of some files together, in MB of a million bytes."""
    return sum(path.stat().st_size for path in paths) / 1e6
