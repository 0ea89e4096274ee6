"""Figure 1: why AUC-M. Two-layer ELU network on points of the plane, with easy and then noisy points added.

    python -m pipeline.paper.figure1

reads nothing, writes pipeline/paper/figures/figure1.png. Top row AUC-S, bottom row AUC-M. The first column is the
network trained on the first points alone (its boundary stays as a dashed line); then it is trained on with easy points
added, then with wrongly labelled points added. Each panel gives the AUC on fresh points of the first kind.
"""
import argparse
import copy

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.command import run_stage, stage_parser
from pipeline.core.losses import AUCMargin, AUCSquare
from pipeline.core.metrics import auc
from pipeline.core.pesg import PESG
from pipeline.paper import plots

STEPS, RATE, MARGIN, SEED = 3000, 0.03, 0.3, 1
Points = tuple[np.ndarray, np.ndarray]


def cloud(generator: np.random.Generator, count: int) -> Points:
    """`count` points of each class on two arcs that bend into each other."""
    angle = generator.uniform(0, np.pi, 2 * count)
    labels = np.repeat([1.0, 0.0], count)
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    points[count:] = np.array([1.0, 0.35]) - points[count:]
    return points + generator.normal(0, 0.22, points.shape), labels


def easy(generator: np.random.Generator, count: int) -> Points:
    """Points far on their own side: positives up to the left, negatives down to the right."""
    centre = np.repeat([[-2.6, 3.0], [3.6, -2.8]], count, axis=0)
    return centre + generator.normal(0, 0.3, centre.shape), np.repeat([1.0, 0.0], count)


def noisy(generator: np.random.Generator, count: int) -> Points:
    """Points of either class with the other's label."""
    points, labels = cloud(generator, count)
    return points, 1 - labels


def joined(*parts: Points) -> Points:
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def tensors(points: Points) -> tuple[Tensor, Tensor]:
    return tuple(torch.from_numpy(part).float() for part in points)


def train(network: nn.Module, criterion: nn.Module, points: Points, steps: int = STEPS) -> nn.Module:
    """A copy of `network` trained on all points at once."""
    network, (inputs, labels) = copy.deepcopy(network), tensors(points)
    optimizer = PESG(network.parameters(), loss=criterion, lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        criterion(network(inputs)[:, 0], labels).backward()
        optimizer.step()
    return network


@torch.no_grad()
def scores(network: nn.Module, points: np.ndarray) -> np.ndarray:
    return network(torch.from_numpy(points).float())[:, 0].numpy()


def boundary(network: nn.Module, points: Points) -> float:
    """The score halfway between the class means: AUC losses fix no threshold of their own."""
    values = scores(network, points[0])
    return float(values[points[1] == 1].mean() + values[points[1] == 0].mean()) / 2


def draw(axis: plots.Axes, network: nn.Module, points: Points, marked: np.ndarray, first: tuple | None) -> None:
    """Points, the decision boundary, and `first` = (network, threshold) dashed."""
    xs, ys = np.linspace(-4, 5, 181), np.linspace(-4.2, 4.4, 173)
    grid = np.stack(np.meshgrid(xs, ys), -1)
    values = scores(network, grid.reshape(-1, 2)).reshape(grid.shape[:2])
    threshold = boundary(network, points)
    axis.contourf(xs, ys, values, [-np.inf, threshold, np.inf], colors=[plots.NEGATIVE, plots.POSITIVE], alpha=0.10)
    axis.contour(xs, ys, values, [threshold], colors="black", linewidths=1.3)
    if first:
        before = scores(first[0], grid.reshape(-1, 2)).reshape(grid.shape[:2])
        axis.contour(xs, ys, before, [first[1]], colors="black", linewidths=1.0, linestyles="dashed")
    for label, colour, marker in ((1, plots.POSITIVE, "+"), (0, plots.NEGATIVE, "_")):
        at = points[0][points[1] == label]
        axis.scatter(at[:, 0], at[:, 1], c=colour, marker=marker, s=26, linewidths=1.1)
    axis.scatter(marked[:, 0], marked[:, 1], facecolors="none", edgecolors="black", s=60, linewidths=0.7)
    axis.set_xticks([])
    axis.set_yticks([])


def main(_: argparse.Namespace) -> None:
    generator = np.random.default_rng(SEED)
    start, far, wrong, fresh = cloud(generator, 30), easy(generator, 40), noisy(generator, 5), cloud(generator, 2000)
    columns = {"first points": start, "easy points added": joined(start, far),
               "noisy points added": joined(start, far, wrong)}
    figure, axes = plots.panels(2, 3, width=2.9, height=2.6)
    for (name, make), row in zip((("AUC square", AUCSquare), ("AUC margin", lambda: AUCMargin(margin=MARGIN))), axes):
        torch.manual_seed(SEED)
        network = nn.Sequential(nn.Linear(2, 32), nn.ELU(), nn.Linear(32, 1))
        first = None
        for axis, (column, points) in zip(row, columns.items()):
            network = train(network, make(), points)
            marked = wrong[0] if "noisy" in column else np.empty((0, 2))
            draw(axis, network, points, marked, first)
            plots.label(axis, f"{name}, {column}\nAUC on fresh points {auc(scores(network, fresh[0]), fresh[1]):.3f}")
            first = first or (network, boundary(network, start))
    print("wrote", plots.save(figure, "figure1"))


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__, targets=False))
