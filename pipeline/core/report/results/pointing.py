"""Section "Pointing at findings": whether the highest place of a heat map lies on the finding,
where the organiser gives masks."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.folds.split import patient_keys
from pipeline.core.metrics import rate_interval
from pipeline.core.networks.heat_maps import hottest_place
from pipeline.core.raw.masks import Mask
from pipeline.core.report.html import html_table, paragraph, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.results.looks import Looks, look_at


@dataclass(frozen=True)
class Pointed:
    """One image whose finding is drawn: where a network pointed.

    hit    whether it was inside the mask
    share  the part of the image that the mask covers: how often a random place would be
    """

    patient: str
    run: str
    hit: bool
    share: float


def pointing_sections(evidence: Evidence) -> list[tuple[str, str, str]]:
    """The section as (id, heading, HTML), [] where no validated image has a mask or a map."""
    asked = drawn_findings(evidence)
    looks = look_at(evidence, asked) if asked else Looks({}, ())
    by_label = pointed_at(evidence, asked, looks)
    rows = []
    for label, pointed in by_label.items():
        hits = np.array([one.hit for one in pointed], float)
        interval = rate_interval(hits, [one.patient for one in pointed])
        accuracy = with_interval(hits.mean(), *interval, form=".3f")
        chance = np.mean([one.share for one in pointed])
        rows.append([label, accuracy, f"{chance:.3f}", len(hits), pointed[0].run])
    if not rows:
        return []
    text = (
        "Of the validated images on which the finding is drawn: how often the highest place of "
        "the heat map lies inside (CheXlocalize's hit rate; Saporta et al., 2022), with a 95 % "
        "interval over patients. A random place is inside as often as masks cover the image."
    )
    head = ["label", "pointing accuracy [95 % interval]", "a random place", "images", "network"]
    html = (
        paragraph(text)
        + html_table(head, rows, "Pointing accuracy")
        + source(
            f"masks in {data_folder(evidence.name)}/raw and the weights of {', '.join(looks.runs)}",
            f"make report COMP={evidence.name}",
        )
    )
    return [("pointing", "Pointing at findings", html)]


def masks_of(evidence: Evidence) -> dict[str, dict[str, Mask]]:
    """image_id -> label -> mask, as the competition's file reads them; {} where it reads none."""
    read = getattr(evidence.competition.module, "masks", None)
    raw = data_folder(evidence.name) / "raw"
    return read(raw) if read and raw.is_dir() else {}


def drawn_findings(evidence: Evidence) -> dict[tuple[str, int, int], Mask]:
    """(image_id, fold, number of the label) -> mask of every finding that is drawn on a validated
    image."""
    masks = masks_of(evidence)
    drawn = {}
    rows = evidence.rows.validated
    for image, fold in zip(rows["image_id"], rows["fold"], strict=True):
        for k, label in enumerate(evidence.labels):
            if label in masks.get(image, {}):
                drawn[image, int(fold), k] = masks[image][label]
    return drawn


def pointed_at(
    evidence: Evidence, drawn: dict[tuple[str, int, int], Mask], looks: Looks
) -> dict[str, list[Pointed]]:
    """label -> what was pointed at on its images, labels without any left out."""
    rows = evidence.rows.validated
    patients = dict(zip(rows["image_id"], patient_keys(rows), strict=True))
    fit = evidence.competition.task.resize.fit
    by_label: dict[str, list[Pointed]] = {}
    for (image, _fold, k), mask in drawn.items():
        look = looks.found.get((image, k))
        if look:
            place = place_in_file(hottest_place(look.heat), mask.height, mask.width, fit)
            one = Pointed(str(patients[image]), look.run, mask.covers(*place), mask.share)
            by_label.setdefault(evidence.labels[k], []).append(one)
    return {label: by_label[label] for label in evidence.labels if label in by_label}


def place_in_file(
    place: tuple[float, float], height: int, width: int, fit: str
) -> tuple[float, float]:
    """A place of the prepared image, in parts of its side, as parts of the file's width and height;
    fit: that of `Resize`. A place in the padding lies outside [0, 1)."""
    if fit == "square":
        return place
    # The square that was prepared has the file's centre and its short or long side.
    side = min(height, width) if fit == "short" else max(height, width)
    x, y = place
    return ((width - side) / 2 + x * side) / width, ((height - side) / 2 + y * side) / height
