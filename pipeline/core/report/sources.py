"""Report section: which files, commits and versions made the numbers."""

from pathlib import Path

from pipeline.core.artifacts.files import file_hash
from pipeline.core.artifacts.paths import (
    PREDICTIONS,
    data_folder,
    fold_folder,
    models_folder,
    submissions_folder,
)
from pipeline.core.artifacts.provenance import commit, read_sidecar, versions
from pipeline.core.config.run import METADATA
from pipeline.core.report.html import bullets, table
from pipeline.core.report.inputs import Evidence


def origins(evidence: Evidence) -> str:
    """Files with their hashes and the commits that made them; versions."""
    name = evidence.name
    rows = [file_row(path, command, made) for path, command, made in files(evidence)]
    for run, digest in evidence.facts["predictions"].items():
        sidecars = [
            read_sidecar(fold_folder(name, run, fold) / PREDICTIONS) for fold in evidence.rows.folds
        ]
        commits = sorted({str(sidecar["commit"]) for sidecar in sidecars})
        made_by = (
            f"make metadata COMP={name}"
            if run == METADATA
            else f"make predict COMP={name} RUN={run}"
        )
        rows.append(
            [
                f"{models_folder(name)}/{run}/fold*/{PREDICTIONS}",
                made_by,
                digest[:12],
                ", ".join(map(short, commits)),
            ]
        )
    packages = [f"{package} {version}" for package, version in evidence.facts["versions"].items()]
    now = versions()
    changed = [
        f"{package} {now[package]} now"
        for package, version in evidence.facts["versions"].items()
        if now.get(package, version) != version
    ]
    return table(
        ["file", "made by", "sha256", "commit"], rows, "Where everything is from", style="words"
    ) + bullets(
        [
            f"This page: python -m pipeline.report {name}, commit {short(commit())}.",
            f"Scores: {', '.join(packages)}.",
            *changed,
            "A commit with + had files changed beside it. The hash of several files is that of "
            "theirs.",
        ]
    )


def files(evidence: Evidence) -> list[tuple[Path, str, str]]:
    """(path, command, commit) of every single file."""
    data, models, name = data_folder(evidence.name), models_folder(evidence.name), evidence.name
    made = str(evidence.facts["commit"])
    found = [
        (data / "images.csv", f"make prepare COMP={name}", ""),
        (data / "folds.csv", f"make folds COMP={name}", ""),
        *(
            (models / file, f"make ensemble COMP={name}", made)
            for file in ("ensemble.csv", "ensemble.json", "scores.csv")
        ),
        (
            submissions_folder(name) / evidence.competition.submission.file,
            f"make submit COMP={name}",
            "",
        ),
    ]
    return [row for row in found if row[0].is_file()]


def file_row(path: Path, command: str, made: str) -> list[str]:
    return [str(path), command, file_hash(path)[:12], short(made)]


def short(text: str) -> str:
    """A commit's first letters, with its +."""
    return text[:10] + ("+" if text.endswith("+") and len(text) > 10 else "") if text else "–"
