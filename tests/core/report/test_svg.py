"""Figures: data to places, curves thinned without moving, the gain of views, the curves of a
log."""

import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config.task import Task
from pipeline.core.ensemble.members import Rows
from pipeline.core.metrics import auc, auc_difference
from pipeline.core.report import svg as figures
from pipeline.core.report import views as viewgain
from pipeline.core.report.training_curves import curves_of, read_log
from pipeline.core.report.views import view_gains
from pipeline.core.runtime.errors import UserError
from tests.cases.reports import log_lines


@pytest.mark.parametrize("module", [figures, viewgain])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


def test_corners_of_the_box():
    plot = figures.Plot((0, 2), (1, 5), "x", "y")
    assert (plot.at_x(0), plot.at_x(2)) == (figures.LEFT, figures.WIDTH - figures.RIGHT)
    assert (plot.at_y(1), plot.at_y(5)) == (figures.HEIGHT - figures.BOTTOM, figures.TOP)
    rooted = figures.Plot((0, 1), (0, 1), "x", "y", root=True)
    assert rooted.at_y(0.25) == pytest.approx((rooted.at_y(0) + rooted.at_y(1)) / 2)
    assert (
        plot.path([0, np.nan, 2], [1, 1, 5])
        == f"M44 214L{figures.WIDTH - figures.RIGHT} {figures.TOP}"
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
    x, y = np.linspace(0, 1, 50_000), np.linspace(0, 1, 50_000) ** 0.2
    short_x, short_y = figures.thinned(x, y)
    assert len(short_x) <= figures.POINTS + 2 and set(short_x) <= set(x)
    assert (short_x[0], short_x[-1], short_y[-1]) == (0, 1, 1)
    assert np.abs(np.interp(x, short_x, short_y) - y).max() < 0.005


def test_a_bar_without_interval_draws_nothing():
    assert (
        figures.interval_bar(float("nan"), 0, 1, (0, 1))
        == '<svg class="bar" height="20" aria-hidden="true"></svg>'
    )


def test_gain_of_views_equals_the_paired_difference_of_their_means():
    generator = np.random.default_rng(0)
    labels = (generator.random(300) < 0.3).astype(float)
    views = labels[:, None, None] + generator.normal(size=(300, 6, 1)) * 2
    images = pd.DataFrame({"image_id": [str(i) for i in range(300)]})
    patients = generator.integers(0, 120, 300)
    rows = view_gains(
        views,
        Rows(images, images[:0], (0,), {}),
        labels[:, None],
        patients,
        Task(title="t", labels=("y",)),
    )
    assert [row["views"] for row in rows] == [1, 2, 4, 6]
    assert rows[2]["auc"] == auc(views[:, :4, 0].mean(axis=1), labels)
    expected = auc_difference(views[:, :4, 0].mean(axis=1), views[:, 0, 0], labels, patients)
    assert [rows[2][name] for name in ("difference", "low", "high", "p")] == pytest.approx(expected)


def test_curves_of_a_log():
    made = curves_of(log_lines(3))
    assert made.border == 60 and made.last == 120
    assert made.valid == ([20, 40, 60, 80, 100, 120], pytest.approx([0.6, 0.7, 0.8, 0.6, 0.7, 0.8]))
    assert made.alpha == ([80, 100, 120], pytest.approx([0.4, 0.3, 0.2]))
    lines = [
        {"phase": "finetuned", "step": 20, "train_auc": [float("nan"), 0.7]},
        {"phase": "finetuned", "step": 40, "train_auc": [float("nan")], "reach": [float("inf")]},
    ]
    assert curves_of(lines).train == ([20], [0.7]) and curves_of(lines).reach == ([], [])


def test_a_log_that_is_cut_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"phase": "pretrained", "step": 1}\n{"pha')
    with pytest.raises(UserError, match=r"log.jsonl: line 2: '\{\"pha' is not JSON"):
        read_log(path, "make finetune")
