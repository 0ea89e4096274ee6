"""How the images of a unit (a study) become one score for each label: `Run.bag`.

h_k are the features of image k of a unit, s_k = W h_k + c its scores by itself:

    max         max_k s_k, label by label
    attention   W sum_k a_k h_k + c,   a = softmax_k(v . (tanh(V h_k) * sigmoid(U h_k)))
                Ilse, Tomczak and Welling, 2018, equation 9 (gated attention)

Both do not depend on the order of a unit's images, and of one image both are s. The weights a sum
to 1, so the score is also the mean of the images' own scores under attention.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

ATTENTION_UNITS = 128  # rows of V and U, as the authors'


class GatedAttention(nn.Module):
    """float32 features (N, F) of the images of B units -> (B, F)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.content = nn.Linear(features, ATTENTION_UNITS)
        self.gate = nn.Linear(features, ATTENTION_UNITS)
        # Without a bias, which would be added to every image's and change no softmax.
        self.score = nn.Linear(ATTENTION_UNITS, 1, bias=False)

    def forward(self, features: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        """sizes (B,): how many of the features, in their order, are each unit's."""
        score = self.score(self.content(features).tanh() * self.gate(features).sigmoid())
        images, absent = padded(features, sizes)
        scores, _ = padded(score, sizes)
        shares = scores.masked_fill(absent, -torch.inf).softmax(1)
        return (shares * images).sum(1)


def largest_scores(scores: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """The largest of each unit's scores (N, K) of its images, label by label: (B, K)."""
    images, absent = padded(scores, sizes)
    return images.masked_fill(absent, -torch.inf).amax(1)


def padded(values: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (N, F) of B units as (B, M, F), M the most that a unit has, zeros behind the others'
    rows; and where there is none, bool (B, M, 1)."""
    images = pad_sequence(values.split(sizes.tolist()), batch_first=True)
    absent = torch.arange(images.shape[1]) >= sizes[:, None]
    return images, absent[:, :, None].to(values.device)
