"""A member from elsewhere: another team's or another program's out-of-fold scores, taken into the
ensemble.

    python -m pipeline.member melanoma/their_b7 --out-of-fold oof.csv.gz --test test.csv
    python -m pipeline.member melanoma/their_b7 --out-of-fold oof.csv --scores target=tta_mean
    --ignore-unknown python -m pipeline.member melanoma/their_b7 --out-of-fold oof.csv --fold-map
    their_folds.csv python -m pipeline.member melanoma/their_b7 --out-of-fold oof.csv --trust-folds

Reads    the files named: image_id (or the competition's own id column), a column for each label,
         optional `fold`; several rows of one image (views, folds of the test set) are averaged, as
         many for every image data/<comp>/images.csv, folds.csv, folds_dropped.csv
Writes   models/<comp>/<name>/fold<k>/predictions.csv and predictions.json for every fold k, as
         `predict` does

An out-of-fold score is worth something only if its network did not train on that patient. The
member's own folds come from its column `fold` or from --fold-map (patient_id or image_id, and
fold). Where they are those of folds.csv, numbered as they may be, all is well. Where they differ
they are audited: a patient, or a pair of twins, in two of them was seen in training, and the member
is refused. With --trust-folds nothing is known and nothing is audited; the sidecar says so.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import PREDICTIONS, fold_folder, models_folder
from pipeline.core.artifacts.provenance import read_sidecar, table_hashes
from pipeline.core.artifacts.tables import first_ids, fold_numbers, read_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import METADATA
from pipeline.core.config.target_path import parse_target
from pipeline.core.folds.audit import checked_tables, require_no_leak
from pipeline.core.folds.import_map import read_map
from pipeline.core.folds.split import patient_keys, validation_rows
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError

AGREE, DIFFER, TRUSTED = "those of folds.csv", "others, audited", "trusted, not audited"


@dataclass(frozen=True)
class Scores:
    """One file's scores, a row an image.

    table   image_id and a float64 column for each label, in order of first appearance
    fold    image_id -> the member's own fold (int); None where the file does not say. Out-of-fold
            files only.
    views   rows averaged to one
    """

    table: pd.DataFrame
    fold: pd.Series | None
    views: int


def main(arguments: argparse.Namespace) -> None:
    target = parse_target(arguments.target)
    if not target.run or target.fold is not None:
        raise UserError(
            f"{target}: a member needs a name and no fold: {target.competition}/their_b7"
        )
    take(load_competition(target.competition), target.run, arguments)


def parser() -> argparse.ArgumentParser:
    """The stage's options."""
    made = stage_parser(__doc__, targets=False)
    made.add_argument(
        "target", metavar="TARGET", help="competition and the member's name: melanoma/their_b7"
    )
    made.add_argument(
        "--out-of-fold", type=Path, required=True, metavar="FILE", help="scores of the training set"
    )
    made.add_argument("--test", type=Path, metavar="FILE", help="scores of the test set")
    made.add_argument(
        "--scores",
        nargs="+",
        default=[],
        metavar="LABEL=COLUMN",
        help="where a label's scores are in a column of another name; a test file may have them "
        "under the label's own",
    )
    made.add_argument(
        "--fold-map",
        type=Path,
        metavar="FILE",
        help="the member's own folds: patient_id (or image_id), fold",
    )
    made.add_argument(
        "--trust-folds",
        action="store_true",
        help="the files do not tell the folds: believe that no "
        "network scored a patient it had trained on",
    )
    made.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="leave out rows of images that images.csv lacks",
    )
    return made


def take(competition: Competition, name: str, arguments: argparse.Namespace) -> None:
    """Check everything, then write every fold."""
    refuse_taken(competition, name)
    images, folds, dropped = checked_tables(competition)
    columns = score_columns(competition, arguments.scores)

    # The scores of the images that our folds validate.
    path = arguments.out_of_fold
    scores = read_scores(path, competition, columns, images, arguments.ignore_unknown)
    rows = pd.concat(
        [
            validation_rows(images, folds, dropped, fold, competition.task).assign(fold=fold)
            for fold in fold_numbers(folds)
        ],
        ignore_index=True,
    )
    require_ids(path, scores, rows["image_id"], "that folds.csv validates")
    refuse_truth(path, scores, rows, columns, competition)

    # Whether the networks that made them had seen their patients.
    own = own_folds(arguments, scores, images)
    said = audited(arguments, own, rows, images, dropped, competition)

    # The scores of the test images, the same for every fold.
    tests = None
    if arguments.test:
        tests = read_scores(
            arguments.test, competition, columns, images, arguments.ignore_unknown, test=True
        )
        require_ids(
            arguments.test, tests, images["image_id"][images["split"] == "test"], "of the test set"
        )
    write_member(competition, name, arguments, rows, images, scores, tests, said)


