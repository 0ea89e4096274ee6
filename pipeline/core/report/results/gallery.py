"""Section "The most confident errors": images of the negatives that score highest and the positives
that score lowest."""

import base64
from html import escape

import cv2
import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder, models_folder
from pipeline.core.artifacts.prepared_images import PreparedImage, prepared_images
from pipeline.core.config.task import Task
from pipeline.core.metrics.roc import classes
from pipeline.core.report.html import paragraph, side_by_side, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.results.subgroups import is_age
from pipeline.core.runtime.errors import UserError

# pixels and JPEG quality: 5 to 8 kB an image
THUMBNAIL_SIDE = 192
JPEG_QUALITY = 80

# images of each kind of error, where the task has one label or several
ONE_LABEL = 8
MANY_LABELS = 4


def gallery(evidence: Evidence) -> str:
    """The negatives with the highest and the positives with the lowest final score, label by
    label."""
    size = gallery_size(evidence.name)
    most = ONE_LABEL if len(evidence.labels) == 1 else MANY_LABELS
    truth = evidence.units.truth
    parts = []
    for k in np.flatnonzero(classes(truth)):
        label = evidence.labels[k]
        scores = evidence.final[:, k]
        # the share of cases that score lower, 0 to 1
        below = scores.argsort().argsort() / max(len(scores) - 1, 1)

        # from the most confident error down
        negatives = np.flatnonzero(truth[:, k] == 0)
        negatives = negatives[np.argsort(-scores[negatives], kind="stable")][:most]
        positives = np.flatnonzero(truth[:, k] == 1)
        positives = positives[np.argsort(scores[positives], kind="stable")][:most]

        for units, kind in (
            (negatives, "negative, scored high"),
            (positives, "positive, scored low"),
        ):
            images = "".join(
                case(evidence, unit, size, scores[unit], below[unit], f"{label}, {kind}")
                for unit in units
            )
            heading = f"<h3>{escape(label)}: {kind}</h3>"
            parts.append(f'<div>{heading}<div class="images">{images}</div></div>')
    text = (
        "The final out-of-fold score, the share of all cases that score lower, and what is known "
        "of the patient. Some are the network's errors, some are wrong labels: they deserve a "
        "second look by someone who can tell."
    )
    return (
        paragraph(text)
        + (side_by_side(parts, pairs=True) if len(parts) > 2 else "".join(parts))
        + source(
            f"{data_folder(evidence.name)}/images/{size}/, "
            f"{models_folder(evidence.name)}/ensemble.csv",
            f"make prepare COMP={evidence.name}, {evidence.made_by}",
        )
    )


def gallery_size(name: str) -> int:
    """The smallest prepared size that is no less than THUMBNAIL_SIDE, else the largest."""
    folder = data_folder(name) / "images"
    sizes = []
    for path in folder.glob("*"):
        if path.is_dir() and path.name.isdigit():
            sizes.append(int(path.name))
    if not sizes:
        raise UserError(
            f"{folder}: no prepared images in it; `make prepare COMP={name}` makes them"
        )
    return min((size for size in sizes if size >= THUMBNAIL_SIDE), default=max(sizes))


def case(evidence: Evidence, unit: int, size: int, score: float, below: float, title: str) -> str:
    """One image with its facts.

    unit   row of evidence.units; its first image is shown
    size   prepared size, pixels
    below  share of all cases that score lower
    title  label and kind of error
    """
    key = evidence.units.keys.iloc[unit]
    images = evidence.rows.validated
    image = images[images["image_id"] == key["image_id"]].iloc[0]
    facts = ", ".join(image_facts(image, evidence.competition.task))
    data = jpeg_base64(prepared_images(evidence.name, size, [key["image_id"]])[0])
    alt = f"{title}: {key['image_id']}, score {score:.3f}" + (f", {facts}" if facts else "")
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{score:.3f}</b> (above {below:.1%})<br>{escape(facts)}<br>"
        f'<span class="soft">{escape(key["image_id"])}, fold {int(key["fold"])}</span>'
        "</figcaption></figure>"
    )


def image_facts(image: pd.Series, task: Task) -> list[str]:
    """The patient columns that are known, as text; image: a row of images.csv."""
    # the columns that subgroups are made of
    facts = []
    for column in (*task.numeric, *task.categorical):
        if column not in image or pd.isna(image[column]):
            continue
        value = image[column]
        if column not in task.numeric:
            facts.append(str(value))
        elif is_age(column):
            facts.append(f"{value:g} years")
        else:
            facts.append(f"{column.replace('_', ' ')} {value:.3g}")
    return facts


def jpeg_base64(prepared: PreparedImage) -> str:
    """A prepared image, no larger than THUMBNAIL_SIDE, as base64 JPEG."""
    image = cv2.imdecode(np.frombuffer(prepared.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise prepared.fault("not a whole image")
    # never enlarged: the browser does that as well
    shrink = THUMBNAIL_SIDE / max(image.shape[:2])
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    written, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not written:
        raise UserError(f"{prepared.path}: cannot be written as JPEG")
    return base64.b64encode(encoded.tobytes()).decode("ascii")
