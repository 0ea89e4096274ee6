"""Where a network looked: for each label a map over the image, in units of its score.

Notation as in `networks.pooling`; g_p is the score's gradient with respect to x_p, the features at
place p of the backbone's last map:

    pcam, csra         s_p, the score of each place alone
    all others         c + P g_p x_p      gradient times activation (Draelos and Carin, 2020)

Where a linear classifier follows the pooling at once, the second is for "avg" the class activation
map w x_p + c (Zhou et al., 2016), and its mean over places is the score, for "max" and "gem" too,
since both grow in proportion to x (Euler). With a hierarchy of labels s and g are those of z, the
whole path's score, whose mean the maps then do not give.
"""

import numpy as np
import torch

from pipeline.core.networks.image import Network
from pipeline.core.networks.pooling import (
    SCORE_POOLS,
    NoFeatureMapError,
    as_places,
    place_features,
    place_scores,
)
from pipeline.core.runtime.device import device

IMAGES_AT_ONCE = 8  # of up to 768 px


def heat_maps(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores (N, K), maps (N, K, h, w)), float32, of uint8 images (N, S, S, C), in eval mode.

    Raises NoFeatureMapError for a network whose score does not come from the places of a map.
    """
    network.to(device()).eval()
    scores = []
    maps = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        batch = torch.from_numpy(images[start : start + IMAGES_AT_ONCE]).to(device())
        # The backbone, which is nearly all of the cost, needs no graph.
        with torch.no_grad():
            features = network.backbone.forward_features(network.normalised(batch))
        by_place = place_maps if network.pool in SCORE_POOLS else gradient_maps
        own_scores, own_maps = by_place(network, features)
        scores.append(own_scores.cpu().numpy())
        maps.append(own_maps.cpu().numpy())
    return np.concatenate(scores), square(np.concatenate(maps))


@torch.no_grad()
def place_maps(network: Network, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores (B, K), s (B, K, P)) of the backbone's last features."""
    places = place_features(network.backbone, features)
    alone = [place_scores(head, places) for head in network.heads()]
    return network.map_scores(features), network.label_scores(torch.cat(alone, 1))


def gradient_maps(network: Network, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(scores (B, K), c + P g x (B, K, P)) of the backbone's last features."""
    if not isinstance(features, torch.Tensor):
        raise NoFeatureMapError(f"its last features are a {type(features).__name__}")
    features = features.detach().requires_grad_()
    scores = network.map_scores(features)
    maps = []
    for label, bias in enumerate(network.classifier.bias):
        (gradient,) = torch.autograd.grad(scores[:, label].sum(), features, retain_graph=True)
        shares = as_places(network.backbone, gradient * features).sum(2)
        # A transformer that scores its class token has none.
        if not shares.any() and network.classifier.weight[label].any():
            raise NoFeatureMapError("its score does not come from the places of its last map")
        maps.append(bias + shares.shape[1] * shares)
    return scores.detach(), torch.stack(maps, 1).detach()


def square(maps: np.ndarray) -> np.ndarray:
    """Maps (N, K, P) as (N, K, sqrt(P), sqrt(P)): the images are square, and so are their maps."""
    side = round(maps.shape[2] ** 0.5)
    return maps.reshape(*maps.shape[:2], side, side)


def hottest_place(heat: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of the highest cell of a map (h, w), as parts of width and height."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]
