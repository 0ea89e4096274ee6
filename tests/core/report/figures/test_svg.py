"""Drawings: data to places, and curves thinned without moving."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.report.figures import svg as figures
from pipeline.core.report.results import views as viewgain


@pytest.mark.parametrize("module", [figures, viewgain])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_corners_of_the_box():
    plot = figures.Plot((0, 2), (1, 5), "x", "y")
    assert (plot.at_x(0), plot.at_x(2)) == (figures.LEFT, figures.FIGURE_WIDTH - figures.RIGHT)
    assert (plot.at_y(1), plot.at_y(5)) == (figures.FIGURE_HEIGHT - figures.BOTTOM, figures.TOP)
    rooted = figures.Plot((0, 1), (0, 1), "x", "y", root=True)
    assert rooted.at_y(0.25) == pytest.approx((rooted.at_y(0) + rooted.at_y(1)) / 2)
    assert (
        plot.path([0, np.nan, 2], [1, 1, 5])
        == f"M44 214L{figures.FIGURE_WIDTH - figures.RIGHT} {figures.TOP}"
    )


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_lie_inside_and_are_even(low, width):
    ticks = figures.nice_ticks(low, low + width)
    assert (
        2 <= len(ticks) <= 12
        and ticks[0] >= low - 1e-6 * width
        and ticks[-1] <= low + width * (1 + 1e-6)
    )
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_thinned_curves_keep_their_ends_and_points():
    x = np.linspace(0, 1, 50_000)
    y = np.linspace(0, 1, 50_000) ** 0.2
    short_x, short_y = figures.thinned_curve(x, y)
    assert len(short_x) <= figures.POINTS + 2 and set(short_x) <= set(x)
    assert (short_x[0], short_x[-1], short_y[-1]) == (0, 1, 1)
    assert np.abs(np.interp(x, short_x, short_y) - y).max() < 0.005


def test_a_bar_without_interval_draws_nothing():
    assert (
        figures.interval_bar(float("nan"), 0, 1, (0, 1))
        == '<svg class="bar" height="20" aria-hidden="true"></svg>'
    )
