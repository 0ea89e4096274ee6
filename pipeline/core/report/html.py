"""The page as HTML: no script, no font, no request; light, dark, print; a phone or a desk.

Text is escaped by whoever makes it into HTML here (`html_table`, `figure`, `paragraph`); strings
called `html` or `svg` are taken as they are.
"""

from collections.abc import Sequence
from html import escape

from pipeline.core.report.style import STYLE


def page(title: str, lead: str, sections: Sequence[tuple[str, str, str]], notice: str = "") -> str:
    """The page. lead: HTML under the title; sections: (id, heading, HTML); notice: what nobody may
    overlook, such as SYNTHETIC DATA, in large letters above all else."""
    banner = f'<p class="notice" role="alert">{escape(notice)}</p>' if notice else ""
    heading = f"{notice}: {title}" if notice else title
    links = []
    parts = []
    for name, section, html in sections:
        links.append(f'<a href="#{name}">{escape(section)}</a> ')
        parts.append(
            f'<section id="{name}"><h2>{escape(section)}</h2>{html}'
            '<p class="top"><a href="#top">back to top</a></p></section>\n'
        )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(heading)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n"
        f'<body id="top"><header>{banner}<h1>{escape(title)}</h1>{lead}'
        f'<nav aria-label="Sections">{"".join(links)}</nav></header>\n'
        f"<main>{''.join(parts)}</main></body></html>\n"
    )


def paragraph(text: str, style: str = "") -> str:
    """One paragraph of text; style: a class of the page."""
    return f"<p{attribute('class', style)}>{escape(text)}</p>"


def attribute(name: str, value: str) -> str:
    """` name="value"`, "" for an empty value."""
    return f' {name}="{escape(value)}"' if value else ""


def bullets(lines: Sequence[str]) -> str:
    """A list of texts."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


class Html(str):
    """A table's cell that is HTML already."""


def html_table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    strong: Sequence[int] = (),
    style: str = "",
) -> str:
    """A table that scrolls sideways where it is too wide; the first cell of a row is its heading.

    strong: rows in bold. Cells are escaped unless they are `Html`; one that begins with <td is a
    whole cell.
    """
    head_cells = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = []
    for place, (name, *cells) in enumerate(rows):
        bold = ' class="strong"' if place in strong else ""
        row_cells = "".join(map(table_cell, cells))
        body.append(f'<tr{bold}><th scope="row">{escaped(name)}</th>{row_cells}</tr>')

    # a region that can be scrolled by keyboard needs a name
    title = escape(caption or "table of " + head[0])
    caption_html = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f"<table{attribute('class', style)}>{caption_html}"
        f"<thead><tr>{head_cells}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def escaped(value: object) -> str:
    """A value as HTML; `Html` is taken as it is."""
    return str(value) if isinstance(value, Html) else escape(str(value))


def table_cell(value: object) -> str:
    """A value as <td>; `Html` that begins with <td is taken as it is."""
    if isinstance(value, Html) and value.startswith("<td"):
        return str(value)
    return f"<td>{escaped(value)}</td>"


def drawn(svg: str) -> Html:
    """A cell that holds a drawing."""
    return Html(f'<td class="draw">{svg}</td>')


def scale(limits: tuple[float, float]) -> Html:
    """The heading of a column of drawings: where it begins and ends."""
    return Html(f'<span class="ends"><span>{limits[0]:g}</span><span>{limits[1]:g}</span></span>')


def shaded(value: float | None) -> Html:
    """A cell whose colour shows a value from 0 to 1; a dash for NaN."""
    if value is None or value != value:
        return Html("<td>–</td>")
    return Html(f'<td class="cell" style="--v:{min(max(value, 0), 1):.3f}">{value:.2f}</td>')


def figure(svg: str, name: str, text: str = "") -> str:
    """A drawing with its caption."""
    return f"<figure>{svg}<figcaption><b>{escape(name)}</b> {escape(text)}</figcaption></figure>"


def side_by_side(figures: Sequence[str], pairs: bool = False) -> str:
    """Figures side by side, as many as fit; pairs: two at most, so that what belongs together stays
    together."""
    return f'<div class="panels{" pairs" if pairs else ""}">{"".join(figures)}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """(style, name) pairs: `c-ce`, or `c-ce thin`, `c-ce dashed`."""
    keys = []
    for style, name in entries:
        colour, *marks = style.split()
        swatch = f'<i class="{" ".join(marks)}"></i>'
        keys.append(f'<span class="key {colour}">{swatch}<span>{escape(name)}</span></span>')
    return "<p>" + "".join(keys) + "</p>"


def source(files: str, command: str) -> str:
    """Where a section's numbers come from: its files, and the command that makes them."""
    return (
        f'<p class="source">From <code>{escape(files)}</code>, '
        f"made by <code>{escape(command)}</code>.</p>"
    )
