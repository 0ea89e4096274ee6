"""Section "The most confident errors": images of the negatives that score highest and the positives
that score lowest, some of the positives that score high, and where a network looked in each."""

import base64
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder, models_folder
from pipeline.core.artifacts.prepared_images import PreparedImage, prepared_images
from pipeline.core.config.task import Task
from pipeline.core.metrics.roc import classes
from pipeline.core.networks.heat_maps import hottest_place
from pipeline.core.report.figures.overlay import heat_legend, overlay
from pipeline.core.report.html import bullets, paragraph, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.results.looks import Look, Looks, look_at
from pipeline.core.report.results.subgroups import is_age
from pipeline.core.runtime.errors import UserError

# pixels and JPEG quality: 5 to 8 kB an image
THUMBNAIL_SIDE = 192
JPEG_QUALITY = 80

# images of each kind, where the task has one label or several
ONE_LABEL = 8
MANY_LABELS = 4

HIGH = 0.9  # part of the negatives that a positive "scored high" lies above


@dataclass(frozen=True)
class Shown:
    """What one picture is of: a row of evidence.units, the number of a label, why it is shown."""

    unit: int
    label: int
    kind: str


def gallery(evidence: Evidence) -> str:
    """The negatives with the highest, the positives with the lowest and some positives with a high
    final score, label by label."""
    cases = chosen_cases(evidence)
    keys = evidence.units.keys
    asked = [
        (keys["image_id"].iloc[case.unit], int(keys["fold"].iloc[case.unit]), case.label)
        for case in cases
    ]
    looks = look_at(evidence, asked)
    size = gallery_size(evidence.name)

    # a heading and its images for each label and kind, in order
    groups: dict[tuple[int, str], list[str]] = {}
    for case in cases:
        html = case_figure(evidence, case, size, looks)
        groups.setdefault((case.label, case.kind), []).append(html)
    style = "images pairs" if looks.found else "images"
    parts = []
    for (label, kind), figures in groups.items():
        heading = f"<h3>{escape(evidence.labels[label])}: {kind}</h3>"
        parts.append(f'{heading}<div class="{style}">{"".join(figures)}</div>')
    return (
        paragraph(
            "The final out-of-fold score, the share of all cases that score lower, and what is "
            "known of the patient. Some are the network's errors, some are wrong labels: they "
            "deserve a second look by someone who can tell. Positives scored high are a random "
            f"sample of those above {HIGH:.0%} of the negatives."
        )
        + looks_text(evidence, looks)
        + "".join(parts)
        + source(
            f"{data_folder(evidence.name)}/images/{size}/, "
            f"{models_folder(evidence.name)}/ensemble.csv",
            f"make prepare COMP={evidence.name}, {evidence.made_by}",
        )
    )


def looks_text(evidence: Evidence, looks: Looks) -> str:
    """What the maps show, and why some are missing."""
    text = ""
    if looks.found:
        text += paragraph(
            "Beside each image: where the best single network for the label looked, "
            f"{', '.join(looks.runs)} of the fold that never saw the image. Colour is its score "
            "place by place, on one scale for all pictures of a label; the ring is around the "
            "highest place. It shows what this network used, not where a finding is."
        )
        if any(evidence.competition.run(run).bag for run in looks.runs):
            text += paragraph(
                "A network that scores all images of a unit at once is shown the unit's first one "
                "alone here."
            )
        text += heat_legend("median of all places", "highest half percent")
    if looks.missing:
        text += paragraph("No heat maps:") + bullets(looks.missing)
    return text


def chosen_cases(evidence: Evidence) -> list[Shown]:
    """What is shown, label by label: the most confident errors first, then some that are right."""
    most = ONE_LABEL if len(evidence.labels) == 1 else MANY_LABELS
    cases = []
    for k in np.flatnonzero(classes(evidence.units.truth)):
        scores = evidence.final[:, k]
        truth = evidence.units.truth[:, k]

        # from the most confident error down
        negatives = np.flatnonzero(truth == 0)
        negatives = negatives[np.argsort(-scores[negatives], kind="stable")]
        positives = np.flatnonzero(truth == 1)
        positives = positives[np.argsort(scores[positives], kind="stable")]

        # the same sample on every page made from these scores
        high = positives[scores[positives] > np.quantile(scores[negatives], HIGH)]
        sample = np.random.default_rng(0).permutation(high)[:most]
        sample = sample[np.argsort(-scores[sample], kind="stable")]
        for units, kind in (
            (negatives[:most], "negative, scored high"),
            (positives[:most], "positive, scored low"),
            (sample, "positive, scored high"),
        ):
            cases += [Shown(int(unit), int(k), kind) for unit in units]
    return cases


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


def case_figure(evidence: Evidence, case: Shown, size: int, looks: Looks) -> str:
    """One image with its facts, and beside it where a network looked, if one did.

    size   prepared size, pixels; of a unit's images the first is shown
    """
    key = evidence.units.keys.iloc[case.unit]
    images = evidence.rows.validated
    image = images[images["image_id"] == key["image_id"]].iloc[0]
    scores = evidence.final[:, case.label]
    score = scores[case.unit]
    below = (scores < score).sum() / max(len(scores) - 1, 1)

    # the image, and the same under its heat map
    title = f"{evidence.labels[case.label]}, {case.kind}"
    facts = ", ".join(image_facts(image, evidence.competition.task))
    alt = f"{title}: {key['image_id']}, score {score:.3f}" + (f", {facts}" if facts else "")
    pixels = thumbnail(prepared_images(evidence.name, size, [key["image_id"]])[0])
    pictures = picture(pixels, alt)
    look = looks.found.get((key["image_id"], case.label))
    alone = ""
    if look:
        pictures += look_picture(pixels, look, looks.limits(case.label))
        alone = f", {look.run} alone {look.score:.3f}"
    return (
        f"<figure><div>{pictures}</div>"
        f"<figcaption><b>{score:.3f}</b> (above {below:.1%}){escape(alone)}<br>{escape(facts)}<br>"
        f'<span class="soft">{escape(key["image_id"])}, fold {int(key["fold"])}</span>'
        "</figcaption></figure>"
    )


def look_picture(pixels: np.ndarray, look: Look, limits: tuple[float, float]) -> str:
    """A thumbnail under its heat map; limits: what has no colour and the strongest."""
    low, high = limits
    x, y = hottest_place(look.heat)
    heat = np.clip((look.heat - low) / (high - low), 0, 1)
    alt = f"where {look.run} looked: highest {x:.0%} from the left, {y:.0%} from the top"
    return picture(overlay(pixels, heat, (x, y)), alt)


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


def thumbnail(prepared: PreparedImage) -> np.ndarray:
    """A prepared image, no larger than THUMBNAIL_SIDE: uint8 (H, W) or (H, W, 3), BGR."""
    image = cv2.imdecode(np.frombuffer(prepared.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise prepared.fault("not a whole image")
    # never enlarged: the browser does that as well
    shrink = THUMBNAIL_SIDE / max(image.shape[:2])
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return image


def picture(pixels: np.ndarray, alt: str) -> str:
    """Pixels, uint8 gray or BGR, as an embedded JPEG."""
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    data = base64.b64encode(encoded.tobytes()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
