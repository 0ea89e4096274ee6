"""Align every run's predictions, average them, and score each run, each stage and the average with
intervals.

    python -m pipeline.ensemble melanoma                                   every run of the
                                                                           competition, and metadata
    python -m pipeline.ensemble melanoma/b5_384 melanoma/b6_512            these runs only, and
                                                                           metadata
    python -m pipeline.ensemble melanoma --folds 0 1                       where only some folds
                                                                           were trained

reads   data/<comp>/images.csv, folds.csv models/<comp>/<run>/fold<k>/predictions.csv,
        predictions_pretrained.csv; models/<comp>/metadata/fold<k>/...
writes  models/<comp>/scores.csv       member | stage label auc low high n positives views, hashes
        models/<comp>/quantiles.json   frozen maps from score to out-of-fold quantile, for inference
                                       elsewhere
        models/<comp>/combination.json each label's earned combination, fitted: what scores test
                                       images here and elsewhere
        models/<comp>/ensemble.csv     unit_id | image_id split fold <labels>: out-of-fold and test
                                       units, blended
        models/<comp>/ensemble.json    members, weights, near-duplicates, correlations, paired
                                       differences, what decided it; written last

Intervals are 95 %, over patients; blank where there are too few to tell. Members that rank a label
alike (|rho| > .999) are named and count once. The blend of images and metadata, and mean, rank or
quantile, are `blend` in the competition's file.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from pipeline.core.artifacts.files import file_hashes, write_sealed
from pipeline.core.artifacts.paths import (
    PREDICTIONS,
    STAGE_1_PREDICTIONS,
    fold_folder,
    models_folder,
)
from pipeline.core.artifacts.provenance import notice, provenance
from pipeline.core.artifacts.tables import SCORE_NAMES, read_csv, write_csv
from pipeline.core.config.competition import Competition, load_competition
from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import (
    BLEND,
    EARNED,
    ENSEMBLE,
    IMPORTED,
    STAGE_1,
    STAGE_2,
    is_stage_2,
)
from pipeline.core.config.target_path import parse_target
from pipeline.core.config.task import Task
from pipeline.core.ensemble.averages import blend_metadata, weighted_mean
from pipeline.core.ensemble.member_stages import choose_stages, stage_lines
from pipeline.core.ensemble.members import (
    Member,
    Rows,
    comparable,
    frozen_maps,
    member_maps,
    read_member,
    read_rows,
)
from pipeline.core.ensemble.scores import (
    difference_row,
    gain_text,
    score_lines,
    score_rows,
    sentence,
)
from pipeline.core.ensemble.second_level.combination import (
    Combination,
    cannot_be_nested,
    combine_nested,
)
from pipeline.core.ensemble.second_level.fitted import COMBINATION, write_combinations
from pipeline.core.ensemble.selection import (
    nearly_equal_members,
    nested_gain,
    patient_folds,
    rank_correlations,
    select_columns,
    without_duplicates,
)
from pipeline.core.ensemble.units import Units, to_units, units_of
from pipeline.core.metrics.roc import classes
from pipeline.core.runs.facts import predicted_with_other_weights, require_current
from pipeline.core.runs.job import Job
from pipeline.core.runs.missing import ensemble_facts, request_for
from pipeline.core.runs.predictions import is_imported
from pipeline.core.runs.whole import averaged_folds
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError

# the paper's blend: scored for every run, also where the competition leaves metadata out of its
# submission
HALF = 0.5
# the files whose digests ensemble.json has
FILES_WRITTEN = ("scores.csv", "quantiles.json", COMBINATION, "ensemble.csv")


def main(arguments: argparse.Namespace) -> None:
    targets = [parse_target(text) for text in arguments.targets]
    if any(target.fold is not None for target in targets):
        raise UserError(
            "an ensemble is of whole runs: leave /fold<k> away, or name the folds with --folds"
        )
    for name in dict.fromkeys(target.competition for target in targets):
        runs = [target.run for target in targets if target.competition == name]
        ensemble(
            load_competition(name),
            () if "" in runs else tuple(dict.fromkeys(runs)),
            arguments.folds,
        )


def parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--folds",
        type=int,
        nargs="+",
        metavar="K",
        help="only these folds (default: all of folds.csv)",
    )
    return parser


def ensemble(competition: Competition, names: tuple[str, ...], folds: Sequence[int] | None) -> None:
    """Make the four artifacts of one competition; ensemble.json, which has the digests of the
    others, is written last."""
    task = competition.task
    method = competition.blend.method
    folder = models_folder(competition.name)

    # Every member's scores, aligned to the rows of images.csv by id.
    rows = read_rows(competition, folds)
    before, after, patients = read_members(competition, names, rows)
    units = units_of(rows.validated, task)

    # The stages of each run that are members.
    averaged, stages = choose_stages(
        {run.name: run.stage for run in (*competition.runs, *competition.trials)},
        before,
        after,
        units.truth,
        units.keys["patient_id"].to_numpy(),
        lambda scores: to_units(rows.validated, scores, task),
    )
    members = [*averaged, patients] if patients else averaged

    # Their average: (members, images, labels) -> (images, labels), out of fold and test.
    scales = [comparable(member, method, rows) for member in averaged]
    validated = np.stack([scale[0] for scale in scales])
    test = np.stack([scale[1] for scale in scales])
    member_names = [member.name for member in averaged]
    weights, choice = choose_weights(competition, member_names, validated, rows, units)
    average = [weighted_mean(scores, weights, method) for scores in (validated, test)]
    require_all(competition, average[0])

    # The metadata network at its share, where there is one.
    is_earned = competition.blend.weights == "earned"
    share = competition.blend.metadata if patients and not is_earned else 0.0
    side = comparable(patients, method, rows) if patients else None
    final = average
    if share:
        final = [blend_metadata(*pair, share, method) for pair in zip(average, side)]

    # Every way to combine, scored nested (`combination`), and submitted where weights are earned.
    combined = nested_combinations(competition, rows, averaged)
    if combined:
        choice |= {"choice": combined.choice, "second_level": combined.told}
    if is_earned:
        final = [combined.final, combined.test]
        choice["weighting"] = "earned"

    # All that is scored: runs after each stage, members blended with metadata, the average, its
    # blend.
    scored = as_scored([*before, *after, *([patients] if patients else [])])
    if side:
        for member, scores in zip(averaged, validated):
            blended = blend_of(scores, side[0], share or HALF, method)
            scored.append(average_of(BLEND, member.name, blended, [member, patients]))
    scored.append(average_of(ENSEMBLE, ENSEMBLE, average[0], averaged))
    if share:
        scored.append(average_of(BLEND, ENSEMBLE, final[0], members))
    if combined:
        for name, scores in combined.out_of_fold.items():
            scored.append(average_of(name, ENSEMBLE, scores, averaged))
        scored.append(average_of(EARNED, ENSEMBLE, combined.final, averaged))

    # The artifacts. A submission made elsewhere needs quantiles.json of the out-of-fold scores, and
    # so does the percentile of a new image.
    final_stage = EARNED if is_earned else BLEND if share else ENSEMBLE
    warning = notice(competition.name)
    maps = {member.name: member_maps(member, rows, task.labels) for member in members}
    write_csv(folder / "scores.csv", score_table(scored, rows, units, task, warning))
    by_stage = {ENSEMBLE: average[0], final_stage: final[0]}
    averages = {stage: unit_maps(scores, rows, task) for stage, scores in by_stage.items()}
    quantiles = {"hashes": rows.hashes, "members": maps, "averages": averages}
    write_sealed(folder / "quantiles.json", quantiles)
    write_combinations(folder / COMBINATION, combined.fitted if combined else {})
    write_csv(folder / "ensemble.csv", unit_table(rows, units, final, task))
    facts = provenance(
        competition.name,
        members=[member.name for member in (members if share else averaged)],
        runs=[member.name for member in after],
        stages=stages,
        folds=list(rows.folds),
        labels=list(task.labels),
        method=method,
        metadata=share,
        final_stage=final_stage,
        **choice,
        differences=score_differences(scored, rows, units, task),
        hashes=rows.hashes,
        predictions={member.name: member.digest for member in (*after, *members)},
        decided_by=ensemble_facts(request_for(competition, names, rows.folds)),
        digests=file_hashes(folder, FILES_WRITTEN),
    )
    write_sealed(folder / "ensemble.json", facts)
    print_scores(competition, facts)


@dataclass(frozen=True)
class ScoredRow:
    """Out-of-fold image scores (n, K) that scores.csv has rows of: a member's, a blend's or the
    ensemble's."""

    member: str
    stage: str
    scores: np.ndarray
    views: int
    digest: str


