"""The house that every fault is done to, made once; the table of counts at the end."""

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


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was tried and what ended wrong, as tests/bench/RESULTS.md has it."""
    if faults.TALLY.tried:
        terminalreporter.write_line("\n" + faults.TALLY.table())
