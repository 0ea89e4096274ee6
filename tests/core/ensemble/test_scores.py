"""Score rows."""

import numpy as np

from pipeline.core.ensemble.scores import score_rows
from pipeline.core.metrics import partial_auc
from tests.cases.ensembles import members_of


def test_score_rows_of_a_partial_auc():
    members, truth = members_of([1.5])
    row, mean = score_rows(
        members[0], truth, np.arange(600), ["scar"], "partial_auc", replicates=50
    )
    assert row["partial_auc"] == partial_auc(members[0, :, 0], truth[:, 0])
    assert row["partial_low"] < row["partial_auc"] < row["partial_high"] < 0.2
    assert mean["label"] == "mean" and mean["auc"] == row["auc"] and mean["low"] == row["low"]
