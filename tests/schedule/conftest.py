"""A Slurm on this machine, and the finished competition that everything through it must equal."""

from collections.abc import Iterator

import pytest

from tests.cases import slurm_cluster
from tests.cases.house import home, house  # noqa: F401


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
