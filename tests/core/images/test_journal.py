"""Journals of prepare: what is damaged is told and done again, what is whole is kept."""

import os

import pytest

from pipeline.core.images.prepared import journal_text, read_journal

LINES = [
    {"image_id": f"{number:03d}", "file": f"{number}.jpg", "stamp": [10, 20], "reason": "empty"}
    for number in range(3)
]


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\xff", b"{", b"[]", b"{}", b"", b'{"image_id": "001"}', b"[" * 100_000, b"\0" * 9],
)
def test_a_damaged_line_is_left_out_and_counted(tmp_path, capsys, damage):
    path = tmp_path / "000000.jsonl"
    first, _, last = (journal_text(line).encode() for line in LINES)
    path.write_bytes(first + damage + b"\n" + last)
    assert list(read_journal(path)) == [LINES[0], LINES[2]]
    assert capsys.readouterr().err.startswith(f"warning: {path}: 1 damaged lines")


def test_a_changed_digit_counts_as_damage(tmp_path, capsys):
    path = tmp_path / "000000.jsonl"
    path.write_text("".join(map(journal_text, LINES)).replace("1.jpg", "7.jpg"))
    assert list(read_journal(path)) == [LINES[0], LINES[2]]
    assert "1 damaged lines" in capsys.readouterr().err


def test_a_last_line_cut_by_a_kill_is_left_out_without_a_word(tmp_path, capsys):
    path = tmp_path / "000000.jsonl"
    path.write_text("".join(map(journal_text, LINES))[:-5])
    assert list(read_journal(path)) == LINES[:2] and capsys.readouterr().err == ""


def test_what_is_no_file_has_no_lines(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert list(read_journal(tmp_path / "pipe")) == list(read_journal(tmp_path / "none")) == []
