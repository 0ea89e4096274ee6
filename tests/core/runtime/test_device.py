"""What the machine offers."""

import platform
import subprocess
import sys

import pytest

# Faults of ten blocks of 64 MB, each touched and freed.
PROGRAM = """
import resource
from pipeline.core.runtime.device import reuse_memory
if {reuse}:
    reuse_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(b"1") * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(reuse: bool) -> int:
    program = PROGRAM.format(reuse=reuse)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc only")
def test_freed_memory_is_handed_out_again_and_not_cleared_by_the_kernel():
    assert page_faults(reuse=True) < page_faults(reuse=False) / 5
