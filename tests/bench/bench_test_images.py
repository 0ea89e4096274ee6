"""What a network of all rows, and labels of the test images by the folds' networks, give on test
images whose truth is known: a third of the patients play the test set.

    python -m tests.bench.bench_test_images FOLDER --seeds 0 1

reads   FOLDER/data/melanoma/raw     in the form of SIIM-ISIC 2020 (a link will do)
writes  FOLDER/data, FOLDER/models   as the stages do; what is there is not made again
prints  a row for each: AUC on the held-out patients of the seeds' mean score, of each seed, and the
        difference to the mean of the folds' networks [95 %, over patients], minutes of processor

The plain recipe of `bench_recipes` for skin, stage 1 only, with three negatives a positive for 6
epochs, two folds. `folds` is the mean of their two networks, `whole` one network of all rows
(`Run.whole`), which takes twice the steps of each of them, `pseudo` the two networks again, trained
on the labels too that the first two gave the test images (`pipeline.pseudo`), half as heavy.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import folds as folds_stage
from pipeline import prepare as prepare_stage
from pipeline import pseudo
from pipeline.competitions import melanoma
from pipeline.core.artifacts.paths import PRETRAINED, STAGE_1_PREDICTIONS, data_folder, raw_folder
from pipeline.core.artifacts.tables import write_csv
from pipeline.core.config import Run
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import ALL
from pipeline.core.config.stages import STAGE_1
from pipeline.core.ensemble.members import read_member, read_rows
from pipeline.core.ensemble.scores import difference_row, difference_text
from pipeline.core.metrics import auc
from pipeline.core.runs.job import Job
from pipeline.predict import predict_pretrained, scores_of_views
from tests.bench.bench_recipes import SKIN, make

FOLDS = 2
WEIGHT = 0.5  # of a pseudo-label's row, the stage's default
READ = melanoma.read_raw
PLAIN = replace(
    SKIN,
    whole="recipe",
    stage="pretrained",
    pretrain=replace(SKIN.pretrain, negatives=3.0, epochs=6, cycle_epochs=6),
)


def held_out(raw: Path) -> pd.DataFrame:
    """The labelled rows, a third of the patients as test rows without labels."""
    table = READ(raw)
    table = table[table["split"] == "train"].copy()
    patients = np.sort(table["patient_id"].unique())
    chosen = np.random.default_rng(0).permutation(patients)[: len(patients) // 3]
    hidden = table["patient_id"].isin(chosen)
    table.loc[hidden, "split"] = "test"
    table.loc[hidden, "target"] = np.nan
    return table.reset_index(drop=True)


def runs_of(seeds: list[int]) -> dict[str, list[Run]]:
    """The runs of each kind, one a seed."""
    plain = [replace(PLAIN, seed=seed, named=f"plain{seed}") for seed in seeds]
    taught = [
        replace(
            run,
            named=f"pseudo{seed}",
            whole="",
            pretrain=replace(run.pretrain, labels_file=pseudo_file(seed)),
        )
        for seed, run in zip(seeds, plain)
    ]
    return {"plain": plain, "pseudo": taught}


def pseudo_file(seed: int) -> str:
    """The labels that a seed's networks give."""
    return f"pseudo{seed}.csv"


def test_scores(competition: Competition, run: Run, fold: int | str) -> tuple[np.ndarray, float]:
    """((t,) scores of the test images by one network, the processor seconds of its training)."""
    job = Job(competition, run, fold)
    seconds = make(job, PRETRAINED, job)
    return scores_of_views(job, PRETRAINED, job.test())[:, 0, 0], seconds


def write_labels(competition: Competition, run: Run) -> None:
    """The pseudo-labels of a run's networks of all folds, unless they exist."""
    path = data_folder(competition.name) / pseudo_file(run.seed)
    if path.is_file():
        return
    for fold in range(FOLDS):
        job = Job(competition, run, fold)
        if not (job.folder / STAGE_1_PREDICTIONS).is_file():
            predict_pretrained(job)
    rows = read_rows(competition)
    labels = competition.task.labels
    file = STAGE_1_PREDICTIONS
    member = read_member(competition.name, run.name, STAGE_1, file, rows, labels, "")
    write_csv(path, pseudo.pseudo_labels(competition, rows, [member], WEIGHT))


def table(competition: Competition, seeds: list[int]) -> Iterator[str]:
    """The printed rows."""
    rows = Job(competition, runs_of(seeds)["plain"][0], 0).test()
    known = READ(raw_folder("melanoma")).set_index("image_id")["target"]
    labels = known.loc[rows["image_id"]].to_numpy(float)
    patients = rows["patient_id"].to_numpy()
    base = np.empty(0)
    for name, kind, folds in (
        ("folds", "plain", list(range(FOLDS))),
        ("whole", "plain", [ALL]),
        ("pseudo", "pseudo", list(range(FOLDS))),
    ):
        runs = runs_of(seeds)[kind]
        if name == "pseudo":
            for run in runs_of(seeds)["plain"]:
                write_labels(competition, run)
        results = [[test_scores(competition, run, fold) for fold in folds] for run in runs]
        each = [np.mean([scores for scores, _ in own], axis=0) for own in results]
        seconds = sum(seconds for own in results for _, seconds in own)
        mean = np.mean(each, axis=0)
        gain = ""
        if name == "folds":
            base = mean
        else:
            pair = (mean[:, None], base[:, None], labels[:, None])
            gain = difference_text(difference_row(name, "folds", *pair, patients))
        own = " ".join(f"{auc(one, labels):.4f}" for one in each)
        yield f"| {name} | {auc(mean, labels):.4f} | {own} | {gain} | {seconds / 60:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    arguments = parser.parse_args()
    for name in ("DATA", "MODELS"):
        os.environ[name] = str(arguments.folder / name.lower())
    melanoma.read_raw = held_out
    melanoma.trials = tuple(run for runs in runs_of(arguments.seeds).values() for run in runs)
    competition = load_competition("melanoma")
    folder = data_folder("melanoma")
    if not (folder / "images.csv").exists():
        prepare_stage.main(prepare_stage.parser().parse_args(["melanoma/plain0"]))
    if not (folder / "folds.csv").exists():
        folds_stage.main(folds_stage.parser().parse_args(["melanoma", "--folds", str(FOLDS)]))
    print("| test images scored by | AUC | each seed | over folds | minutes |")
    print("|---|---|---|---|---|")
    for line in table(competition, arguments.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
