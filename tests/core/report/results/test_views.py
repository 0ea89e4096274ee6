"""The gain of views."""

import numpy as np
import pandas as pd
import pytest

from pipeline.core.config.task import Task
from pipeline.core.ensemble.members import Rows
from pipeline.core.metrics import auc, auc_difference
from pipeline.core.report.results.views import view_gains


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
