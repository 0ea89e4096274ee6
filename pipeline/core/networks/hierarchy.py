"""Scores along a tree of labels (Pham et al., arXiv 1911.06475; Chen et al., arXiv 2009.05609).

The output h of a node is the log-odds of its label where all its ancestors are positive. Over a
node and its ancestors j, with the logistic function σ,

(1) P = Π σ(h_j),    log P = Σ log σ(h_j)
(2) log(1 - P) = log1mexp(log P) = log(1 - exp(log P))
(3) z = log P - log(1 - P)

z is the score that everything downstream takes: σ(z) is P, cross-entropy of z is that of (1) and
(2), and an AUC loss compares z of images. Since 1/P is the product of 1 + exp(-h_j), a child's is

(4) z = -log( exp(-z_parent) + exp(-h) + exp(-z_parent - h) )

a sum of positive terms: nothing cancels, where float32 has log P = 0 (h > 104) and (2) would be
-inf as well. A root's z is its h, bit for bit.
"""

import torch
from torch import Tensor

from pipeline.core.config.label_tree import LabelTree


def path_scores(scores: Tensor, tree: LabelTree) -> Tensor:
    """Log-odds h (B, N, ...) of every node given its ancestors -> z of its whole path (equation 4),
    of the same shape."""
    paths = list(scores.unbind(1))
    for node in tree.from_roots():
        parent = tree.parents[node]
        if parent is not None:
            paths[node] = joint_log_odds(paths[parent], paths[node])
    return torch.stack(paths, 1)


def joint_log_odds(first: Tensor, second: Tensor) -> Tensor:
    """The log-odds of σ(first) σ(second), elementwise."""
    either = torch.logaddexp(-first, -second)
    return -torch.logaddexp(either, -first - second)
