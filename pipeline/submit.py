"""The organiser's file: their sample filled in from the ensemble, checked, written, entered in the
lab book, and sent.

    python -m pipeline.submit melanoma                                  make it
    python -m pipeline.submit melanoma --check FILE [--sample SAMPLE]   check any file against what
                                                                        the organiser wants
    python -m pipeline.submit melanoma --send --message "b5, 5 folds"   send it with Kaggle's client
                                                                        (--dry-run: say)
    python -m pipeline.submit melanoma --scores                         fill the scores Kaggle gave
                                                                        into the lab book

reads   models/<comp>/ensemble.csv, ensemble.json, scores.csv; the organiser's sample or list of
        test images, under raw
writes  submissions/<comp>/<the organiser's file name>; submissions/LOG.md, a line a submission

A file with an error is not written; warnings are printed. --check prints every finding and exits 2
on an error. SAMPLE is any CSV with the organiser's ids: a sample submission, a list of image paths,
or a file of truths.
"""

import argparse
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.files import atomic, file_hash, read_json
from pipeline.core.artifacts.labels import prevalence
from pipeline.core.artifacts.paths import data_folder, models_folder, raw_folder, submissions_folder
from pipeline.core.artifacts.provenance import commit, notice, write_sidecar
from pipeline.core.artifacts.tables import SCORE_NAMES, read_csv, read_images
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.stages import EARNED, ENSEMBLE, MEAN_LABEL, SECOND_LEVEL
from pipeline.core.ensemble.suspects import suspicion_lines
from pipeline.core.runs.average_files import read_average_facts
from pipeline.core.runs.missing import submission_facts
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission import kaggle, lab_book
from pipeline.core.submission.ids import plain_id
from pipeline.core.submission.organiser_file import Wanted, check_file, fill, refuse_errors, wanted
from pipeline.core.submission.plausibility import Finding

SHOWN = 5  # columns of the second level that the lab book names


def main(arguments: argparse.Namespace) -> None:
    competition = load_competition(arguments.competition)
    if arguments.check:
        print_file_check(competition, arguments.check, arguments.sample)
    elif arguments.send:
        send(competition, arguments)
    elif arguments.scores:
        fill_in_scores(competition)
    else:
        make(competition)


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, targets=False)
    parser.add_argument("competition", metavar="COMPETITION", help="melanoma, chexpert, ...")
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="check this file: exit 0 without error, else 2"
    )
    parser.add_argument(
        "--sample", type=Path, help="with --check: the organiser's ids, where raw is not at hand"
    )
    parser.add_argument(
        "--send", action="store_true", help="send the submission with Kaggle's client"
    )
    parser.add_argument(
        "--message", default="", help="with --send: what to tell Kaggle and the lab book"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --send: say what would be sent, and send nothing",
    )
    parser.add_argument(
        "--kernel",
        default="",
        metavar="OWNER/SLUG",
        help="with --send: a code competition's notebook",
    )
    parser.add_argument(
        "--kernel-version",
        type=int,
        metavar="N",
        help="with --kernel: what `kaggle kernels push` said",
    )
    parser.add_argument(
        "--scores", action="store_true", help="ask Kaggle for the scores of what was sent"
    )
    return parser


def submission_path(competition: Competition) -> Path:
    """Where the submission is written, under the organiser's name for it."""
    return submissions_folder(competition.name) / competition.submission.file


def make(competition: Competition) -> None:
    """Fill in the sample, check the very bytes that are about to be the submission, and note it in
    the lab book."""
    path = submission_path(competition)

    # The organiser's own ids, order and columns, filled in by id.
    sample = competition.module.sample(raw_folder(competition.name))
    asked_ids = sample[competition.submission.id_column]
    scores = with_unreadable(competition, ensemble_test_rows(competition), asked_ids)
    table = fill(sample, scores, competition.submission)

    # The file is checked as it lies on the disk, and gets its name only when it has no error. Nine
    # digits tell any two float32 scores apart; fewer would make ties.
    want = wanted(sample, competition.submission, competition.task)
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g")
        print_findings(path, check_file(temporary, want, shares_of_positives(competition)))

    # The lab book: what was made, from what, and how good it is out of fold.
    sha256 = file_hash(path)
    members = members_in_words(competition)
    auc = auc_in_words(competition)
    lab_book.add(competition.name, path, sha256, commit(), members, auc)
    letters = sha256[: lab_book.HASH_LETTERS]
    print(f"{path}: {len(table)} rows, sha256 {letters}, entered in {lab_book.book()}")

    # Last, since `make` believes the submission that a sidecar names; then the warning that a toy
    # network or synthetic data must not go without.
    write_sidecar(path, competition.name, **submission_facts(competition))
    if notice(competition.name):
        print(f"{notice(competition.name)}: {path} is not for submission")


