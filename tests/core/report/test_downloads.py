"""The files beside the page hold what is on it."""

import csv
import xml.etree.ElementTree as ElementTree

from pipeline.core.report.downloads import tables_of, write_downloads
from pipeline.core.report.figures.svg import Plot
from pipeline.core.report.html import Html, drawn, figure, html_table


def test_tables_and_figures_are_written_and_old_ones_go(tmp_path):
    rows = [["a & b", "1 [0, 2]", drawn('<svg class="bar"></svg>'), Html("<td>x<br>y</td>")]]
    table = html_table(["name", "value", "", "more"], rows, "What was found")
    plot = Plot((0, 1), (0, 1), "x", "y")
    plot.line([0, 1], [0, 1], "c-final", "a < b")
    svg = figure(plot.svg("Curve of one. And more", clip="c1"), "one")
    (tmp_path / "old.csv").write_text("")
    written = write_downloads(tmp_path, [("first", "First", table + svg), ("second", "", table)])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert sorted(written) == names
    assert names == [
        "first-curve-of-one.svg",
        "first-what-was-found.csv",
        "second-what-was-found.csv",
    ]
    with (tmp_path / "first-what-was-found.csv").open() as file:
        assert list(csv.reader(file)) == [["name", "value", "more"], ["a & b", "1 [0, 2]", "x y"]]
    root = ElementTree.parse(tmp_path / "first-curve-of-one.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_table_without_rows_is_its_heading():
    assert tables_of(html_table(["one", "two"], [], "none")) == [("none", [["one", "two"]])]
