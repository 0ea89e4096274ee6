"""Closed-form dual and normalisers compared on synthetic data, where many seeds cost seconds.

    python -m pipeline.paper.synthetic

reads   nothing
writes  pipeline/paper/figures/synthetic.png, and prints a table

Positives (1 %) lie in three of twelve overlapping clusters in 16 dimensions; a two-layer ELU
network of 64 units is trained in batches of 128 by the AUC margin loss with PESG (gamma 1/500) for
2,000 steps, the rate divided by ten after 1,000 and 1,500. AUC is that of 20,000 fresh points, as
mean and standard deviation over seeds.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import plots
from pipeline.paper.benchmark.store import mean_and_std
from pipeline.paper.benchmark.training import decay

TRAINING_STEPS = 2000
DECAYS = (1000, 1500)  # steps after which the rate is divided by ten
MEASURED_EVERY = 100  # steps between two measurements
BATCH = 128
# Negatives, positives. An AUC does not depend on the classes' shares, so the test set is balanced:
# that gives it the least noise.
CLASS_COUNTS = {"train": (9_900, 100), "test": (10_000, 10_000)}
# The measurements that are printed: after 200, 500, 1,000 and 2,000 steps.
MEASUREMENTS_SHOWN = (2, 5, 10, 20)
# Each normaliser with alpha, a and b learned by gradient and in closed form; beside cross-entropy,
# which is no straw man: at its best rate it is ahead of all of them (0.902 against 0.879).
COLUMN_LOSSES: dict[str, dict | None] = {
    "cross-entropy, SGD": None,
    "BSN (l2)": dict(normalize="l2"),
    "BSN (l2), closed form": dict(normalize="l2", dual="closed_form"),
    "l2 · √B": dict(normalize="l2*sqrt_b"),
    "l2 · √B, closed form": dict(normalize="l2*sqrt_b", dual="closed_form"),
    "sigmoid": dict(normalize="sigmoid"),
    "sigmoid, closed form": dict(normalize="sigmoid", dual="closed_form"),
    "none": dict(normalize="none"),
    "none, closed form": dict(normalize="none", dual="closed_form"),
}
# By the beginning of the name; dashed lines are the closed form.
COLUMN_COLOURS = {
    "cross-entropy": "#7f7f7f",
    "BSN": "#0072b2",
    "l2": "#d55e00",
    "sigmoid": "#009e73",
    "none": "#cc79a7",
}


def points(
    centres: np.ndarray, negatives: int, positives: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (N, 16) and labels (N,), float32: positives from the first three clusters, negatives
    from the other nine."""
    of_negatives = generator.integers(3, 12, negatives)
    of_positives = generator.integers(0, 3, positives)
    cluster = np.concatenate([of_negatives, of_positives])
    # Wider than the centres' own deviation of 1, so that no network separates the classes.
    noise = generator.normal(0, 1.6, (len(cluster), centres.shape[1]))
    labels = (cluster < 3).astype(np.float32)
    return torch.from_numpy(centres[cluster] + noise).float(), torch.from_numpy(labels)


def train_synthetic(
    settings: dict | None, seed: int, margin: float, rate: float = 0.1
) -> list[float]:
    """The AUC on fresh points every 100 steps. `settings` are AUCMargin's, None is cross-entropy
    with SGD."""
    # One generator draws the centres and both sets, so a seed is a whole data set.
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 1, (12, 16))
    inputs, labels = points(centres, *CLASS_COUNTS["train"], generator)
    test_inputs, test_labels = points(centres, *CLASS_COUNTS["test"], generator)

    # The same start for every loss: the lines of a seed are paired.
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(16, 64), nn.ELU(), nn.Linear(64, 1))
    if settings is None:
        criterion = CrossEntropy()
        optimizer = torch.optim.SGD(network.parameters(), rate)
    else:
        criterion = AUCMargin(margin=margin, **settings)
        optimizer = PESG(network.parameters(), loss=criterion, lr=rate, gamma=1 / 500)

    # Batches at random, as rare positives come: 28 % of 128 have none at 1 %.
    history = []
    for step in range(1, TRAINING_STEPS + 1):
        rows = torch.randint(len(labels), (BATCH,))
        optimizer.zero_grad()
        criterion(network(inputs[rows])[:, 0], labels[rows]).backward()
        optimizer.step()
        if step in DECAYS:
            decay(optimizer, 10)
        if step % MEASURED_EVERY == 0:
            with torch.no_grad():
                scores = network(test_inputs)[:, 0].numpy()
            history.append(float(auc(scores, test_labels.numpy())))
    return history


def main(options: argparse.Namespace) -> None:
    figure, axes = plots.axes_grid(1, 1, width=6.2, height=3.6)
    print(
        f"{'':24}" + "".join(f"{MEASURED_EVERY * place:>8} steps" for place in MEASUREMENTS_SHOWN)
    )
    for name in options.only or COLUMN_LOSSES:
        settings = COLUMN_LOSSES[name]
        histories = []
        for seed in tqdm(range(options.seeds), desc=name, leave=False):
            histories.append(train_synthetic(settings, seed, options.margin, options.rate))
        print_row(name, histories)

        # Its line.
        colour = next(colour for start, colour in COLUMN_COLOURS.items() if name.startswith(start))
        style = "--" if "closed" in name else "-"
        steps = np.arange(1, TRAINING_STEPS // MEASURED_EVERY + 1) * MEASURED_EVERY
        axes[0, 0].plot(steps, np.mean(histories, 0), style, color=colour, label=name)
    setting = f"margin {options.margin:g}, rate {options.rate:g}, {options.seeds} seeds"
    title = f"synthetic data, 1 % positive, {setting}"
    plots.label(axes[0, 0], title, "step", "AUC on fresh points")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    print("wrote", plots.save(figure, options.name))


def print_row(name: str, histories: list[list[float]]) -> None:
    """One line of the table: mean and standard deviation over seeds at the steps that are shown."""
    cells = []
    for place in MEASUREMENTS_SHOWN:
        mean, deviation = mean_and_std(history[place - 1] for history in histories)
        cells.append(f"  {mean:.3f} ± {deviation:.3f}")
    print(f"{name:24}" + "".join(cells), flush=True)


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--margin", type=float, default=0.8)
    options.add_argument("--rate", type=float, default=0.1, help="of SGD and of PESG (0.1)")
    options.add_argument(
        "--only",
        nargs="+",
        choices=COLUMN_LOSSES,
        default=[],
        metavar="NAME",
        help="only these lines",
    )
    options.add_argument("--name", default="synthetic", help="of the image file (synthetic)")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