def refuse_taken(competition: Competition, name: str) -> None:
    """Raise where the name belongs to a run, or where a fold's predictions were not imported."""
    if name == METADATA or name in [run.name for run in (*competition.runs, *competition.trials)]:
        raise UserError(
            f"{competition.name}/{name}: a run of the competition file has that name; give another"
        )
    for path in sorted((models_folder(competition.name) / name).glob(f"fold*/{PREDICTIONS}")):
        if "imported" not in read_sidecar(path):
            raise UserError(
                f"{path}: was made by training, not imported; give the member another name"
            )


def score_columns(competition: Competition, asked: list[str]) -> dict[str, str]:
    """{label: column of the file}: as --scores says, otherwise the label's own name or the
    organiser's.
    """
    labels, given = competition.task.labels, {}
    for text in asked:
        label, _, column = text.partition("=")
        if label not in labels or not column:
            raise UserError(
                f"--scores {text}: write LABEL=COLUMN, the label one of {', '.join(labels)}"
            )
        given[label] = column
    return {label: given.get(label, label) for label in labels}


def read_scores(
    path: Path,
    competition: Competition,
    columns: dict[str, str],
    images: pd.DataFrame,
    ignore_unknown: bool,
    test: bool = False,
) -> Scores:
    """One file, checked and averaged by image. columns: {label: column}; images: images.csv."""
    table, column = read_member_table(path, competition)
    ids = table[column]
    split = ids.map(images.set_index("image_id")["split"])

    # Ids that images.csv does not know are a mistake, unless told otherwise.
    unknown = split.isna().to_numpy()
    if unknown.any() and not ignore_unknown:
        row = int(unknown.argmax())
        raise UserError(
            f"{path}: row {row + 2}, column {column}: {ids.iloc[row]!r} is not in images.csv "
            f"({unknown.sum()} such rows; --ignore-unknown leaves them out)"
        )
    wanted = ~unknown & ((split == "test").to_numpy() == test)
    if not wanted.any():
        raise UserError(f"{path}: no row is of the {'test' if test else 'training'} set")

    # Every score is a number in [0, 1].
    there = {label: name for label, name in columns.items() if name in table}
    for label in columns:
        # A test file has no truth, so its column of the label's own name is of scores.
        if label in there or not (test or columns[label] == label):
            continue
        names = (label, competition.submission.columns[label])
        found = [name for name in names if name in table]
        if found:
            there[label] = found[0]
    if set(there) != set(columns):
        lost = next(label for label in columns if label not in there)
        raise UserError(
            f"{path}: the column {columns[lost]!r} is missing; there are {', '.join(table.columns)}"
        )
    values = pd.DataFrame(
        {label: checked_scores(path, table, there[label], wanted) for label in columns}
    )

    # As many rows for every image: one more is a row that was copied twice.
    kept = values[wanted].assign(image_id=ids[wanted].to_numpy())
    count = kept["image_id"].value_counts(sort=False)
    if count.nunique() > 1:
        usual = int(count.mode().iloc[0])
        odd = count[count != usual]
        raise UserError(
            f"{path}: column {column}: {odd.index[0]!r} has {odd.iloc[0]} rows, most images have "
            f"{usual} "
            f"({len(odd)} such images)"
        )
    fold = (
        None
        if test or "fold" not in table
        else own_fold_of(path, column, ids[wanted], table["fold"][wanted])
    )
    return Scores(
        kept.groupby("image_id", sort=False).mean().reset_index(), fold, int(count.iloc[0])
    )


def read_member_table(path: Path, competition: Competition) -> tuple[pd.DataFrame, str]:
    """(the file, its id column), ids as strings. A UserError names a file or column that is
    missing, or a blank id.
    """
    names = ("image_id", competition.submission.id_column)
    table = read_csv(path, ids=names)
    column = next((name for name in names if name in table), None)
    if column is None:
        raise UserError(
            f"{path}: no column {' or '.join(dict.fromkeys(names))}; there are "
            f"{', '.join(table.columns)}"
        )
    blank = table[column].isna().to_numpy()
    if blank.any():
        raise UserError(f"{path}: row {int(blank.argmax()) + 2}, column {column}: blank")
    return table, column