def blend_of(scores: np.ndarray, patients: np.ndarray, share: float, method: str) -> np.ndarray:
    """One run's blend with metadata, NaN for labels that the run does not predict."""
    return np.where(np.isnan(scores), np.nan, blend_metadata(scores, patients, share, method))


def as_scored(members: Sequence[Member]) -> list[ScoredRow]:
    return [
        ScoredRow(member.name, member.stage, member.out_of_fold, member.views, member.digest)
        for member in members
    ]


def average_of(stage: str, name: str, scores: np.ndarray, members: Sequence[Member]) -> ScoredRow:
    """An average of members; its views are those of the images' networks, its digest that of all
    their files."""
    digest = hashlib.sha256("".join(member.digest for member in members).encode()).hexdigest()
    return ScoredRow(
        name,
        stage,
        scores,
        min(member.views for member in members if member.name != METADATA),
        digest,
    )


def read_members(
    competition: Competition, names: tuple[str, ...], rows: Rows
) -> tuple[list[Member], list[Member], Member | None]:
    """(runs after stage 1, runs after stage 2, metadata or None). Every run that is asked for must
    have its predictions; those of stage 1, where they are for comparison only, may be missing."""
    labels = competition.task.labels
    chosen = names or tuple(run.name for run in competition.runs)
    chosen = [name for name in chosen if name != METADATA]
    if not chosen:
        raise UserError(f"{competition.name}: an ensemble needs a run beside {METADATA}")

    before = []
    after = []
    for name in chosen:
        made_by = f"make predict COMP={competition.name} RUN={name}"
        own = averaged_folds(competition, name, rows.folds)
        read = partial(read_member, competition.name, name, folds=own)
        if is_imported(competition.name, name):
            after.append(read(IMPORTED, PREDICTIONS, rows, labels, made_by))
            continue
        stage = STAGE_2[competition.run(name).finetune.loss]
        require_current_members(competition, (name,), rows)
        after.append(read(stage, PREDICTIONS, rows, labels, made_by))
        compared_only = competition.run(name).stage == "finetuned"
        if compared_only and not all_exist(competition, name, STAGE_1_PREDICTIONS, rows):
            continue
        before.append(read(STAGE_1, STAGE_1_PREDICTIONS, rows, labels, made_by))
        if not compared_only and before[-1].test.shape != after[-1].test.shape:
            raise UserError(
                f"{models_folder(competition.name) / name}: stage 1 has not scored the test "
                f"images, which stage={competition.run(name).stage!r} may need; `{made_by}` does"
            )
    return before, after, read_metadata(competition, names, rows)


