"""The first screen of the page: the answer that a clinician asks for, how sure it is, and from
which data, networks and choices it comes."""

from datetime import UTC, datetime
from html import escape

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import data_folder
from pipeline.core.artifacts.provenance import commit, is_synthetic
from pipeline.core.config.competition import smoke
from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import EARNED, ENSEMBLE, MEAN_LABEL
from pipeline.core.ensemble.member_stages import stage_lines
from pipeline.core.ensemble.scores import TOO_FEW, gain_text
from pipeline.core.metrics import OperatingPoint
from pipeline.core.report.html import html_table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.origins.run_recipes import (
    Trained,
    duration_text,
    recipe_lines,
    trained_run,
)
from pipeline.core.report.origins.sources import short_commit

ASKED = 0.95  # the specificity of the answer
LABELS_IN_WORDS = 1  # more labels than these are a table


def first_screen(evidence: Evidence, points: dict[str, OperatingPoint]) -> str:
    """HTML under the title. points: label -> the final scores' point at the specificity ASKED, of
    the labels that have both classes."""
    runs = [trained_run(evidence.name, run, evidence.rows.folds) for run in evidence.after]
    if evidence.facts["metadata"]:
        runs.append(trained_run(evidence.name, METADATA, evidence.rows.folds))
    facts = [
        ("Data", data_text(evidence)),
        ("Kind", kind_text(evidence)),
        ("Made", made_text(evidence, runs)),
        *(("Recipe", f"{names}: {text}.") for names, text in recipe_lines(runs)),
        ("Chosen", chosen_text(evidence, runs)),
    ]
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return answer(evidence, points) + boxes(evidence) + f'<dl class="facts">{lines}</dl>'


def answer(evidence: Evidence, points: dict[str, OperatingPoint]) -> str:
    """Sensitivity at ASKED specificity in a sentence, or a table of a line a label."""
    what = "synthetic images" if is_synthetic(evidence.name) else "these images"
    if len(points) > LABELS_IN_WORDS:
        rows = []
        for label, point in points.items():
            row = final_row(evidence, label)
            area = "–" if row is None or np.isnan(row["low"]) else f"{row['auc']:.3f}"
            positives = "" if row is None else f"{int(row['positives']):,}"
            text = sensitivity_text(point).replace("95 % interval ", "")
            rows.append([label, text, area, positives])
        head = ["label", f"sensitivity at {100 * ASKED:.0f} % specificity", "AUC", "positives"]
        return html_table(head, rows, f"Out of fold, on {what}; 95 % intervals over patients")
    if not points:
        return '<p class="answer">No label has both classes: nothing can be scored.</p>'
    point = next(iter(points.values()))
    return (
        f'<p class="answer">At {100 * point.specificity:.0f} % specificity the sensitivity is '
        f"<b>{escape(sensitivity_text(point))}</b>, out of fold, on {what}.</p>"
    )


def sensitivity_text(point: OperatingPoint) -> str:
    """`62 % (95 % interval 48 to 75 %)`, or that there are too few to tell."""
    if np.isnan(point.low):
        return TOO_FEW
    ends = f"{100 * point.low:.0f} to {100 * point.high:.0f} %"
    return f"{100 * point.sensitivity:.0f} % (95 % interval {ends})"


def boxes(evidence: Evidence) -> str:
    """The four figures that one would be asked for first, the AUC before all."""
    several = len(evidence.labels) > 1
    unit = unit_name(evidence)
    folds = len(evidence.rows.folds)
    patients = f"{len(np.unique(evidence.patients)):,}"
    positives = int((evidence.units.truth == 1).sum())
    figures = [
        (f"{len(evidence.units.keys):,}", f"{unit} scored, {folds} fold{'s' * (folds > 1)}"),
        (patients, "patients, the unit of every interval"),
        (
            f"{positives:,}",
            f"positives of {len(evidence.labels)} labels" if several else "positives",
        ),
    ]
    final = final_row(evidence)
    if final is not None and not np.isnan(final["low"]):
        what = "mean AUC" if several else "AUC"
        interval = f"{what}, 95 % interval {final['low']:.3f} to {final['high']:.3f}"
        figures.insert(0, (f"{final['auc']:.3f}", interval))
    elif final is not None:
        figures.insert(0, ("–", f"AUC: {TOO_FEW}"))
    html = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in figures
    )
    return f'<div class="head">{html}</div>'


