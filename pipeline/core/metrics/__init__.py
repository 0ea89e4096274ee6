"""Metrics, in one place to import from. Labels are 0, 1 and NaN (left out); groups are patients or
studies.

    roc                auc, mean_auc, partial_auc: exact, ties 1/2, NaN with one class only;
                       roc_points; readers_below_curve, the CheXpert organiser's NRBC
    score_interval     auc_interval, mean_auc_interval: for few positives; NaN = too few to tell
    exchange_test      auc_difference: paired, exact where the two models may be exchanged
    operating_points   point_at_specificity, point_at_sensitivity, roc_band, confusion_counts,
                       rate_interval
    delong             delong, delong_interval, delong_test: by variance alone, for comparison
    bootstrap          bootstrap_metric, bootstrap_partial_aucs, bootstrap_curves,
                       partial_auc_difference: resamples of groups

Not here, since they import scikit-learn, a second that few callers need: `precision_recall`,
`calibration`.
"""

from pipeline.core.metrics.bootstrap import (
    bootstrap_curves,
    bootstrap_metric,
    bootstrap_partial_aucs,
    partial_auc_difference,
    percentiles,
)
from pipeline.core.metrics.delong import delong, delong_interval, delong_test, group_codes
from pipeline.core.metrics.exchange_test import auc_difference
from pipeline.core.metrics.operating_points import (
    OperatingPoint,
    confusion_counts,
    point_at_sensitivity,
    point_at_specificity,
    points_at_sensitivities,
    points_at_specificities,
    predictive_values,
    rate_interval,
    roc_band,
)
from pipeline.core.metrics.roc import (
    auc,
    mean_auc,
    midranks,
    partial_auc,
    reader_point,
    readers_below_curve,
    roc_points,
)
from pipeline.core.metrics.score_interval import auc_interval, mean_auc_interval

__all__ = [
    "OperatingPoint",
    "auc",
    "auc_difference",
    "auc_interval",
    "bootstrap_curves",
    "bootstrap_metric",
    "bootstrap_partial_aucs",
    "confusion_counts",
    "delong",
    "delong_interval",
    "delong_test",
    "group_codes",
    "mean_auc",
    "mean_auc_interval",
    "midranks",
    "partial_auc",
    "partial_auc_difference",
    "percentiles",
    "point_at_sensitivity",
    "point_at_specificity",
    "points_at_sensitivities",
    "points_at_specificities",
    "predictive_values",
    "rate_interval",
    "reader_point",
    "readers_below_curve",
    "roc_band",
    "roc_points",
]
