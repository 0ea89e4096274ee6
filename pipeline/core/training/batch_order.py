"""Which images a step takes: a function of the seed and the epoch alone, so there is nothing to
save or restore."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from pipeline.core.runtime.errors import UserError


def fold_seed(target: str, phase: str, seed: int) -> int:
    """The seed of one phase of one fold: it depends on its own name only, not on which other folds
    run."""
    # crc32 and not hash(), which differs from process to process. SeedSequence mixes, so that seeds
    # 0, 1, 2 give unrelated streams.
    name = crc32(f"{target} {phase}".encode())
    return int(np.random.SeedSequence([seed, name]).generate_state(1)[0])


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches in an epoch (the remainder is dropped, other images each epoch), at least
    one."""
    # Fewer images than a batch holds: one batch of all of them.
    return max(1, images // batch_size)


def images_per_epoch(targets: np.ndarray, negatives: float) -> int:
    """How many images an epoch has: all, or those with a positive label and `negatives` times as
    many of the others, where there are so many; targets (N, K)."""
    if not negatives:
        return len(targets)
    positive = int((targets > 0.5).any(axis=1).sum())
    return positive + min(round(negatives * positive), len(targets) - positive)


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """The batches of a phase, all processes together.

    targets     (N, K) labels of the training images; above 1/2 is positive, NaN is not
    batch_size  images in a step of all processes
    seed        of the phase
    positives   at least so many of each label in a batch, 0 = plain shuffling
    negatives   so many images without a positive label for each with one, drawn anew for each
                epoch; 0 = all of them
    """

    targets: np.ndarray
    batch_size: int
    epochs: int
    seed: int
    positives: int = 0
    negatives: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return steps_per_epoch(images_per_epoch(self.targets, self.negatives), self.batch_size)

    def epoch_images(self, rng: np.random.Generator) -> np.ndarray:
        """The images of an epoch, in their order."""
        if not self.negatives:
            return rng.permutation(len(self.targets))
        is_positive = (self.targets > 0.5).any(axis=1)
        positive = np.flatnonzero(is_positive)
        if not len(positive):
            raise UserError(f"negatives={self.negatives}: no training image has a positive label")
        others = rng.permutation(np.flatnonzero(~is_positive))
        count = images_per_epoch(self.targets, self.negatives) - len(positive)
        return rng.permutation(np.concatenate([positive, others[:count]]))

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """The image indices of each global batch of an epoch, from (seed, epoch) alone."""
        rng = np.random.default_rng((self.seed, epoch))
        order = self.epoch_images(rng)
        batches = []
        for step in range(self.steps_per_epoch):
            start = step * self.batch_size
            batches.append(order[start : start + self.batch_size])
        # At 1.8 % positives (melanoma) a plain batch of 32 has none more often than not (.57).
        if self.positives:
            add_positives(batches, self.targets, self.positives, rng)
        return batches

    def remaining_keys(self, step: int, rank: int, processes: int) -> list[tuple[int, np.ndarray]]:
        """The loader's keys from `step` on: (epoch, the images of this process in that batch)."""
        first_epoch, done = divmod(step, self.steps_per_epoch)
        keys = []
        for epoch in range(first_epoch, self.epochs):
            # A resumed epoch is drawn whole and its beginning skipped: the rest is the same batches
            # that the run would have taken without the interruption.
            batches = self.epoch_batches(epoch)
            if epoch == first_epoch:
                batches = batches[done:]
            # Each process takes every processes-th image, so the global batch does not depend on
            # how many there are.
            keys += [(epoch, batch[rank::processes]) for batch in batches]
        return keys


def add_positives(
    batches: list[np.ndarray], targets: np.ndarray, least: int, rng: np.random.Generator
) -> None:
    """Swap all-negative images of each batch, in place, for positives until every label has `least`
    of them.

    Positives are taken from a shuffled round of all of them, so each is used equally often.
    UserError for a label that has none, and for a batch without room for them.
    """
    positive = targets > 0.5
    labels = targets.shape[1]
    for label in range(labels):
        # A round of this label's positives, in an order of its own for each epoch.
        pool = rng.permutation(np.flatnonzero(positive[:, label]))
        if not len(pool):
            raise UserError(
                f"positives={least}: label {label} has no positive among the training images"
            )
        taken = 0
        for batch in batches:
            missing = max(least - positive[batch, label].sum(), 0)
            # Images without any positive label, so that no other label loses one.
            spare = np.flatnonzero(~positive[batch].any(axis=1))[:missing]
            if len(spare) < missing:
                raise UserError(
                    f"positives={least}: a batch of {len(batch)} has no room for that many "
                    f"positives of each of {labels} labels; raise batch_size"
                )
            # The round begins again where it ends.
            batch[spare] = pool[(taken + np.arange(len(spare))) % len(pool)]
            taken += len(spare)
