"""The decision curve of one label: net benefit against the probability from which one would act."""

import numpy as np

from pipeline.core.metrics.calibration import net_benefit
from pipeline.core.report.figures.svg import Plot

THRESHOLDS_DRAWN = 100
REACH = 4  # the axis ends at so many prevalences, at most at 1


def decision_plot(label: str, probabilities: np.ndarray, truth: np.ndarray) -> str:
    """SVG of acting on the calibrated score, on all, and on nobody (0)."""
    prevalence = float((truth == 1).sum() / (~np.isnan(truth)).sum())
    end = min(0.99, max(0.05, REACH * prevalence))
    thresholds = np.linspace(0, end, THRESHOLDS_DRAWN)
    ours = net_benefit(probabilities, truth, thresholds)
    everyone = net_benefit(np.ones(len(truth)), truth, thresholds)
    plot = Plot((0, end), (-0.15 * prevalence, 1.1 * prevalence), "probability t", "net benefit")
    plot.line([0, end], [0, 0], "c-soft thin")
    plot.line(
        thresholds, np.where(everyone < -0.15 * prevalence, np.nan, everyone), "c-soft dashed"
    )
    plot.line(thresholds, ours, "c-aucm", label)
    clip = "benefit-" + "".join(letter if letter.isalnum() else "-" for letter in label)
    return plot.svg(f"Decision curve of {label}", clip=clip)
