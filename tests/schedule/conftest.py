"""A Slurm on this machine, and the finished competition that everything through it must equal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import faults, slurm_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[slurm_cluster.Cluster]:
    """Two nodes of one core, for the session."""
    reason = slurm_cluster.why_not()
    if reason:
        pytest.skip(reason)
    started = slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> Path:
    """A competition finished without Slurm, which no test changes."""
    home = tmp_path_factory.mktemp("house")
    faults.finish(home)
    return home


@pytest.fixture
def home(house, tmp_path) -> Path:
    """A copy of it that a test may spoil."""
    return faults.copied(house, tmp_path / "home")
