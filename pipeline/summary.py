"""The closing table: out-of-fold AUCs of every run and of the ensemble, and the files to look at.

    python -m pipeline.summary melanoma chexpert

reads   models/<comp>/scores.csv, ensemble.json; data/<comp>/folds_audit.json
writes  nothing

AUC is the mean over labels; in brackets its 95 % interval, over patients.
"""

import argparse
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from pipeline.core.artifacts.files import read_json
from pipeline.core.artifacts.paths import data_folder, models_folder, submissions_folder
from pipeline.core.artifacts.tables import SCORE_NAMES, read_csv
from pipeline.core.config.competition import Competition, load_competition, smoke
from pipeline.core.config.run import METADATA, stage_1_member
from pipeline.core.config.stages import BLEND, EARNED, ENSEMBLE, MEAN_LABEL, STAGE_1, is_stage_2
from pipeline.core.config.target_path import parse_target
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.runs.average_files import read_average_facts
from pipeline.core.runtime.command import run_stage, stage_parser

# Widths of the columns; with a margin of 2 a line has 96 characters.
NAME = 22
CELL = 24
# What the figures of a smoke run can say.
EXPECT = (
    "  Tiny networks from random weights show that every stage runs, and no more: which stage is",
    "  better here is chance. `make proof` asks it on real images from ImageNet weights; its page,",
    "  pipeline/paper/PROOF.md, says what is known.",
)


def main(arguments: argparse.Namespace) -> None:
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        print("\n" + competition_summary(load_competition(name)), flush=True)


def competition_summary(competition: Competition) -> str:
    """The table of one competition as text."""
    # What `ensemble` wrote: nothing is computed here, so the table cannot differ from the report.
    folder = models_folder(competition.name)
    made_by = f"make ensemble COMP={competition.name}"
    columns = (*SCORE_NAMES, "auc", "low", "high")
    scores = read_csv(folder / "scores.csv", columns, made_by, ids=SCORE_NAMES)
    facts = read_average_facts(competition)
    means = scores[scores["label"] == MEAN_LABEL].set_index(["member", "stage"])
    blended = bool(facts["metadata"])

    # The heading. Runs may end with different losses, which share the column of stage 2.
    stage_2 = [stage for stage in scores["stage"].unique() if is_stage_2(stage)]
    titles = [STAGE_1, " / ".join(stage_2)]
    if blended:
        titles.append(blend_title(facts["metadata"]))
    lines = [heading(competition, scores, facts), summary_line("", *titles)]

    # A line for each run, one for the metadata network, one for the ensemble.
    for run in facts["runs"]:
        cells = [auc_cell(means, run, [STAGE_1]), auc_cell(means, run, stage_2)]
        if blended:
            member = run if run in facts["weights"] else stage_1_member(run)
            cells.append(auc_cell(means, member, [BLEND]))
        lines.append(summary_line(run, *cells))
    if (METADATA, METADATA) in means.index:
        name = METADATA if blended else f"{METADATA}, not blended"
        lines.append(summary_line(name, "", auc_cell(means, METADATA, [METADATA])))
    cells = ["", auc_cell(means, ENSEMBLE, [ENSEMBLE])]
    if blended:
        cells.append(auc_cell(means, ENSEMBLE, [BLEND]))
    lines.append(summary_line(f"ensemble of {len(facts['weights'])}", *cells))

    # The combination that has earned its place, nested, where it was scored.
    if "choice" in facts:
        chosen = ", ".join(dict.fromkeys(facts["choice"].values()))
        lines.append(summary_line(f"  {chosen}", "", auc_cell(means, ENSEMBLE, [EARNED])))
    if smoke():
        lines += ["", *EXPECT]
    return "\n".join([*lines, "", *files_to_look_at(competition)])


def heading(competition: Competition, scores: pd.DataFrame, facts: dict) -> str:
    """The competition, what was scored, and a rule below."""
    # There is no mean where runs predict some labels only, or where no label has both classes.
    rows = scores[scores["label"] == MEAN_LABEL]
    if not len(rows):
        rows = scores
    text = ""
    if len(rows):
        unit = {"image": "images", "study": "studies"}[competition.task.unit]
        folds = len(facts["folds"])
        text = (
            f"{int(rows['n'].iloc[-1]):,} {unit} out of fold, "
            f"{int(rows['positives'].iloc[-1]):,} positives, {folds} fold{'s' * (folds != 1)}"
        )
    return f"{competition.task.title}: {text}\n" + "─" * (NAME + 3 * CELL + 2)


def blend_title(share: float) -> str:
    """`0.5 : 0.5 metadata`, for the metadata network's share of the blend."""
    return f"{1 - share:g} : {share:g} metadata"


def summary_line(name: str, *cells: str) -> str:
    """One line of the table."""
    return f"  {name:<{NAME}}" + "".join(f"{text:<{CELL}}" for text in cells).rstrip()


def auc_cell(means: pd.DataFrame, member: str, stages: Collection[str]) -> str:
    """`0.8123 [0.780, 0.843]` of the first of the stages that the member has, else a dash.

    means: the rows of scores.csv of the mean over labels, indexed by member and stage.
    """
    for stage in stages:
        if (member, stage) in means.index:
            row = means.loc[(member, stage)]
            # The ends have 3 digits, so that three columns fit a terminal of 100.
            return with_interval(row["auc"], row["low"], row["high"], ends=".3f")
    return "–"


def files_to_look_at(competition: Competition) -> list[str]:
    """A line for each of the files that exist."""
    name = competition.name
    audit = data_folder(name) / "folds_audit.json"
    files = [
        ("submission", submissions_folder(name) / competition.submission.file, ""),
        ("report", submissions_folder(name) / "report.html", "open it in a browser"),
        ("scores", models_folder(name) / "scores.csv", ""),
        ("images", data_folder(name) / "images.csv", ""),
        ("folds", audit, leaks_in_words(audit) if audit.is_file() else ""),
    ]
    lines = []
    for title, path, note in files:
        remark = f"  ({note})" if note else ""
        if path.is_file():
            lines.append(summary_line(title, str(path)) + remark)
    return lines


def leaks_in_words(audit: Path) -> str:
    """How many leaks folds_audit.json names, in words."""
    count = len(read_json(audit, needed=("leaks",))["leaks"])
    return f"{count} leaks between folds"


if __name__ == "__main__":
    run_stage(main, stage_parser(__doc__))
