"""Every stage ended at a random moment by a signal to its whole process group, then run again: the
artifacts of the uncut run, byte for byte, and nothing temporary left."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest

from tests.cases.faults import STAGES, TALLY, leftovers, remove, results
from tests.cases.forked import begin, run_forked, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.slow]

KILLS = 3  # of each stage by each signal
# What is compared; the journals of prepare are in the order in which its workers ended.
COMPARED = {
    "prepare": ("data/melanoma/images*", "data/melanoma/prepare.json"),
    "metadata": ("models/melanoma/metadata/fold0/[fp]*",),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)


def jobs() -> list[tuple[str, signal.Signals]]:
    """Every stage and every signal."""
    return [(stage, number) for stage in STAGES for number in SIGNALS]


@pytest.mark.parametrize("stage, number", jobs())
def test_a_stage_that_is_ended_anywhere_goes_on(home, stage, number):
    run_job(home, stage, number)
    TALLY.require_none_wrong()


def run_job(home, stage: str, number: signal.Signals) -> None:
    """End one stage KILLS times by one signal, each time from nothing."""
    arguments, made = STAGES[stage]
    compared = COMPARED.get(stage, made)
    expected = results(home, compared)
    chance = random.Random(f"{stage} {number}")
    variables = {"CHECKPOINT_SECONDS": "0", "WORKERS": "1"}

    # How long the uncut stage takes: the moments of the kills are spread over that.
    remove(home, made)
    began = time.monotonic()
    fault = run_forked(home, stage, *arguments, **variables).fault
    took = time.monotonic() - began
    TALLY.note("uncut", stage, fault or difference(home, compared, expected))

    for _ in range(KILLS):
        remove(home, made)
        moment = chance.uniform(0, took)
        running = begin(home, stage, *arguments, **variables)
        time.sleep(moment)
        with suppress(ProcessLookupError):  # before it had a group
            os.killpg(running.process, number)
        ended = wait_for(running)
        fault = ""
        if number != signal.SIGKILL:
            left = leftovers(home, (".tmp", ".claim"))
            fault = ended.fault or (f"left {left}" if left else "")
            # Before Python has its handlers a signal ends it at once.
            fault = "" if ended.status == -number and not left else fault
        fault = fault or run_on(home, stage, arguments, variables)
        fault = fault or difference(home, compared, expected)
        TALLY.note(number.name, f"{stage} after {moment:.2f} of {took:.2f} s", fault)


def run_on(home, stage: str, arguments: tuple[str, ...], variables: dict[str, str]) -> str:
    """Run the same command again; what is wrong with how it ended, "" where it made all."""
    ended = run_forked(home, stage, *arguments, **variables)
    made = ended.status == 0 and not ended.fault
    return "" if made else f"{ended.status}: {ended.printed[-600:]}"


def difference(home, compared: tuple[str, ...], expected: dict) -> str:
    """Which files are not those of the uncut run, and what is left over; "" where all is well."""
    found = results(home, compared)
    names = {name for name in {*expected, *found} if found.get(name) != expected.get(name)}
    left = leftovers(home)
    return f"differ: {sorted(names)}; left: {left}" if names or left else ""
