"""The lab book, submissions/LOG.md: one line a submission, in a table that reads as text and as
Markdown.

A line is known by its competition and the first letters of its file's sha256, so the scores that
arrive later find it.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import root

COLUMNS = (
    "date",
    "competition",
    "file",
    "sha256",
    "commit",
    "members",
    "out-of-fold AUC",
    "message",
    "public",
    "private",
)
HEAD = """# Submissions

One line each: made by `make submit`, sent by `make kaggle-submit`, scored by `make kaggle-scores`.
"""
SHORT = 12  # letters of a hash: no two files of one competition share them


def book() -> Path:
    return root("SUBMISSIONS") / "LOG.md"


def parts() -> tuple[str, list[str], str]:
    """What stands above the table of submissions, its rows, and what stands below; other tables are
    left alone."""
    text = book().read_text(encoding="utf-8") if book().is_file() else HEAD
    lines = text.splitlines()
    start = next(
        (
            number
            for number, line in enumerate(lines)
            if line.startswith(f"| {COLUMNS[0]} | {COLUMNS[1]} |")
        ),
        len(lines),
    )
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return (
        "\n".join(lines[:start]).rstrip("\n"),
        lines[start + 2 : end],
        "\n".join(lines[end:]).strip("\n"),
    )


def read_lines() -> list[dict[str, str]]:
    """The lines of the lab book, oldest first; none where there is no book yet."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in parts()[1]]
    return [
        dict(zip(COLUMNS, (cell.strip() for cell in row)))
        for row in rows
        if len(row) == len(COLUMNS)
    ]


def write_lines(lines: list[dict[str, str]]) -> None:
    """Write the whole book atomically; what stands above and below its table is kept."""
    above, _, below = parts()
    table = [
        COLUMNS,
        ["---"] * len(COLUMNS),
        *([line[column] for column in COLUMNS] for line in lines),
    ]
    rows = "\n".join("| " + " | ".join(row) + " |" for row in table)
    write_text(book(), f"{above}\n\n{rows}\n" + (f"\n{below}\n" if below else ""))


def cell(text: object) -> str:
    """Text that stays in its cell: one line, the column mark escaped."""
    return " ".join(str(text).replace("\\", "/").split()).replace("|", "\\|")


def find(competition: str, sha256: str) -> dict[str, str] | None:
    """The last line about a file, or None."""
    same = [
        line
        for line in read_lines()
        if (line["competition"], line["sha256"]) == (competition, sha256[:SHORT])
    ]
    return same[-1] if same else None


def add(competition: str, file: Path, sha256: str, commit: str, members: str, auc: str) -> None:
    """Append the line of a submission just made; the very same file again adds none."""
    if find(competition, sha256):
        return
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    values = (now, competition, file, sha256[:SHORT], commit[:SHORT], members, auc, "", "", "")
    write_lines([*read_lines(), dict(zip(COLUMNS, map(cell, values)))])


def note(competition: str, sha256: str, **values: str) -> bool:
    """Set cells (message, public, private) of every line about a file; True when something
    changed."""
    lines, changed = read_lines(), False
    for line in lines:
        if (line["competition"], line["sha256"]) == (competition, sha256[:SHORT]):
            new = {name: cell(value) for name, value in values.items()}
            changed |= any(line[name] != value for name, value in new.items())
            line.update(new)
    if changed:
        write_lines(lines)
    return changed
