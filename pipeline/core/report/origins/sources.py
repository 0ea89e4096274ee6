"""Section "Sources": the files, commits and versions behind the numbers."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import (
    PREDICTIONS,
    STAGE_1_PREDICTIONS,
    data_folder,
    fold_folder,
    models_folder,
    submissions_folder,
)
from pipeline.core.artifacts.provenance import commit, read_sidecar, versions
from pipeline.core.config.run import ALL, METADATA, stage_1_member
from pipeline.core.report.html import bullets, html_table
from pipeline.core.report.inputs import Evidence
from pipeline.core.runs.whole import averaged_folds

HASH_SHOWN = 12  # letters of a sha256
COMMIT_SHOWN = 10  # letters of a commit


def origins(evidence: Evidence) -> str:
    """Files with their hashes and the commits that made them; versions."""
    # the submission may not have been written yet
    rows = []
    for path, command, made_at in single_files(evidence):
        if path.is_file():
            digest = file_hash(path)[:HASH_SHOWN]
            rows.append([str(path), command, digest, short_commit(made_at)])
    rows += prediction_rows(evidence)

    # versions then, and those that are others now
    then = evidence.facts["versions"]
    now = versions()
    packages = ", ".join(f"{package} {version}" for package, version in then.items())
    changed = []
    for package, version in then.items():
        if now.get(package, version) != version:
            changed.append(f"{package} {now[package]} now")
    lines = [
        "Every table as CSV and every figure as SVG: report_files/ beside this page.",
        f"This page: python -m pipeline.report {evidence.name}, commit {short_commit(commit())}.",
        f"Scores: {packages}.",
        *changed,
        "A commit with + had files changed beside it. The hash of several files is that of theirs.",
    ]
    head = ["file", "made by", "sha256", "commit"]
    return html_table(head, rows, "Where everything is from", style="words") + bullets(lines)


def single_files(evidence: Evidence) -> list[tuple[Path, str, str]]:
    """(path, command, commit or "") of every file that is one for the whole competition."""
    name = evidence.name
    data = data_folder(name)
    models = models_folder(name)
    made_at = str(evidence.facts["commit"])
    submission = submissions_folder(name) / evidence.competition.submission.file
    return [
        (data / "images.csv", f"make prepare COMP={name}", ""),
        (data / "folds.csv", f"make folds COMP={name}", ""),
        (models / "ensemble.csv", evidence.made_by, made_at),
        (models / "ensemble.json", evidence.made_by, made_at),
        (models / "scores.csv", evidence.made_by, made_at),
        (submission, f"make submit COMP={name}", ""),
    ]


def prediction_rows(evidence: Evidence) -> list[list[str]]:
    """A row for the predictions of each member, all folds together."""
    name = evidence.name
    digests = evidence.facts["predictions"]
    rows = []
    for member, run, file in prediction_files(evidence.facts["runs"]):
        if member not in digests:
            continue
        commits = set()
        folds = averaged_folds(evidence.competition, run, evidence.rows.folds)
        for fold in folds:
            sidecar = read_sidecar(fold_folder(name, run, fold) / file)
            commits.add(str(sidecar["commit"]))
        command = f"make predict COMP={name} RUN={run}"
        if run == METADATA:
            command = f"make metadata COMP={name}"
        rows.append(
            [
                f"{models_folder(name)}/{run}/{'{fold*,all}' if ALL in folds else 'fold*'}/{file}",
                command,
                digests[member][:HASH_SHOWN],
                ", ".join(map(short_commit, sorted(commits))),
            ]
        )
    return rows


def prediction_files(runs: Sequence[str]) -> list[tuple[str, str, str]]:
    """(member, its run, its file of predictions) of all that may be averaged.

    >>> prediction_files(["b5_384"])[1]
    ('b5_384-pretrained', 'b5_384', 'predictions_pretrained.csv')
    """
    files = []
    for run in runs:
        files.append((run, run, PREDICTIONS))
        files.append((stage_1_member(run), run, STAGE_1_PREDICTIONS))
    return [*files, (METADATA, METADATA, PREDICTIONS)]


def short_commit(text: str) -> str:
    """A commit's first letters, with its +; a dash for ""."""
    if not text:
        return "–"
    mark = "+" if text.endswith("+") and len(text) > COMMIT_SHOWN else ""
    return text[:COMMIT_SHOWN] + mark
