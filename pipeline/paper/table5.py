"""Table 5: DDSM+ and PatchCamelyon, the test AUC of each loss, from the pipeline's own runs.

    for C in ddsm patchcamelyon; do
        make prepare folds pretrain finetune predict COMP=$C FOLDS=0
    done
    python -m pipeline.paper.table5

reads   data/<comp>/images.csv and models/<comp>/<run>/fold<k>/predictions.csv
writes  nothing; prints the table

A run's score is the mean over the folds there are. Of a run without predictions the command that
makes them is printed.
"""

import argparse

import pandas as pd

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.tables import read_images
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.metrics import auc, auc_interval
from pipeline.core.runs.predictions import read_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.paper.benchmark.trial import LOSSES
from pipeline.paper.published import LOSS_NAMES, TABLE_5


def mean_test_scores(competition: Competition, run: str) -> tuple[pd.Series, int]:
    """(mean score of each test image by image_id, number of folds); an empty series where nothing
    is predicted."""
    label = competition.task.labels[0]
    paths = sorted(models_folder(competition.name).glob(f"{run}/fold*/predictions.csv"))
    tables = [read_predictions(path)[0] for path in paths]
    if not tables:
        return pd.Series(dtype=float), 0

    # By id, then the mean over folds: nothing depends on the order of rows in a file.
    parts = [table[table["split"] == "test"].set_index("image_id")[label] for table in tables]
    return pd.concat(parts).groupby(level=0).mean(), len(parts)


def row(competition: Competition, run: str, truth: pd.Series) -> str:
    """A run's test AUC as text, `0.8896 [0.8850, 0.8940] (1 fold)`, or what is missing."""
    scores, folds = mean_test_scores(competition, run)
    if not folds:
        target = f"COMP={competition.name} RUN={run} FOLDS=0"
        return f"not run: make prepare folds pretrain finetune predict {target}"

    # A part of the test set has another AUC than the whole.
    if scores.isna().any() or not truth.index.isin(scores.index).all():
        folder = models_folder(competition.name) / run
        raise UserError(f"{folder}: the predictions leave out test images of images.csv")
    scores = scores[truth.index].to_numpy()
    labels = truth.to_numpy()

    # Over images: DDSM+ names no patients, and PatchCamelyon its slides in an optional file only.
    area = with_interval(auc(scores, labels), *auc_interval(scores, labels))
    return f"{area} ({folds} fold{'s' * (folds > 1)})"


def truth_of(competition: Competition) -> pd.Series:
    """The test images' labels by image_id."""
    table = read_images(competition.name)
    test = table[table["split"] == "test"].set_index("image_id")
    return test[competition.task.labels[0]].astype(float)


def main(options: argparse.Namespace) -> None:
    for name in options.competitions:
        competition = load_competition(name)
        truth = truth_of(competition)
        print(f"{competition.task.title}: {len(truth):,} test images, {truth.mean():.1%} positive")
        for run in competition.runs:
            loss = run.finetune.loss
            paper = TABLE_5[name][LOSSES.index(loss)]
            ours = row(competition, run.name, truth)
            print(f"  {LOSS_NAMES[loss]:6} paper {paper:.4f}  ours {ours}")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__, targets=False)
    options.add_argument("--competitions", nargs="+", choices=TABLE_5, default=list(TABLE_5))
    return options


if __name__ == "__main__":
    run_stage(main, parser())
