"""Checks of a submission's ids against the organiser's, with a hint of what changed them."""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from pipeline.core.submission.plausibility import Finding, first_rows

HINT_IDS = 1000  # unknown ids that are looked at for a hint; a wrong file may have 500,000


def plain_id(identity: str) -> str:
    """A study's path without the trailing slash that the organiser's scorer adds to both sides."""
    # One slash: with two, the organiser's scorer finds no such study.
    return identity.removesuffix("/") if "/" in identity else identity


def id_findings(ids: pd.Series, asked: pd.Series, unit: str) -> list[Finding]:
    """Blank, repeated, missing and extra ids, and what they have in common.

    ids    as text, indexed by their row in the file
    asked  the organiser's, in order
    unit   "image" or "study"
    """
    own = ids.map(plain_id)
    wanted = asked.map(plain_id)

    # Rows whose id is wrong; a blank is not reported a second time as repeated or extra.
    blank = own == ""
    repeated = own.duplicated() & ~blank
    extra = ~own.isin(wanted) & ~blank
    reason = hint(own[extra], wanted, unit)
    findings = [
        *row_findings("rows with a blank id", ids[blank]),
        *row_findings("ids that are there twice", ids[repeated]),
        *row_findings("ids the organiser did not ask for" + reason, ids[extra]),
    ]

    # Ids without a row.
    missing = asked[~wanted.isin(own)]
    if len(missing):
        message = f"ids of the organiser's {len(wanted)} that are missing"
        findings.append(Finding("error", message, first_rows(map(repr, missing)), len(missing)))

    # Scores are aligned by id, so another order is a warning only.
    if not findings and not np.array_equal(own.to_numpy(), wanted.to_numpy()):
        findings.append(Finding("warning", "rows are not in the organiser's order"))
    return findings


def row_findings(message: str, ids: pd.Series) -> list[Finding]:
    """An error with its first rows, or an empty list where no row has it."""
    if not len(ids):
        return []
    rows = first_rows(f"row {line}: {identity!r}" for line, identity in ids.items())
    return [Finding("error", message, rows, len(ids))]


def hint(unknown: pd.Series, asked: pd.Series, unit: str) -> str:
    """Why ids may be unknown to the organiser, or '': the first reason that fits all of them."""
    sample = list(unknown.head(HINT_IDS))
    if not sample:
        return ""
    # All of them: a reason that fits some ids only would send the reader the wrong way.
    for reason, fits in reasons_for(asked, unit).items():
        if all(map(fits, sample)):
            return f" ({reason})"
    return ""


def reasons_for(asked: pd.Series, unit: str) -> dict[str, Callable[[str], bool]]:
    """Reason -> function of an id: True where the reason explains it."""
    # Sets, since every id is looked up.
    known = set(asked)
    as_numbers = set(asked.map(as_number))
    tails = set(asked.map(tail))
    above = above_patient(asked.iloc[0]) if len(asked) else ""

    def is_image_of_a_study(identity: str) -> bool:
        return identity.rpartition("/")[0] in known

    def has_white_space(identity: str) -> bool:
        return identity.strip() in known

    def has_file_ending(identity: str) -> bool:
        return re.sub(r"\.(jpe?g|png|dcm)$", "", identity, flags=re.I) in known

    def was_a_number(identity: str) -> bool:
        return as_number(identity) in as_numbers

    def has_another_prefix(identity: str) -> bool:
        return "/" in identity and (tail(identity) in tails or above_patient(identity) != above)

    # In this order: an image's path has "another prefix" too, but the first says more.
    prefix = f"another prefix than the organiser's {above!r}"
    return {
        f"these are images; a row is a {unit}": is_image_of_a_study,
        "white space around ids": has_white_space,
        "file endings on ids": has_file_ending,
        "ids were read as numbers": was_a_number,
        f"{prefix}: another split or version of the data?": has_another_prefix,
    }


def tail(identity: str) -> str:
    """The last two parts of a path: `patient64741/study1`."""
    return "/".join(identity.split("/")[-2:])


def above_patient(identity: str) -> str:
    """A study's path above patient and study: `CheXpert-v1.0/test`."""
    return "/".join(identity.split("/")[:-2])


def as_number(identity: str) -> str:
    """An id as it looks after a detour through a number: `0015719` and `15719.0` are `15719`."""
    # Marked as text, so that no word equals a number.
    if not re.fullmatch(r"\d+(\.0)?", identity):
        return f"text {identity}"
    return identity.removesuffix(".0").lstrip("0")
