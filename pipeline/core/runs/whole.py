"""The network of all training rows (fold ALL, `Run.whole`): how long it trains, and for whom it
stands in an average."""

from collections.abc import Sequence
from statistics import median_low

from pipeline.core.artifacts.paths import fold_folder
from pipeline.core.artifacts.tables import fold_numbers, read_folds
from pipeline.core.artifacts.training_log import read_log
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import ALL
from pipeline.core.runs.job import Job
from pipeline.core.runtime.errors import UserError


def averaged_folds(
    competition: Competition, name: str, folds: Sequence[int]
) -> tuple[int | str, ...]:
    """The folds whose predictions an average has of a member: those given, and ALL behind them
    where the run has `whole` and these are all folds. Of a part of the folds, of metadata and of
    members from elsewhere there is no such network."""
    runs = {run.name: run for run in (*competition.runs, *competition.trials)}
    if name not in runs or not runs[name].whole:
        return tuple(folds)
    every = sorted(folds) == fold_numbers(read_folds(competition.name))
    return (*folds, ALL) if every else tuple(folds)


def epochs_to_train(job: Job, phase: str, epochs: int) -> int:
    """The epochs of a phase ("pretrained" or "finetuned"): the recipe's, or, for the network of all
    rows where `whole` is "best", the median over the folds of the best one by validation AUC."""
    if job.fold != ALL or job.run.whole != "best":
        return epochs
    return median_low(
        best_epoch(job, fold, phase) for fold in fold_numbers(read_folds(job.competition.name))
    )


def best_epoch(job: Job, fold: int, phase: str) -> int:
    """The epoch of a fold's phase with the highest mean validation AUC, the first of several; 1 is
    the first."""
    path = fold_folder(job.competition.name, job.run.name, fold) / "log.jsonl"
    lines = [line for line in read_log(path) if line["phase"] == phase and "epoch" in line]
    if not lines:
        raise UserError(
            f"{path}: no epoch of phase {phase}; whole='best' takes the folds' epochs, so train "
            f"{job.competition.name}/{job.run.name}/fold{fold} first"
        )
    known = [line for line in lines if line["valid_auc"]["mean"] == line["valid_auc"]["mean"]]
    if not known:
        raise UserError(f"{path}: no validation AUC in it; write whole='recipe'")
    return max(known, key=lambda line: line["valid_auc"]["mean"])["epoch"]