def ensemble_test_rows(competition: Competition) -> pd.DataFrame:
    """The ensemble's test rows: unit_id and the labels."""
    path = models_folder(competition.name) / "ensemble.csv"
    made_by = f"make ensemble COMP={competition.name}"
    read_average_facts(competition)
    table = read_csv(path, ("unit_id", "split", *competition.task.labels), made_by)
    return table[table["split"] == "test"]


def with_unreadable(
    competition: Competition, scores: pd.DataFrame, asked: pd.Series
) -> pd.DataFrame:
    """The scores, and the mean of all for units whose images `prepare` could not read; these are
    named."""
    # Without a list of unreadable files, a missing unit is a mistake: `fill` will name it.
    listed = data_folder(competition.name) / "prepare_errors.csv"
    gone = asked[~asked.map(plain_id).isin(scores["unit_id"].map(plain_id))]
    if not len(gone) or not listed.is_file():
        return scores

    # Only units all of whose images are on that list; any other missing one stays an error.
    raw = competition.module.read_raw(raw_folder(competition.name))
    unread = read_csv(listed, ("image_id",))["image_id"]
    readable = raw["unit_id"][~raw["image_id"].isin(unread)]
    neutral = gone[gone.isin(raw["unit_id"]) & ~gone.isin(readable)]
    for unit in neutral:
        reason = f"no readable image ({listed} says why)"
        print(f"warning: {unit} has {reason}; it is given the mean score")

    # The mean: the organiser wants a row for every id, and this one says nothing either way.
    means = scores[list(competition.task.labels)].mean()
    filled = pd.DataFrame({"unit_id": neutral}).assign(**means)
    return pd.concat([scores, filled], ignore_index=True)


def members_in_words(competition: Competition) -> str:
    """What the ensemble averages, as its sidecar has it."""
    facts = read_average_facts(competition)
    names = ", ".join(map(str, facts["members"]))
    for run, said in facts["stages"].items():
        names += f"; {run}: stage={said['asked']!r}, {' and '.join(said['members'])}"
    if facts.get("final_stage") == EARNED:
        names = f"{names}; {combination_text(facts)}"
    warning = notice(competition.name)
    return f"{warning}: {names}" if warning else names


def combination_text(facts: dict) -> str:
    """Which combination was submitted, which of its columns mattered on held-out patients, and what
    was found to leak; label by label."""
    texts = []
    for label, name in facts["choice"].items():
        told = facts["second_level"][label]
        text = name if len(facts["choice"]) == 1 else f"{label}: {name}"
        if name == SECOND_LEVEL:
            single = [row for row in told["columns"] if not row["kind"]]
            largest = sorted(single, key=lambda row: -row["gain"])[:SHOWN]
            columns = ", ".join(f"{row['column']} {row['gain']:.0%}" for row in largest)
            whole_kinds = [row for row in told["columns"] if row["kind"]]
            kinds = ", ".join(f"{row['column']} {-row['fall']:+.4f}" for row in whole_kinds)
            text += f" (gain: {columns}; permuted: {kinds})"
        found = suspicion_lines(told["suspects"])
        texts.append("; ".join([text, *found]))
    return "; ".join(texts)


def auc_in_words(competition: Competition) -> str:
    """The mean out-of-fold AUC and its interval of what is submitted, as scores.csv has it."""
    path = models_folder(competition.name) / "scores.csv"
    if not path.is_file():
        return "unknown"
    table = read_csv(path, (*SCORE_NAMES, "auc", "low", "high"), ids=SCORE_NAMES)
    final = read_average_facts(competition).get("final_stage", ENSEMBLE)

    # The ensemble has rows for several stages; the one that is submitted is named in its sidecar.
    means = table[(table["member"] == ENSEMBLE) & (table["label"] == MEAN_LABEL)]
    rows = means[means["stage"] == final]
    return "unknown" if rows.empty else "{auc:.4f} [{low:.4f}, {high:.4f}]".format(**rows.iloc[0])


def shares_of_positives(competition: Competition) -> pd.Series | None:
    """Submission column -> share of positives among the training images; None before `prepare`."""
    if not (data_folder(competition.name) / "images.csv").is_file():
        return None
    shares = prevalence(read_images(competition.name), competition.task)
    return shares.rename(competition.submission.columns)


def print_file_check(competition: Competition, path: Path, sample_path: Path | None) -> None:
    """Print what is wrong with a file; UserError where something is an error."""
    want = wanted(asked(competition, sample_path), competition.submission, competition.task)

    # What scores can be compared with: the training set's prevalence, or better, our own scores. A
    # stranger's file can be checked without either.
    shares = shares_of_positives(competition)
    home = home_scores(competition, want)
    if shares is None and home is None:
        absent = "neither images.csv nor ensemble.csv is there"
        print(f"note: {absent}, so nothing tells whether scores are inverted")

    print_findings(path, check_file(path, want, shares, home))
    units = "studies" if want.unit == "study" else "images"
    print(f"{path}: {len(want.ids)} {units}, the organiser can score it")


