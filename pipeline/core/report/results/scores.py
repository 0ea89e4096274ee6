"""Section "Scores": every member's AUC with its interval, the paper's numbers beside, label by
label, and the partial AUC."""

from html import escape

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.artifacts.provenance import notice
from pipeline.core.config.run import METADATA
from pipeline.core.config.stages import BLEND, ENSEMBLE, FINAL, MEAN_LABEL, STAGE_1
from pipeline.core.ensemble.scores import (
    difference_row,
    difference_text,
    excludes_zero,
    with_interval,
)
from pipeline.core.report.figures.svg import interval_bar, limits_of
from pipeline.core.report.html import Html, drawn, html_table, paragraph, scale, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.names import member_title, style_of


def scores_section(evidence: Evidence) -> str:
    """Every member's mean AUC with its interval, the paper's numbers beside; then label by
    label."""
    return (
        mean_table(evidence)
        + members_by_label(evidence)
        + partial_table(evidence)
        + source(f"{models_folder(evidence.name)}/scores.csv", evidence.made_by)
    )


def auc_text(row: dict | pd.Series) -> str:
    """`0.8123 [0.7801, 0.8432]` of a row of scores.csv, a dash where there is no AUC."""
    if pd.isna(row["auc"]):
        return "–"
    return with_interval(row["auc"], row["low"], row["high"])


def published(evidence: Evidence) -> tuple[tuple[str, float, str], ...]:
    """(stage, AUC, what it is of) of the paper, where the competition's file has any; the final
    ensemble is the stage "final". Beside synthetic data or a smoke run they would only mislead."""
    if notice(evidence.name):
        return ()
    return tuple(getattr(evidence.competition.module, "published", ()))


def rows_in_use(evidence: Evidence) -> pd.DataFrame:
    """scores.csv without the blends of single runs with metadata where metadata is not blended into
    what is submitted: nobody uses those."""
    table = evidence.scores
    if evidence.facts["metadata"]:
        return table
    return table[(table["stage"] != BLEND) | (table["member"] == ENSEMBLE)]


def row_title(evidence: Evidence, member: str, stage: str) -> str:
    """A member and stage in words; a metadata network that is not submitted says so."""
    title = member_title(member, stage)
    unused = member == METADATA and not evidence.facts["metadata"]
    return f"{title}, not in the submission" if unused else title


def why_not_the_highest(evidence: Evidence, means: pd.DataFrame) -> str:
    """A sentence where a row lies above the final one, with the paired difference where the page
    has its scores; "" otherwise. means: the rows shown, of the mean over labels."""
    final = means[(means["member"] == ENSEMBLE) & (means["stage"] == evidence.final_stage)]
    others = means.drop(final.index)
    if not len(final) or not (others["auc"] > final["auc"].iloc[0]).any():
        return ""
    best = others.loc[others["auc"].idxmax()]
    text = (
        "The final scores are not the highest row, which is "
        f"{row_title(evidence, best['member'], best['stage'])}. What is submitted was fixed in the "
        "competition's file before these scores were seen; the "
        f"highest of {len(means)} rows is picked on these very rows, which flatters it."
    )
    scores = scores_of_row(evidence, best["member"], best["stage"])
    if scores is None:
        return text
    pair = difference_row("", "", evidence.final, scores, evidence.units.truth, evidence.patients)
    if pair is None:
        return text
    noise = "more than noise" if excludes_zero(pair) else "within noise"
    return f"{text} Final minus highest: {difference_text(pair)}, {noise}."


def scores_of_row(evidence: Evidence, member: str, stage: str) -> np.ndarray | None:
    """The scores (U, K) of a row of scores.csv, None where the page does not have them."""
    if member == METADATA:
        return evidence.metadata
    if member == stage == ENSEMBLE:
        facts = evidence.facts
        plain = facts["weighting"] == "uniform" and facts["method"] == "mean"
        plain = plain and not facts["stages"] and not facts["near_duplicates"]
        return evidence.mean_after() if plain else None
    if stage == STAGE_1:
        return evidence.before.get(member)
    return None if stage == BLEND else evidence.after.get(member)