def unit_name(evidence: Evidence) -> str:
    """What is scored, in the plural."""
    return {"image": "images", "study": "studies"}[evidence.competition.task.unit]


def final_row(evidence: Evidence, label: str = MEAN_LABEL) -> pd.Series | None:
    """The row of scores.csv of what is submitted; None where there is none."""
    table = evidence.scores
    final = table[
        (table["member"] == ENSEMBLE)
        & (table["label"] == label)
        & (table["stage"] == evidence.final_stage)
    ]
    return final.iloc[0] if len(final) else None


def data_text(evidence: Evidence) -> str:
    """Where the images are from and how many of them there are."""
    rows = evidence.rows
    images = rows.validated
    sources = images["source"].value_counts()
    from_where = ", ".join(f"{source} {count:,}" for source, count in sources.items())
    drawn = (
        "drawn by pipeline.demo, no patient behind them; " if is_synthetic(evidence.name) else ""
    )
    unknown = int(np.isnan(evidence.units.truth).all(axis=1).sum())
    parts = [
        f"{drawn}{data_folder(evidence.name) / 'raw'}: {len(images):,} images scored out of fold "
        f"({from_where}) of {len(np.unique(evidence.patients)):,} patients",
        f"{len(rows.test):,} test images without truth here",
    ]
    if unknown:
        parts.append(f"{unknown:,} {unit_name(evidence)} without a label are not scored")
    return "; ".join(parts) + "."


def kind_text(evidence: Evidence) -> str:
    """Synthetic or real, smoke or full."""
    data = "synthetic data" if is_synthetic(evidence.name) else "real data"
    run = "smoke run: tiny networks, sizes and epochs" if smoke() else "full run"
    warning = "" if data == "real data" and not smoke() else "; no figure here is a result"
    return f"{data}; {run}{warning}."


def made_text(evidence: Evidence, runs: list[Trained]) -> str:
    """When, on what, for how long, by which commit."""
    hardware = sorted({name for run in runs for name in run.hardware})
    seconds = [run.seconds for run in runs if not run.imported]
    total = sum(seconds) if seconds and None not in seconds else None
    made = max((run.made for run in runs), default="")
    parts = [
        f"page {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {short_commit(commit())}",
        f"scores by commit {short_commit(str(evidence.facts['commit']))}",
    ]
    if seconds:
        when = f" until {made[:16].replace('T', ' ')} UTC" if made else ""
        where = f" on {', '.join(hardware)}" if hardware else ", on what is not recorded"
        parts.append(f"trained{when}{where}; training time of all folds {duration_text(total)}")
    return "; ".join(parts) + "."


def chosen_text(evidence: Evidence, runs: list[Trained]) -> str:
    """What was chosen, and on which rows."""
    facts = evidence.facts
    parts = []
    if any(not run.imported for run in runs):
        parts.append("the last epoch of each fold, without a choice")
    if any(run.imported for run in runs):
        parts.append("what was chosen for the predictions from elsewhere is not known")
    parts += [line.removesuffix(".") for line in stage_lines(facts["stages"])]
    if facts["weighting"] == EARNED:
        chosen = ", ".join(f"{label}: {name}" for label, name in facts["choice"].items())
        parts.append(f"the combination ({chosen}) by nested out-of-fold gains")
    elif facts["weighting"] == "selected":
        parts.append(f"members' weights on these rows, nested gain {gain_text(facts['selection'])}")
    else:
        parts.append("uniform weights, fixed beforehand")
    if facts["metadata"]:
        parts.append(f"metadata's share {facts['metadata']:g}, fixed in the competition's file")
    parts.append("thresholds on these very rows, which flatters them a little")
    parts.append("nothing on the test images")
    return "; ".join(parts) + "."
