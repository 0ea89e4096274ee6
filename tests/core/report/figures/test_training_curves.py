"""The curves of a log."""

import pytest

from pipeline.core.report.figures.training_curves import curves_of
from tests.cases.reports import log_lines


def test_curves_of_a_log():
    curves = curves_of(log_lines(3))
    assert curves.border == 60 and curves.last == 120
    assert curves.valid == (
        [20, 40, 60, 80, 100, 120],
        pytest.approx([0.6, 0.7, 0.8, 0.6, 0.7, 0.8]),
    )
    assert curves.alpha == ([80, 100, 120], pytest.approx([0.4, 0.3, 0.2]))
    lines = [
        {"phase": "finetuned", "step": 20, "train_auc": [float("nan"), 0.7]},
        {"phase": "finetuned", "step": 40, "train_auc": [float("nan")], "reach": [float("inf")]},
    ]
    assert curves_of(lines).train == ([20], [0.7]) and curves_of(lines).reach == ([], [])
