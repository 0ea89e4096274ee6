"""Appendix E as a worked example: one data point at a time, h(x) = w x, which way does a step move
its score?

    python -m pipeline.paper.appendix_e

reads   nothing
writes  pipeline/paper/figures/appendix_e.png, and prints every case of E.1 to E.4 beside the
        paper's number

The gradients are autograd's through the library's own losses, with a and b held at the stated
means. Where the paper misprints, our value is used: B = +.25 in E.2 is the positive direction, and
in E.4 C is max(.75, m), not m.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.losses import AUCMargin, AUCSquare
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper import plots

STEP = 0.1  # the appendix folds every constant into it
WEIGHT = 1.0  # the appendix's w at the start, so that a score is its x


@dataclass(frozen=True)
class Case:
    """A point x with revealed label y, under means a and b; margin None is the AUC square loss.
    `paper`: its B or C."""

    section: str
    x: float
    y: int
    a: float
    b: float
    margin: float | None
    paper: float


CASES = (
    Case("E.1 easy positive", 1.0, 1, 0.5, -0.5, None, 0.5),
    Case("E.1 easy negative", -1.0, 0, 0.5, -0.5, None, -0.5),
    Case("E.2 case 1, below a", 0.75, 1, 1.0, -0.5, 1.0, -0.25),
    Case("E.2 case 1, above a", 1.25, 1, 1.0, -0.5, 1.0, 0.25),
    Case("E.2 case 2", 0.25, 1, 0.0, -0.5, 1.0, -0.25),
    Case("E.3 noisy negative", 0.25, 0, 0.25, -0.5, None, 1.0),
    Case("E.4 noisy, m = 1", 0.25, 0, 0.25, -0.5, 1.0, 1.0),
    Case("E.4 noisy, m = 0.8", 0.25, 0, 0.25, -0.5, 0.8, 0.8),
    Case("E.4 noisy, m = 0.3", 0.25, 0, 0.25, -0.5, 0.3, 0.3),
)


def slopes(scores: torch.Tensor, y: int, a: float, b: float, margin: float | None) -> torch.Tensor:
    """The appendix's B (y = 1) or C (y = 0) at each score (N,), float64: h - a - alpha, h - b +
    alpha at the best alpha.

    One score of each class at a time goes through the loss with p = 1/2, so dF/dh = (2/2)(1/2) B.
    """
    # The best alpha in closed form. Only AUC-M's is held at 0 or above: once the means are further
    # apart than m, AUC-S pulls them together again and AUC-M does not.
    if margin is None:
        loss = AUCSquare(prior=0.5).double()
        alpha = 1.0 + b - a
    else:
        loss = AUCMargin(margin=margin, prior=0.5).double()
        alpha = max(0.0, margin + b - a)

    # Each score with one of the other class beside it, whose gradient nobody looks at.
    values = []
    for score in scores:
        with torch.no_grad():
            loss.a.fill_(a)
            loss.b.fill_(b)
            loss.alpha.fill_(alpha)
        pair = torch.stack([score, torch.zeros_like(score)]).double().requires_grad_()
        loss(pair, torch.tensor([float(y), float(1 - y)])).backward()
        values.append(2 * pair.grad[0])
    return torch.stack(values)


def slope(case: Case) -> float:
    """B or C at the case's own point."""
    return float(slopes(torch.tensor([WEIGHT * case.x]), case.y, case.a, case.b, case.margin))


def draw_displacements() -> None:
    """Where a step moves the score of a positive (E.1, E.2) and of a negative (E.3, E.4), by its
    present score."""
    figure, axes = plots.axes_grid(1, 2)
    scores = torch.linspace(-1.5, 2.0, 41)

    # Ever thinner lines, so that what lies beneath shows.
    lines = [
        ("AUC-S", None, plots.COLOURS["aucs"], 4.5),
        ("AUC-M, m = 1", 1.0, plots.COLOURS["aucm"], 2.2),
        ("AUC-M, m = 0.3", 0.3, "#56b4e9", 1.0),
    ]
    cases = [
        (1, 1.0, -0.5, "a positive; a = 1, b = −0.5: well separated"),
        (0, 0.25, -0.5, "a negative; a = 0.25, b = −0.5: not yet"),
    ]

    # A panel for each class. A step goes against the gradient, hence the sign.
    for axis, (y, a, b, title) in zip(axes[0], cases):
        for name, margin, colour, width in lines:
            push = -slopes(scores, y, a, b, margin)
            axis.plot(scores, push, color=colour, label=name, linewidth=width)
        axis.axhline(0, color="black", linewidth=0.6)
        plots.label(axis, title, "score h", "push on the score (−B or −C)")

    # On the left the mean a, where AUC-M's push on positives changes its direction.
    axes[0, 0].axvline(1.0, color="black", linewidth=0.6, linestyle=":")
    axes[0, 0].annotate("a", (1.05, 2.3), fontsize=9)
    axes[0, 1].legend(frameon=False, fontsize=8)
    print("wrote", plots.save(figure, "appendix_e"))


def main(_: argparse.Namespace) -> None:
    head = f"{'case':22}{'x':>6}{'y':>3}{'B or C':>9}{'paper':>8}"
    print(f"{head}{'h before':>10}{'after a step':>14}")
    for case in CASES:
        value = slope(case)
        # E.1 steps by the sign: a score of 1 becomes .9.
        before = WEIGHT * case.x
        after = (WEIGHT - STEP * np.sign(value) * case.x) * case.x
        facts = f"{case.section:22}{case.x:6.2f}{case.y:3d}{value:9.3f}{case.paper:8.3f}"
        print(f"{facts}{before:10.3f}{after:14.4f}")
    draw_displacements()


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__, targets=False))
