"""Do the ids of a submission match the organiser's, and if not, what happened to them?"""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from pipeline.core.submission.plausibility import Finding, listed

JUDGED = 1000  # strange ids looked at for a hint


def plain_id(identity: str) -> str:
    """A study's path without the trailing slash that the organiser's scorer adds to both sides."""
    return identity.rstrip("/") if "/" in identity else identity


def check_ids(ids: pd.Series, asked: pd.Series, unit: str) -> list[Finding]:
    """Blank, repeated, missing and extra ids, and what they have in common.

    ids    as text, indexed by their row in the file; asked: the organiser's, in order; unit:
           "image" or "study"
    """
    here, there = ids.map(plain_id), asked.map(plain_id)
    blank = here == ""
    twice, extra = here.duplicated() & ~blank, ~here.isin(there) & ~blank
    findings = [
        *of_rows("rows with a blank id", ids[blank]),
        *of_rows("ids that stand there twice", ids[twice]),
        *of_rows("ids the organiser did not ask for" + hint(here[extra], there, unit), ids[extra]),
    ]
    missing = asked[~there.isin(here)]
    if len(missing):
        shown = listed(map(repr, missing))
        findings.append(
            Finding(
                "error",
                f"ids of the organiser's {len(there)} that are missing",
                shown,
                len(missing),
            )
        )
    if not findings and not np.array_equal(here.to_numpy(), there.to_numpy()):
        findings.append(Finding("warning", "rows are not in the organiser's order"))
    return findings


def of_rows(message: str, ids: pd.Series) -> list[Finding]:
    """An error with its first rows, or none where no row has it."""
    rows = listed(f"row {line}: {identity!r}" for line, identity in ids.items())
    return [Finding("error", message, rows, len(ids))] if len(ids) else []


def hint(strangers: pd.Series, asked: pd.Series, unit: str) -> str:
    """Why ids may be strangers, or '': the first reason that fits all of them."""
    some = list(strangers.head(JUDGED))
    reasons = reasons_for(asked, unit)
    return next(
        (f" ({reason})" for reason, fits in reasons.items() if some and all(map(fits, some))), ""
    )


def reasons_for(asked: pd.Series, unit: str) -> dict[str, Callable[[str], bool]]:
    """Reason -> does an id fit it?"""
    known, numbers, tails = set(asked), set(asked.map(as_number)), set(asked.map(tail))
    above = above_patient(asked.iloc[0]) if len(asked) else ""
    return {
        f"these are images; a row is a {unit}": lambda one: one.rpartition("/")[0] in known,
        "white space around ids": lambda one: one.strip() in known,
        "file endings on ids": lambda one: (
            re.sub(r"\.(jpe?g|png|dcm)$", "", one, flags=re.I) in known
        ),
        "ids were read as numbers": lambda one: as_number(one) in numbers,
        f"another prefix than the organiser's {above!r}: another split or version of the data?": lambda one: (
            "/" in one and (tail(one) in tails or above_patient(one) != above)
        ),
    }


def tail(identity: str) -> str:
    """The last two parts of a path: `patient64741/study1`."""
    return "/".join(identity.split("/")[-2:])


def above_patient(identity: str) -> str:
    """A study's path above patient and study: `CheXpert-v1.0/test`."""
    return "/".join(identity.split("/")[:-2])


def as_number(identity: str) -> str:
    """An id as it looks after a detour through a number: `0015719` and `15719.0` are `15719`."""
    if not re.fullmatch(r"\d+(\.0)?", identity):
        return f"text {identity}"
    return identity.removesuffix(".0").lstrip("0")
