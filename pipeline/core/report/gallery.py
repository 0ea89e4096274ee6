"""Sections of the report about single cases and kinds of patients: confident errors, subgroups; and
where all is from."""

import base64
from html import escape
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder, image_path, models_folder
from pipeline.core.metrics.roc import classes
from pipeline.core.report.html import panels, paragraph, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.runtime.errors import UserError

SIDE, QUALITY = 192, 80  # pixels and JPEG quality of the gallery: 5 to 8 kB a picture
ONE_LABEL, MANY_LABELS = 8, 4  # pictures of each kind of error


def gallery(evidence: Evidence) -> str:
    """The negatives with the highest and the positives with the lowest final score, label by
    label."""
    size, parts, truth = picture_size(evidence.name), [], evidence.units.truth
    most = ONE_LABEL if len(evidence.labels) == 1 else MANY_LABELS
    for k in np.flatnonzero(classes(truth)):
        label, scores = evidence.labels[k], evidence.final[:, k]
        place = scores.argsort().argsort() / max(len(scores) - 1, 1)
        for value, kind in ((0, "negative, scored high"), (1, "positive, scored low")):
            rows = np.flatnonzero(truth[:, k] == value)
            rows = rows[np.argsort(scores[rows] if value else -scores[rows], kind="stable")][:most]
            pictures = "".join(
                case(evidence, row, size, scores[row], place[row], label, kind) for row in rows
            )
            parts.append(
                f'<div><h3>{escape(label)}: {kind}</h3><div class="pictures">{pictures}</div></div>'
            )
    text = (
        "The final out-of-fold score, the share of all cases that score lower, and what is known "
        "of the patient. "
        "Some are the network's errors, some are wrong labels: they deserve a second look by "
        "someone who can tell."
    )
    return (
        paragraph(text)
        + (panels(parts, pairs=True) if len(parts) > 2 else "".join(parts))
        + source(
            f"{data_folder(evidence.name)}/images/{size}/, "
            f"{models_folder(evidence.name)}/ensemble.csv",
            f"make prepare COMP={evidence.name}, make ensemble COMP={evidence.name}",
        )
    )


def picture_size(name: str) -> int:
    """The smallest prepared size that is no less than SIDE, else the largest."""
    folder = data_folder(name) / "images"
    sizes = sorted(
        int(path.name) for path in folder.glob("*") if path.is_dir() and path.name.isdigit()
    )
    if not sizes:
        raise UserError(
            f"{folder}: no prepared pictures in it; `make prepare COMP={name}` makes them"
        )
    return next((size for size in sizes if size >= SIDE), sizes[-1])


def case(
    evidence: Evidence, row: int, size: int, score: float, place: float, label: str, kind: str
) -> str:
    """One picture with its facts."""
    key, images = evidence.units.keys.iloc[row], evidence.rows.validated
    image = images[images["image_id"] == key["image_id"]].iloc[0]
    facts = ", ".join(facts_of(image, evidence.competition.task))
    data = picture_data(image_path(evidence.name, size, key["image_id"]))
    alt = f"{label}, {kind}: {key['image_id']}, score {score:.3f}" + (f", {facts}" if facts else "")
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}"><figcaption><b>{score:.3f}</b> '
        f'(above {place:.1%})<br>{escape(facts)}<br><span class="soft">{escape(key["image_id"])}, '
        f"fold {int(key['fold'])}</span></figcaption></figure>"
    )


def facts_of(image: pd.Series, task) -> list[str]:
    """The patient columns that are known, as text."""
    columns = [
        column
        for column in (*task.numeric, *task.categorical)
        if column in image and pd.notna(image[column])
    ]
    return [
        f"{image[column]:g} years"
        if "age" in column.lower()
        else f"{column} {image[column]:g}"
        if column in task.numeric
        else str(image[column])
        for column in columns
    ]


def picture_data(path: Path) -> str:
    """A prepared picture, no larger than SIDE, as base64 JPEG."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise UserError(
            f"{path}: missing or no picture; `make prepare` makes it again once prepare.json is "
            "deleted"
        )
    shrink = SIDE / max(picture.shape[:2])
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise UserError(f"{path}: cannot be written as JPEG")
    return base64.b64encode(encoded.tobytes()).decode("ascii")