def checked_scores(path: Path, table: pd.DataFrame, column: str, wanted: np.ndarray) -> np.ndarray:
    """(n,) float64; a UserError names the first wanted row that is not a number in [0, 1]."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    wrong = wanted & ~((values >= 0) & (values <= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}: row {row + 2}, column {column}: {str(table[column].iloc[row])!r} "
            "is not a score in [0, 1]"
        )
    return values


def own_fold_of(path: Path, column: str, ids: pd.Series, fold: pd.Series) -> pd.Series:
    """image_id -> own fold; a UserError names an image without one, or scored by two folds'
    networks.
    """
    number = pd.to_numeric(fold, errors="coerce")
    wrong = (number.isna() | (number % 1 != 0) | (number < 0)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path}: row {ids.index[row] + 2}, column fold: {str(fold.iloc[row])!r} "
            f"is not a fold, so {ids.iloc[row]} was validated by none"
        )
    pairs = pd.DataFrame(
        {"id": ids.to_numpy(), "fold": number.astype(int).to_numpy()}
    ).drop_duplicates()
    twice = pairs["id"].duplicated().to_numpy()
    if twice.any():
        image = pairs["id"][twice].iloc[0]
        both = ", ".join(map(str, pairs["fold"][pairs["id"] == image]))
        raise UserError(
            f"{path}: column {column}: {image!r} is scored by the networks of folds {both}; all "
            "but one trained on it"
        )
    return pairs.set_index("id")["fold"]


def require_ids(path: Path, scores: Scores, ids: pd.Series, what: str) -> None:
    """Raise a UserError that names the images that have no score."""
    missing = pd.Index(ids).difference(pd.Index(scores.table["image_id"]), sort=False)
    if len(missing):
        raise UserError(
            f"{path}: {len(missing)} of the {len(ids)} images {what} are missing: "
            f"{first_ids(missing)}"
        )


def refuse_truth(
    path: Path,
    scores: Scores,
    rows: pd.DataFrame,
    columns: dict[str, str],
    competition: Competition,
) -> None:
    """Raise where a column of scores is the truth itself: out-of-fold files often carry both."""
    known = truth(rows, competition.task.labels, competition.task)
    found = scores.table.set_index("image_id").loc[rows["image_id"]]
    for label, answers in zip(competition.task.labels, known.T):
        scored = ~np.isnan(answers)
        values = found[label].to_numpy()
        if scored.any() and (values[scored] == answers[scored]).all():
            raise UserError(
                f"{path}: column {columns[label]} is the truth, not a score; name the column of "
                "scores with "
                f"--scores {label}=COLUMN"
            )


def own_folds(
    arguments: argparse.Namespace, scores: Scores, images: pd.DataFrame
) -> pd.Series | None:
    """image_id -> the member's own fold, from its column or --fold-map; None with --trust-folds."""
    path, where = arguments.out_of_fold, arguments.fold_map
    if where is not None and scores.fold is not None:
        raise UserError(
            f"--fold-map {where}: {path} has a column fold of its own; take one of them away"
        )
    if where is None and scores.fold is None:
        if not arguments.trust_folds:
            raise UserError(
                f"{path}: no column fold, so nobody knows which network trained on whom; give the "
                "member's "
                "folds with --fold-map FILE, or vouch for them with --trust-folds"
            )
        return None
    if where is None:
        return scores.fold

    # A map of patients or of images, for every image that has a score.
    column, number, table = read_map(where)
    key = images.set_index("image_id")
    key = (
        pd.Series(patient_keys(images).to_numpy(), key.index)
        if column == "patient_id"
        else key.index.to_series()
    )
    pairs = table[[column, number]].drop_duplicates()
    twice = pairs[column].duplicated().to_numpy()
    if twice.any():
        name = pairs[column][twice].iloc[0]
        who = "patient" if column == "patient_id" else "image"
        both = ", ".join(map(str, sorted(pairs[number][pairs[column] == name])))
        raise UserError(
            f"{where}: {who} {name} is in folds {both}: training saw what was validated"
        )
    ids = scores.table["image_id"]
    return pd.Series(key.loc[ids].map(pairs.set_index(column)[number]).to_numpy(), ids)


