"""Coverage, width, false alarms and power of three intervals of an AUC, simulated.

    python -m tests.bench.bench_intervals --draws 500 --bootstrap-draws 150 --seed 0

Scores are normal with a patient effect (share `within` of their variance), mapped to the shape;
labels are the `positives` rows of largest logistic propensity, which has a patient effect of
standard deviation `leaning`. Two models share the part `agreement` of their noise. Columns, for the
bootstrap (percentile, 1,000 replicates), clustered DeLong and the pipeline's own:
coverage of the true AUC and mean width of the 95 % interval; rejections at 5 % under no difference;
power where the second model's true AUC is `other`; coverage of that true difference.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from pipeline.core.metrics import auc_difference, mean_auc_interval
from pipeline.core.metrics.bootstrap import percentiles, two_sided
from pipeline.core.metrics.delong import delong_interval, delong_test
from tests.cases.bootstrap import bootstrap_aucs

METHODS = ("bootstrap", "DeLong", "new")
WIDE = 1.5  # standard deviation of the positives in the shape "wide"
STEP = 1.5  # integer scores are normal scores times this, rounded


@dataclass(frozen=True)
class Scenario:
    """One row of the table; clusters is "1", "3" (1 + Poisson 2) or "100" (Pareto 1, up to 100).

    second: the shape of the models that are compared with the first, "" = the same.
    """

    positives: int
    area: float
    other: float
    clusters: str = "3"
    shape: str = "normal"
    rows: int = 900
    labels: int = 1
    within: float = 0.3
    leaning: float = 1.0
    agreement: float = 0.8
    second: str = ""

    def title(self) -> str:
        extra = ""
        if self.labels > 1:
            extra += f", mean of {self.labels} labels"
        if self.within != 0.3:
            extra += f", within {self.within}, leaning {self.leaning}"
        if self.agreement != 0.8:
            extra += f", agreement {self.agreement}"
        if self.second:
            extra += f" against {self.second}"
        found = f"{self.positives} of {self.rows}, {self.area:.3f} (other {self.other:.3f})"
        return f"{found}, clusters {self.clusters}, {self.shape}{extra}"


SCENARIOS = (
    Scenario(5, 0.700, 0.550, "1"),
    Scenario(5, 0.865, 0.700),
    Scenario(5, 0.972, 0.865),
    Scenario(10, 0.700, 0.550),
    Scenario(10, 0.865, 0.750),
    Scenario(10, 0.972, 0.900),
    Scenario(10, 0.972, 0.900, shape="skewed"),
    Scenario(10, 0.900, 0.800, shape="integer"),
    Scenario(10, 0.865, 0.750, "100"),
    Scenario(30, 0.865, 0.800),
    Scenario(30, 0.972, 0.940),
    Scenario(30, 0.990, 0.970, "1"),
    Scenario(30, 0.900, 0.840, shape="wide"),
    Scenario(30, 0.865, 0.800, "100"),
    Scenario(100, 0.700, 0.650, "100"),
    Scenario(100, 0.865, 0.825),
    Scenario(100, 0.865, 0.825, "100", within=0.6, leaning=2.0),
    Scenario(100, 0.972, 0.955),
    Scenario(100, 0.972, 0.955, shape="skewed"),
    Scenario(100, 0.972, 0.955, shape="mirrored"),
    Scenario(100, 0.865, 0.825, rows=200),
    Scenario(300, 0.990, 0.985, rows=2000),
    Scenario(300, 0.700, 0.670, "100", rows=2000),
    Scenario(10, 0.865, 0.800, labels=5),
    Scenario(30, 0.972, 0.955, labels=2),
    Scenario(3, 0.900, 0.800, labels=5),
    Scenario(10, 0.972, 0.900, second="wide"),
    Scenario(30, 0.865, 0.800, second="wide"),
    Scenario(30, 0.972, 0.940, second="skewed"),
    Scenario(100, 0.865, 0.825, second="skewed"),
    Scenario(100, 0.972, 0.955, second="wide"),
)


def patients(clusters: str, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Patient of each row (rows,)."""
    if clusters == "1":
        return np.arange(rows)
    if clusters == "3":
        sizes = 1 + generator.poisson(2, rows)
    else:
        sizes = np.clip(np.ceil(generator.pareto(1.0, rows)), 1, 100).astype(int)
    return np.repeat(np.arange(rows), sizes)[:rows]


def shaped(noise: np.ndarray, positive: np.ndarray, shape: str, area: float) -> np.ndarray:
    """Scores of true AUC `area` (`true_area` for integers) from standard normal noise."""
    shift = np.sqrt(2) * ndtri(area)
    if shape == "normal":
        return noise + positive * shift
    if shape == "integer":
        return np.round(STEP * (noise + positive * shift))
    if shape == "wide":
        return np.where(positive, WIDE * noise + np.hypot(1, WIDE) * ndtri(area), noise)
    odds = area / (1 - area)
    if shape == "skewed":
        waits = -np.log(ndtr(-noise))
        return np.where(positive, odds * waits, waits)
    waits = -np.log(ndtr(noise))
    return -np.where(positive, waits, odds * waits)


def true_area(shape: str, area: float) -> float:
    """The AUC of `shaped` scores; for integers the sum over all pairs of values."""
    if shape != "integer":
        return area
    edges = np.arange(-20, 40) + 0.5
    negative = np.diff(ndtr(edges / STEP))
    positive = np.diff(ndtr(edges / STEP - np.sqrt(2) * ndtri(area)))
    return float((positive * (np.cumsum(negative) - negative / 2)).sum())


