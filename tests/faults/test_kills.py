"""Every stage ended by a signal to its whole process group, at a random moment or just before and
after each renaming of a file into place, then run again: the artifacts of the uncut run, byte for
byte, and nothing temporary left."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from tests.cases.faults import STAGES, TALLY, leftovers, remove, results
from tests.cases.forked import begin, run_forked, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.slow]

KILLS = 3  # of each stage by each signal
ALL = 24  # renamings of a stage that are all killed at
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


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_at_any_renaming_goes_on(home, stage):
    arguments, made = STAGES[stage]
    compared = COMPARED.get(stage, made)
    expected = results(home, compared)
    variables = {"CHECKPOINT_SECONDS": "0"}

    # How many files the uncut stage renames.
    remove(home, made)
    count = get_context("fork").Value("i", 0)
    run_forked(home, stage, *arguments, first=killed_at(home, 0, count), **variables)
    assert count.value >= len(expected)

    for number in chosen(count.value):
        for sign in (-1, 1):
            remove(home, made)
            kill = killed_at(home, sign * number, get_context("fork").Value("i", 0))
            ended = run_forked(home, stage, *arguments, first=kill, **variables)
            fault = "" if ended.status == -signal.SIGKILL else f"not killed: {ended.printed[-300:]}"
            fault = fault or run_on(home, stage, arguments, variables)
            fault = fault or difference(home, compared, expected)
            when = "before" if sign < 0 else "after"
            TALLY.note("SIGKILL at a renaming", f"{stage}, {when} number {number}", fault)
    TALLY.require_none_wrong()


def chosen(count: int) -> list[int]:
    """The renamings to kill at: all of them, or of more than ALL every tenth and the last ones;
    `prepare` renames its images first, which are all alike, and then its tables."""
    return [number for number in range(1, count + 1) if number % 10 == 1 or number > count - ALL]


def killed_at(home, place: int, count: Synchronized) -> Callable[[], None]:
    """What a new process does so that its group is killed just before (place < 0) or after (> 0)
    the renaming below `home` of that number, 1 the first; count: renamings so far, of its workers
    too."""

    def watched(rename: Callable) -> Callable:
        def counted(old: Path, new: Path) -> None:
            now = 0
            # numba keeps what it has compiled elsewhere.
            if Path(new).is_relative_to(home):
                with count:
                    count.value += 1
                    now = count.value
            if now and place == -now:
                os.killpg(0, signal.SIGKILL)
            rename(old, new)
            if now and place == now:
                os.killpg(0, signal.SIGKILL)

        return counted

    def watch() -> None:
        os.replace, os.rename = watched(os.replace), watched(os.rename)

    return watch


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
