"""What the `modern` runs of the competition files share: how today's winners optimise, beside the
paper's Adam and SGD; tests/bench/RESULTS.md says what of it helped on real images."""

from typing import Any

# Of both stages.
MODERN_STEPS: dict[str, Any] = dict(
    optimizer="adamw",
    weight_decay=0.05,
    schedule="cosine",
    layer_decay=0.8,
    clip=1.0,
)
# Of the run. `stage="best"`: stage 2 is a member where its gain out of fold is no chance.
MODERN_RUN: dict[str, Any] = dict(drop_path=0.1, ema=0.999, stage="best")
