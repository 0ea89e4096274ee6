"""Score files in the organiser's form against the truth, and say which differences between them are
more than noise.

    python -m pipeline.score chexpert --file predictions.csv --truth groundtruth.csv --readers benchmark_radiologists
    python -m pipeline.score chexpert --file a.csv b.csv c.csv --truth groundtruth.csv         and their average
    python -m pipeline.score melanoma --file oof1.csv.gz oof2.csv.gz --truth train.csv --where source=ISIC20 \\
        --column target=tta_mean                                                   out-of-fold files of other people

reads   files, truth and readers: CSV, gzipped or not, with the organiser's id column (Study,
        image_name) and a column for each label; aligned by id, so that neither row nor column order
        matters
writes  nothing; the last line printed is JSON: mean_auc, auc by label, interval of the mean (95 %),
        and, with readers, nrbc (the number of readers below the curve) by label and mean_nrbc

Several files are averaged, uniformly: scores with --method mean, ranks with --method rank, the
ranks within the column `fold` where all files have one. The JSON is then of the average, and the
average is compared with the best single file and with what it is without each file. Intervals
resample patients: the column patient_id of the truth, or patientNNNNN in the ids.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.artifacts.tables import align
from pipeline.core.config.competition import Competition, load
from pipeline.core.ensemble.averages import ranks_within, weighted_mean
from pipeline.core.ensemble.scores import difference_row, printed, score_rows, sentence
from pipeline.core.ensemble.selection import nearly_equal_members, without_duplicates
from pipeline.core.metrics import mean_auc, readers_below_curve
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.truth import Truth, numbers, read_readers, read_table, read_truth


def main(arguments: argparse.Namespace) -> None:
    competition = load(arguments.competition)
    known, where = read_truth(competition, arguments.truth), pairs(arguments.where, "--where")
    renamed = {label: label for label in competition.task.labels} | competition.submission.columns
    renamed = {**renamed, **pairs(arguments.column, "--column")}
    for label in renamed:
        if label not in competition.task.labels:
            raise UserError(f"--column {label}=...: {competition.name} has no such label")
    tables = [read_scores(competition, path, known, renamed, where) for path in arguments.file]
    names, members = short_names(arguments.file), np.stack([scores for scores, _ in tables])
    final, rows = (
        members[0],
        [
            {"file": name, **row}
            for name, scores in zip(names, members)
            for row in rows_of(scores, known, competition)
        ],
    )
    if len(members) > 1:
        method = arguments.method or ("mean" if competition.blend.method == "mean" else "rank")
        ready = on_scale(members, [fold for _, fold in tables], method)
        weights = (
            without_duplicates(members)
            if arguments.drop_duplicates
            else np.ones(members.shape[::2])
        )
        final = weighted_mean(ready, weights, method)
        rows += [
            {"file": f"{method} of {len(members)}", **row}
            for row in rows_of(final, known, competition)
        ]
    print(printed(rows))
    if len(members) > 1:
        tell_duplicates(names, members, competition.task.labels)
        compare(names, ready, weights, known, method)
    print(json.dumps(result(final, known, competition, arguments.readers)))


def parser() -> argparse.ArgumentParser:
    made = stage_parser(__doc__, targets=False)
    made.add_argument("competition", metavar="COMPETITION", help="melanoma, chexpert, ...")
    made.add_argument(
        "--file", type=Path, nargs="+", required=True, help="scores, a row per image or study"
    )
    made.add_argument("--truth", type=Path, required=True, help="the true labels of the same rows")
    made.add_argument("--readers", type=Path, help="folder with a CSV of 0/1 calls per reader")
    made.add_argument(
        "--method", choices=("mean", "rank"), help="of several files (default: the blend's)"
    )
    made.add_argument(
        "--drop-duplicates", action="store_true", help="columns that rank alike count once"
    )
    made.add_argument(
        "--column", nargs="+", default=[], metavar="LABEL=COLUMN", help="the files' own names"
    )
    made.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="only these rows of the files",
    )
    return made


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`a=b` as {a: b}."""
    for text in texts:
        if "=" not in text:
            raise UserError(f"{option} {text}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names without ending; with their folders where two are alike."""
    names = [path.name.removesuffix(".gz").removesuffix(".csv") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def read_scores(
    competition: Competition,
    path: Path,
    known: Truth,
    renamed: dict[str, str],
    where: dict[str, str],
) -> tuple[np.ndarray, np.ndarray | None]:
    """(scores (n, K), fold of each row or None) aligned to the truth's ids; every id must be there
    exactly once."""
    identity, names = (
        competition.submission.id_column,
        [renamed[label] for label in competition.task.labels],
    )
    table = read_table(path, (*names, *where), identity)
    for column, value in where.items():
        table = table[table[column].astype(str) == value]
    if table.empty:
        raise UserError(f"{path}: no row" + (f" with {where}" if where else ""))
    at = align(path, table, known.ids, "of the truth", identity)
    scores = numbers(path, table, names, blank=False)[at]
    return scores, table["fold"].to_numpy()[at] if "fold" in table else None


def on_scale(members: np.ndarray, folds: Sequence[np.ndarray | None], method: str) -> np.ndarray:
    """Scores (M, n, K) as they are averaged: themselves, or their ranks, within folds where every
    file knows them."""
    if method == "mean":
        return members
    split = (
        folds
        if all(fold is not None for fold in folds)
        else [np.zeros(members.shape[1])] * len(members)
    )
    return np.stack([ranks_within(scores, fold) for scores, fold in zip(members, split)])


def rows_of(scores: np.ndarray, known: Truth, competition: Competition) -> list[dict]:
    return score_rows(
        scores, known.labels, known.groups, competition.task.labels, competition.task.metric
    )


def tell_duplicates(names: Sequence[str], members: np.ndarray, labels: Sequence[str]) -> None:
    """Print the pairs of files that rank some labels alike."""
    found: dict[tuple[int, int], list[str]] = {}
    for label, first, second, rho in nearly_equal_members(members):
        found.setdefault((first, second), []).append(
            labels[label] + (" (inverted)" if rho < 0 else "")
        )
    for (first, second), alike in found.items():
        shares = f"{len(alike)} of {len(labels)}: {', '.join(alike)}"
        print(f"near-duplicates: {names[first]} and {names[second]} on {shares}")


def compare(
    names: Sequence[str], ready: np.ndarray, weights: np.ndarray, known: Truth, method: str
) -> None:
    """Print the average against the best single file, and against what it is without each file.

    ready: (M, n, K) on the scale on which they are averaged; weights: (M, K).
    """
    final = weighted_mean(ready, weights, method)
    best = int(np.argmax([mean_auc(scores, known.labels) for scores in ready]))
    print(
        "the average against the best single file (best on these very rows, which flatters it), "
        "all on one scale:"
    )
    print("  " + difference(("average", names[best]), (final, ready[best]), known))
    for one, name in enumerate(names):
        rest = np.arange(len(names)) != one
        without = weighted_mean(
            ready[rest], np.where(weights[rest].any(axis=0), weights[rest], 1.0), method
        )
        print("  " + difference((f"with {name}", f"without {name}"), (final, without), known))


def difference(names: tuple[str, str], scores: tuple[np.ndarray, np.ndarray], known: Truth) -> str:
    return sentence(difference_row(*names, *scores, known.labels, known.groups))


def result(
    scores: np.ndarray, known: Truth, competition: Competition, readers: Path | None
) -> dict:
    """What the last line says, under the organiser's names."""
    rows = {row["label"]: row for row in rows_of(scores, known, competition)}
    labels, mean = competition.task.labels, rows["mean"]
    made = {
        "mean_auc": mean["auc"],
        "auc": {label: rows[label]["auc"] for label in labels},
        "interval": [mean["low"], mean["high"]],
    }
    if competition.task.metric == "partial_auc":
        made["partial_auc"] = {label: rows[label]["partial_auc"] for label in labels}
    if readers:
        points = read_readers(competition, readers, known)
        counts = {
            label: readers_below_curve(scores[:, k], known.labels[:, k], points[label])
            for k, label in enumerate(labels)
        }
        made |= {"nrbc": counts, "mean_nrbc": float(np.mean(list(counts.values())))}
    return made


if __name__ == "__main__":
    run_stage(main, parser())
