"""Which images a step takes: a function of the seed and the epoch alone, so there is nothing to
save or restore."""

from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from pipeline.core.runtime.errors import UserError

if TYPE_CHECKING:
    from pipeline.core.training.phase import Phase


def fold_seed(target: str, phase: str, seed: int) -> int:
    """The seed of one phase of one fold: it depends on its own name only, not on which other folds
    run."""
    return int(
        np.random.SeedSequence([seed, crc32(f"{target} {phase}".encode())]).generate_state(1)[0]
    )


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in an epoch (what is over is dropped, other images each epoch), at least
    one."""
    return max(1, images // batch_size)


def epoch_batches(phase: "Phase", epoch: int) -> list[np.ndarray]:
    """The image indices of each global batch of an epoch, from (seed, epoch) alone."""
    rng = np.random.default_rng((phase.seed, epoch))
    order = rng.permutation(len(phase.targets))
    steps = steps_per_epoch(len(order), phase.batch_size)
    batches = [
        order[step * phase.batch_size : (step + 1) * phase.batch_size] for step in range(steps)
    ]
    if phase.positives:
        add_positives(batches, phase.targets.numpy(), phase.positives, rng)
    return batches


def add_positives(
    batches: list[np.ndarray], targets: np.ndarray, least: int, rng: np.random.Generator
) -> None:
    """Swap all-negative images of each batch, in place, for positives until every label has `least`
    of them.

    Positives are taken from a shuffled round of all of them, so each is used equally often.
    UserError for a label that has none, and for a batch without room for them.
    """
    positive = targets > 0.5
    for label in range(targets.shape[1]):
        pool = rng.permutation(np.flatnonzero(positive[:, label]))
        if not len(pool):
            raise UserError(
                f"positives={least}: label {label} has no positive among the training images"
            )
        taken = 0
        for batch in batches:
            missing = max(least - positive[batch, label].sum(), 0)
            spare = np.flatnonzero(~positive[batch].any(axis=1))[:missing]
            if len(spare) < missing:
                raise UserError(
                    f"positives={least}: a batch of {len(batch)} has no room for that many "
                    "positives of "
                    f"each of {targets.shape[1]} labels; raise batch_size"
                )
            batch[spare] = pool[(taken + np.arange(len(spare))) % len(pool)]
            taken += len(spare)


def remaining_keys(
    phase: "Phase", step: int, rank: int, processes: int
) -> list[tuple[int, np.ndarray]]:
    """The loader's keys from `step` on: (epoch, the images of this process in that global
    batch)."""
    each = steps_per_epoch(len(phase.targets), phase.batch_size)
    keys = []
    for epoch in range(step // each, phase.epochs):
        batches = epoch_batches(phase, epoch)
        first = step - epoch * each if epoch == step // each else 0
        keys += [(epoch, batch[rank::processes]) for batch in batches[first:]]
    return keys