def audited(
    arguments: argparse.Namespace,
    own: pd.Series | None,
    rows: pd.DataFrame,
    images: pd.DataFrame,
    dropped: pd.DataFrame,
    competition: Competition,
) -> str:
    """What the sidecar says of the member's folds; a UserError names the first patient, or twins,
    in two of them.

    own: image_id -> fold, of all images that the file scores; rows: those that our folds validate.
    """
    if own is None:
        return TRUSTED
    where = arguments.fold_map or arguments.out_of_fold
    lost = rows["image_id"][~(rows["image_id"].map(own) >= 0)]
    if len(lost):
        raise UserError(
            f"{where}: image {lost.iloc[0]} was validated in no fold ({len(lost)} such images)"
        )

    # A patient in two folds.
    patient = patient_keys(images).set_axis(images["image_id"]).reindex(own.index)
    pairs = (
        pd.DataFrame({"patient": patient.to_numpy(), "fold": own.to_numpy()})
        .dropna()
        .drop_duplicates()
    )
    pairs["fold"] = pairs["fold"].astype(int)
    torn = pairs["patient"].duplicated().to_numpy()
    if torn.any():
        name = pairs["patient"][torn].iloc[0]
        both = ", ".join(map(str, sorted(pairs["fold"][pairs["patient"] == name])))
        raise UserError(
            f"{where}: patient {name} has images in folds {both} ({torn.sum()} such patients): "
            "training saw "
            "the patient that was validated"
        )

    # The same folds, perhaps under other numbers.
    both = pd.DataFrame(
        {"ours": rows["fold"].to_numpy(), "own": rows["image_id"].map(own).to_numpy()}
    )
    both = both.drop_duplicates()
    if both["ours"].is_unique and both["own"].is_unique:
        return AGREE

    # Other folds: twins may not lie in two of them either.
    keys = pd.Index(patient_keys(images)[images["split"] != "test"].unique())
    theirs = pairs.set_index("patient")["fold"].reindex(keys, fill_value=-1)
    table = pd.DataFrame({"patient_id": keys, "fold": theirs.to_numpy()})
    require_no_leak(where, images, table, dropped, competition.task)
    return DIFFER


def write_member(
    competition: Competition,
    name: str,
    arguments: argparse.Namespace,
    rows: pd.DataFrame,
    images: pd.DataFrame,
    scores: Scores,
    tests: Scores | None,
    said: str,
) -> None:
    """Write every fold's predictions and say what was done."""
    labels, hashes = list(competition.task.labels), table_hashes(competition.name)
    files = {
        "out_of_fold": arguments.out_of_fold,
        "test": arguments.test,
        "fold_map": arguments.fold_map,
    }
    facts = {
        "imported": {
            part: {"file": str(file), "sha256": file_hash(file)}
            for part, file in files.items()
            if file
        },
        "own_folds": said,
        "trust_folds": bool(arguments.trust_folds),
        "columns": arguments.scores,
        "ignore_unknown": bool(arguments.ignore_unknown),
        "views": scores.views,
    }
    found = scores.table.set_index("image_id")
    test_rows = images[images["split"] == "test"] if tests else images[:0]
    for fold in sorted(rows["fold"].unique()):
        validated = rows[rows["fold"] == fold]
        parts = [validated[["image_id", "split"]].join(found[labels], on="image_id")]
        if tests:
            known = tests.table.set_index("image_id")
            parts.append(test_rows[["image_id", "split"]].join(known[labels], on="image_id"))
        table = pd.concat(parts, ignore_index=True)
        table.insert(2, "fold", int(fold))
        path = fold_folder(competition.name, name, int(fold)) / PREDICTIONS
        write_predictions(
            path, table, hashes, target=f"{competition.name}/{name}/fold{fold}", **facts
        )
    print(
        f"{models_folder(competition.name) / name}: {rows['fold'].nunique()} folds, {len(rows)} "
        "images"
        f"{f', {len(test_rows)} test images' if tests else ', no test images'}; its folds: {said}"
    )
    if said == DIFFER:
        print(
            "one of our folds holds scores of several of its networks, so ranks within our folds "
            "mix these"
        )


if __name__ == "__main__":
    run_stage(main, parser())
