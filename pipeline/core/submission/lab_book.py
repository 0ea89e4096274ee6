"""The lab book, submissions/LOG.md: one line a submission, in a table that reads as text and as
Markdown.

A line is known by its competition and the first letters of its file's sha256, so the scores that
arrive later find it.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from pipeline.core.artifacts.files import read_text, write_text
from pipeline.core.artifacts.paths import root
from pipeline.core.runtime.claims import turn_to_write
from pipeline.core.runtime.errors import UserError

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
HASH_LETTERS = 12  # letters of a hash, 48 bits: no two files of one competition share them


def book() -> Path:
    """The path of the lab book."""
    return root("SUBMISSIONS") / "LOG.md"


def split_book() -> tuple[str, list[dict[str, str]], str]:
    """The text above the table of submissions, its lines, and the text below; other tables are left
    alone. UserError for a row that is no line of the table: writing the book would lose it."""
    text = read_text(book()) if book().exists() else HEAD
    lines = text.splitlines()

    # The book is the user's too: notes around the table must survive. The table starts at its
    # heading and ends at the first line that is not of a table.
    heading = f"| {COLUMNS[0]} | {COLUMNS[1]} |"
    starts = [number for number, line in enumerate(lines) if line.startswith(heading)]
    start = starts[0] if starts else len(lines)
    end = start
    while end < len(lines) and lines[end].startswith("|"):
        end += 1

    above = "\n".join(lines[:start]).rstrip("\n")
    below = "\n".join(lines[end:]).strip("\n")
    rows = [parsed(number, line) for number, line in enumerate(lines[start:end], start + 1)]
    if rows[1:] and not set("".join(rows[1].values())) <= {*":-"}:
        raise UserError(
            f"{book()}: line {start + 2}: the rule below the heading is missing; write "
            f"{'| --- ' * len(COLUMNS)}| there"
        )
    return above, rows[2:], below


def parsed(number: int, line: str) -> dict[str, str]:
    """A row of the table by column."""
    cells = re.split(r"(?<!\\)\|", line)[1:-1]  # an escaped bar is text
    if len(cells) != len(COLUMNS):
        raise UserError(
            f"{book()}: line {number}: {len(cells)} cells between bars, where the table has "
            f"{len(COLUMNS)} ({', '.join(COLUMNS)}); mend that line by hand"
        )
    return dict(zip(COLUMNS, (cell.strip() for cell in cells)))


def read_lab_book() -> list[dict[str, str]]:
    """The lines of the lab book, oldest first; an empty list where there is no book yet."""
    return split_book()[1]


def write_lines(lines: list[dict[str, str]]) -> None:
    """Write the whole book atomically; the text above and below its table is kept."""
    above, _, below = split_book()

    # Plain Markdown: git shows the book as a table, and any editor as text.
    table = [COLUMNS, ["---"] * len(COLUMNS)]
    for line in lines:
        table.append([line[column] for column in COLUMNS])
    rows = "\n".join("| " + " | ".join(row) + " |" for row in table)
    text = f"{above}\n\n{rows}\n"
    if below:
        text += f"\n{below}\n"
    write_text(book(), text)


def cell_text(value: object) -> str:
    """Text that stays in its cell: one line, the column mark escaped."""
    # Backslashes first, or they would escape the bar; split() also removes line breaks.
    one_line = " ".join(str(value).replace("\\", "/").split())
    return one_line.replace("|", "\\|")


def is_about(line: dict[str, str], competition: str, sha256: str) -> bool:
    """True where a line is about this file of this competition."""
    return line["competition"] == competition and line["sha256"] == sha256[:HASH_LETTERS]


def matching_line(competition: str, sha256: str) -> dict[str, str] | None:
    """The last line about a file, or None."""
    same = [line for line in read_lab_book() if is_about(line, competition, sha256)]
    return same[-1] if same else None


def add(competition: str, file: Path, sha256: str, commit: str, members: str, auc: str) -> None:
    """Append the line of a new submission; the very same file again adds none."""
    # The commit and the members say how to make the file again.
    values = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "competition": competition,
        "file": file,
        "sha256": sha256[:HASH_LETTERS],
        "commit": commit[:HASH_LETTERS],
        "members": members,
        "out-of-fold AUC": auc,
    }
    line = {column: cell_text(values.get(column, "")) for column in COLUMNS}
    with turn_to_write(book()):
        # `make submit` may run again on the same scores
        if not matching_line(competition, sha256):
            write_lines([*read_lab_book(), line])


def note(competition: str, sha256: str, **values: str) -> bool:
    """Set cells (message, public, private) of every line about a file; True when something
    changed."""
    # Every line: the same bytes have the same score, however often they were made.
    cells = {name: cell_text(value) for name, value in values.items()}
    changed = False
    with turn_to_write(book()):
        lines = read_lab_book()
        for line in lines:
            if is_about(line, competition, sha256):
                changed |= any(line[name] != text for name, text in cells.items())
                line.update(cells)
        if changed:
            write_lines(lines)
    return changed
