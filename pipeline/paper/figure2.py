"""Figure 2: histograms of the scores of positives and negatives, one panel a run.

    python -m pipeline.paper.figure2 melanoma/b5_384_ce melanoma/b5_384      any runs of the
                                                                             pipeline, out-of-fold
    python -m pipeline.paper.figure2 --dataset cats_dogs --epochs 100        trains CE and AUC-M on
                                                                             a benchmark

reads   data/<comp>/images.csv and models/<comp>/<run>/fold<k>/predictions.csv, or
        $DATA/<dataset>/raw
writes  pipeline/paper/figures/figure2.png

The paper shows training images; of a pipeline's run the out-of-fold images are shown, and of a
benchmark both.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.tables import read_images
from pipeline.core.config.competition import load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.metrics import auc
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.paper import plots
from pipeline.paper.benchmark import datasets
from pipeline.paper.benchmark.datasets import READERS
from pipeline.paper.benchmark.inputs import Images
from pipeline.paper.benchmark.networks import NETWORKS
from pipeline.paper.benchmark.run import run
from pipeline.paper.benchmark.store import torch_device
from pipeline.paper.benchmark.training import score
from pipeline.paper.benchmark.trial import AUGMENTS, Trial
from pipeline.paper.published import DATASET_NAMES, LOSS_NAMES
from pipeline.paper.table1 import base_trial

Panel = tuple[str, np.ndarray, np.ndarray]  # title, scores, labels


def run_panel(text: str) -> Panel:
    """A pipeline run's out-of-fold scores of its competition's first label; rows whose label is
    uncertain or blank are left out."""
    target = parse_target(text)
    label = load_competition(target.competition).task.labels[0]
    paths = sorted(models_folder(target.competition).glob(f"{target.run}/fold*/predictions.csv"))
    if not target.run or not paths:
        hint = "name a run such as melanoma/b5_384 that has been predicted"
        raise UserError(f"{text}: no predictions.csv there; {hint}")

    # Every fold's validation rows; by image, should folds ever share one.
    table = pd.concat([read_predictions(path)[0] for path in paths])
    table = table[table["split"] != "test"].groupby("image_id")[label].mean()

    # A histogram has two classes: what is uncertain or blank is in neither.
    truth = read_images(target.competition).set_index("image_id")[label].astype(float)[table.index]
    known = truth.isin((0, 1)).to_numpy()
    return f"{text}, out of fold", table.to_numpy()[known], truth.to_numpy()[known]


def benchmark_panels(trial: Trial, device: torch.device) -> list[Panel]:
    """Training and test scores of one trial."""
    # Trained anew, since the store keeps AUCs and no networks.
    keep: dict = {}
    run(trial, device, keep)
    train = keep["train"]

    # The test images, normalised by the training images' mean and deviation.
    benchmark = datasets.read(trial.dataset)
    test = Images.of(benchmark.test_images, benchmark.test_labels, device, like=train)
    title = f"{LOSS_NAMES[trial.loss]}, {DATASET_NAMES[trial.dataset]} {trial.imratio:.0%}"
    panels = []
    for part, images in (("training", train), ("test", test)):
        scores = score(keep["network"], images, trial.precision).numpy()
        panels.append((f"{title}, {part}", scores, images.labels.cpu().numpy()))
    return panels


def draw_histograms(axis: plots.Axes, panel: Panel) -> None:
    """Both classes' histograms, each of area 1, between the 0.1 and 99.9 % points of all scores."""
    title, scores, labels = panel
    # Without the outermost thousandths, or one stray score would squeeze all others into a bar.
    edges = np.linspace(*np.quantile(scores, [0.001, 0.999]), 41)
    for value, colour, name in ((0, plots.NEGATIVE, "negative"), (1, plots.POSITIVE, "positive")):
        of_class = scores[labels == value]
        axis.hist(of_class, edges, density=True, color=colour, alpha=0.55, label=name)
    plots.label(axis, f"{title}\nAUC {auc(scores, labels):.3f}", "score", "density")
    axis.legend(frameon=False, fontsize=8)


def main(options: argparse.Namespace) -> None:
    # The runs that are named; without any, the paper's two losses on a benchmark.
    panels = [run_panel(text) for text in options.runs]
    if not panels:
        setting = (options.dataset, options.network, options.imratio)
        for loss in ("ce", "aucm"):
            trial = base_trial(*setting, loss, options.epochs)
            trial = replace(trial, augment=options.augment)
            panels += benchmark_panels(trial, torch_device(options.device))

    # Two panels a row.
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure, axes = plots.axes_grid(rows, columns)
    if not options.runs:
        figure.suptitle(plots.scale_of(options), fontsize=10)
    for axis, panel in zip(axes.flat, panels):
        draw_histograms(axis, panel)

    # An odd number leaves one place empty.
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    print("wrote", plots.save(figure, "figure2"))


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument(
        "runs", nargs="*", metavar="RUN", help="competition/run, e.g. melanoma/b5_384"
    )
    options.add_argument(
        "--dataset", choices=READERS, default="cats_dogs", help="used where no run is named"
    )
    options.add_argument("--network", choices=NETWORKS, default="resnet20")
    options.add_argument("--imratio", type=float, default=0.01)
    options.add_argument("--epochs", type=int, default=100)
    options.add_argument("--augment", choices=AUGMENTS, default="none")
    options.add_argument("--device", default="auto")
    return options


if __name__ == "__main__":
    run_stage(main, parser())
