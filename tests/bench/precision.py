"""Does the faster precision keep the ranking? Trained weights scored in float32 and in the
machine's own precision.

    python -m tests.bench.precision chexpert/resnet10t_96 [more targets]

Reads what `predict` reads; one view an image. Prints, per label over all folds of a run, the
out-of-fold AUC of both, their difference, and Spearman's rank correlation of the scores.
"""

import argparse

import numpy as np
import torch
from scipy.stats import spearmanr

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import FINETUNED
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image, view_matrices
from pipeline.core.metrics.roc import auc_or_nan
from pipeline.core.networks.image import load_weights
from pipeline.core.networks.scoring import score_views
from pipeline.core.runs.job import Job, jobs_of
from pipeline.core.runtime.device import precision


def both(job: Job) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 scores, scores in the machine's precision, and labels of a fold's validation images,
    (N, K) each."""
    rows = job.validation()
    run = job.run
    images = prepared_images(job.competition.name, run.size, rows["image_id"])
    channels = job.competition.task.resize.channels
    network = load_weights(job.folder / FINETUNED, run, job.labels)
    scores = [
        score_views(
            network,
            lambda index: read_prepared_image(images[index], channels),
            len(images),
            view_matrices(1, run.size, run.augment),
            dtype,
            0,
        )[:, 0]
        for dtype in (torch.float32, precision("auto"))
    ]
    return *scores, truth(rows, job.labels, job.competition.task)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+")
    for target in parser.parse_args().targets:
        wanted = jobs_of([target])
        folds = [both(job) for job in wanted]
        faster = str(precision("auto"))[6:]
        print(f"{target}, {faster} beside float32, pooled over {len(folds)} folds")
        for place, label in enumerate(wanted[0].labels):
            exact, fast, known = (
                np.concatenate([fold[part][:, place] for fold in folds]) for part in range(3)
            )
            exact_auc = auc_or_nan(exact, known)
            fast_auc = auc_or_nan(fast, known)
            print(
                f"  {label:20} {exact_auc:.5f} {fast_auc:.5f} {fast_auc - exact_auc:+.5f}  rank "
                f"correlation {spearmanr(exact, fast).statistic:.6f}, n {len(known)}"
            )


if __name__ == "__main__":
    main()
