"""Table 1's program from files to lines, real processes, several at once."""

import subprocess
import sys

import numpy as np
import pytest

from pipeline.paper.benchmark.store import read_lines
from tests.cases.benchmarks import write_cifar


def table1(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    program = [sys.executable, "-W", "ignore", "-m", "pipeline.paper.table1"]
    command = [*program, "--device", "cpu", *arguments]
    environment = {
        "DATA": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def tiny(tmp_path):
    """CIFAR-10's layout with 300 dim or bright images; positives are the bright ones."""
    ids = np.arange(300) % 10
    noise = np.random.default_rng(0).normal(0, 30, (300, 3, 32, 32))
    pixels = (90 + 60 * (ids >= 5)[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    folder = tmp_path / "cifar10/raw/cifar-10-batches-py"
    for part in range(5):
        write_cifar(folder, f"data_batch_{part + 1}", pixels[part::5], ids[part::5], b"labels", 2)
    write_cifar(folder, "test_batch", pixels, ids, b"labels", 2)
    return tmp_path


@pytest.mark.slow
def test_two_processes_share_the_work_and_a_second_call_has_nothing_to_do(tiny):
    out = tiny / "results/table1.jsonl"
    arguments = ["--imratio", "0.1", "--epochs", "2", "--seeds", "2", "--jobs", "2"]
    arguments += ["--losses", "ce", "aucm", "--out", str(out)]
    first = table1(tiny, *arguments)
    assert first.returncode == 0, first.stderr
    assert "cifar10 resnet20 10% aucm: test AUC after 2 epochs 0." in first.stdout
    lines = out.read_text()
    fields = ("loss", "seed", "trained_on_positives")
    trained = {tuple(record[name] for name in fields) for record in read_lines(out)}
    assert trained == {("ce", 0, 17), ("ce", 1, 17), ("aucm", 0, 17), ("aucm", 1, 17)}
    assert table1(tiny, *arguments).stdout == first.stdout
    assert out.read_text() == lines


@pytest.mark.slow
def test_a_missing_data_set_is_one_line_and_exit_2(tmp_path):
    done = table1(tmp_path, "--dataset", "stl10")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/stl10/raw: there is no such folder")
