"""The gradients of a first step, against formulas."""

import pytest
import torch
from torch import nn

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.paper import gradients

LABELS = torch.tensor([1.0, 0, 0, 1, 0, 0])


class Line(nn.Module):
    """h = x w of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.w


def found(loss: nn.Module) -> tuple[float, float, torch.Tensor, torch.Tensor]:
    network = Line()
    x = torch.randn(6, generator=torch.Generator().manual_seed(0))
    scores = network(x)
    of_scores, of_weights = gradients.norms(network, loss, scores, LABELS)
    return of_scores.item(), of_weights.item(), x, scores.detach()


def test_of_cross_entropy():
    of_scores, of_weights, x, h = found(CrossEntropy())
    expected = (torch.sigmoid(h) - LABELS) / 6
    assert of_scores == pytest.approx(expected.norm().item(), rel=1e-5)
    assert of_weights == pytest.approx(abs((expected * x).sum().item()), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_of_auc_margin_at_its_class_means(alpha):
    loss = AUCMargin(margin=0.4)
    loss.alpha.data.fill_(alpha)
    of_scores, _, _, h = found(loss)
    p = 1 / 3
    mean = torch.where(LABELS == 1, h[LABELS == 1].mean(), h[LABELS == 0].mean())
    weight = torch.where(LABELS == 1, 1 - p, p)
    expected = 2 / 6 * (weight * (h - mean) + alpha * (p - LABELS))
    assert of_scores == pytest.approx(expected.norm().item(), rel=1e-5)


def test_every_form_is_measured_once():
    named = gradients.losses(0.7, 0.01)
    assert len(named) == 1 + 2 * len(gradients.NORMALIZERS_SHOWN) + 1
    assert named["AUC-M, l2, α = 0.7, p = 0.01"].alpha.item() == pytest.approx(0.7)
