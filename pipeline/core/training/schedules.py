"""Learning rates as plain functions of the step."""
from bisect import bisect_right
from collections.abc import Callable, Sequence


def constant(rate: float) -> Callable[[int], float]:
    """The same rate at every step."""
    return lambda _step: rate


def triangular(low: float, high: float, period: int) -> Callable[[int], float]:
    """From low up to high and back every `period` steps (the paper's cyclical rate).

    >>> [round(triangular(1.0, 3.0, 4)(step), 1) for step in range(5)]
    [1.0, 2.0, 3.0, 2.0, 1.0]
    """
    return lambda step: high - (high - low) * abs(2 * (step % period) / period - 1)


def stepwise(rate: float, divide: float, milestones: Sequence[int]) -> Callable[[int], float]:
    """The rate divided by `divide` at each milestone (in steps).

    >>> [stepwise(0.1, 10, [2])(step) for step in (1, 2)]
    [0.1, 0.01]
    """
    return lambda step: rate / divide ** bisect_right(milestones, step)
