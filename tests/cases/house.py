"""A finished competition for tests that spoil one: the fixtures of their conftest files."""

from pathlib import Path

import pytest

from tests.cases import faults


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> Path:
    """A finished competition, which no test changes."""
    home = tmp_path_factory.mktemp("house")
    faults.finish(home)
    return home


@pytest.fixture
def home(house, tmp_path) -> Path:
    """A copy of it that a test may spoil."""
    return faults.copied(house, tmp_path / "home")
