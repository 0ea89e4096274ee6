"""Score rows."""

import numpy as np

from pipeline.core.ensemble.scores import (
    difference_row,
    excludes_zero,
    score_lines,
    score_rows,
    sentence,
)
from pipeline.core.metrics import partial_auc
from tests.cases.ensembles import members_of


def test_score_rows_of_a_partial_auc():
    members, truth = members_of([1.5])
    row, mean = score_rows(members[0], truth, np.arange(600), ["scar"], "partial_auc")
    assert row["partial_auc"] == partial_auc(members[0, :, 0], truth[:, 0])
    assert row["partial_low"] < row["partial_auc"] < row["partial_high"] < 0.2
    assert mean["label"] == "mean" and mean["auc"] == row["auc"] and mean["low"] == row["low"]


def test_too_few_to_tell_is_said():
    members, truth = members_of([1.5])
    truth = np.where(np.cumsum(truth, axis=0) > 4, 0, truth)
    rows = score_rows(members[0], truth, np.arange(600), ["scar"])
    assert rows[0]["positives"] == 4 and np.isnan(rows[0]["low"]) and rows[0]["auc"] > 0
    assert "too few" in score_lines(rows)
    row = difference_row("a", "b", members[0], -members[0], truth, np.arange(600))
    assert "too few to tell" in sentence(row) and not excludes_zero(row)
