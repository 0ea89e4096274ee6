"""Checkpoints come back as they were; damaged ones are known."""

import pytest
import torch

from pipeline.core.artifacts.checkpoints import generations, remove_checkpoints
from pipeline.core.runtime.errors import UserError
from pipeline.core.training import checkpoint

STATE = {
    "step": 7,
    "optimizer": {
        "state": {0: {"mean": torch.arange(6.0).view(2, 3)}, 3: {"t": torch.tensor(5)}},
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 3]}],
    },
    "nothing": None,
    "empty": torch.empty(0),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "flag": True,
}


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def test_a_nested_state_comes_back_with_its_types(tmp_path):
    checkpoint.save_checkpoint(tmp_path, "finetuned", STATE)
    assert same(checkpoint.load_checkpoint(tmp_path, "finetuned"), STATE)
    assert checkpoint.load_checkpoint(tmp_path, "pretrained") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_newest_generation_gives_way_to_the_one_before(tmp_path, capsys, damage):
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path, "p", {**STATE, "step": step})
    newest, _ = generations(tmp_path, "p")
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    newest.write_bytes({"cut": content[:-9], "flip": content, "empty": b""}[damage])
    assert checkpoint.load_checkpoint(tmp_path, "p")["step"] == 1
    assert "damaged" in capsys.readouterr().out


def test_both_damaged_is_as_none(tmp_path):
    for _ in range(2):
        checkpoint.save_checkpoint(tmp_path, "p", STATE)
    for path in generations(tmp_path, "p"):
        path.write_bytes(b"junk")
    assert checkpoint.load_checkpoint(tmp_path, "p") is None


def test_a_full_disk_leaves_the_generation_before(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, "p", {**STATE, "step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.save_checkpoint(tmp_path, "p", {**STATE, "step": 2})
    assert checkpoint.load_checkpoint(tmp_path, "p")["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_kept_is_an_error(tmp_path):
    with pytest.raises(TypeError, match="/set"):
        checkpoint.save_checkpoint(tmp_path, "p", {"set": {1}})


def test_remove_deletes_both_generations(tmp_path):
    for _ in range(2):
        checkpoint.save_checkpoint(tmp_path, "p", STATE)
    remove_checkpoints(tmp_path, "p")
    assert not list(tmp_path.iterdir())
