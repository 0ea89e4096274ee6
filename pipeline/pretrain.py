"""Stage 1: cross-entropy on all layers (paper, section 4; recipes in the competition's file).

    python -m pipeline.pretrain melanoma/b5_384/fold0        a fold; melanoma/b5_384 or melanoma:
                                                             all below it
    torchrun --nproc-per-node 8 -m pipeline.pretrain melanoma

reads   data/<comp>/images.csv  folds.csv  images/<size>/, and the labels_file and auxiliary.csv of
        recipes that learn from them
writes  models/<comp>/<run>/fold<k>/pretrained.safetensors  log.jsonl

A fold that exists is left alone; one that was cut goes on from its checkpoint. TIME_LIMIT=8.5h
stops in time (exit status 75).
"""

import argparse

import numpy as np
import torch

from pipeline.core.artifacts.labels import targets_text
from pipeline.core.artifacts.paths import PRETRAINED
from pipeline.core.config.label_tree import label_tree
from pipeline.core.networks.image import (
    add_auxiliary,
    add_hierarchy,
    build,
    parameter_count,
)
from pipeline.core.networks.imagenet import backbone_digest
from pipeline.core.runs.bags import bags_of, count_text
from pipeline.core.runs.extra_labels import lesson
from pipeline.core.runs.job import Job
from pipeline.core.runs.launch import fold_jobs
from pipeline.core.runs.whole import epochs_to_train
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.device import is_main, precision
from pipeline.core.training.batch_order import fold_seed, images_per_epoch, steps_per_epoch
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.phase import image_phase
from pipeline.core.training.recipe import (
    parameter_groups,
    pretrain_loss,
    pretrain_optimizer,
    pretrain_rate,
    smoothed,
)


def main(arguments: argparse.Namespace) -> None:
    for job in fold_jobs(arguments.targets, PRETRAINED):
        pretrain(job)


def pretrain(job: Job) -> None:
    """Train one fold from the run's initial weights and write its own."""
    run = job.run
    task = job.competition.task
    recipe = run.pretrain
    seed = fold_seed(job.target, "pretrained", run.seed)

    # What is learnt: a row an image, a column a label, NaN where a label is left out. Uncertain
    # labels may be smoothed here: cross-entropy takes any value from 0 to 1, the AUC losses do not.
    taught = lesson(job, seed)
    rows = taught.rows
    learnt = np.hstack([smoothed(taught.labels, recipe.smoothing), taught.auxiliary])

    # Of a hierarchy the columns above the labels are kept with them.
    tree = label_tree(run, job.labels)
    names = tree.names if tree else job.labels
    nodes = np.hstack([taught.labels, taught.auxiliary])[:, : len(names)]

    # The seed also decides the classifier's initial weights.
    torch.manual_seed(seed)
    network = build(run, len(job.labels))
    add_hierarchy(network, tree)
    network.conditional = tree is not None
    add_auxiliary(network, learnt.shape[1] - len(names))
    digest = backbone_digest(network.backbone)

    # What is about to be trained, before hours are spent on it: a wrong policy for uncertain labels
    # shows in the counts.
    dtype = precision(run.precision)
    if is_main():
        print(
            f"{job.target}: {count_text(rows, bags_of(run, rows))} train, "
            f"{len(job.validation())} validate; "
            f"{run.network} from {run.weights} weights ({network.source}, {digest[:12]}), "
            f"{parameter_count(network) / 1e6:.2f} M parameters, "
            f"{str(dtype).removeprefix('torch.')}"
        )
        print(targets_text(rows, names, nodes, task.uncertain_pretrain))
        for line in taught.notes:
            print(line)

    # A constant rate (the paper's CheXpert), or triangles between lr and lr_max that last
    # `cycle_epochs` (its melanoma: 3e-5 to 2.4e-4 in 8 epochs). The loop sets it before each step.
    images = images_per_epoch(taught.labels, recipe.negatives)
    rate = pretrain_rate(recipe, steps_per_epoch(images, recipe.batch_size))

    # The weights of the last epoch are kept, not of the best one: an epoch picked on validation
    # images would flatter the out-of-fold AUC of these very images.
    phase = image_phase(
        job,
        "pretrained",
        recipe,
        rows=rows,
        targets=learnt,
        network=network,
        loss=pretrain_loss(len(job.labels), run.auxiliary),
        optimizer=pretrain_optimizer(recipe, parameter_groups(recipe, network)),
        rate=rate,
        seed=seed,
        epochs=epochs_to_train(job, "pretrained", recipe.epochs),
        negatives=recipe.negatives,
        weights=taught.weights,
        auxiliary=taught.auxiliary.shape[1],
        origin={"first_weights": {"source": network.source, "digest": digest}},
    )
    keep(phase, fit_epochs(phase))


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
