"""Coverage of two intervals of a sensitivity at a given specificity, simulated.

    python -m tests.bench.bench_operating_points --draws 300

Data as in bench_intervals; the true sensitivity is that of two normals. For specificities of 80, 90
and 95 %: how often the percentile bootstrap's 95 % interval, and the pipeline's, hold it.
"""

import argparse

import numpy as np
from scipy.special import ndtr, ndtri

from pipeline.core.metrics import bootstrap_curves, point_at_specificity
from pipeline.core.metrics.bootstrap import percentiles
from tests.bench.bench_intervals import Scenario, draw

SPECIFICITIES = (0.8, 0.9, 0.95)
REPLICATES = 300
SCENARIOS = (
    Scenario(5, 0.865, 0.8),
    Scenario(10, 0.865, 0.8),
    Scenario(10, 0.972, 0.9),
    Scenario(30, 0.865, 0.8),
    Scenario(30, 0.972, 0.9),
    Scenario(30, 0.865, 0.8, "100"),
    Scenario(100, 0.865, 0.8),
    Scenario(100, 0.972, 0.9),
    Scenario(100, 0.865, 0.8, "100", within=0.6, leaning=2.0),
    Scenario(100, 0.865, 0.8, rows=200),
)


def covered(case: Scenario, draws: int, seed: int) -> np.ndarray:
    """(2, 3): shares covered by the percentile bootstrap and by ours, per specificity."""
    generator = np.random.default_rng(seed)
    truth = ndtr(np.sqrt(2) * ndtri(case.area) - ndtri(SPECIFICITIES))
    grid = 1 - np.array(SPECIFICITIES)
    found = []
    for _ in range(draws):
        first, _, _, labels, groups = draw(case, generator)
        own = (first[:, 0], labels[:, 0].astype(float))
        points = [
            point_at_specificity(*own, specificity, groups, replicates=REPLICATES)
            for specificity in SPECIFICITIES
        ]
        if np.isnan(points[0].low):
            continue
        curves = bootstrap_curves(*own, grid, groups, REPLICATES)
        plain = [percentiles(column, 0.95) for column in curves.T]
        ours = [(point.low, point.high) for point in points]
        found.append(
            [
                [low <= value <= high for (low, high), value in zip(limits, truth)]
                for limits in (plain, ours)
            ]
        )
    return np.mean(found, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=300, help="data sets per scenario")
    arguments = parser.parse_args()
    print("| positives, AUC, clusters | percentile bootstrap, at .80 / .90 / .95 | ours |")
    print("|---|---|---|")
    for number, case in enumerate(SCENARIOS):
        shares = covered(case, arguments.draws, number)
        cells = [" / ".join(f"{share:.3f}" for share in row) for row in shares]
        print(f"| {case.title()} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
