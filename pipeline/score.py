"""Score files in the organiser's form against the truth, and print which differences between them
are more than noise.

    python -m pipeline.score chexpert --file predictions.csv --truth groundtruth.csv
                        --readers benchmark_radiologists
    python -m pipeline.score chexpert --file a.csv b.csv c.csv --truth groundtruth.csv
                                                                    and their average
    python -m pipeline.score melanoma --file oof1.csv.gz oof2.csv.gz --truth train.csv
                        --where source=ISIC20 --column target=tta_mean
                                                                    other people's out-of-fold files

reads   files, truth and readers: CSV, gzipped or not, with the organiser's id column (Study,
        image_name) and a column for each label; aligned by id, so that neither row nor column order
        matters
writes  nothing; the last line printed is JSON: mean_auc, auc by label, interval of the mean (95 %),
        and, with readers, nrbc (the number of readers below the curve) by label and mean_nrbc

Several files are averaged, uniformly: scores with --method mean, ranks with --method rank, the
ranks within the column `fold` where all files have one. The JSON is then of the average, and the
average is compared with the best single file and with what it is without each file. Intervals
are over patients (null: too few to tell): the column patient_id of the truth, or patientNNNNN in
the ids.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.artifacts.tables import align
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.stages import MEAN_LABEL
from pipeline.core.ensemble.averages import on_scale, weighted_mean
from pipeline.core.ensemble.scores import difference_row, score_lines, score_rows, sentence
from pipeline.core.ensemble.selection import nearly_equal_members, without_duplicates
from pipeline.core.metrics import mean_auc, readers_below_curve
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.truth import (
    Truth,
    numeric_columns,
    read_readers,
    read_truth,
    read_truth_table,
)


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    labels = competition.task.labels

    # The files, aligned to the truth's ids: members is (M, n, K).
    truth = read_truth(competition, arguments.truth)
    where = parse_pairs(arguments.where, "--where")
    columns = columns_of_labels(competition, parse_pairs(arguments.column, "--column"))
    names = short_names(arguments.file)
    tables = [read_scored_file(competition, path, truth, columns, where) for path in arguments.file]
    members = np.stack([scores for scores, _ in tables])

    # Every file by itself; a single one has nothing to be averaged or compared with.
    rows = []
    for name, scores in zip(names, members):
        rows += [{"file": name, **row} for row in file_score_rows(scores, truth, competition)]
    if len(members) == 1:
        print(score_lines(rows))
        print(json.dumps(result_line(members[0], truth, competition, arguments.readers)))
        return

    # Their average. Quantiles need the out-of-fold scores of each fold, so ranks serve instead.
    method = arguments.method or ("mean" if competition.blend.method == "mean" else "rank")
    scaled = scale_members(members, [fold for _, fold in tables], method)
    weights = np.ones((len(members), len(labels)))
    if arguments.drop_duplicates:
        weights = without_duplicates(members)
    average = weighted_mean(scaled, weights, method)
    title = f"{method} of {len(members)}"
    rows += [{"file": title, **row} for row in file_score_rows(average, truth, competition)]

    # The JSON comes last, where a script finds it (`tail -1`).
    print(score_lines(rows))
    print_duplicates(names, members, labels)
    compare_entries(names, scaled, weights, truth, method)
    print(json.dumps(result_line(average, truth, competition, arguments.readers)))


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    options = stage_parser(__doc__, targets=False)
    add = options.add_argument
    add("competition", metavar="COMPETITION", help="melanoma, chexpert, ...")
    scores = "scores, a row per image or study"
    add("--file", type=Path, nargs="+", required=True, help=scores)
    add("--truth", type=Path, required=True, help="the true labels of the same rows")
    add("--readers", type=Path, help="folder with a CSV of 0/1 calls per reader")
    add("--method", choices=("mean", "rank"), help="of several files (default: the blend's)")
    add("--drop-duplicates", action="store_true", help="columns that rank alike count once")
    own = "the files' own names"
    add("--column", nargs="+", default=[], metavar="LABEL=COLUMN", help=own)
    some = "only these rows of the files"
    add("--where", nargs="+", default=[], metavar="COLUMN=VALUE", help=some)
    return options


def parse_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`a=b` as {a: b}."""
    for text in texts:
        if "=" not in text:
            raise UserError(f"{option} {text}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def columns_of_labels(competition: Competition, renamed: dict[str, str]) -> list[str]:
    """The files' column of each label: as --column says, else as in the submission, else the
    label."""
    # A misspelt label would otherwise be ignored, and the file read by its usual columns.
    labels = competition.task.labels
    for label in (*competition.submission.columns, *renamed):
        if label not in labels:
            raise UserError(f"--column {label}=...: {competition.name} has no such label")
    names = {**competition.submission.columns, **renamed}
    return [names.get(label, label) for label in labels]


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names without ending; with their folders where two are alike."""
    names = [path.name.removesuffix(".gz").removesuffix(".csv") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def read_scored_file(
    competition: Competition,
    path: Path,
    truth: Truth,
    columns: list[str],
    where: dict[str, str],
) -> tuple[np.ndarray, np.ndarray | None]:
    """(scores (n, K), fold of each row (n,) or None) aligned to the truth's ids; every id must be
    there exactly once."""
    # The rows that --where asks for: a file of several years, say, of which the truth has one.
    identity = competition.submission.id_column
    table = read_truth_table(path, (*columns, *where), identity)
    for column, value in where.items():
        table = table[table[column].astype(str) == value]
    if table.empty:
        asked = f" with {where}" if where else ""
        raise UserError(f"{path}: no row{asked}")

    # By id, never by position: files of other people are in any order.
    places = align(path, table, truth.ids, "of the truth", identity)
    scores = numeric_columns(path, table, columns, blank=False)[places]
    folds = table["fold"].to_numpy()[places] if "fold" in table else None
    return scores, folds


def scale_members(
    members: np.ndarray, folds: Sequence[np.ndarray | None], method: str
) -> np.ndarray:
    """Scores (M, n, K) as they are averaged: themselves, or their ranks, within folds where every
    file has the column."""
    # Within folds for all or for none: ranks within a fold and over all rows are different scales.
    if any(fold is None for fold in folds):
        folds = [None] * len(members)
    return np.stack([on_scale(scores, method, fold) for scores, fold in zip(members, folds)])


def file_score_rows(scores: np.ndarray, truth: Truth, competition: Competition) -> list[dict]:
    """Score rows of one file, by the competition's metric; scores: (n, K)."""
    task = competition.task
    return score_rows(scores, truth.labels, truth.groups, task.labels, task.metric)


def print_duplicates(names: Sequence[str], members: np.ndarray, labels: Sequence[str]) -> None:
    """Print the pairs of files that rank some labels alike."""
    # Two entries of one team rank some labels alike and not others, so a pair is told with its
    # labels: three of the released CheXpert files share four of five columns.
    labels_of_pair: dict[tuple[int, int], list[str]] = {}
    for label, first, second, rho in nearly_equal_members(members):
        text = labels[label] + (" (inverted)" if rho < 0 else "")
        labels_of_pair.setdefault((first, second), []).append(text)
    for (first, second), alike in labels_of_pair.items():
        shares = f"{len(alike)} of {len(labels)}: {', '.join(alike)}"
        print(f"near-duplicates: {names[first]} and {names[second]} on {shares}")


def compare_entries(
    names: Sequence[str], scaled: np.ndarray, weights: np.ndarray, truth: Truth, method: str
) -> None:
    """Print the average against the best single file, and against what it is without each file.

    scaled: (M, n, K) on the scale on which they are averaged; weights: (M, K).
    """
    # The best is picked on the rows that it is compared on, which flatters it, not the average.
    average = weighted_mean(scaled, weights, method)
    best = int(np.argmax([mean_auc(scores, truth.labels) for scores in scaled]))
    print(
        "the average against the best single file (best on these very rows, which flatters it), "
        "all on one scale:"
    )
    print_difference("average", names[best], average, scaled[best], truth)

    # What each file adds: the average with it and without it, on the same rows.
    for one, name in enumerate(names):
        rest = np.arange(len(names)) != one
        # Where a label's only weights were this file's, the others count alike.
        others = np.where(weights[rest].any(axis=0), weights[rest], 1.0)
        without = weighted_mean(scaled[rest], others, method)
        print_difference(f"with {name}", f"without {name}", average, without, truth)


def print_difference(
    first: str, second: str, first_scores: np.ndarray, second_scores: np.ndarray, truth: Truth
) -> None:
    """Print the paired difference of two columns of scores, (n, K) each, in words."""
    row = difference_row(first, second, first_scores, second_scores, truth.labels, truth.groups)
    print("  " + sentence(row))


def result_line(
    scores: np.ndarray, truth: Truth, competition: Competition, readers: Path | None
) -> dict:
    """What the last line holds, under the organiser's names; readers: their folder, or None."""
    # Other programs read this line: its names do not change.
    labels = competition.task.labels
    rows = {row["label"]: row for row in file_score_rows(scores, truth, competition)}
    mean = rows[MEAN_LABEL]
    facts = {
        "mean_auc": mean["auc"],
        "auc": {label: rows[label]["auc"] for label in labels},
        "interval": [None if np.isnan(end) else end for end in (mean["low"], mean["high"])],
    }
    if competition.task.metric == "partial_auc":
        facts["partial_auc"] = {label: rows[label]["partial_auc"] for label in labels}

    # CheXpert's board ranks by the mean AUC + 0.001 of the mean count of readers (0 to 3).
    if readers:
        points = read_readers(competition, readers, truth)
        counts = {}
        for k, label in enumerate(labels):
            counts[label] = readers_below_curve(scores[:, k], truth.labels[:, k], points[label])
        facts |= {"nrbc": counts, "mean_nrbc": float(np.mean(list(counts.values())))}
    return facts


if __name__ == "__main__":
    run_stage(main, parser())