def mean_table(evidence: Evidence) -> str:
    """A row for each member and stage: the mean AUC over labels, the paper's number beside."""
    shown = rows_in_use(evidence)
    means = shown[shown["label"] == MEAN_LABEL]
    of_paper = published(evidence)
    beside = {}
    for stage, value, _ in of_paper:
        beside.setdefault(stage, value)  # the first of a stage is drawn, all are named below
    limits = limits_of([*means["low"], *means["high"], *beside.values()])

    rows = []
    strong = []
    for _, row in means.iterrows():
        # the final scores are compared with the paper's final ones, or those of the same stage
        if row["member"] != ENSEMBLE:
            mark = beside.get(row["stage"])
        elif row["stage"] == evidence.final_stage:
            mark = beside.get(FINAL)
            strong.append(len(rows))
        else:
            mark = None
        style = style_of(row["stage"])
        bar = interval_bar(row["auc"], row["low"], row["high"], limits, style, mark)
        cells = [
            row_title(evidence, row["member"], row["stage"]),
            auc_text(row),
            drawn(bar),
            f"{int(row['n']):,}",
            f"{int(row['positives']):,}",
            int(row["views"]),
        ]
        if of_paper:
            cells.append(f"{mark:.4f}" if mark else "")
        rows.append(cells)

    head = ["member", "AUC [95 % interval]", scale(limits), "n", "positives", "views"]
    if of_paper:
        head.append("the paper's ◇")
    what = "mean over labels, out of fold" if len(evidence.labels) > 1 else "out of fold"
    html = html_table(head, rows, f"AUC, {what}; in bold what is submitted", strong)
    html += paragraph(why_not_the_highest(evidence, means))
    if of_paper:
        numbers = "; ".join(f"{value:.4f} {text}" for _, value, text in of_paper)
        html += paragraph(
            "◇ The paper's numbers are of other data (its test set, its training set): "
            f"{numbers}. They are beside ours for orientation; the difference measures nothing.",
            "soft",
        )
    return html


def members_by_label(evidence: Evidence) -> str:
    """Members by labels, where there is more than one label."""
    if len(evidence.labels) == 1:
        return ""
    shown = rows_in_use(evidence)
    scores = shown.set_index(["member", "stage", "label"])
    # in the order of scores.csv
    members = shown[["member", "stage"]].drop_duplicates()
    rows = []
    for member, stage in members.itertuples(index=False):
        cells = []
        for label in evidence.labels:
            key = (member, stage, label)
            cells.append(auc_text(scores.loc[key]) if key in scores.index else "–")
        rows.append([row_title(evidence, member, stage), *cells])

    # n and positives are those of the label, whichever member is scored
    counts = evidence.scores.drop_duplicates("label").set_index("label")
    heads = []
    for label in evidence.labels:
        if label in counts.index:
            positives = int(counts["positives"][label])
            n = int(counts["n"][label])
            heads.append(Html(f"{escape(label)}<br>{positives:,} of {n:,}"))
        else:
            heads.append(label)
    caption = "AUC [95 % interval] label by label; in the heading the positives"
    return html_table(["member", *heads], rows, caption)


def partial_table(evidence: Evidence) -> str:
    """The partial AUC, where that is the organiser's score."""
    if "partial_auc" not in evidence.scores:
        return ""
    known = evidence.scores[evidence.scores["partial_auc"].notna()]
    rows = []
    for _, row in known.iterrows():
        area = with_interval(row["partial_auc"], row["partial_low"], row["partial_high"])
        rows.append([member_title(row["member"], row["stage"]), row["label"], area])
    head = ["member", "label", "partial AUC [95 % interval]"]
    return html_table(head, rows, "Area above 80 % sensitivity, 0 to 0.2")
