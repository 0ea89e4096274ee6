"""Score a folder of new images with a trained ensemble: a CSV, one row an image.

    make score-images COMP=melanoma IMAGES="new photos" OUT=scores.csv
    python -m pipeline.deploy.score_images melanoma --images "new photos" --out scores.csv
    ... --run "b5_384 b6_512"        the ensemble must be of these runs
    ... --metadata patients.csv      patient columns: id, and the task's own as images.csv has them

Reads   IMAGES: a folder with folders and zips in it, a zip, or `photos.zip::folder`; every file is
        tried, JPEG, PNG, DICOM and whatever else `prepare` reads; never written to
        models/<comp>/ensemble.json, quantiles.json and the weights they name, digests checked
        data/<comp>/images.csv, for what the training images are like
Writes  OUT                   id | unit_id <labels> <label>_percentile width height brightness far
                              notice
        OUT's _unreadable.csv id, reason: files that gave no image
        OUT's .json           what made it: networks, weights, ranges, counts; written last

NOT A MEDICAL DEVICE: the scores are for research and competitions.

Scores are those of the ensemble: the same views, folds, members, weights and blend. The metadata
network takes part where --metadata has all of its columns; otherwise it is left out, which is
said. Ranks within a set mean nothing for one image, so a blend by "rank" uses the frozen
out-of-fold quantiles. A combination that has `earned` its place needs the same columns and
`patient_id`, since it looks at each image beside the patient's others; without them the members'
mean stands in for it, which is said. A percentile is among the out-of-fold scores of the same
average.
`far` names what is unlike the training images: size, brightness, view (`likeness`). Where studies
are scored, images with one `unit_id` in --metadata share their study's score; otherwise each image
stands alone.

id is the path below IMAGES. Images come in parts of 256, so memory is that of the networks and
0.3 GB whatever their number. A killed run, or one that TIME_LIMIT stopped, goes on with the next
part.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core import raw as source
from pipeline.core.artifacts.files import (
    atomic,
    file_hash,
    file_hashes,
    first_changed,
    read_json,
    write_json,
    write_sealed,
)
from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.provenance import notice, write_sidecar
from pipeline.core.artifacts.tables import csv_text, read_images, write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import ENSEMBLE
from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import apply_map
from pipeline.core.ensemble.second_level.fitted import (
    COMBINATION,
    FittedCombination,
    read_combinations,
)
from pipeline.core.images.phash import perceptual_hash
from pipeline.core.images.prepared import brightness, stamp_of
from pipeline.core.raw.image_folder import FolderListing, list_folder
from pipeline.core.raw.unreadable import UnreadableImage
from pipeline.core.runs.missing import request_of
from pipeline.core.runtime.command import run_stage, stage_parser, time_left
from pipeline.core.runtime.device import loader_processes
from pipeline.core.runtime.errors import TimeLimitReached, UserError
from pipeline.core.runtime.workers import WorkerDied, worker_pool
from pipeline.deploy.away.codalab import image_rows
from pipeline.deploy.away.combine import combine_runs
from pipeline.deploy.away.earned import earned_scores
from pipeline.deploy.away.stream import (
    Progress,
    RawImages,
    Scorer,
    load_scorers,
    raw_images,
    score_chunk,
    score_metadata,
)
from pipeline.deploy.likeness import TrainingImages, known_images
from pipeline.deploy.package import (
    ensemble_contents,
    is_earned,
    prior,
    read_ensemble,
    trained_networks,
)

IMAGES_A_PART = 256  # images that are scored and kept at a time
NOT_A_DEVICE = "research only, not a medical device"
MEASURED_COLUMNS = ["width", "height", "brightness"]


@dataclass(frozen=True)
class TrainedEnsemble:
    """What scores images.

    package   how its networks are averaged, as package.json has it
    scorers   its image networks
    maps      frozen maps: member -> fold -> label -> map, for the blend by quantile
    averages  stage ("ensemble", "blend") -> label -> map from score to out-of-fold quantile
    final     the stage that the competition submits
    combinations  label -> the combination that has earned its place; {} where the mean is submitted
    """

    task: Task
    folder: Path
    package: dict
    scorers: list[Scorer]
    maps: dict
    averages: dict
    final: str
    combinations: dict[str, FittedCombination] = field(default_factory=dict)


@dataclass
class Patients:
    """The patient columns of the images: `table` by id (None where the metadata network has no
    part), and what is to be said."""

    table: pd.DataFrame | None = None
    said: list[str] = field(default_factory=list)


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    out = check_out(arguments)
    ensemble = read_trained(competition, arguments.run)
    listing = list_folder(arguments.images)
    rows, patients = described(competition, ensemble, listing, arguments.metadata)
    if patients.table is None:
        ensemble = without_patients(ensemble)
    training = known_images(read_images(competition.name))
    say(ensemble, listing, patients, training)

    # Part by part; what an earlier run of the same command finished is kept.
    parts = open_parts(out, part_key(competition, ensemble, listing, patients))
    warning = ", ".join(filter(None, (notice(competition.name), NOT_A_DEVICE)))
    score_parts(ensemble, listing, rows, training, parts, warning)

    # The files that gave no image, one table of the others, and what made it.
    paths = sorted(path for path in parts.glob("*.csv") if path.stem.isdigit())
    unreadable = list_unreadable(out, paths, listing)
    scored = len(rows) + len(listing.refused) - len(unreadable)
    if not scored:
        first = unreadable.iloc[0]
        raise UserError(
            f"{unreadable_path(out)}: none of the {len(unreadable):,} files gave an image; "
            f"{first['id']}: {first['reason']}"
        )
    join_parts(out, paths)
    write_facts(out, competition, ensemble, arguments, listing, patients, training, unreadable)
    shutil.rmtree(parts)
    print(
        f"{out}: {scored:,} images; {len(unreadable):,} files unreadable"
        + (f", listed in {unreadable_path(out)}" if len(unreadable) else "")
        + f"; {warning}"
    )


# ---- What is asked for ------------------------------------------------------------------------


def check_out(arguments: argparse.Namespace) -> Path:
    """The file to write; UserError where it would lie among the images, or would replace something
    that this command did not write."""
    out = arguments.out
    if out.suffix.lower() != ".csv":
        raise UserError(f"OUT={out}: write a name that ends with .csv")
    images = Path(str(arguments.images).partition("::")[0]).resolve()
    if images.is_dir() and out.resolve().is_relative_to(images):
        raise UserError(f"OUT={out}: lies inside IMAGES, where nothing is ever written")
    if out.exists() and "score_images" not in sidecar_of(out):
        raise UserError(f"OUT={out}: exists and was not written by score-images; name another")
    return out


def sidecar_of(out: Path) -> dict:
    """What is recorded beside an earlier OUT, {} where nothing is."""
    path = out.with_suffix(".json")
    return read_json(path) if path.is_file() else {}


def unreadable_path(out: Path) -> Path:
    """Where the files that gave no image are listed."""
    return out.with_name(f"{out.stem}_unreadable.csv")


# ---- What scores, and what is scored -----------------------------------------------------------


def read_trained(competition: Competition, runs: str) -> TrainedEnsemble:
    """Today's ensemble with its networks loaded; UserError where it is of other runs."""
    facts = read_ensemble(competition)
    wanted = request_of(competition.name, runs)
    names = [*wanted.trained, *wanted.imported]
    if runs.split() and names != facts["runs"]:
        raise UserError(
            f"{models_folder(competition.name) / 'ensemble.json'}: made of "
            f"{' '.join(facts['runs'])}; `make ensemble COMP={competition.name} "
            f'RUN="{" ".join(names)}"` makes that of {" ".join(names)}'
        )
    folder = models_folder(competition.name)
    quantiles = read_json(folder / "quantiles.json")
    networks = trained_networks(competition, facts)
    package = ensemble_contents(competition, facts, networks) | {"prior": prior(competition)}
    if package["method"] == "rank":
        package["method"] = "quantile"
    return TrainedEnsemble(
        task=competition.task,
        folder=folder,
        package=package,
        scorers=load_scorers(folder, package),
        maps=quantiles["members"],
        averages=quantiles["averages"],
        final=facts["final_stage"],
        combinations=read_combinations(folder / COMBINATION) if is_earned(facts) else {},
    )


