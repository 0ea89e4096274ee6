"""Stage 2: a fresh classifier, then an AUC loss with PESG on all layers (paper, section 4 and
algorithm 1).

    python -m pipeline.finetune melanoma/b5_384/fold0        a fold; melanoma/b5_384 or melanoma:
                                                             all below it
    torchrun --nproc-per-node 8 -m pipeline.finetune melanoma

reads   data/<comp>/images.csv  folds.csv  images/<size>/
        models/<comp>/<run>/fold<k>/pretrained.safetensors
writes  models/<comp>/<run>/fold<k>/finetuned.safetensors  log.jsonl

With `site_column` each process is a hospital that trains on its own rows (`training/sites.py`).
A fold that exists is left alone; one that was cut goes on from its checkpoint. TIME_LIMIT=8.5h
stops in time (exit status 75).
"""

import argparse

from pipeline.core.artifacts.labels import targets, targets_text
from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED
from pipeline.core.config.label_tree import label_tree
from pipeline.core.networks.image import (
    Network,
    freeze_backbone,
    load_weights,
    restart_classifier,
)
from pipeline.core.runs.bags import bags_of, count_text, drawn_once, of_bags
from pipeline.core.runs.facts import require_current
from pipeline.core.runs.hierarchy import closed_upward
from pipeline.core.runs.job import Job
from pipeline.core.runs.launch import fold_jobs
from pipeline.core.runs.whole import epochs_to_train
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.device import is_main, precision
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.batch_order import fold_seed, steps_per_epoch
from pipeline.core.training.loop import fit_epochs, keep
from pipeline.core.training.phase import image_phase
from pipeline.core.training.recipe import (
    finetune_rate,
    make_loss,
    make_optimizer,
    milestones,
    parameter_groups,
    restart_batches,
    smoothed,
)
from pipeline.core.training.sites import site_rows, train_sites


def main(arguments: argparse.Namespace) -> None:
    for job in fold_jobs(arguments.targets, FINETUNED):
        finetune(job)


def finetune(job: Job) -> None:
    """Train one fold from its stage-1 weights and write its own."""
    run = job.run
    task = job.competition.task
    recipe = run.finetune
    seed = fold_seed(job.target, "finetuned", run.seed)

    # What is learnt: hard labels, or NaN where a label is left out. The AUC losses compare one
    # class with the other, and a label of 0.7 would be in neither.
    rows = job.training()
    if recipe.site_column:
        rows = site_rows(rows, recipe.site_column)
    tree = label_tree(run, job.labels)
    notes: tuple[str, ...] = ()
    if tree:
        rows, notes = closed_upward(job, rows, tree)
    bags = bags_of(run, rows)
    named = drawn_once(rows, bags)
    labels = of_bags(targets(named, job.labels, task, task.uncertain_finetune, seed), bags)

    # All layers of stage 1 but the classifier, which is drawn anew (paper, section 4).
    network = begin_from_stage_1(job)
    restart_classifier(network, seed)
    if recipe.layers == "head":
        freeze_backbone(network)
    loss = make_loss(recipe, len(job.labels), len(labels))

    # What is about to be trained, before hours are spent on it.
    dtype = precision(run.precision)
    if is_main():
        print(
            f"{job.target}: {count_text(rows, bags)} train, {len(job.validation())} validate; "
            f"{recipe.loss}, margin {recipe.margin}, scores normalised by {recipe.normalize}, "
            f"{str(dtype).removeprefix('torch.')}"
        )
        print(targets_text(rows, job.labels, labels, task.uncertain_finetune))
        for line in notes:
            print(line)

    # At the end of each of PESG's stages the rate falls and the reference becomes the mean of that
    # stage's weights (algorithm 1). As in stage 1, the last epoch's weights are kept.
    each = steps_per_epoch(len(labels), recipe.batch_size)
    ends = milestones(recipe, each)
    phase = image_phase(
        job,
        "finetuned",
        recipe,
        rows=rows,
        targets=smoothed(labels, recipe.smoothing),
        network=network,
        loss=loss,
        optimizer=make_optimizer(recipe, parameter_groups(recipe, network), loss),
        rate=finetune_rate(recipe, each),
        seed=seed,
        epochs=epochs_to_train(job, "finetuned", recipe.epochs),
        restarts=frozenset(ends),
        restart_batches=restart_batches(recipe),
        positives=recipe.positives,
    )
    if recipe.site_column:
        train_sites(phase)
    else:
        keep(phase, fit_epochs(phase))


def begin_from_stage_1(job: Job) -> Network:
    """The stage-1 network, which must come from today's tables and configuration."""
    path = job.folder / PRETRAINED
    if not path.exists():
        raise UserError(
            f"{path}: there is no such file; `make pretrain COMP={job.competition.name}` makes it"
        )
    # Refused where an earlier recipe, size or table made them: hours of stage 2 would go into a
    # network that the configuration does not describe.
    require_current(job, path)
    return load_weights(path, job.run, job.labels)


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
