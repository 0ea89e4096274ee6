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
