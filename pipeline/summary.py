"""The closing table: out-of-fold AUCs of every run and of the ensemble, and the files to look at.

    python -m pipeline.summary melanoma chexpert

reads   models/<comp>/scores.csv, ensemble.json; data/<comp>/folds_audit.json
writes  nothing

AUC is the mean over labels; in brackets its 95 % interval, by 1,000 resamples of patients.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import data_folder, models_folder, submissions_folder
from pipeline.core.artifacts.tables import read_csv
from pipeline.core.config.competition import Competition, load
from pipeline.core.config.run import METADATA
from pipeline.core.config.target import parse_target
from pipeline.core.runtime.command import run_stage, stage_parser

NAME, CELL = 22, 24  # widths; with a margin of 2 a line has 96 columns


def main(arguments: argparse.Namespace) -> None:
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        print("\n" + summary(load(name)), flush=True)


def summary(competition: Competition) -> str:
    """The table of one competition as text."""
    folder, made_by = models_folder(competition.name), f"make ensemble COMP={competition.name}"
    scores = read_csv(
        folder / "scores.csv", ("member", "stage", "label", "auc", "low", "high"), made_by
    )
    facts = read_json(folder / "ensemble.json", made_by)
    means = scores[scores["label"] == "mean"].set_index(["member", "stage"])
    named = [
        stage
        for stage in scores["stage"].unique()
        if stage not in ("CE", "blend", "ensemble", METADATA)
    ]
    columns = [("CE", ("CE",)), (" / ".join(named), tuple(named)), (blend_name(facts), ("blend",))]
    columns = columns if facts["metadata"] else columns[:2]
    lines = [heading(competition, scores, facts), line("", *(title for title, _ in columns))]
    for run in facts["weights"]:
        lines.append(line(run, *(cell(means, run, stages) for _, stages in columns)))
    if (METADATA, METADATA) in means.index:
        beside = METADATA if facts["metadata"] else f"{METADATA}, not blended"
        lines.append(line(beside, "", cell(means, METADATA, (METADATA,))))
    lines.append(
        line(
            f"ensemble of {len(facts['weights'])}",
            "",
            cell(means, "ensemble", ("ensemble",)),
            cell(means, "ensemble", ("blend",)) if facts["metadata"] else "",
        )
    )
    return "\n".join([*lines, "", *files(competition)])


def heading(competition: Competition, scores: pd.DataFrame, facts: dict) -> str:
    """The competition, and what was scored."""
    rows = scores[scores["label"] == "mean"] if (scores["label"] == "mean").any() else scores
    unit = {"image": "images", "study": "studies"}[competition.task.unit]
    text = ""
    if len(rows):
        text = (
            f"{int(rows['n'].iloc[-1]):,} {unit} out of fold, {int(rows['positives'].iloc[-1]):,} "
            "positives, "
            f"{len(facts['folds'])} fold{'s' * (len(facts['folds']) != 1)}"
        )
    return f"{competition.task.title}: {text}\n" + "─" * (NAME + 3 * CELL + 2)


def blend_name(facts: dict) -> str:
    """`0.5 : 0.5 metadata`, "" where there is none."""
    share = facts["metadata"]
    return f"{1 - share:g} : {share:g} metadata" if share else ""


def line(name: str, *cells: str) -> str:
    return f"  {name:<{NAME}}" + "".join(f"{text:<{CELL}}" for text in cells).rstrip()


def cell(means: pd.DataFrame, member: str, stages: tuple[str, ...]) -> str:
    """`.8123 [.7801, .8432]` of the first of the stages that the member has."""
    for stage in stages:
        if (member, stage) in means.index:
            row = means.loc[(member, stage)]
            return f"{row['auc']:.4f} [{row['low']:.3f}, {row['high']:.3f}]"
    return "–"


def files(competition: Competition) -> list[str]:
    """The files to look at, those that stand."""
    name = competition.name
    audit = data_folder(name) / "folds_audit.json"
    found = [
        ("submission", submissions_folder(name) / competition.submission.file, ""),
        ("report", submissions_folder(name) / "report.html", "open it in a browser"),
        ("scores", models_folder(name) / "scores.csv", ""),
        ("images", data_folder(name) / "images.csv", ""),
        ("folds", audit, leaks(audit) if audit.is_file() else ""),
    ]
    return [
        line(what, str(path)) + (f"  ({note})" if note else "")
        for what, path, note in found
        if path.is_file()
    ]


def leaks(audit: Path) -> str:
    count = len(json.loads(audit.read_text(encoding="utf-8")).get("leaks", []))
    return f"{count} leaks between folds"


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
