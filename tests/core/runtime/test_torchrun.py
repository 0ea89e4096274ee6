"""torchrun ends as the processes do that it runs."""

import os
import subprocess
import sys

import pytest

from tests.cases.imports import ROOT

# Each process ends with its own status, the second one after the first.
CHILD = """
import os, sys, time
rank = int(os.environ["RANK"])
time.sleep(2 * rank)
sys.exit(int(sys.argv[1 + rank]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statuses", "expected"), [("0 0", 0), ("75 75", 75), ("2 75", 2), ("75 2", 75)]
)
def test_the_status_is_the_stages(tmp_path, statuses, expected):
    """In the last case the second is ended by torchrun before it can fail."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    module = ["-m", "pipeline.core.runtime.torchrun", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *module, str(script), *statuses.split()],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expected, done.stderr