def all_exist(competition: Competition, run: str, file: str, rows: Rows) -> bool:
    """True when every fold of a run has that file."""
    folders = [fold_folder(competition.name, run, fold) for fold in rows.folds]
    return all((folder / file).is_file() for folder in folders)


def require_current_members(competition: Competition, names: tuple[str, ...], rows: Rows) -> None:
    """Raise where predictions are not those that today's configuration and weights make."""
    for name in names:
        run = competition.metadata if name == METADATA else competition.run(name)
        for fold in averaged_folds(competition, name, rows.folds):
            job = Job(competition, run, fold)
            path = job.folder / PREDICTIONS
            if path.is_file() and predicted_with_other_weights(job, path):
                raise UserError(
                    f"{path}: made with other weights than today's; `make predict "
                    f"COMP={competition.name} RUN={name}` makes it again"
                )
            if path.is_file():
                require_current(job, path)


def read_metadata(competition: Competition, names: tuple[str, ...], rows: Rows) -> Member | None:
    """The metadata network's member: where it is named or blended in it must exist, otherwise it
    may."""
    blend = competition.blend
    blended = competition.metadata and blend.metadata and blend.weights != "earned"
    there = all_exist(competition, METADATA, PREDICTIONS, rows)
    if not (there or blended or METADATA in names):
        return None
    require_current_members(competition, (METADATA,), rows)
    made_by = f"make metadata COMP={competition.name}"
    labels = competition.task.labels
    return read_member(competition.name, METADATA, METADATA, PREDICTIONS, rows, labels, made_by)


