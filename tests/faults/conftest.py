"""The house that every fault is done to, made once; the table of counts at the end."""

from tests.cases import faults
from tests.cases.house import home, house  # noqa: F401


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was tried and what ended wrong, as tests/bench/RESULTS.md has it."""
    if faults.TALLY.tried:
        terminalreporter.write_line("\n" + faults.TALLY.table())
