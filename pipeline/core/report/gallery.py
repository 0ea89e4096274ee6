"""Sections of the report about single cases and kinds of patients: confident errors, subgroups; and where all is from.
"""
import base64
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.core.artifacts.tables import (
    commit,
    data_folder,
    file_hash,
    fold_folder,
    image_path,
    models_folder,
    submissions_folder,
    versions,
)
from pipeline.core.config.run import METADATA
from pipeline.core.ensemble.scores import classes
from pipeline.core.report.html import Html, bullets, drawn, panels, paragraph, scale, source, table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.subgroups import FEW, MISSING, groups, subgroup_rows
from pipeline.core.report.svg import interval_bar, limits_of
from pipeline.core.runs.predictions import FINETUNED, read_sidecar
from pipeline.core.runtime.command import UserError

SIDE, QUALITY = 192, 80      # pixels and JPEG quality of the gallery: 5 to 8 kB a picture
ONE_LABEL, MANY_LABELS = 8, 4  # pictures of each kind of error


def gallery(evidence: Evidence) -> str:
    """The negatives with the highest and the positives with the lowest final score, label by label."""
    size, parts, truth = picture_size(evidence.name), [], evidence.units.truth
    most = ONE_LABEL if len(evidence.labels) == 1 else MANY_LABELS
    for k in np.flatnonzero(classes(truth)):
        label, scores = evidence.labels[k], evidence.final[:, k]
        place = scores.argsort().argsort() / max(len(scores) - 1, 1)
        for value, kind in ((0, "negative, scored high"), (1, "positive, scored low")):
            rows = np.flatnonzero(truth[:, k] == value)
            rows = rows[np.argsort(scores[rows] if value else -scores[rows], kind="stable")][:most]
            pictures = "".join(case(evidence, row, size, scores[row], place[row], label, kind) for row in rows)
            parts.append(f'<div><h3>{escape(label)}: {kind}</h3><div class="pictures">{pictures}</div></div>')
    text = ("The final out-of-fold score, the share of all cases that score lower, and what is known of the patient. "
            "Some are the network's errors, some are wrong labels: they deserve a second look by someone who can tell.")
    return (paragraph(text) + (panels(parts, pairs=True) if len(parts) > 2 else "".join(parts))
            + source(f"{data_folder(evidence.name)}/images/{size}/, {models_folder(evidence.name)}/ensemble.csv",
                     f"make prepare COMP={evidence.name}, make ensemble COMP={evidence.name}"))


def picture_size(name: str) -> int:
    """The smallest prepared size that is no less than SIDE, else the largest."""
    folder = data_folder(name) / "images"
    sizes = sorted(int(path.name) for path in folder.glob("*") if path.is_dir() and path.name.isdigit())
    if not sizes:
        raise UserError(f"{folder}: no prepared pictures in it; `make prepare COMP={name}` makes them")
    return next((size for size in sizes if size >= SIDE), sizes[-1])


def case(evidence: Evidence, row: int, size: int, score: float, place: float, label: str, kind: str) -> str:
    """One picture with its facts."""
    key, images = evidence.units.keys.iloc[row], evidence.rows.validated
    image = images[images["image_id"] == key["image_id"]].iloc[0]
    facts = ", ".join(facts_of(image, evidence.competition.task))
    data = picture_data(image_path(evidence.name, size, key["image_id"]))
    alt = f"{label}, {kind}: {key['image_id']}, score {score:.3f}" + (f", {facts}" if facts else "")
    return (f'<figure><img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}"><figcaption><b>{score:.3f}</b> '
            f'(above {place:.1%})<br>{escape(facts)}<br><span class="soft">{escape(key["image_id"])}, '
            f'fold {int(key["fold"])}</span></figcaption></figure>')


def facts_of(image: pd.Series, task) -> list[str]:
    """The patient columns that are known, as text."""
    columns = [column for column in (*task.numeric, *task.categorical) if column in image and pd.notna(image[column])]
    return [f"{image[column]:g} years" if "age" in column.lower() else f"{column} {image[column]:g}"
            if column in task.numeric else str(image[column]) for column in columns]


