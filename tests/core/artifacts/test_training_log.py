"""Lines of a log: what is cut at its end is left out, what is damaged before it is named."""

import pytest

from pipeline.core.artifacts.training_log import log_text, read_log
from pipeline.core.runtime.errors import UserError

LINES = [{"phase": "pretrained", "step": 1, "loss": 0.5}, {"phase": "finetuned", "step": 1}]


def test_lines_are_read_back(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(map(log_text, LINES)))
    assert read_log(path, "make finetune") == LINES


def test_a_last_line_that_is_cut_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(map(log_text, LINES))[:-9])
    assert read_log(path) == LINES[:1]


@pytest.mark.parametrize("damage", ['{"pha', "\x00\x00", "[]", "{}", "", "[" * 100_000])
def test_a_line_that_is_damaged_is_named(tmp_path, damage):
    path = tmp_path / "log.jsonl"
    path.write_text(log_text(LINES[0]) + damage + "\n" + log_text(LINES[1]))
    with pytest.raises(UserError, match=r"log.jsonl: line 2: "):
        read_log(path)


def test_a_changed_digit_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(log_text(LINES[0]).replace("0.5", "0.6"))
    with pytest.raises(UserError, match=r"log.jsonl: line 1: "):
        read_log(path)


def test_a_missing_log_is_named_where_it_is_needed(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []
    with pytest.raises(UserError, match="`make finetune` writes it"):
        read_log(tmp_path / "log.jsonl", "make finetune")
