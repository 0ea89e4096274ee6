"""Interleaved rounds: each thing timed once per round, in turn, so that a noisy minute falls on all
of them."""

import statistics
from collections.abc import Callable, Mapping


def interleaved(
    timers: Mapping[str, Callable[[], float]], rounds: int, warm: int = 3
) -> dict[str, list[float]]:
    """Seconds by name, one per round; `warm` rounds go before and are dropped."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(warm + rounds):
        for name, timer in timers.items():
            seconds = timer()
            if number >= warm:
                times[name].append(seconds)
    return times


def show(title: str, times: Mapping[str, list[float]], base: str, unit: float, suffix: str) -> None:
    """A table of median times, lowest times and the median ratio to `base` within a round."""
    print(f"\n{title}")
    print(f"{'':34}{'median':>10}{'lowest':>10}{'ratio':>8}   ({suffix}; ratio to {base})")
    for name, seconds in times.items():
        median = statistics.median(seconds) * unit
        lowest = min(seconds) * unit
        ratio = statistics.median(own / other for own, other in zip(seconds, times[base]))
        print(f"{name:34}{median:10.2f}{lowest:10.2f}{ratio:8.2f}")
