"""What the closed-form dual and the normalisers buy, on made data where many seeds cost seconds.

    python -m pipeline.paper.made

reads nothing, prints a table, writes pipeline/paper/figures/made.png. Positives (1 %) lie in three
of twelve overlapping clusters in 16 dimensions; a two-layer ELU network of 64 units is trained in
batches of 128 by the AUC margin loss with PESG (gamma 1/500) for 2,000 steps, the rate divided by
ten after 1,000 and 1,500. AUC is that of 20,000 fresh points, as mean and standard deviation over
seeds.
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

STEPS, DECAYS, EVERY, BATCH = 2000, (1000, 1500), 100, 128
SIZES = {"train": (9_900, 100), "test": (10_000, 10_000)}  # negatives, positives
LOSSES: dict[str, dict | None] = {
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
COLOURS = {
    "cross-entropy": "#7f7f7f",
    "BSN": "#0072b2",
    "l2": "#d55e00",
    "sigmoid": "#009e73",
    "none": "#cc79a7",
}


def points(
    centres: np.ndarray, negatives: int, positives: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (N, 16) and labels (N,): positives from the first three clusters, negatives from the
    other nine."""
    cluster = np.concatenate(
        [generator.integers(3, 12, negatives), generator.integers(0, 3, positives)]
    )
    inputs = centres[cluster] + generator.normal(0, 1.6, (len(cluster), centres.shape[1]))
    return torch.from_numpy(inputs).float(), torch.from_numpy((cluster < 3).astype(np.float32))


def train(settings: dict | None, seed: int, margin: float, rate: float = 0.1) -> list[float]:
    """The AUC on fresh points every 100 steps."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0, 1, (12, 16))
    (inputs, labels), test = (points(centres, *SIZES[part], generator) for part in SIZES)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(16, 64), nn.ELU(), nn.Linear(64, 1))
    criterion = CrossEntropy() if settings is None else AUCMargin(margin=margin, **settings)
    optimizer = (
        torch.optim.SGD(network.parameters(), rate)
        if settings is None
        else PESG(network.parameters(), loss=criterion, lr=rate, gamma=1 / 500)
    )
    history = []
    for step in range(1, STEPS + 1):
        rows = torch.randint(len(labels), (BATCH,))
        optimizer.zero_grad()
        criterion(network(inputs[rows])[:, 0], labels[rows]).backward()
        optimizer.step()
        if step in DECAYS:
            lower(optimizer)
        if step % EVERY == 0:
            with torch.no_grad():
                history.append(float(auc(network(test[0])[:, 0].numpy(), test[1].numpy())))
    return history


def lower(optimizer: torch.optim.Optimizer) -> None:
    """A tenth of the rate; PESG's reference moves too."""
    rate = optimizer.param_groups[0]["lr"] / 10
    if isinstance(optimizer, PESG):
        optimizer.next_stage(lr=rate)
    else:
        optimizer.param_groups[0]["lr"] = rate


def main(options: argparse.Namespace) -> None:
    figure, axes = plots.panels(1, 1, width=6.2, height=3.6)
    shown = (2, 5, 10, 20)  # hundreds of steps
    print(f"{'':24}" + "".join(f"{100 * at:>8} steps" for at in shown))
    for name in options.only or LOSSES:
        seeds = tqdm(range(options.seeds), desc=name, leave=False)
        histories = [train(LOSSES[name], seed, options.margin, options.rate) for seed in seeds]
        cells = (mean_and_std(history[at - 1] for history in histories) for at in shown)
        print(
            f"{name:24}" + "".join(f"  {mean:.3f} ± {std:.3f}" for mean, std in cells), flush=True
        )
        colour = next(colour for start, colour in COLOURS.items() if name.startswith(start))
        style = "--" if "closed" in name else "-"
        steps = np.arange(1, STEPS // EVERY + 1) * EVERY
        axes[0, 0].plot(steps, np.mean(histories, 0), style, color=colour, label=name)
    title = f"made data, 1 % positive, margin {options.margin:g}, rate {options.rate:g}, {options.seeds} seeds"
    plots.label(axes[0, 0], title, "step", "AUC on fresh points")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    print("wrote", plots.save(figure, options.name))


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--margin", type=float, default=0.8)
    made.add_argument("--rate", type=float, default=0.1, help="of SGD and of PESG (0.1)")
    made.add_argument(
        "--only", nargs="+", choices=LOSSES, default=[], metavar="NAME", help="only these lines"
    )
    made.add_argument("--name", default="made", help="of the picture (made)")
    return made


if __name__ == "__main__":
    run_stage(main, parser())
