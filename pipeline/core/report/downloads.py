"""What the page shows as files beside it: each table as CSV, each drawing as SVG.

They are taken from the page's own sections, so that what is in the files is what is on the page.
"""

import csv
import io
import re
from collections.abc import Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

from pipeline.core.artifacts.files import write_text
from pipeline.core.report.style import STYLE

LONGEST = 60  # letters of a file's name, without its ending
DRAWING = re.compile(r'<svg class="plot".*?</svg>', re.DOTALL)


def write_downloads(folder: Path, sections: Sequence[tuple[str, str, str]]) -> list[str]:
    """Write the files of all sections (id, heading, HTML) into `folder`, whose older CSV and SVG
    files go; returns their names."""
    files: dict[str, str] = {}
    for name, _, html in sections:
        for caption, rows in tables_of(html):
            files[free_name(files, f"{name} {caption}", ".csv")] = csv_of(rows)
        for svg in DRAWING.findall(html):
            described = re.search(r'aria-label="([^"]*)"', svg)
            title = unescape(described.group(1)).split(". ")[0] if described else ""
            files[free_name(files, f"{name} {title}", ".svg")] = standalone(svg)
    for old in (*folder.glob("*.csv"), *folder.glob("*.svg")):
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        write_text(folder / name, text)
    return list(files)


def free_name(taken: dict[str, str], title: str, ending: str) -> str:
    """A file name made of the title's letters and digits that no other file has."""
    words = "-".join(re.findall(r"[a-z0-9]+", title.lower()))[:LONGEST].strip("-")
    name = f"{words}{ending}"
    number = 2
    while name in taken:
        name = f"{words}-{number}{ending}"
        number += 1
    return name


class TableReader(HTMLParser):
    """The tables of a piece of HTML: (caption, rows of texts)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.inside = ""  # "caption", "cell" or "": where text belongs

    def handle_starttag(self, tag: str, _attributes: list) -> None:
        if tag == "table":
            self.tables.append(("", []))
        elif tag == "caption":
            self.inside = "caption"
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.inside = "cell"
            self.tables[-1][1][-1].append("")
        elif tag == "br" and self.inside == "cell":
            self.tables[-1][1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "td", "th"):
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "caption":
            caption, rows = self.tables[-1]
            self.tables[-1] = (caption + data, rows)
        elif self.inside == "cell":
            self.tables[-1][1][-1][-1] += data


def tables_of(html: str) -> list[tuple[str, list[list[str]]]]:
    """(caption, rows of texts) of every table; columns of drawings are left out."""
    reader = TableReader()
    reader.feed(DRAWING.sub("", html))
    reader.close()
    tables = []
    for caption, rows in reader.tables:
        body = rows[1:]
        drawn = {
            place
            for place in range(len(rows[0]))
            if body and not any(len(row) > place and row[place].strip() for row in body)
        }
        kept = [[text for place, text in enumerate(row) if place not in drawn] for row in rows]
        tables.append((caption, kept))
    return tables


def csv_of(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def standalone(svg: str) -> str:
    """An SVG that needs no page: its namespace, and the light colours of the page's style."""
    style = f"<style>{STYLE}\nsvg {{ background: #fff; font-family: sans-serif; }}</style>"
    start, rest = svg.split(">", 1)
    return f'{start} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'
