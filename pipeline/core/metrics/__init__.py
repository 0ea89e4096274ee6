"""Metrics, in one place to import from: ROC measures (`roc.py`), DeLong (`delong.py`), bootstrap
(`bootstrap.py`).

    auc(scores, labels)                     exact, ties 1/2, NaN labels left out, NaN with one class
    mean_auc(scores, labels)                mean over columns
    partial_auc(scores, labels, min_tpr)    ISIC 2024's area above a sensitivity
    readers_below_curve(scores, labels, points)   the CheXpert organiser's NRBC
    auc_interval, mean_auc_interval, auc_difference     bootstrap over patients or studies
    delong, delong_interval, delong_test, permutation_test
    roc_points, roc_band                    for drawing
"""

from pipeline.core.metrics.bootstrap import (
    auc_difference,
    auc_interval,
    bootstrap_aucs,
    bootstrap_metric,
    bootstrap_partial_aucs,
    mean_auc,
    mean_auc_interval,
    metric_difference,
    midranks,
    percentiles,
    permutation_test,
    roc_band,
    two_sided,
)
from pipeline.core.metrics.delong import delong, delong_interval, delong_test, group_codes
from pipeline.core.metrics.roc import (
    auc,
    partial_auc,
    reader_point,
    readers_below_curve,
    roc_points,
)

__all__ = [
    "auc",
    "auc_difference",
    "auc_interval",
    "bootstrap_aucs",
    "bootstrap_metric",
    "bootstrap_partial_aucs",
    "delong",
    "delong_interval",
    "delong_test",
    "group_codes",
    "mean_auc",
    "mean_auc_interval",
    "metric_difference",
    "midranks",
    "partial_auc",
    "percentiles",
    "permutation_test",
    "reader_point",
    "readers_below_curve",
    "roc_band",
    "roc_points",
    "two_sided",
]
