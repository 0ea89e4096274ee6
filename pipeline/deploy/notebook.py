"""Notebooks and their metadata, in the form that Kaggle's client takes.

A notebook is kept as a script with `# %%` marks (away/notebook_*.py), so that it is linted and run
like any other program. Its docstring becomes the text on top; its `settings` cell is replaced when
it is written.
"""

import ast
import re
from pathlib import Path

from pipeline.core.runtime.errors import UserError

# A line that begins a cell, and what follows the mark: the cell's name.
MARK = re.compile(r"^# %%(.*)$", re.MULTILINE)
OWNER = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
# The licences of a dataset by Kaggle's names for them, but for those that give a work to the public
# domain (CC0-1.0, PDDL): the code and the wheels in it are others', who ask to be named.
LICENCES = (
    "apache-2.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-NC-ND-4.0",
    "CDLA-Permissive-1.0",
    "CDLA-Sharing-1.0",
    "ODC-BY-1.0",
    "ODbL-1.0",
    "GPL-3.0",
    "copyright-authors",
    "other",
    "unknown",
)


def slug(title: str) -> str:
    """A title as Kaggle's address of it: lower case letters and digits, joined by single
    hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def checked_title(title: str, shortest: int) -> str:
    """The title, or a UserError where it or its slug is too short or too long for Kaggle."""
    for text in (title, slug(title)):
        if not shortest <= len(text) <= 50:
            raise UserError(
                f"{text!r}: Kaggle takes titles and slugs of {shortest} to 50 characters"
            )
    return title


def reference(owner: str, title: str) -> str:
    """owner/slug, or a UserError where the owner cannot be a user name."""
    if not OWNER.fullmatch(owner):
        raise UserError(
            f"OWNER={owner!r} is not a Kaggle user name (lower case letters, digits, - and _)"
        )
    return f"{owner}/{slug(title)}"


def require_licence(licence: str) -> None:
    """Raise a UserError for a licence that a dataset of this package cannot have."""
    if licence not in LICENCES:
        raise UserError(
            f"LICENCE={licence!r} is none of {', '.join(LICENCES)}; these are Kaggle's names, but "
            "for the public domain, which the licences of the code and the wheels in the dataset "
            "contradict"
        )


def dataset_metadata(
    owner: str, title: str, subtitle: str, licence: str, wheels: dict[str, str]
) -> dict:
    """dataset-metadata.json: title and slug of 6 to 50 characters, subtitle of 20 to 80, exactly
    one licence; wheels, package -> licence, are named in the description."""
    require_licence(licence)
    if not 20 <= len(subtitle) <= 80:
        raise UserError(f"{subtitle!r}: Kaggle takes subtitles of 20 to 80 characters")
    return {
        "title": checked_title(title, 6),
        "id": reference(owner, title),
        "subtitle": subtitle,
        "description": "The code is under Apache-2.0. Wheels keep their own licences: "
        + ", ".join(f"{name} {its_licence}" for name, its_licence in wheels.items())
        + ".",
        "licenses": [{"name": licence}],
    }


def kernel_metadata(
    owner: str,
    title: str,
    competition: str,
    dataset: str,
    kernels: tuple[str, ...] = (),
    internet: bool = False,
) -> dict:
    """kernel-metadata.json of a private notebook with a GPU; without the internet, which the client
    turns on unasked. Training may have it, to fetch ImageNet weights: it submits nothing."""
    return {
        "id": reference(owner, checked_title(title, 5)),
        "title": title,
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": internet,
        "dataset_sources": [dataset],
        "competition_sources": [competition],
        "kernel_sources": list(kernels),
        "model_sources": [],
    }


def notebook(script: Path, settings: dict) -> dict:
    """A script with a docstring and `# %%` marks as a notebook (nbformat 4.5), its settings cell of
    these values."""
    # The docstring, as the text on top.
    text = script.read_text(encoding="utf-8")
    words = ast.get_docstring(ast.parse(text))
    cells = [{"cell_type": "markdown", "id": "cell", "metadata": {}, "source": words}]

    # A cell is what lies between two marks; nothing but the docstring lies before the first.
    marks = list(MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for number, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        # The script's own values give way to those of the competition.
        source = text[mark.end() : end].strip("\n")
        if mark[1].strip() == "settings":
            source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
        cells.append(
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "source": source,
                "execution_count": None,
                "outputs": [],
            }
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
