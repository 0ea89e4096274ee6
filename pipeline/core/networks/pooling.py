"""How a network's last feature map becomes one score for each label: `Run.pool`.

x_p are the features at place p of P, w and c a label's row of the classifier, and s_p = w x_p + c
the score that this place alone would give:

    avg    w mean_p(x_p) + c                    the backbone's own pooling; not in this file
    max    w max_p(x_p) + c
    lse    w log(mean_p exp(r x_p)) / r + c     Pinheiro and Collobert, 2015
    gem    w mean_p(x_p^3)^(1/3) + c            Radenović et al., 2019
    pcam   sum_p a_p s_p,  a = σ(s) / sum σ(s)  Ye et al., arXiv 2005.14480
    csra   mean_p(s_p) + λ sum_p softmax(T (s - c))_p (s_p - c)   Zhu and Wu, arXiv 2108.02456

None has weights of its own: all share one classifier, which stage 2 draws anew, and a weights file
has the same tensors whatever the pooling. Where w = 0 the last two are the average.
"""

import math

import torch
from torch import nn
from torch.nn.functional import dropout1d, logsigmoid

LSE_SHARPNESS = 0.5  # r, Ye et al.'s
GEM_POWER = 3.0
GEM_FLOOR = 1e-6  # features below it count as it: a power of a negative number is none
CSRA_WEIGHT = 0.1  # λ, of the authors' network with one head
CSRA_SHARPNESS = 1.0  # T, the same


class NoFeatureMapError(Exception):
    """The backbone's last features are no map of places."""


def place_features(backbone: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """(B, F, P): what a timm backbone's head makes of each place of its last features.

    features  what `backbone.forward_features` gives: (B, C, H, W), (B, H, W, C), or (B, N, C) of
              tokens, P of them places of a square
    Raises NoFeatureMapError for any other form. Without layers between its pooling and its
    classifier a backbone's head leaves a place as it is, and F = C.
    """
    places = as_places(backbone, features)
    count, number, _ = places.shape
    # Each place goes through the head as if it were a map of its own, which is its own mean.
    alone = places.flatten(0, 1)
    if features.ndim == 3:
        # Such a head drops or takes the first tokens: all are this place.
        alone = alone[:, None].expand(-1, prefix_tokens(backbone) + 1, -1)
    elif channels_last(backbone, features):
        alone = alone[:, None, None]
    else:
        alone = alone[:, :, None, None]
    return backbone.forward_head(alone).unflatten(0, (count, number)).transpose(1, 2)


def as_places(backbone: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """A backbone's last features as (B, P, C), the places row by row; NoFeatureMapError where they
    are no map."""
    if not isinstance(features, torch.Tensor):
        raise NoFeatureMapError(f"its last features are a {type(features).__name__}")
    if features.ndim == 4:
        if channels_last(backbone, features):
            return features.flatten(1, 2)
        return features.flatten(2).transpose(1, 2)
    if features.ndim == 3:
        places = features[:, prefix_tokens(backbone) :]
        if math.isqrt(places.shape[1]) ** 2 == places.shape[1] > 0:
            return places
    raise NoFeatureMapError(f"its last features have the shape {tuple(features.shape)}")


def prefix_tokens(backbone: nn.Module) -> int:
    """How many of a transformer's tokens are no place: class token, registers."""
    return getattr(backbone, "num_prefix_tokens", 0)


def channels_last(backbone: nn.Module, features: torch.Tensor) -> bool:
    """True for features (B, H, W, C), as Swin gives them."""
    return features.shape[1] != backbone.num_features == features.shape[3]


def pooled_scores(
    pool: str, classifier: nn.Linear, places: torch.Tensor, dropout: float = 0.0
) -> torch.Tensor:
    """Scores (B, K) of features at places, float32 (B, F, P). dropout: the part of the features
    that is left out, in training."""
    # A channel is dropped at all places together; drawn place by place it would average out.
    if dropout:
        places = dropout1d(places, dropout)
    if pool in FEATURE_POOLS:
        return classifier(FEATURE_POOLS[pool](places))
    return SCORE_POOLS[pool](place_scores(classifier, places), classifier.bias)


def place_scores(classifier: nn.Linear, places: torch.Tensor) -> torch.Tensor:
    """s: the score of each place by itself (B, K, P)."""
    return classifier(places.transpose(1, 2)).transpose(1, 2)


def max_pool(places: torch.Tensor) -> torch.Tensor:
    """The largest value of each feature (B, F)."""
    return places.amax(2)


def smooth_max_pool(places: torch.Tensor) -> torch.Tensor:
    """Between the mean (r to 0) and the largest (r to infinity) of each feature (B, F)."""
    total = torch.logsumexp(LSE_SHARPNESS * places, 2)
    return (total - math.log(places.shape[2])) / LSE_SHARPNESS


def generalised_mean(places: torch.Tensor) -> torch.Tensor:
    """The cubic mean of each feature (B, F)."""
    return places.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(2).pow(1 / GEM_POWER)


def probabilistic_cam(scores: torch.Tensor, _bias: torch.Tensor) -> torch.Tensor:
    """The mean of the places' scores (B, K, P), each weighed by its own probability: (B, K)."""
    # Ye et al. pool the features and score the result; the weights sum to 1, so that is the mean
    # of the scores. By logarithms, since σ(s) is 0 in float32 below s = -104, and 0 / 0 is nothing.
    return (torch.softmax(logsigmoid(scores), 2) * scores).sum(2)


def residual_attention(scores: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The mean of the places' scores (B, K, P) and a part of their mean under attention: (B, K)."""
    evidence = scores - bias[:, None]  # without c, which would count 1 + λ times
    attention = torch.softmax(CSRA_SHARPNESS * evidence, 2)
    return scores.mean(2) + CSRA_WEIGHT * (attention * evidence).sum(2)


# (B, F, P) features -> (B, F); (B, K, P) scores and (K,) biases -> (B, K).
FEATURE_POOLS = {"max": max_pool, "lse": smooth_max_pool, "gem": generalised_mean}
SCORE_POOLS = {"pcam": probabilistic_cam, "csra": residual_attention}