def nested_combinations(
    competition: Competition, rows: Rows, members: Sequence[Member]
) -> Combination | None:
    """Every way to combine these members, scored nested; None where the competition's file does not
    ask for it, or where it asks for the scores only and folds are too few."""
    blend = competition.blend
    if blend.weights != "earned" and not blend.second_level:
        return None
    reason = cannot_be_nested(competition.task, rows)
    if reason and blend.weights == "earned":
        raise UserError(f"{competition.name}: weights='earned': {reason}")
    if reason:
        print(f"second level: not scored, {reason}")
        return None
    return combine_nested(competition.task, rows, members)


def require_all(competition: Competition, scores: np.ndarray) -> None:
    """Raise where a label is predicted by no run."""
    missing = [
        label for label, column in zip(competition.task.labels, scores.T) if np.isnan(column).all()
    ]
    if missing:
        raise UserError(
            f"{competition.name}: no run of this ensemble predicts {', '.join(missing)}"
        )


def choose_weights(
    competition: Competition, names: list[str], validated: np.ndarray, rows: Rows, units: Units
) -> tuple[np.ndarray, dict]:
    """(weights (M, K), what ensemble.json says of them); fitted ones only where asked for and their
    gain holds.

    validated: (M, n, K) out-of-fold image scores on the scale of the blend's method.
    """
    labels = competition.task.labels
    patient = units.keys["patient_id"].to_numpy()
    members = np.stack([to_units(rows.validated, scores, competition.task) for scores in validated])

    # Uniform over the members that predict a label; a near-duplicate does not count twice.
    alone = without_duplicates(members)
    weights = alone / np.maximum(alone.sum(axis=0), 1)
    facts: dict = {"weighting": "uniform"}

    # Selected by hill climbing, where asked for and where the nested gain's interval is above 0.
    asked = competition.blend.weights == "selected"
    if asked and len(members) > 1 and classes(units.truth).any():
        folds = units.keys["fold"].to_numpy() if len(rows.folds) > 1 else patient_folds(patient)
        facts["selection"] = nested_gain(members, units.truth, alone, folds, patient)
        if facts["selection"]["accepted"]:
            weights = select_columns(members, units.truth, alone, np.ones(len(folds), bool))
            facts["weighting"] = "selected"

    # What the report shows of the members.
    facts["weights"] = {name: dict(zip(labels, row)) for name, row in zip(names, weights.tolist())}
    facts["near_duplicates"] = [
        {"label": labels[k], "first": names[i], "second": names[j], "rho": rho}
        for k, i, j, rho in nearly_equal_members(members)
    ]
    facts["correlations"] = {
        label: np.where(np.isnan(rho), None, rho).tolist()
        for label, rho in zip(labels, rank_correlations(members))
    }
    return weights, facts


def score_table(
    scored: Sequence[ScoredRow], rows: Rows, units: Units, task: Task, warning: str
) -> pd.DataFrame:
    """scores.csv: a row for each of the scored, and label, and the mean over labels."""
    patients = units.keys["patient_id"].to_numpy()
    table = []
    for one in tqdm(scored, desc="scores", unit="member", leave=False):
        facts = {
            "views": one.views,
            "images_sha256": rows.hashes["images"],
            "folds_sha256": rows.hashes["folds"],
            "predictions_sha256": one.digest,
            "notice": warning,
        }
        scores = to_units(rows.validated, one.scores, task)
        table += [
            {"member": one.member, "stage": one.stage, **row, **facts}
            for row in score_rows(scores, units.truth, patients, task.labels, task.metric)
        ]
    return pd.DataFrame(table)


