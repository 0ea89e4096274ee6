"""What an artifact says about the code that made it."""

import os
import shutil
import sys

import pytest

from pipeline.core.artifacts import provenance


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git here")
def test_git_is_out_of_reach_of_signals_to_the_group():
    ask = f"!{sys.executable} -c 'import os; print(os.getsid(0))'"
    session = int(provenance.git("-c", f"alias.session={ask}", "session"))
    assert session not in (os.getsid(0), 0)
