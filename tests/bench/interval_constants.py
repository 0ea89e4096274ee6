"""What the constants of the AUC's interval decide: coverage over a grid of simulated scenarios.

    python -m tests.bench.interval_constants --draws 250 --scenarios 220 --seed 1000

For each choice of c of `score_interval`'s equation (4) and of a factor on w of (5): the lowest and
the median coverage of the 95 % interval, how many scenarios lie below .94 and above .98 by more
than the simulation's standard error there, and the mean width (geometric, in AUC).
The pipeline's own choice is c = 1.5 and factor 1.
"""

import argparse
import itertools
import math
from unittest import mock

import numpy as np
from scipy.special import ndtri, stdtrit
from tqdm import tqdm

from pipeline.core.metrics import score_interval
from pipeline.core.metrics.score_interval import (
    Column,
    covariance_of,
    information,
    reduced,
    too_few,
    variance_of,
)
from tests.bench.bench_intervals import Scenario, draw, true_area

SIZES = ((5, 900), (10, 900), (30, 900), (100, 900), (100, 200), (300, 2000))
AREAS = (0.7, 0.8, 0.865, 0.92, 0.95, 0.972, 0.99)
SHAPES = ("normal", "skewed", "mirrored", "wide", "integer")
CLUSTERS = ("1", "3", "100")
PRIORS = (0.75, 1.5, 3.0)
FACTORS = (0.5, 1.0, 2.0, 3.0)
FEWEST = 100  # draws that are told something, below which a scenario is left out


def scenarios(number: int, seed: int) -> list[Scenario]:
    """A random part of the grid."""
    grid = [
        Scenario(positives, area, area - 0.05, clusters, shape=shape, rows=rows)
        for (positives, rows), area, shape, clusters in itertools.product(
            SIZES, AREAS, SHAPES, CLUSTERS
        )
    ]
    np.random.default_rng(seed).shuffle(grid)
    return grid[:number]


def drawn(case: Scenario, draws: int, seed: int) -> list[tuple[Column, float]]:
    """Each data set's column and its clustered DeLong variance, those left out that are too few to
    tell."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        first, _, _, labels, groups = draw(case, generator)
        columns = reduced(first, labels, groups)
        if not too_few(columns):
            found.append((columns[0], float(covariance_of(columns)[0, 0])))
    return found


def covered(column: Column, variance: float, truth: float) -> tuple[bool, float]:
    """Whether the true AUC satisfies (1), and the width as if V did not change with t."""
    ratio, freedom = column.interval_terms(variance)
    quantile = float(stdtrit(freedom, 0.975) if math.isfinite(freedom) else ndtri(0.975))
    reach = quantile**2 * ratio
    m, n = column.sizes
    width = 2 * math.sqrt(reach * variance_of(column.area, m, n))
    return (column.area - truth) ** 2 <= reach * variance_of(truth, m, n), width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=250, help="data sets per scenario")
    parser.add_argument("--scenarios", type=int, default=220, help="of the grid of 630")
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()

    # Drawn once: all choices see the same data.
    samples = []
    for number, case in enumerate(tqdm(scenarios(arguments.scenarios, arguments.seed))):
        columns = drawn(case, arguments.draws, arguments.seed + number)
        if len(columns) >= FEWEST:
            samples.append((true_area(case.shape, case.area), columns))

    print("| c | factor on w | lowest | median | below .94 | above .98 | width |")
    print("|---|---|---|---|---|---|---|")
    for prior, factor in itertools.product(PRIORS, FACTORS):
        coverages = []
        widths = []
        with (
            mock.patch.object(score_interval, "PRIOR", prior),
            mock.patch.object(
                score_interval, "information", lambda *facts, f=factor: f * information(*facts)
            ),
        ):
            for truth, columns in samples:
                results = [covered(column, variance, truth) for column, variance in columns]
                coverages.append((np.mean([hit for hit, _ in results]), len(results)))
                widths += [width for _, width in results if width > 0]
        low = sum(share < 0.94 - math.sqrt(0.94 * 0.06 / size) for share, size in coverages)
        high = sum(share > 0.98 + math.sqrt(0.98 * 0.02 / size) for share, size in coverages)
        shares = [share for share, _ in coverages]
        print(
            f"| {prior:g} | {factor:g} | {min(shares):.3f} | {np.median(shares):.3f} | "
            f"{low} | {high} of {len(shares)} | {np.exp(np.log(widths).mean()):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
