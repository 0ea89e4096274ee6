"""Speed of AUC, of its interval over patients and of hill climbing, beside scikit-learn and the
plain loops.

    python -m tests.bench.bench_metrics

The two sides of each line take turns in one process; a figure is the median of the turns' ratios.
Standard errors of the resamples, of the interval and of DeLong stand below.
"""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.metrics import roc_auc_score

from pipeline.core.ensemble.averages import normalised_ranks
from pipeline.core.ensemble.selection import Climber
from pipeline.core.metrics import auc, auc_interval, delong


def turns(plain, ours, rounds: int, plain_share: float = 1.0) -> tuple[float, float, float]:
    """(plain, ours, ratio): median seconds of each and median of the ratios; `plain` does a share
    of the work."""
    seconds = []
    for _ in range(rounds):
        pair = []
        for call in (plain, ours):
            start = time.perf_counter()
            call()
            pair.append(time.perf_counter() - start)
        seconds.append((pair[0] / plain_share, pair[1]))
    plain_seconds, our_seconds = np.array(seconds).T
    ratio = float(np.median(plain_seconds / our_seconds))
    return float(np.median(plain_seconds)), float(np.median(our_seconds)), ratio


def show(name: str, target: float, measured: tuple[float, float, float]) -> None:
    """A line: milliseconds of both sides, their ratio, and the ratio to reach."""
    plain, ours, ratio = measured
    times = f"{plain * 1e3:>12,.1f}{ours * 1e3:>11,.2f}"
    print(f"{name:<62}{times}{ratio:>8.0f}x{target:>7.0f}x", flush=True)


def cohort(
    rows: int, rate: float, patients: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, labels, patient of each row); a patient's rows are alike."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, patients, rows)
    labels = (generator.random(rows) < rate).astype(int)
    noise = generator.normal(size=rows)
    scores = noise + 1.6 * labels + generator.normal(size=patients)[patient]
    return scores, labels, patient


def resample_and_score(scores, labels, patient, replicates: int, seed: int = 1) -> np.ndarray:
    """The plain bootstrap: the rows of drawn patients, scored by scikit-learn."""
    generator = np.random.default_rng(seed)
    count = patient.max() + 1
    order = np.argsort(patient, kind="stable")
    rows = np.split(order, np.searchsorted(patient[order], np.arange(1, count)))
    areas = []
    for _ in range(replicates):
        drawn = np.concatenate([rows[one] for one in generator.integers(count, size=count)])
        areas.append(roc_auc_score(labels[drawn], scores[drawn]))
    return np.array(areas)


def plain_step(members, total, labels) -> int:
    """One step of a plain hill climb: every candidate added and scored by scikit-learn."""
    return int(np.argmax([roc_auc_score(labels, total + member) for member in members]))


def bench_auc() -> None:
    for rows, rate, rounds in (
        (33_126, 0.0176, 31),
        (33_126, 0.5, 31),
        (1_000_000, 0.0176, 7),
        (1_000_000, 0.5, 7),
    ):
        scores, labels, _ = cohort(rows, rate, 2056)
        show(
            f"AUC, {rows:,} rows, {rate:.2%} positive; scikit-learn",
            7,
            turns(
                lambda s=scores, y=labels: roc_auc_score(y, s),
                lambda s=scores, y=labels: auc(s, y),
                rounds,
            ),
        )


def bench_interval(replicates: int = 1000, share: float = 0.05) -> None:
    scores, labels, patient = cohort(33_126, 0.0176, 2056)
    few = int(replicates * share)
    show(
        f"95 % interval, 33,126 rows; {replicates:,} resamples of patients",
        25,
        turns(
            lambda: resample_and_score(scores, labels, patient, few),
            lambda: auc_interval(scores, labels, patient),
            5,
            share,
        ),
    )
    naive = resample_and_score(scores, labels, patient, 300).std()
    low, high = auc_interval(scores, labels, patient)
    print(
        f"    standard error: resample and score {naive:.5f} (300), the interval's "
        f"{(high - low) / 3.92:.5f}, DeLong by patients "
        f"{np.sqrt(delong(scores, labels, patient)[1][0, 0]):.5f}"
    )


def bench_climb(members: int = 200, rows: int = 33_126, steps: int = 50) -> None:
    generator = np.random.default_rng(3)
    base, labels, _ = cohort(rows, 0.0176, 2056)
    noise = generator.uniform(0.5, 2, members)
    scores = np.stack([normalised_ranks(base + one * generator.normal(size=rows)) for one in noise])
    climber = Climber(scores, labels)
    total = scores[0] + scores[1]
    # The plain loop is timed on one step of ten candidates, and extrapolated.
    part = 10
    show(
        f"hill climb, {steps} steps, {members} runs x {rows:,} rows; plain loop",
        12,
        turns(
            lambda: plain_step(scores[:part], total, labels),
            lambda: climber.climb(np.arange(members), steps),
            3,
            part / members / steps,
        ),
    )
    counts = np.zeros(members)
    counts[:2] = 1
    same = climber.best_step(counts, np.arange(members))[0] == plain_step(scores, total, labels)
    print(f"    one step of both picks the same member: {same}")


def main() -> None:
    print(f"{'':<62}{'plain, ms':>12}{'ours, ms':>11}{'ratio':>9}{'target':>8}")
    bench_auc()
    bench_interval()
    bench_climb()


if __name__ == "__main__":
    main()