def without_patients(ensemble: TrainedEnsemble) -> TrainedEnsemble:
    """The same without what needs patient columns: the average of the images alone."""
    networks = [one for one in ensemble.package["networks"] if one["member"] != METADATA]
    package = {**ensemble.package, "metadata": 0.0, "networks": networks}
    return replace(ensemble, package=package, final=ENSEMBLE, combinations={})


def described(
    competition: Competition,
    ensemble: TrainedEnsemble,
    listing: FolderListing,
    metadata: Path | None,
) -> tuple[pd.DataFrame, Patients]:
    """(a row for each file: file, unit_id, the view, patient columns; the patients), studies
    together."""
    task = competition.task
    rows = image_rows(listing.locators, task).assign(unit_id=listing.locators)
    blended = ensemble.package["metadata"] > 0 or bool(ensemble.combinations)
    left_out = "the metadata network is left out"
    if ensemble.combinations:
        left_out = "the mean stands in for the combination that earned its place"
    if metadata is None:
        said = f"{left_out}: there is no METADATA"
        return rows, Patients(None, [said] if blended else [])
    table = read_patients(metadata, task, rows["file"])
    rows = with_patients(rows, table, task)
    if not blended:
        return rows, Patients(None, ["the ensemble has no metadata network"])
    needed = [*task.numeric, *task.categorical]
    if ensemble.combinations:
        needed.append("patient_id")
    missing = [name for name in needed if name not in table]
    if missing:
        said = f"{left_out}: {metadata} has no column {', '.join(missing)}"
        return rows, Patients(None, [said])
    said = patient_remarks(competition, metadata, table, rows)
    if ensemble.combinations:
        rows = patients_together(rows)
    return rows, Patients(rows[["file", *needed]], said)


