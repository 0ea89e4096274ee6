"""Batches to test the AUC losses on, and their definitions written out a second time, entry by
entry, in numpy."""

import numpy as np
import torch
from hypothesis import strategies as st


@st.composite
def batches(draw: st.DrawFn, labels: int = 1, most: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """float64 (N, K) scores, with ties and of very different sizes, and labels with both classes in
    every column."""
    n = draw(st.integers(2, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.normal(size=(n, labels)) * draw(st.sampled_from([0.01, 1.0, 30.0]))
    scores += draw(st.sampled_from([0.0, -3.0, 100.0]))
    if draw(st.booleans()):
        scores = np.round(scores, 1)
    y = (rng.random((n, labels)) < draw(st.floats(0.02, 0.98))).astype(float)
    for column in y.T:
        i, j = rng.choice(n, 2, replace=False)
        column[i] = 1
        column[j] = 0
    return scores, y


margins = st.floats(0.05, 3.0)
priors = st.one_of(st.none(), st.floats(0.01, 0.99))
duals = st.floats(-2.0, 2.0)


def equation_8(
    h: np.ndarray, y: np.ndarray, a: float, b: float, alpha: float, p: float, m: float
) -> float:
    """Mean of F over one label's entries, one entry at a time."""
    total = 0.0
    for score, label in zip(h, y):
        if label == 1:
            total += (1 - p) * (score - a) ** 2 - 2 * alpha * (1 - p) * score
        else:
            total += p * (score - b) ** 2 + 2 * alpha * p * score
        total += 2 * alpha * p * (1 - p) * m - p * (1 - p) * alpha**2
    return total / len(h)


def saddle(
    h: np.ndarray, y: np.ndarray, m: float, hinge: bool = True
) -> tuple[float, float, float]:
    """a, b, α of Theorem 1."""
    a = h[y == 1].mean()
    b = h[y == 0].mean()
    return a, b, max(0.0, m - a + b) if hinge else m - a + b


def a_m(h: np.ndarray, y: np.ndarray, m: float, hinge: bool = True) -> float:
    """Equation 6 (5 without the hinge), from numpy's own variances."""
    short = saddle(h, y, m, hinge)[2]
    return h[y == 1].var() + h[y == 0].var() + short**2


def double(*values: object) -> list[torch.Tensor]:
    """float64 tensors that require a gradient."""
    return [
        torch.tensor(np.asarray(value), dtype=torch.float64, requires_grad=True) for value in values
    ]
