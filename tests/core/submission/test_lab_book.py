"""The lab book keeps every line, however many processes write at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.runtime.errors import UserError
from pipeline.core.submission import lab_book

PROGRAM = """
import sys
from pathlib import Path
from pipeline.core.submission import lab_book
for number in range(10):
    sha256 = f"{sys.argv[1]}{number:011x}"
    lab_book.add("melanoma", Path("a.csv"), sha256, "commit", "members", "0.9")
    lab_book.note("melanoma", sha256, public="0.8")
"""


def test_two_writers_lose_no_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMISSIONS", str(tmp_path))
    root = Path(__file__).parents[3]
    writers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, name], cwd=root, env=os.environ.copy())
        for name in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = lab_book.read_lab_book()
    hashes = [line["sha256"] for line in lines]
    assert sorted(hashes) == sorted(f"{name}{number:011x}" for name in "ab" for number in range(10))
    assert {line["public"] for line in lines} == {"0.8"}
    assert [path.name for path in tmp_path.iterdir()] == ["LOG.md"]


@pytest.mark.parametrize("text", [b"\xff\xfe", b"# notes \xe4\n"])
def test_a_book_that_is_not_utf8_is_one_line(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SUBMISSIONS", str(tmp_path))
    lab_book.book().write_bytes(text)
    with pytest.raises(UserError, match=r"LOG\.md: byte \d+ is not UTF-8"):
        lab_book.read_lab_book()
    assert lab_book.book().read_bytes() == text


HEADING = "| " + " | ".join(lab_book.COLUMNS) + " |\n"
RULE = "| --- " * len(lab_book.COLUMNS) + "|\n"
ROW = "| a " * len(lab_book.COLUMNS) + "|\n"


@pytest.mark.parametrize(
    "table, said",
    [
        (HEADING + RULE + ROW + "| a | b |\n", r"line 6: 2 cells between bars, where .* 10 "),
        (HEADING + RULE + ROW[:-2] + "\n", "line 5: 9 cells"),
        (HEADING + ROW + ROW, "line 4: the rule below the heading is missing"),
        (HEADING + "| --- | --- |\n", "line 4: 2 cells"),
    ],
)
def test_a_row_that_would_be_lost_is_told(tmp_path, monkeypatch, table, said):
    monkeypatch.setenv("SUBMISSIONS", str(tmp_path))
    text = "# Mine\n\n" + table + "\nnotes\n"
    lab_book.book().write_text(text)
    with pytest.raises(UserError, match=said):
        lab_book.add("melanoma", Path("a.csv"), "0" * 64, "commit", "members", "0.9")
    assert lab_book.book().read_text() == text and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("table", [HEADING + RULE + ROW, HEADING + RULE, HEADING, ""])
def test_what_stands_around_the_table_stays(tmp_path, monkeypatch, table):
    monkeypatch.setenv("SUBMISSIONS", str(tmp_path))
    lab_book.book().write_text("# Mine\n\n" + table + "\nnotes\n")
    lab_book.add("melanoma", Path("a.csv"), "0" * 64, "commit", "a|b", "0.9")
    found = lab_book.book().read_text()
    assert found.startswith("# Mine\n") and "notes\n" in found
    assert len(lab_book.read_lab_book()) == table.count(ROW) + 1
    assert lab_book.read_lab_book()[-1]["members"] == "a\\|b"