def score_differences(
    scored: Sequence[ScoredRow], rows: Rows, units: Units, task: Task
) -> list[dict]:
    """Paired differences of mean AUC worth knowing: stage 2 to stage 1 of each run, the ensemble to
    the best single run (the best on these rows, which flatters it), the blend to the ensemble."""
    patients = units.keys["patient_id"].to_numpy()
    by_name = {
        f"{one.member} {one.stage}": to_units(rows.validated, one.scores, task) for one in scored
    }
    finetuned = [one for one in scored if is_stage_2(one.stage)]
    pairs = [(f"{one.member} {one.stage}", f"{one.member} {STAGE_1}") for one in finetuned]
    single = best_single(finetuned, by_name, units, patients, task)
    average = f"{ENSEMBLE} {ENSEMBLE}"
    # The ensemble of a single run is that run.
    if len(finetuned) > 1:
        pairs += [(average, single)]
    pairs += [(f"{ENSEMBLE} {BLEND}", average)]
    pairs += [(f"{ENSEMBLE} {EARNED}", single)]
    found = [
        difference_row(first, second, by_name[first], by_name[second], units.truth, patients)
        for first, second in pairs
        if first in by_name and second in by_name
    ]
    return [row for row in found if row]


def best_single(
    finetuned: Sequence[ScoredRow],
    by_name: dict[str, np.ndarray],
    units: Units,
    patients: np.ndarray,
    task: Task,
) -> str:
    """The name of the run with the highest mean AUC among those that predict every label, '' when
    none does."""
    means = {}
    for one in finetuned:
        name = f"{one.member} {one.stage}"
        rows = score_rows(by_name[name], units.truth, patients, task.labels)
        means.update((name, row["auc"]) for row in rows if row["label"] == "mean")
    return max(means, key=means.get, default="")


def unit_maps(scores: np.ndarray, rows: Rows, task: Task) -> dict[str, dict]:
    """{label: map from score to out-of-fold quantile} of an average's image scores (n, K), by the
    scores of the units."""
    return dict(zip(task.labels, frozen_maps(to_units(rows.validated, scores, task))))


def unit_table(rows: Rows, units: Units, blended: Sequence[np.ndarray], task: Task) -> pd.DataFrame:
    """ensemble.csv: the out-of-fold units, then the test units, where these were scored."""
    parts = []
    columns = ["unit_id", "image_id", "split", "fold"]
    tests = units_of(rows.test if len(blended[1]) else rows.test[:0], task)
    for images, part, scores in (
        (rows.validated, units, blended[0]),
        (rows.test, tests, blended[1]),
    ):
        if len(scores):
            table = pd.DataFrame(to_units(images, scores, task), columns=list(task.labels))
            parts.append(pd.concat([part.keys[columns], table], axis=1))
    return pd.concat(parts, ignore_index=True)


def print_scores(competition: Competition, facts: dict) -> None:
    """Print the scores, the near-duplicates and the differences."""
    folder = models_folder(competition.name)
    table = read_csv(folder / "scores.csv", ids=SCORE_NAMES)
    hidden = [name for name in table if name.endswith("_sha256") or name == "notice"]
    print(score_lines(table.drop(columns=hidden)))
    if notice(competition.name):
        print(f"{notice(competition.name)}: not a result")
    for twin in facts["near_duplicates"]:
        print(
            f"near-duplicates on {twin['label']}: {twin['first']} and {twin['second']}, rho = "
            f"{twin['rho']:.5f}"
        )
    for line in stage_lines(facts["stages"]):
        print(line)
    for label, name in facts.get("choice", {}).items():
        used = "" if facts["weighting"] == "earned" else "; it is scored, not submitted"
        print(f"{label}: {name} has earned its place{used}")
    if "selection" in facts:
        print(
            f"selected weights against uniform, nested: {gain_text(facts['selection'])}: "
            f"{facts['weighting']} is used"
        )
    for row in facts["differences"]:
        print(sentence(row))
    print(f"{folder / 'ensemble.csv'}: {len(facts['members'])} members, {competition.blend.method}")


if __name__ == "__main__":
    run_stage(main, parser())
