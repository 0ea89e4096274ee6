"""A competition packed onto this machine equals the one made stage by stage, also when it was
stopped in between."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.cases.faults import leftovers
from tests.cases.scheduled import FOLD, made, make, times_trained
from tests.cases.trained import ROOT, variables

pytestmark = pytest.mark.slow


def test_packed_it_is_the_same(house, tmp_path):
    """Stopped once, by Ctrl-C, when fold 0 has a checkpoint; the same command goes on."""
    shutil.copytree(house / "data/melanoma/raw", tmp_path / "data/melanoma/raw")
    command = [sys.executable, "-m", "pipeline.schedule", "report", "melanoma", "--on", "local"]
    with subprocess.Popen(
        [*command, "--run", "b3_256", "--k", "2"],
        cwd=ROOT,
        env=variables(tmp_path, CHECKPOINT_SECONDS="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test in the background of a shell ignores Ctrl-C, and what it starts too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (tmp_path / FOLD / "finetuned.checkpoint.safetensors").exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed = process.stdout.read()
    assert process.returncode == 75, printed
    assert not leftovers(tmp_path)

    printed = make(tmp_path, "report", "K=2", "ON=local")
    assert "report melanoma: done" in printed
    assert made(tmp_path) == made(house)
    assert set(times_trained(tmp_path).values()) == {1}
    assert make(tmp_path, "report", "K=2", "ON=local") == ""
