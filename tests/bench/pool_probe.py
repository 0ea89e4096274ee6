"""What does the pooling give by itself? One linear classifier for each on the same frozen features.

    python -m tests.bench.pool_probe chexpert/lite0_160 [--size 320] [--epochs 15] [--seeds 2]

Reads images.csv, folds.csv, images/<size>/ and the run's ImageNet weights. The features of the last
map are computed once; for every pooling, seed and fold a classifier is trained on them with
cross-entropy and AdamW. Prints the mean AUC out of fold of the images, the seeds' scores averaged,
and its paired difference from the average's with a 95 % interval over patients.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import POOLS
from pipeline.core.config.target_path import parse_target
from pipeline.core.folds.split import patient_keys
from pipeline.core.images.views import read_prepared_image
from pipeline.core.losses import CrossEntropy
from pipeline.core.metrics import auc_difference, mean_auc
from pipeline.core.networks.image import build
from pipeline.core.networks.pooling import place_features, pooled_scores
from pipeline.core.runs.job import Job, folds_of

BATCH = 64
RATE = 1e-3


@torch.no_grad()
def features_of(job: Job, ids: list[str]) -> torch.Tensor:
    """float32 (N, F, P): the run's first features at every place of its last map."""
    run = job.run
    network = build(run, len(job.labels)).eval()
    channels = job.competition.task.resize.channels
    parts = []
    for image in prepared_images(job.competition.name, run.size, ids):
        pixels = torch.from_numpy(read_prepared_image(image, channels)[None])
        features = network.backbone.forward_features(network.normalised(pixels))
        parts.append(place_features(network.backbone, features))
    return torch.cat(parts)


def scores_of(pool: str, classifier: nn.Linear, places: torch.Tensor) -> torch.Tensor:
    """(B, K), also of the average, which the pipeline leaves to the backbone."""
    if pool == "avg":
        return classifier(places.mean(2))
    return pooled_scores(pool, classifier, places)


def probe(
    pool: str, places: torch.Tensor, labels: torch.Tensor, fold: np.ndarray, epochs: int, seed: int
) -> np.ndarray:
    """(N, K) scores of the rows of every fold by a classifier that was trained on the others."""
    scores = np.empty(tuple(labels.shape), np.float32)
    loss = CrossEntropy()
    for number in np.unique(fold):
        torch.manual_seed(seed)
        classifier = nn.Linear(places.shape[1], labels.shape[1])
        optimizer = torch.optim.AdamW(classifier.parameters(), RATE, weight_decay=0.01)
        training = np.flatnonzero(fold != number)
        generator = np.random.default_rng(seed)
        for _ in range(epochs):
            for batch in np.array_split(generator.permutation(training), len(training) // BATCH):
                value = loss(scores_of(pool, classifier, places[batch]), labels[batch])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
        own = np.flatnonzero(fold == number)
        with torch.no_grad():
            scores[own] = scores_of(pool, classifier, places[own]).numpy()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="competition/run")
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    target = parse_target(args.target)
    competition = load_competition(target.competition)
    run = competition.run(target.run)
    run = replace(run, size=args.size or run.size)

    # Every image that some fold validates, once.
    jobs = [Job(competition, run, fold) for fold in folds_of([args.target])[target.competition]]
    rows = [job.validation() for job in jobs]
    fold = np.repeat([job.fold for job in jobs], list(map(len, rows)))
    ids = [image for part in rows for image in part["image_id"]]
    known = np.concatenate([truth(part, jobs[0].labels, competition.task) for part in rows])
    patients = np.concatenate([patient_keys(part).to_numpy() for part in rows])
    places = features_of(jobs[0], ids)
    print(f"{len(ids)} images, {places.shape[1]} features at {places.shape[2]} places", flush=True)

    labels = torch.from_numpy(known.astype(np.float32))
    average = np.empty(0)
    for pool in POOLS:
        each = [probe(pool, places, labels, fold, args.epochs, seed) for seed in range(args.seeds)]
        own = np.mean(each, axis=0)
        line = f"{pool:4} mean AUC {mean_auc(own, known):.4f}"
        if pool == "avg":
            average = own
        else:
            found = auc_difference(own, average, known, patients)
            line += " − avg {:+.4f} [{:+.4f}, {:+.4f}], p {:.2f}".format(*found)
        print(line, flush=True)


if __name__ == "__main__":
    main()
