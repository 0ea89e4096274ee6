"""The losses of the paper, AUC margin (eq. 8), AUC square (eq. 4), focal, cross-entropy; losses
over the pairs of a batch; and of partial AUCs, with a state for each training row.

    loss = AUCMargin(num_labels=5)
    optimizer = PESG(network.parameters(), loss=loss, lr=0.1, gamma=1 / 500)
    loss(network(images), labels).backward()
    optimizer.step()

Each is called as loss(scores, labels, mask=None): scores are logits, (B,) or (B, K), of any
floating dtype; labels have their shape; a label of NaN, or a False (0) in the mask, leaves that
entry out of every sum and every count. Computed in float32, or float64 if the scores are; returned
as a float32 scalar. What exists elsewhere, and what is wrong there: ELSEWHERE.md.
"""

from pipeline.core.losses.auc import AUCMargin, AUCSquare
from pipeline.core.losses.pairwise import Pairwise
from pipeline.core.losses.partial import PartialAUC
from pipeline.core.losses.pointwise import ClassCrossEntropy, CrossEntropy, Focal, Part, Sum

__all__ = [
    "AUCMargin",
    "AUCSquare",
    "ClassCrossEntropy",
    "CrossEntropy",
    "Focal",
    "Pairwise",
    "Part",
    "PartialAUC",
    "Sum",
]
