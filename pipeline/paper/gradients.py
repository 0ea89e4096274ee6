"""How large a first step is: the gradients of cross-entropy and of AUC-M's forms at equal weights.

    python -m pipeline.paper.gradients --batches 8

reads   $DATA/<dataset>/raw
prints  a Markdown table, in the mean over batches: ‖∂F/∂h‖ of the scores before normalisation,
        ‖∂F/∂w‖, and η‖∂F/∂w‖/‖w‖ at the paper's rate; and how often a batch has no positive

Every row sees the same fresh network and the same batches (those with 13 positives are others). a
and b are the batch's class means, α is as named: Algorithm 1 starts at 0 and approaches m.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.core.losses import AUCMargin, CrossEntropy
from pipeline.core.losses.minmax import class_means, make_batch
from pipeline.core.losses.normalize import normalize
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.inputs import Images, batches
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.run import training_rows
from pipeline.paper.benchmark.trial import Trial
from pipeline.paper.table1 import base_trial

NORMALIZERS_SHOWN = ("l2", "l2*sqrt_b", "sigmoid", "none")
POSITIVES_A_BATCH = (0, 13)  # in a batch; 0: as they come


def losses(margin: float, prior: float) -> dict[str, nn.Module]:
    """Cross-entropy; AUC-M under each normaliser with α at its start and at m, p of the batch; and
    the paper's with the true p."""
    named: dict[str, nn.Module] = {"CE": CrossEntropy()}
    for how in NORMALIZERS_SHOWN:
        for alpha in (0.0, margin):
            loss = AUCMargin(margin=margin, normalize=how)
            loss.alpha.data.fill_(alpha)
            named[f"AUC-M, {how}, α = {alpha:g}"] = loss
    true = AUCMargin(margin=margin, normalize="l2", prior=prior)
    true.alpha.data.fill_(margin)
    named[f"AUC-M, l2, α = {margin:g}, p = {prior:g}"] = true
    return named


def at_class_means(loss: nn.Module, scores: Tensor, labels: Tensor) -> None:
    """Give an AUC loss the a and b that minimise it on this batch."""
    if isinstance(loss, AUCMargin):
        h = normalize(scores.detach()[:, None], len(labels), loss.normalize)
        a, b = class_means(h, make_batch(labels[:, None]))
        loss.a.data.copy_(a)
        loss.b.data.copy_(b)


def norms(network: nn.Module, loss: nn.Module, scores: Tensor, labels: Tensor) -> Tensor:
    """(‖∂F/∂h‖, ‖∂F/∂w‖) of one batch."""
    at_class_means(loss, scores, labels)
    weights = list(network.parameters())
    of_scores, *of_weights = torch.autograd.grad(
        loss(scores, labels), [scores, *weights], retain_graph=True
    )
    return torch.stack([of_scores.norm(), torch.nn.utils.get_total_norm(of_weights)])


def measure(trial: Trial, count: int) -> tuple[dict[str, Tensor], float, float]:
    """(mean norms by loss, ‖w‖, share of an epoch's batches without a positive)."""
    benchmark = datasets.read(trial.dataset)
    rows, targets, _ = training_rows(trial, benchmark)
    train = Images.of(benchmark.train_images[rows], targets, torch.device("cpu"))
    torch.manual_seed(trial.seed)
    network = NETWORKS[trial.network]()
    named = losses(trial.margin, trial.imratio)
    found: dict[str, list[Tensor]] = {name: [] for name in named}
    positives = []
    generator = torch.Generator().manual_seed(trial.seed)
    for number, (pixels, labels) in enumerate(batches(train, train.labels, trial, generator)):
        positives.append(int(labels.sum()))
        if number < count:
            scores = network(pixels)
            for name, loss in named.items():
                found[name].append(norms(network, loss, scores, labels))
    size = float(torch.nn.utils.get_total_norm(list(network.parameters())))
    means = {name: torch.stack(each).mean(0) for name, each in found.items()}
    return means, size, positives.count(0) / len(positives)


def main(options: argparse.Namespace) -> None:
    base = base_trial(options.dataset, options.network, options.imratio, "aucm", 1)
    print("| positives a batch | loss | ‖∂F/∂h‖ | ‖∂F/∂w‖ | step | of cross-entropy's |")
    print("|---|---|---|---|---|---|")
    for per_batch in POSITIVES_A_BATCH:
        trial = replace(base, per_batch=per_batch)
        means, size, without = measure(trial, options.batches)
        batch = per_batch or f"as they come ({without:.0%} without)"
        for name, (of_scores, of_weights) in means.items():
            ratio = of_weights / means["CE"][1]
            step = trial.lr * of_weights / size
            numbers = f"{of_scores:.2g} | {of_weights:.2g} | {step:.1e} | {ratio:.2f}"
            print(f"| {batch} | {name} | {numbers} |")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--dataset", choices=READERS, default="cats_dogs")
    options.add_argument("--network", choices=NETWORKS, default="resnet20")
    options.add_argument("--imratio", type=float, default=0.01)
    options.add_argument("--batches", type=int, default=8, help="batches measured (8)")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
