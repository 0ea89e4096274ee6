"""Table 6, Appendix E and the toy of Figure 1: answers known by hand."""

import numpy as np
import pytest
import torch

from pipeline.core.metrics import auc
from pipeline.paper import appendix_e, figure1, plots, table6


@pytest.mark.parametrize(
    ("name", "pairs"), [("Example 1", 66), ("Example 2", 59), ("Example 3", 52)]
)
def test_table6(name, pairs):
    scores, labels = table6.table6_scores(name)
    assert len(labels) == 25
    assert labels.sum() == 3
    assert table6.accuracy(scores, labels) == 0.92
    assert auc(scores, labels) == pytest.approx(pairs / 66, abs=1e-12)


@pytest.mark.parametrize("case", appendix_e.CASES, ids=lambda case: case.section)
def test_appendix_e_by_hand(case):
    alpha = (1 if case.margin is None else case.margin) + case.b - case.a
    alpha = alpha if case.margin is None else max(0, alpha)
    by_hand = case.x - case.a - alpha if case.y else case.x - case.b + alpha
    assert appendix_e.slope(case) == pytest.approx(by_hand, abs=1e-7)
    if case.section != "E.4 noisy, m = 0.3":  # the paper's C = m holds from m = .75 on
        assert by_hand == pytest.approx(case.paper, abs=1e-12)


def test_a_smaller_margin_than_three_quarters_changes_nothing_in_e4():
    slopes = [
        appendix_e.slopes(torch.tensor([0.25]), 0, 0.25, -0.5, m).item()
        for m in (0.1, 0.3, 0.75, 0.9, 1.0)
    ]
    assert slopes == pytest.approx([0.75, 0.75, 0.75, 0.9, 1.0], abs=1e-6)


def test_the_toys_easy_points_are_easy_and_the_noisy_ones_wrong():
    generator = np.random.default_rng(0)
    points, labels = figure1.easy(generator, 50)
    assert auc(points[:, 1], labels) == 1
    points, labels = figure1.noisy(generator, 500)
    assert auc(points[:, 1], labels) < 0.2


def test_panels_save_as_png(tmp_path):
    figure, axes = plots.axes_grid(1, 2)
    plots.curve(axes[0, 0], [[0.5, 0.6], [0.7, 0.8]], "black", "x")
    path = plots.save(figure, "a", tmp_path)
    assert path.read_bytes()[:4] == b"\x89PNG"