def asked(competition: Competition, path: Path | None) -> pd.DataFrame:
    """The organiser's sample from raw, or from a file that has its ids (or, for studies, the paths
    of their images)."""
    if path is None:
        return competition.module.sample(raw_folder(competition.name))
    submission = competition.submission
    id_column = submission.id_column
    table = read_csv(path, ids=(id_column, "Path"))

    # CheXpert's list has the paths of images; a study is the folder of its images.
    has_paths = competition.task.unit == "study" and "Path" in table.columns
    if id_column not in table.columns and has_paths:
        table[id_column] = table["Path"].str.rpartition("/")[0]
    if id_column not in table.columns:
        present = ", ".join(table.columns)
        raise UserError(f"{path}: the column {id_column!r} is missing; there are {present}")

    # The score columns are empty: only ids and names are compared.
    ids = table[[id_column]].drop_duplicates()
    return ids.reindex(columns=[id_column, *submission.columns.values()])


def home_scores(competition: Competition, want: Wanted) -> pd.DataFrame | None:
    """The ensemble's scores of the same units under the submission's columns; None before
    `ensemble`."""
    if not (models_folder(competition.name) / "ensemble.csv").is_file():
        return None
    rows = ensemble_test_rows(competition).set_index("unit_id")
    scores = rows.rename(columns=competition.submission.columns)
    return scores.loc[scores.index.isin(want.ids), list(want.scores)]


def print_findings(path: Path, findings: list[Finding]) -> None:
    """Print the findings; UserError with the first error where there is one."""
    for finding in findings:
        print(finding)
    refuse_errors(path, findings)


def send(competition: Competition, arguments: argparse.Namespace) -> None:
    """Check the submission once more and hand it to Kaggle's client; its hash in the message finds
    its scores later."""
    path = submission_path(competition)
    slug = kaggle_slug(competition)
    if not path.is_file():
        made_by = f"make submit COMP={competition.name}"
        raise UserError(f"{path}: there is no such file; `{made_by}` makes it")
    sidecar = path.with_suffix(".json")
    if sidecar.is_file() and read_json(sidecar).get("digest") != file_hash(path):
        raise UserError(
            f"{path}: differs from what `make submit COMP={competition.name}` wrote (damaged, or "
            "changed by hand); make it again"
        )
    if bool(arguments.kernel) != (arguments.kernel_version is not None):
        raise UserError("--kernel and --kernel-version go together")

    # Kaggle allows a few submissions a day: none is to be spent on a file that it refuses.
    print_file_check(competition, path, None)

    # Kaggle gives a submission no name of ours but its message, so the hash travels there.
    sha256 = file_hash(path)
    message = f"{arguments.message} [{sha256[: lab_book.HASH_LETTERS]}]".strip()
    command = kaggle.submit_command(slug, path, message, arguments.kernel, arguments.kernel_version)
    if arguments.dry_run:
        print(f"would run: {kaggle.shown(command)}")
        return
    if not kaggle.has_credentials():
        unsent = f"would have run: {kaggle.shown(command)}"
        raise UserError(f"no Kaggle credentials: {kaggle.SETUP}; {unsent}")

    # The client may exit with 0 although Kaggle took nothing.
    said = kaggle.run_client(command).strip()
    if not said or "Could not" in said:
        raise UserError(f"Kaggle did not take {path}: {said or 'the client printed nothing'}")
    print(said)

    # `--scores` replaces "pending" once Kaggle has scored it.
    cells = {"message": arguments.message or "sent", "public": "pending", "private": "pending"}
    lab_book.note(competition.name, sha256, **cells)


def kaggle_slug(competition: Competition) -> str:
    """The competition's name on Kaggle, or a UserError."""
    if not competition.task.slug:
        file = f"pipeline/competitions/{competition.name}.py"
        raise UserError(f"{file} gives no slug, so it is not on Kaggle")
    return competition.task.slug


def fill_in_scores(competition: Competition) -> None:
    """Write the scores Kaggle has given into the lab book; submissions are known by the hash in
    their message."""
    slug = kaggle_slug(competition)
    if not kaggle.has_credentials():
        raise UserError(f"no Kaggle credentials: {kaggle.SETUP}; would have asked for the scores")

    # The files of ours that may be among what Kaggle lists.
    lines = lab_book.read_lab_book()
    known = {line["sha256"] for line in lines if line["competition"] == competition.name}

    # The private score is blank until the competition ends.
    changed = 0
    for entry in kaggle.submissions(slug):
        for sha256 in known:
            if f"[{sha256}]" in entry["description"]:
                public = entry["publicScore"] or "pending"
                private = entry["privateScore"] or "pending"
                changed += lab_book.note(competition.name, sha256, public=public, private=private)
    print(f"{lab_book.book()}: {changed} lines changed")


if __name__ == "__main__":
    run_stage(main, parser())
