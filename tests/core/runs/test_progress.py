"""How far a phase is, from log lines and claim files written by hand."""

import json
import os

import pytest

from pipeline.core.runs.progress import PhaseProgress, owner_text, trained_so_far
from pipeline.core.runtime.claims import claim_path, try_claim


def write_log(folder, lines, cut=""):
    text = "".join(json.dumps({"phase": "finetuned", **line}) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + cut)


def test_nothing_yet(tmp_path):
    assert trained_so_far(tmp_path, "finetuned", 32, 10) == PhaseProgress()
    write_log(tmp_path, [{"step": 20, "loss": 1.0}])
    assert trained_so_far(tmp_path, "pretrained", 32, 10) == PhaseProgress()


def test_speed_time_and_what_is_left(tmp_path):
    """25 steps an epoch of 32 images: after step 40 of 250, 210 x 32 images at 64 a second."""
    lines = [
        {"step": 20, "window": True, "images_per_second": 32.0},
        {"step": 25, "epoch": 1, "valid_auc": {"mean": 0.7}},
        {"step": 40, "window": True, "images_per_second": 64.0},
    ]
    write_log(tmp_path, lines, cut='{"phase": "finetuned", "st')
    found = trained_so_far(tmp_path, "finetuned", 32, 10)
    assert found.epoch == 1
    assert found.images_per_second == 64
    assert found.seconds == pytest.approx(20 * 32 / 32 + 20 * 32 / 64)
    assert found.seconds_left == pytest.approx(210 * 32 / 64)


def test_the_owner_of_a_claim(tmp_path):
    claim = claim_path(tmp_path / "finetuned.safetensors")
    assert try_claim(claim)
    assert f"process {os.getpid()})" in owner_text(claim)
    claim.write_text("{")
    assert owner_text(claim) == ""
