"""AUC-M's first steps on Cat&Dog beside LibAUC's own loss and PESG, on the same batches.

    pip install libauc            (in an environment of your own)
    python -m tests.bench.libauc_steps --steps 40

reads   $DATA/cats_dogs/raw
prints  for each step the largest difference of ∂F/∂w, and alpha of both

Both begin with the same ResNet20, see the same batches (1 % positive, 128 images, p of the batch)
and scores under batch score normalisation, and step without momentum at rate 0.1. LibAUC's
reference of the proximal term, which it draws at random, is set to ours.
"""

import argparse
import sys

import torch

from pipeline.core.losses import AUCMargin
from pipeline.core.losses.normalize import normalize
from pipeline.core.pesg import PESG
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.inputs import Images, batches
from pipeline.paper.benchmark.networks import resnet20
from pipeline.paper.benchmark.run import training_rows
from pipeline.paper.table1 import base_trial

CPU = torch.device("cpu")


def main(steps: int) -> None:
    try:
        from libauc.losses import AUCMLoss
        from libauc.optimizers import PESG as AUTHORS
    except ImportError:
        sys.exit("this needs the authors' library: pip install --no-deps libauc==2.0.1")

    # Batches of the paper's settings.
    trial = base_trial("cats_dogs", "resnet20", 0.01, "aucm", 100)
    benchmark = datasets.read(trial.dataset)
    rows, targets, _ = training_rows(trial, benchmark)
    train = Images.of(benchmark.train_images[rows], targets, CPU)
    generator = torch.Generator().manual_seed(trial.seed)

    # Two networks with the same first weights.
    torch.manual_seed(trial.seed)
    ours = resnet20()
    theirs = resnet20()
    theirs.load_state_dict(ours.state_dict())
    loss = AUCMargin(margin=trial.margin, normalize="l2")
    shared = dict(lr=trial.lr, weight_decay=trial.weight_decay, momentum=0.0)
    optimizer = PESG(ours.parameters(), loss=loss, gamma=trial.gamma, **shared)
    library = AUCMLoss(margin=trial.margin, device="cpu")
    authors = AUTHORS(
        theirs.parameters(), library, epoch_decay=trial.gamma, verbose=False, device="cpu", **shared
    )
    for reference, parameter in zip(authors.model_ref, authors.params, strict=True):
        reference.copy_(parameter.detach())

    print("step positives |h|    |dF/dw|  largest difference  alpha: ours, LibAUC   LibAUC's a, b")
    for step, (pixels, labels) in enumerate(batches(train, train.labels, trial, generator), 1):
        if step > steps:
            break
        scores = ours(pixels)
        optimizer.zero_grad()
        loss(scores, labels).backward()
        authors.zero_grad()
        library(normalize(theirs(pixels)[:, None], len(labels), "l2"), labels[:, None]).backward()
        gradients = [parameter.grad for parameter in ours.parameters()]
        pairs = zip(gradients, theirs.parameters(), strict=True)
        apart = max((gradient - other.grad).abs().max().item() for gradient, other in pairs)
        size = torch.nn.utils.get_total_norm(gradients).item()
        optimizer.step()
        authors.step()
        print(
            f"{step:4} {int(labels.sum()):9} {scores.norm().item():6.2f} {size:9.5f} {apart:15.1e} "
            f"{loss.alpha.item():14.5f} {library.alpha.item():9.5f}"
            f"{library.a.item():12.5f} {library.b.item():9.5f}"
        )


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--steps", type=int, default=40, help="40")
    main(options.parse_args().steps)