def read_patients(path: Path, task: Task, files: pd.Series) -> pd.DataFrame:
    """METADATA by id: the task's patient columns that it has, unit_id, patient_id and the view;
    UserError for an id twice, a number that is none, or where no id is a file."""
    if not path.is_file():
        raise UserError(f"METADATA={path}: there is no such file")
    table = source.read_table(path.parent, path.name, ("id",))
    ids = source.present(path, table, "id")
    source.refuse(path, "id", ids, ids.duplicated(), "occurs twice")
    if not ids.isin(files).any():
        raise UserError(
            f"{path}: column id: none is a file below IMAGES; an id is a path such as "
            f"{files.iloc[0]!r}"
        )
    columns = {"file": ids}
    for name in task.numeric:
        if name in table:
            columns[name] = source.numbers(path, table, name)
    for name in (*task.categorical, *filter(None, [task.view]), "unit_id", "patient_id"):
        if name in table:
            columns[name] = source.categories(table, name)
    return pd.DataFrame(columns)


def with_patients(rows: pd.DataFrame, table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The rows with their patient columns, missing where METADATA has no row; where studies are
    scored with METADATA's studies, one after the other, and its views."""
    joined = rows[["file"]].merge(table, on="file", how="left")
    if task.unit != "study" or "unit_id" not in joined:
        joined["unit_id"] = rows["unit_id"]
    joined["unit_id"] = joined["unit_id"].fillna(rows["unit_id"])
    if task.view:
        given = joined[task.view] if task.view in joined else rows[task.view]
        joined[task.view] = given.fillna(rows[task.view])
    return joined.sort_values(["unit_id", "file"], ignore_index=True)


def patients_together(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows patient by patient; an image without one is a patient of its own."""
    whose = rows["patient_id"].fillna(rows["file"])
    known = rows.assign(image_id=rows["file"], patient_id=whose)
    return known.sort_values(["patient_id", "file"], ignore_index=True)


def patient_remarks(
    competition: Competition, path: Path, table: pd.DataFrame, rows: pd.DataFrame
) -> list[str]:
    """What of METADATA counts as unknown: images without a row, rows without an image, categories
    that training never saw."""
    said = []
    unknown = int((~rows["file"].isin(table["file"])).sum())
    if unknown:
        said.append(f"{path}: {unknown:,} images have no row; their patient columns are missing")
    strangers = int((~table["file"].isin(rows["file"])).sum())
    if strangers:
        said.append(f"{path}: {strangers:,} rows name no file below IMAGES")
    training = read_images(competition.name)
    for name in competition.task.categorical:
        known = training[name].dropna().astype(str).unique()
        values = table[name].dropna().astype(str)
        new = values[~values.isin(known)]
        if len(new):
            said.append(
                f"{path}: column {name}: {len(new):,} values such as {new.iloc[0]!r} are none of "
                f"{', '.join(sorted(known))}, and count for nothing"
            )
    return said


def say(
    ensemble: TrainedEnsemble, listing: FolderListing, patients: Patients, training: TrainingImages
) -> None:
    """Print what will be done, and what will not."""
    names = list(dict.fromkeys(one["member"] for one in ensemble.package["networks"]))
    print(
        f"{len(listing.locators):,} files, {len(ensemble.package['networks'])} networks of "
        f"{', '.join(names)}; {NOT_A_DEVICE}"
    )
    if listing.hidden:
        print(f"{listing.hidden:,} hidden files are left out")
    for text in patients.said:
        print(text)
    unknown = [kind for kind in ("size", "brightness", "view") if kind not in training.known]
    if unknown:
        print(f"images.csv does not say what {', '.join(unknown)} the training images have")


# ---- Part by part -------------------------------------------------------------------------------


def part_key(
    competition: Competition,
    ensemble: TrainedEnsemble,
    listing: FolderListing,
    patients: Patients,
) -> str:
    """A digest of all that decides the scores: the average, the files and the patient columns."""
    decided = {
        "package": ensemble.package,
        "ensemble": file_hash(models_folder(competition.name) / "ensemble.json"),
        "root": str(listing.root.resolve()),
        "files": [(name, stamp_of(listing.root, name)) for name in listing.locators],
        "patients": "" if patients.table is None else csv_text(patients.table),
    }
    return hashlib.sha256(json.dumps(decided).encode()).hexdigest()


def open_parts(out: Path, key: str) -> Path:
    """The folder of finished parts, beside OUT; emptied where they are of another command."""
    parts = out.with_name(f".{out.name}.parts")
    recorded = parts / "key.json"
    if parts.is_dir() and (not recorded.is_file() or read_json(recorded).get("key") != key):
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    write_json(recorded, {"key": key})
    return parts


def part_starts(units: Sequence[str]) -> list[int]:
    """Where parts begin: every PART images, moved on so that no unit is cut in two.

    >>> part_starts(["a"] * 3)
    [0]
    """
    starts = []
    for row, unit in enumerate(units):
        if not starts or (row - starts[-1] >= IMAGES_A_PART and unit != units[row - 1]):
            starts.append(row)
    return starts


def score_parts(
    ensemble: TrainedEnsemble,
    listing: FolderListing,
    rows: pd.DataFrame,
    training: TrainingImages,
    parts: Path,
    warning: str,
) -> None:
    """Write the parts that do not exist yet; TimeLimitReached between two of them."""
    starts = part_starts(rows["patient_id" if ensemble.combinations else "unit_id"].tolist())
    shared = raw_images(ensemble.scorers, listing.root, rows["file"])
    images = MeasuredImages(shared.raw, shared.files, shared.sizes, shared.resize)
    processes = max(1, min(loader_processes(), len(rows)))
    with (
        worker_pool(processes, measured_item, images) as run,
        tqdm(total=len(rows), unit="image", desc="scoring", dynamic_ncols=True) as bar,
    ):
        for number, start in enumerate(starts):
            stop = starts[number + 1] if number + 1 < len(starts) else len(rows)
            path = parts / f"{number:06d}.csv"
            if not is_whole_part(path):
                if time_left() < 0:
                    raise TimeLimitReached(
                        f"{parts}: time is up after {bar.n:,} of {bar.total:,} images; the same "
                        "command goes on"
                    )
                table, unreadable = score_part(ensemble, run, rows[start:stop], start, training)
                write_csv(unreadable_path(path), unreadable)
                write_csv(path, table.assign(notice=warning))
                # Last: a part counts where this says that both tables are as they were written.
                names = (path.name, unreadable_path(path).name)
                write_sealed(path.with_suffix(".json"), file_hashes(parts, names))
            bar.update(stop - start)


def is_whole_part(path: Path) -> bool:
    """True where a part was finished by an earlier run of the command and is as it was written."""
    recorded = path.with_suffix(".json")
    if not recorded.is_file():
        return False
    try:
        changed = first_changed(path.parent, read_json(recorded, needed=(path.name,)))
    except UserError as error:
        print(f"{error}; scoring that part again", file=sys.stderr)
        return False
    if changed:
        print(f"{path.parent / changed}: damaged; scoring that part again", file=sys.stderr)
    return not changed


class MeasuredImages(RawImages):
    """The same images; item i is ({size: JPEG}, what was measured), or a string: why it cannot be
    read."""

    def __getitem__(self, index: int) -> tuple[dict[int, bytes], dict] | str:
        try:
            jpegs, image = self.read(index)
        except UnreadableImage as error:
            return str(error)
        return jpegs, {
            "width": image.width,
            "height": image.height,
            "brightness": brightness(image.pixels),
            "phash": perceptual_hash(image.pixels),
        }


def measured_item(index: int, images: MeasuredImages) -> tuple[dict[int, bytes], dict] | str:
    """One image, for a worker."""
    try:
        return images[index]
    except MemoryError:
        return "too large: memory ran out"


def score_part(
    ensemble: TrainedEnsemble,
    run: Callable,
    rows: pd.DataFrame,
    start: int,
    training: TrainingImages,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(OUT's rows of the readable images of a part, the others with their reasons).

    run: of a `worker_pool` of `measured_item`; start: the number of the part's first image.
    """
    # Every image decoded once, measured, and kept as JPEG at the sizes of the networks; strangers'
    # files, hence in workers whose memory and time are limited.
    items: list = [None] * len(rows)
    for index, item in run(range(start, start + len(rows))):
        items[index - start] = str(item) if isinstance(item, WorkerDied) else item
    rows = rows.reset_index(drop=True)
    is_readable = np.array([not isinstance(item, str) for item in items])
    reasons = [item for item in items if isinstance(item, str)]
    unreadable = pd.DataFrame({"id": rows["file"][~is_readable], "reason": reasons}, dtype="str")
    jpegs = [item[0] for item in items if not isinstance(item, str)]
    measured = [item[1] for item in items if not isinstance(item, str)]
    rows = rows[is_readable].reset_index(drop=True)

    # The scores of every network, and their average.
    scores = Progress()
    if len(rows):
        for scorer in ensemble.scorers:
            values = score_chunk(scorer, jpegs, rows["unit_id"].tolist())
            scores.tables[scorer.key] = pd.DataFrame(values, columns=list(scorer.labels))
        score_metadata(ensemble.folder, ensemble.package, rows, scores)
    earned = None
    average = (ensemble.package, ensemble.maps, rows, scores.tables)
    if ensemble.combinations and len(rows):
        earned = earned_scores(ensemble.combinations, *average)
        if earned is None:
            raise UserError(f"{ensemble.folder / COMBINATION}: gives no scores here, see above")
    units = combine_runs(*average, ensemble.task, earned=earned)

    # OUT's columns.
    labels = list(ensemble.task.labels)
    by_unit = units.drop_duplicates("unit_id").set_index("unit_id")
    table = pd.DataFrame({"id": rows["file"]})
    if ensemble.task.unit == "study":
        table["unit_id"] = rows["unit_id"]
    table[labels] = by_unit.loc[rows["unit_id"], labels].to_numpy()
    for label, frozen in ensemble.averages[ensemble.final].items():
        quantiles = apply_map(table[label].to_numpy(), frozen) if frozen else np.nan
        table[f"{label}_percentile"] = np.round(100 * quantiles, 2)
    for name in MEASURED_COLUMNS:
        table[name] = [one[name] for one in measured]
    table["far"] = [" ".join(training.far(one)) for one in measured]
    return table, unreadable


def list_unreadable(out: Path, paths: Sequence[Path], listing: FolderListing) -> pd.DataFrame:
    """Write the list of the files that gave no image, and return it: id, reason."""
    tables = [pd.read_csv(unreadable_path(path), dtype="str") for path in paths]
    refused = pd.DataFrame(listing.refused.items(), columns=["id", "reason"], dtype="str")
    unreadable = pd.concat([*tables, refused], ignore_index=True).sort_values("id")
    write_csv(unreadable_path(out), unreadable)
    return unreadable


def join_parts(out: Path, paths: Sequence[Path]) -> None:
    """Write OUT: the parts below one head, one part in memory at a time."""
    with atomic(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, path in enumerate(paths):
            head, _, body = path.read_text(encoding="utf-8").partition("\n")
            file.write(body if number else f"{head}\n{body}")


def write_facts(
    out: Path,
    competition: Competition,
    ensemble: TrainedEnsemble,
    arguments: argparse.Namespace,
    listing: FolderListing,
    patients: Patients,
    training: TrainingImages,
    unreadable: pd.DataFrame,
) -> None:
    """What made OUT, beside it."""
    networks = ("member", "fold", "file", "sha256")
    write_sidecar(
        out,
        competition.name,
        score_images=NOT_A_DEVICE,
        images=str(arguments.images),
        metadata=str(arguments.metadata or ""),
        readable=len(listing.locators) + len(listing.refused) - len(unreadable),
        unreadable=len(unreadable),
        hidden=listing.hidden,
        said=patients.said,
        networks=[{name: one[name] for name in networks} for one in ensemble.package["networks"]],
        weights=ensemble.package["weights"],
        method=ensemble.package["method"],
        metadata_share=ensemble.package["metadata"],
        percentile_among=f"out-of-fold scores of {ensemble.final}",
        compared_with_training=training.known,
        training_ranges={name: list(ends) for name, ends in training.ranges.items()},
        ensemble=file_hash(models_folder(competition.name) / "ensemble.json"),
    )


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("competition", metavar="COMPETITION")
    options.add_argument("--run", default="", metavar='"RUN ..."', help="default: the ensemble's")
    options.add_argument(
        "--images", type=Path, required=True, help="a folder, a zip, or photos.zip::folder"
    )
    options.add_argument("--metadata", type=Path, help="CSV of patient columns, by id")
    options.add_argument("--out", type=Path, required=True, metavar="CSV", help="where to write")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
