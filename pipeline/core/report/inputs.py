"""What a report is made from, read once and checked to belong together: tables, members, final
scores, their facts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import (
    PREDICTIONS,
    STAGE_1_PREDICTIONS,
    data_folder,
    fold_folder,
    models_folder,
)
from pipeline.core.artifacts.provenance import require_hashes
from pipeline.core.artifacts.tables import SCORE_NAMES, align, read_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA, stage_1_member
from pipeline.core.config.stages import is_stage_2
from pipeline.core.ensemble.averages import weighted_mean
from pipeline.core.ensemble.members import Rows, read_member, read_rows
from pipeline.core.ensemble.units import Units, to_units, units_of
from pipeline.core.folds.audit import audit_hashes
from pipeline.core.runs.average_files import read_average_facts
from pipeline.core.runs.whole import averaged_folds
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Evidence:
    """Scores are out of fold, by unit: (U, K), columns of labels that a member lacks NaN.

    scores         scores.csv
    facts          ensemble.json
    audit          folds_audit.json
    before, after  run -> scores after stage 1 and stage 2
    metadata       scores of the metadata network, or None
    final          what is submitted: the ensemble, blended where there is metadata
    test           the test rows of ensemble.csv
    """

    competition: Competition
    rows: Rows
    units: Units
    scores: pd.DataFrame
    facts: dict
    audit: dict
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    metadata: np.ndarray | None
    final: np.ndarray
    test: pd.DataFrame

    @property
    def name(self) -> str:
        """The competition's name."""
        return self.competition.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self.competition.task.labels

    @property
    def patients(self) -> np.ndarray:
        """The patient of each unit (U,)."""
        return self.units.keys["patient_id"].to_numpy()

    @property
    def made_by(self) -> str:
        """The command that makes the scores."""
        return f"make ensemble COMP={self.name}"

    @property
    def final_stage(self) -> str:
        """The stage under which scores.csv has the final scores, of the member "ensemble"."""
        return self.facts["final_stage"]

    @property
    def stage_2(self) -> str:
        """The name of stage 2 in scores.csv, by the loss of the first run: AUC-M, say."""
        of_runs = self.scores[self.scores["member"].isin(self.after)]
        return next(stage for stage in of_runs["stage"] if is_stage_2(stage))

    @property
    def final_is_mean_after(self) -> bool:
        """True where what is submitted is the plain mean of the runs after stage 2."""
        return np.allclose(self.final, self.mean_after(), equal_nan=True)

    def mean_before(self) -> np.ndarray | None:
        """The mean of the runs after stage 1, None where stage 1 was not scored."""
        return weighted_mean(list(self.before.values())) if self.before else None

    def mean_after(self) -> np.ndarray:
        """The mean of the runs after stage 2."""
        return weighted_mean(list(self.after.values()))


def read_evidence(competition: Competition) -> Evidence:
    """Everything, or a UserError that names the file that is missing, or was made from others than
    today's."""
    name = competition.name
    task = competition.task
    made_by = f"make ensemble COMP={name}"
    folder = models_folder(name)

    # what `ensemble` wrote
    ensemble_file = folder / "ensemble.csv"
    columns = ("unit_id", "image_id", "split", "fold", *task.labels)
    table = read_csv(ensemble_file, columns, made_by)
    columns = (*SCORE_NAMES, "auc", "low", "high")
    scores = read_csv(folder / "scores.csv", columns, made_by, ids=SCORE_NAMES)
    facts = read_average_facts(competition)

    # the units of the same folds, from the same tables
    rows = read_rows(competition, facts["folds"])
    require_hashes(ensemble_file, facts["hashes"], rows.hashes)
    units = units_of(rows.validated, task)

    # the members, from the same predictions; stage 1 may not have been scored
    digests = facts["predictions"]
    before = {}
    after = {}
    for run in facts["runs"]:
        after[run] = member_unit_scores(competition, run, PREDICTIONS, rows, digests[run])
        folders = [fold_folder(name, run, fold) for fold in rows.folds]
        if all((path / STAGE_1_PREDICTIONS).is_file() for path in folders):
            digest = digests.get(stage_1_member(run), "")
            before[run] = member_unit_scores(competition, run, STAGE_1_PREDICTIONS, rows, digest)
    metadata = None
    if METADATA in digests:
        metadata = member_unit_scores(competition, METADATA, PREDICTIONS, rows, digests[METADATA])

    # the final scores, in the order of the units
    validated = table[table["split"] != "test"]
    wanted = units.keys["unit_id"]
    places = align(ensemble_file, validated, wanted, "that folds.csv validates", "unit_id")
    final = validated[list(task.labels)].to_numpy(np.float64)[places]
    return Evidence(
        competition=competition,
        rows=rows,
        units=units,
        scores=scores,
        facts=facts,
        audit=read_audit(name),
        before=before,
        after=after,
        metadata=metadata,
        final=final,
        test=table[table["split"] == "test"],
    )


def member_unit_scores(
    competition: Competition, run: str, file: str, rows: Rows, digest: str = ""
) -> np.ndarray:
    """One member's unit scores (U, K); UserError where its files are others than those that the
    ensemble was made of (digest: of those; "" is not compared)."""
    name = competition.name
    task = competition.task
    made_by = f"make predict COMP={name} RUN={run}"
    folds = averaged_folds(competition, run, rows.folds)
    member = read_member(name, run, "", file, rows, task.labels, made_by, folds)
    if digest and member.digest != digest:
        raise UserError(
            f"{models_folder(name) / 'ensemble.csv'}: made from other predictions of {run} than "
            f"today's; delete it and run `make ensemble COMP={name}` again"
        )
    return to_units(rows.validated, member.out_of_fold, task)


def read_audit(name: str) -> dict:
    """folds_audit.json, which must be about the tables of today."""
    path = data_folder(name) / "folds_audit.json"
    made_by = f"python -m pipeline.folds {name} --audit"
    audit = read_json(path, made_by, ("made", "leaks", "folds"))
    if audit.get("hashes") != audit_hashes(name):
        raise UserError(f"{path}: about other tables than today's; `{made_by}` makes it again")
    return audit
