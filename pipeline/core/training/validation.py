"""The validation AUC that a run's log shows: image by image (unit by unit where the run has
`bag`), one view each, mean over labels with both classes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.losses.checks import NotFinite
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.bags import bags_of, of_bags
from pipeline.core.runs.job import Job
from pipeline.core.runtime.device import loader_processes


def image_validator(job: Job, dtype: torch.dtype) -> Callable[[nn.Module], dict[str, float]]:
    """A function network -> {"mean": AUC, label: AUC}; a label without both classes has NaN and is
    not in the mean.

    It raises NotFinite for a network that has diverged.
    """
    # All that does not change from epoch to epoch.
    rows = job.validation()
    run = job.run
    task = job.competition.task
    images = prepared_images(job.competition.name, run.size, rows["image_id"])
    bags = bags_of(run, rows)
    labels = of_bags(truth(rows, job.labels, task), bags)
    # Every image of a unit has the unit's score.
    first = slice(None) if bags is None else [own[0] for own in bags]
    # One view: 30 would cost 30 passes after every epoch, for a figure that decides nothing.
    matrices = view_matrices(1, run.size, run.augment)
    # A few hundred images are read before loader processes have started.
    workers = loader_processes() if len(images) > 500 else 0

    def validate(network: nn.Module) -> dict[str, float]:
        scores = score_views(
            network,
            lambda index: read_prepared_image(images[index], task.resize.channels),
            len(images),
            matrices,
            dtype,
            workers,
            bags=bags,
        )[first, 0]
        # Said as what it is, a training that diverged, with the loop's advice; an AUC cannot rank
        # such scores.
        bad = np.count_nonzero(~np.isfinite(scores).all(axis=1))
        if bad:
            raise NotFinite(
                f"{bad} of {len(images)} validation images get a score that is not finite"
            )
        aucs = map(auc_or_nan, scores.T, labels.T)
        return mean_first(dict(zip(job.labels, aucs, strict=True)))

    return validate


def mean_first(aucs: dict[str, float]) -> dict[str, float]:
    """The AUCs with their mean over the labels that have one in front, as "mean"; NaN if none
    has."""
    known = [value for value in aucs.values() if not np.isnan(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return {"mean": mean, **aucs}
