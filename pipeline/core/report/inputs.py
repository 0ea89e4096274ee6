"""All that a report is about, read once and checked to belong together: tables, members, final
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
from pipeline.core.artifacts.tables import align, read_csv
from pipeline.core.config.competition import Competition
from pipeline.core.config.run import METADATA
from pipeline.core.ensemble.averages import weighted_mean
from pipeline.core.ensemble.members import Rows, read_member, read_rows
from pipeline.core.ensemble.units import Units, to_units, units_of
from pipeline.core.folds.audit import audit_hashes
from pipeline.core.runtime.errors import UserError


@dataclass(frozen=True)
class Evidence:
    """Scores are out of fold, by unit: (U, K), columns of labels that a member lacks NaN.

    scores  scores.csv; facts: ensemble.json; audit: folds_audit.json; test: the test rows of
            ensemble.csv
    before, after  run -> scores after stage 1 and stage 2; metadata: of the metadata network, or
                   None
    final   what is submitted: the ensemble, blended where there is metadata
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
        return self.competition.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self.competition.task.labels

    @property
    def patients(self) -> np.ndarray:
        return self.units.keys["patient_id"].to_numpy()

    @property
    def final_stage(self) -> str:
        """The stage under which scores.csv has the final scores, of the member "ensemble"."""
        return self.facts["final_stage"]

    @property
    def stage_2(self) -> str:
        """What stage 2 is called in scores.csv: AUC-M, or what the runs' own loss is called."""
        of_runs = self.scores[self.scores["member"].isin(self.after)]
        return next(stage for stage in of_runs["stage"] if stage not in ("CE", "blend"))

    def mean_before(self) -> np.ndarray | None:
        """The mean of the runs after stage 1, None where stage 1 was not scored."""
        return weighted_mean(list(self.before.values())) if self.before else None

    def mean_after(self) -> np.ndarray:
        return weighted_mean(list(self.after.values()))


def read_evidence(competition: Competition) -> Evidence:
    """Everything, or a UserError that names the file that is missing, or was made from others than
    today's."""
    name, task, folder = competition.name, competition.task, models_folder(competition.name)
    made_by = f"make ensemble COMP={name}"
    table = read_csv(
        folder / "ensemble.csv", ("unit_id", "image_id", "split", "fold", *task.labels), made_by
    )
    scores = read_csv(
        folder / "scores.csv", ("member", "stage", "label", "auc", "low", "high"), made_by
    )
    facts = read_json(folder / "ensemble.json", made_by)
    rows = read_rows(competition, facts["folds"])
    require_hashes(folder / "ensemble.csv", facts["hashes"], rows.hashes)
    units = units_of(rows.validated, task)
    runs = list(facts["weights"])
    before, after = {}, {}
    for run in runs:
        after[run] = scores_of(competition, run, PREDICTIONS, rows, facts["predictions"][run])
        if all(
            (fold_folder(name, run, fold) / STAGE_1_PREDICTIONS).is_file() for fold in rows.folds
        ):
            before[run] = scores_of(competition, run, STAGE_1_PREDICTIONS, rows)
    metadata = (
        scores_of(competition, METADATA, PREDICTIONS, rows, facts["predictions"][METADATA])
        if METADATA in facts["predictions"]
        else None
    )
    validated, test = table[table["split"] != "test"], table[table["split"] == "test"]
    where = align(
        folder / "ensemble.csv",
        validated,
        units.keys["unit_id"],
        "that folds.csv validates",
        "unit_id",
    )
    final = validated[list(task.labels)].to_numpy(np.float64)[where]
    return Evidence(
        competition,
        rows,
        units,
        scores,
        facts,
        read_audit(name),
        before,
        after,
        metadata,
        final,
        test,
    )


def scores_of(
    competition: Competition, run: str, file: str, rows: Rows, digest: str = ""
) -> np.ndarray:
    """One member's unit scores; UserError where its files are others than those that the ensemble
    was made of."""
    name, task = competition.name, competition.task
    member = read_member(
        name, run, "", file, rows, task.labels, f"make predict COMP={name} RUN={run}"
    )
    if digest and member.digest != digest:
        folder = models_folder(name)
        raise UserError(
            f"{folder / 'ensemble.csv'}: made from other predictions of {run} than today's; "
            "delete it and "
            f"run `make ensemble COMP={name}` again"
        )
    return to_units(rows.validated, member.out_of_fold, task)


def read_audit(name: str) -> dict:
    """folds_audit.json, which must be about the tables of today."""
    path, made_by = (
        data_folder(name) / "folds_audit.json",
        f"python -m pipeline.folds {name} --audit",
    )
    audit = read_json(path, made_by)
    if audit.get("hashes") != audit_hashes(name):
        raise UserError(f"{path}: about other tables than today's; `{made_by}` makes it again")
    return audit
