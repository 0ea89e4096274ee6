"""What does the pooling of the last feature map give? One run of both stages for each pooling.

    python -m tests.bench.pools chexpert/resnet10t_96 [--size 160] [--epochs 6 3]

Reads what `pretrain` and `finetune` read and trains all folds, in a temporary folder, once for
each name of `Run.pool`. Prints, for each, the mean AUC out of fold of the images (one view) after
both stages, and its paired difference from the average's with a 95 % interval over patients.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import POOLS, Run
from pipeline.core.config.target_path import parse_target
from pipeline.core.folds.split import patient_keys
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics import auc_difference, mean_auc
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.job import Job, folds_of
from pipeline.finetune import finetune
from pipeline.pretrain import pretrain


def scored(job: Job, weights: str) -> np.ndarray:
    """(N, K) scores of the images that the fold validates, one view each."""
    run = job.run
    images = prepared_images(job.competition.name, run.size, job.validation()["image_id"])
    channels = job.competition.task.resize.channels
    return score_views(
        load_weights(job.folder / weights, run, job.labels),
        lambda index: read_prepared_image(images[index], channels),
        len(images),
        view_matrices(1, run.size, run.augment),
        torch.float32,
        0,
    )[:, 0]


def out_of_fold(jobs: list[Job]) -> dict[str, np.ndarray]:
    """Both stages of all folds from nothing; weights file -> scores (N, K), fold after fold."""
    scores: dict[str, list[np.ndarray]] = {PRETRAINED: [], FINETUNED: []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELS"] = folder
        for job in jobs:
            pretrain(job)
            finetune(job)
            for weights, parts in scores.items():
                parts.append(scored(job, weights))
    return {weights: np.concatenate(parts) for weights, parts in scores.items()}


def shortened_run(run: Run, size: int | None, epochs: list[int] | None) -> Run:
    """The run at another size, or with fewer epochs of each stage; one triangle of rates."""
    if size:
        run = replace(run, size=size)
    if not epochs:
        return run
    first = replace(run.pretrain, epochs=epochs[0])
    if first.cycle_epochs:
        first = replace(first, cycle_epochs=epochs[0])
    second = replace(run.finetune, epochs=epochs[1], milestones=(max(1, epochs[1] - 1),))
    return replace(run, pretrain=first, finetune=replace(second, milestone_unit="epoch"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="competition/run")
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int, nargs=2, metavar=("STAGE_1", "STAGE_2"))
    args = parser.parse_args()
    target = parse_target(args.target)
    competition = load_competition(target.competition)
    run = shortened_run(competition.run(target.run), args.size, args.epochs)
    folds = folds_of([args.target])[target.competition]

    known = []
    patients = []
    average: dict[str, np.ndarray] = {}
    for pool in POOLS:
        jobs = [Job(competition, replace(run, pool=pool), fold) for fold in folds]
        scores = out_of_fold(jobs)
        if not average:
            rows = [job.validation() for job in jobs]
            known = np.concatenate([truth(part, jobs[0].labels, competition.task) for part in rows])
            patients = np.concatenate([patient_keys(part).to_numpy() for part in rows])
            average = scores
        for weights, own in scores.items():
            line = f"{pool:4} {Path(weights).stem:10} mean AUC {mean_auc(own, known):.4f}"
            if pool != "avg":
                found = auc_difference(own, average[weights], known, patients)
                line += " − avg {:+.4f} [{:+.4f}, {:+.4f}], p {:.2f}".format(*found)
            print(line, flush=True)


if __name__ == "__main__":
    main()