def picture_data(path: Path) -> str:
    """A prepared picture, no larger than SIDE, as base64 JPEG."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise UserError(f"{path}: missing or no picture; `make prepare` makes it again once prepare.json is deleted")
    shrink = SIDE / max(picture.shape[:2])
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise UserError(f"{path}: cannot be written as JPEG")
    return base64.b64encode(encoded.tobytes()).decode("ascii")


def subgroups(evidence: Evidence) -> str:
    """AUC by sex, age, site, view, ... of the final scores, label by label."""
    found = groups(evidence.rows.validated, evidence.competition.task)
    if not found:
        return paragraph("images.csv tells nothing by which patients could be told apart.")
    truth, parts = evidence.units.truth, []
    for k in np.flatnonzero(classes(truth)):
        rows = {column: subgroup_rows(evidence.final[:, k], truth[:, k], evidence.patients, values)
                for column, values in found.items()}
        limits = limits_of([row[key] for those in rows.values() for row in those for key in ("low", "high")], 0.1)
        lines = [line for column, those in rows.items()
                 for line in ([Html(f'<span class="soft">{escape(column.replace("_", " "))}</span>'), *[""] * 4],
                              *(subgroup_line(row, limits) for row in those))]
        parts.append(table(["subgroup", "AUC [95 % interval]", scale(limits), "n", "positives"],
                           lines, f"{evidence.labels[k]}, final scores"))
    text = (f"Gray: fewer than {FEW} positives or negatives, where an AUC says little. Subgroups that are wide apart "
            "may still differ by chance, or by how hard their cases are; intervals are not adjusted for their number. "
            "Where an AUC is 1, resampling finds nothing else, and the interval is too narrow.")
    return (paragraph(text) + (panels(parts, pairs=True) if len(parts) > 1 else "".join(parts))
            + source(f"{data_folder(evidence.name)}/images.csv, {models_folder(evidence.name)}/ensemble.csv",
                     f"make ensemble COMP={evidence.name}"))


def subgroup_line(row: dict, limits: tuple[float, float]) -> list:
    """The cells of one subgroup."""
    told = f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if not np.isnan(row["auc"]) else "one class only"
    bar = interval_bar(row["auc"], row["low"], row["high"], limits, "c-soft" if row["few"] else "c-final")
    name = "not known" if row["group"] == MISSING else row["group"]
    return [name, told, drawn(bar), f"{row['n']:,}", f"{row['positives']:,}"]


def origins(evidence: Evidence) -> str:
    """Files with their hashes and the commits that made them; versions."""
    name = evidence.name
    rows = [file_row(path, command, made) for path, command, made in files(evidence)]
    for run, digest in evidence.facts["predictions"].items():
        sidecars = [read_sidecar(fold_folder(name, run, fold) / FINETUNED) for fold in evidence.rows.folds]
        commits = sorted({str(sidecar["commit"]) for sidecar in sidecars})
        made_by = f"make metadata COMP={name}" if run == METADATA else f"make predict COMP={name} RUN={run}"
        rows.append([f"{models_folder(name)}/{run}/fold*/{FINETUNED}", made_by, digest[:12],
                     ", ".join(map(short, commits))])
    packages = [f"{package} {version}" for package, version in evidence.facts["versions"].items()]
    now = versions()
    changed = [f"{package} {now[package]} now" for package, version in evidence.facts["versions"].items()
               if now.get(package, version) != version]
    return (table(["file", "made by", "sha256", "commit"], rows, "Where everything is from", style="words")
            + bullets([f"This page: python -m pipeline.report {name}, commit {short(commit())}.",
                       f"Scores: {', '.join(packages)}.", *changed,
                       "A commit with + had files changed beside it. The hash of several files is that of theirs."]))


def files(evidence: Evidence) -> list[tuple[Path, str, str]]:
    """(path, command, commit) of every single file."""
    data, models, name = data_folder(evidence.name), models_folder(evidence.name), evidence.name
    made = str(evidence.facts["commit"])
    found = [(data / "images.csv", f"make prepare COMP={name}", ""),
             (data / "folds.csv", f"make folds COMP={name}", ""),
             *((models / file, f"make ensemble COMP={name}", made)
               for file in ("ensemble.csv", "ensemble.json", "scores.csv")),
             (submissions_folder(name) / evidence.competition.submission.file, f"make submit COMP={name}", "")]
    return [row for row in found if row[0].is_file()]


def file_row(path: Path, command: str, made: str) -> list[str]:
    return [str(path), command, file_hash(path)[:12], short(made)]


def short(text: str) -> str:
    """A commit's first letters, with its +."""
    return text[:10] + ("+" if text.endswith("+") and len(text) > 10 else "") if text else "–"