def draw(case: Scenario, generator: np.random.Generator) -> tuple:
    """(scores of the first model, of one equally good, of the other: each (n, K); labels (n, K);
    patients (n,))."""
    groups = patients(case.clusters, case.rows, generator)
    size = groups.max() + 1

    def field() -> np.ndarray:
        own = generator.standard_normal(case.rows)
        of_patient = generator.standard_normal(size)[groups]
        return np.sqrt(case.within) * of_patient + np.sqrt(1 - case.within) * own

    def shared(parts: list[np.ndarray], share: float) -> np.ndarray:
        return np.sqrt(share) * parts[0] + np.sqrt(1 - share) * parts[1]

    models = [[], [], []]
    labels = []
    common = field()
    tendency = generator.standard_normal(size)
    for _ in range(case.labels):
        # Labels of one row share half their patient effect, their scores half the noise.
        share = 0.5 if case.labels > 1 else 0.0
        effect = shared([tendency, generator.standard_normal(size)], share)
        propensity = case.leaning * effect[groups] + generator.logistic(size=case.rows)
        positive = np.zeros(case.rows, bool)
        positive[np.argsort(-propensity)[: case.positives]] = True
        labels.append(positive)
        both = shared([common, field()], share)
        noises = [shared([both, field()], case.agreement) for _ in range(2)]
        second = case.second or case.shape
        for scores, noise, shape, area in zip(
            models,
            (noises[0], noises[1], noises[1]),
            (case.shape, second, second),
            (case.area, case.area, case.other),
        ):
            scores.append(shaped(noise, positive, shape, area))
    return *(np.column_stack(scores) for scores in models), np.column_stack(labels), groups


def by_bootstrap(first, equal, other, labels, groups, seed: int) -> list[tuple]:
    together = np.hstack([first, equal, other])
    areas = bootstrap_aucs(together, np.tile(labels, 3), groups, 1000, seed)
    means = [part.mean(axis=1) for part in np.split(areas, 3, axis=1)]
    results = [percentiles(means[0], 0.95)]
    for compared in means[1:]:
        results.append((*percentiles(means[0] - compared, 0.95), two_sided(means[0] - compared)))
    return results


def by_delong(first, equal, other, labels, groups) -> list[tuple] | None:
    """None for several labels: there is no such function."""
    if labels.shape[1] > 1:
        return None
    truth = labels[:, 0]
    tests = [
        delong_test(first[:, 0], compared[:, 0], truth, groups)[1:] for compared in (equal, other)
    ]
    return [delong_interval(first[:, 0], truth, groups), *tests]


def by_score(first, equal, other, labels, groups) -> list[tuple]:
    tests = [auc_difference(first, compared, labels, groups)[1:] for compared in (equal, other)]
    return [mean_auc_interval(first, labels, groups), *tests]


def measured(case: Scenario, draws: int, bootstrap_draws: int, seed: int) -> tuple[dict, float]:
    """(per method the five numbers of the table, share of draws in which the new method tells
    anything). Draws in which it does not are left out for all."""
    generator = np.random.default_rng(seed)
    found = {method: [] for method in METHODS}
    told = 0
    area = true_area(case.shape, case.area)
    gap = area - true_area(case.second or case.shape, case.other)
    for number in range(draws):
        sample = draw(case, generator)
        new = by_score(*sample)
        if np.isnan(new[0][0]):
            continue
        told += 1
        results = {"new": new, "DeLong": by_delong(*sample)}
        if number < bootstrap_draws:
            results["bootstrap"] = by_bootstrap(*sample, number)
        for method, result in results.items():
            if result is None:
                continue
            (low, high), null, alternative = result
            # Limits that are NaN cover nothing: an interval that was asked for is not there.
            found[method].append(
                (
                    low <= area <= high,
                    high - low,
                    null[2] < 0.05,
                    alternative[2] < 0.05,
                    alternative[0] <= gap <= alternative[1],
                )
            )
    return {
        method: np.nanmean(np.array(rows, float), axis=0) if rows else None
        for method, rows in found.items()
    }, told / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500, help="data sets per scenario")
    parser.add_argument("--bootstrap-draws", type=int, default=150, help="of which bootstrapped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--positives", type=int, help="only the scenarios with so many")
    arguments = parser.parse_args()
    started = time.time()
    quantities = ("coverage", "width", "null", "power", "diff. cov.")
    print("Each cell: bootstrap / DeLong / new.\n")
    print(f"| positives, AUC, clusters, scores | told | {' | '.join(quantities)} |")
    print("|---|---|" + "---|" * len(quantities))
    for number, case in enumerate(SCENARIOS):
        if arguments.positives not in (None, case.positives):
            continue
        seed = arguments.seed + number
        found, told = measured(case, arguments.draws, arguments.bootstrap_draws, seed)
        cells = []
        for place in range(len(quantities)):
            rows = [found[method] for method in METHODS]
            values = ["-" if row is None else f"{row[place]:.3f}" for row in rows]
            cells.append(" / ".join(values))
        print(f"| {case.title()} | {told:.2f} | {' | '.join(cells)} |", flush=True)
    print(
        f"\n{arguments.draws} draws, {arguments.bootstrap_draws} for the bootstrap, "
        f"seed {arguments.seed}, {time.time() - started:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
