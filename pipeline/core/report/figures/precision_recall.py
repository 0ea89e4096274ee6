"""The precision-recall curve of one label, with the prevalence as its line of chance."""

import numpy as np

from pipeline.core.metrics.precision_recall import average_precision, precision_recall_points
from pipeline.core.report.figures.svg import Plot


def precision_recall_plot(label: str, scores: np.ndarray, truth: np.ndarray) -> str:
    """SVG over the unit square; scores, truth: (U,) of one label with both classes."""
    # Without the point at recall 0 that no threshold has: where a negative scores highest it would
    # be a line from 1 to 0.
    recall, precision = (points[1:] for points in precision_recall_points(scores, truth))
    prevalence = float((truth == 1).sum() / (~np.isnan(truth)).sum())
    plot = Plot((0, 1), (0, 1), "recall (sensitivity)", "precision (PPV)")
    plot.line([0, 1], [prevalence, prevalence], "c-soft dotted")
    kept = every_pixel(recall, precision)
    plot.line(recall[kept], precision[kept], "c-final", label)
    area = average_precision(scores, truth)
    return plot.svg(f"Precision-recall curve of {label}. Average precision {area:.3f}")


def every_pixel(x: np.ndarray, y: np.ndarray, step: float = 0.002) -> np.ndarray:
    """Places of the points that are at least a pixel from the one drawn before; both ends."""
    kept = [0]
    for place in range(1, len(x) - 1):
        if abs(x[place] - x[kept[-1]]) + abs(y[place] - y[kept[-1]]) >= step:
            kept.append(place)
    return np.array([*kept, len(x) - 1])
