"""Pseudo-labels: what the networks of all folds say of the test images, as labels from which
stage 1 of another run may learn.

    python -m pipeline.pseudo melanoma                            by all runs of the file
    python -m pipeline.pseudo melanoma/b5_384 melanoma/b6_512 --weight 0.5

reads   data/<comp>/images.csv  folds.csv
        models/<comp>/<run>/fold<k>/predictions.csv
writes  data/<comp>/pseudo.csv   image_id fold weight <labels>: for every fold a row a test image
        data/<comp>/pseudo.json  what made it

A run learns from them by `Pretrain(labels_file="pseudo.csv")`; a new pseudo.csv makes its weights
out of date. A row of fold k is the mean of fold k's networks alone, as a probability by Platt's map
fitted on the rows that the other folds validate. So nothing that the network of fold k learns was
decided by a label that it validates, and out-of-fold scores stay what they say. What they no longer
tell is printed.
"""

import argparse

import numpy as np
import pandas as pd

from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import PREDICTIONS, data_folder
from pipeline.core.artifacts.provenance import write_sidecar
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.stages import STAGE_2
from pipeline.core.config.target_path import parse_target
from pipeline.core.ensemble.averages import weighted_mean
from pipeline.core.ensemble.members import Member, Rows, read_member, read_rows
from pipeline.core.metrics.calibration import calibrated
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError

FILE = "pseudo.csv"
WARNING = (
    "WARNING: a run that learns from it has seen the test images. Its out-of-fold scores stay "
    "comparable; its test scores repeat the errors of the networks that labelled them, scores of "
    "images from elsewhere do not profit, and some organisers forbid it."
)


def main(arguments: argparse.Namespace) -> None:
    targets = [parse_target(text) for text in arguments.targets]
    if any(target.fold is not None for target in targets):
        raise UserError("pseudo-labels are of whole runs: leave /fold<k> away")
    if not 0 < arguments.weight <= 1:
        raise UserError(
            f"--weight {arguments.weight}: a pseudo-label weighs more than 0, at most 1"
        )
    for name in dict.fromkeys(target.competition for target in targets):
        runs = [target.run for target in targets if target.competition == name]
        write_pseudo_labels(load_competition(name), runs, arguments.weight)


def write_pseudo_labels(competition: Competition, names: list[str], weight: float) -> None:
    """Write a competition's pseudo.csv from the predictions of these runs (with "" of all)."""
    rows = read_rows(competition)
    if not len(rows.test):
        raise UserError(f"{competition.name}: images.csv has no test rows to label")
    every = [run.name for run in competition.runs]
    chosen = every if "" in names else list(dict.fromkeys(names))
    members = [member_of(competition, name, rows) for name in chosen]

    path = data_folder(competition.name) / FILE
    table = pseudo_labels(competition, rows, members, weight)
    write_csv(path, table)
    predictions = {member.name: member.digest for member in members}
    write_sidecar(path, competition.name, hashes=rows.hashes, predictions=predictions)
    print(f"{path}: {len(rows.test)} test images by {', '.join(chosen)}, {len(rows.folds)} folds")
    print(WARNING)


def member_of(competition: Competition, name: str, rows: Rows) -> Member:
    """A run's scores after stage 2, of every fold."""
    stage = STAGE_2[competition.run(name).finetune.loss]
    made_by = f"make predict COMP={competition.name} RUN={name}"
    labels = competition.task.labels
    return read_member(competition.name, name, stage, PREDICTIONS, rows, labels, made_by)


def pseudo_labels(
    competition: Competition, rows: Rows, members: list[Member], weight: float
) -> pd.DataFrame:
    """pseudo.csv: for every fold a row a test image; a label that no run predicts is blank."""
    labels = competition.task.labels
    known = truth(rows.validated, labels, competition.task)
    fold_of_row = rows.validated["fold"].to_numpy()
    out_of_fold = weighted_mean([member.out_of_fold for member in members])
    parts = []
    for position, fold in enumerate(rows.folds):
        test = weighted_mean([member.test[position] for member in members])
        part = pd.DataFrame({"image_id": rows.test["image_id"], "fold": fold, "weight": weight})
        for column, label in enumerate(labels):
            # Test rows count as rows of this fold: their map is fitted on the other folds.
            part[label] = probabilities(
                test[:, column], fold, out_of_fold[:, column], known[:, column], fold_of_row
            )
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def probabilities(
    test: np.ndarray, fold: int, scores: np.ndarray, known: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """(t,) scores of fold `fold`'s networks as probabilities, by out-of-fold scores, labels and
    folds (n,) each of the other folds; as they are where there is no other fold."""
    if np.isnan(test).any():
        return test
    mapped = calibrated(
        np.concatenate([scores, test]),
        np.concatenate([known, np.full(len(test), np.nan)]),
        np.concatenate([folds, np.full(len(test), fold)]),
    )[len(scores) :]
    return np.where(np.isnan(mapped), test, mapped)


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    parser.add_argument("--weight", type=float, default=0.5, help="of a pseudo-label's row, 0.5")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
