"""Sections of the report about scores: the summary, paired differences, ROC curves, histograms,
members."""

from html import escape

import numpy as np
import pandas as pd

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.report.html import (
    Html,
    bullets,
    drawn,
    paragraph,
    scale,
    shaded,
    source,
    table,
)
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import interval_bar, limits_of

STYLES = {"CE": "c-ce", "blend": "c-final", "ensemble": "c-final", "metadata": "c-other"}


def style_of(stage: str) -> str:
    return STYLES.get(stage, "c-aucm")


def named(member: str, stage: str) -> str:
    """`b5_384, AUC-M`, `ensemble of the runs`, `ensemble, blended with metadata`."""
    if member == stage:
        return {"ensemble": "ensemble of the runs"}.get(member, member)
    return f"{member}, " + {"blend": "blended with metadata"}.get(stage, stage)


def with_interval(row: dict | pd.Series) -> str:
    """`.8123 [.7801, .8432]`, a dash where there is none."""
    if pd.isna(row["auc"]):
        return "–"
    return f"{row['auc']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"


def made_by(evidence: Evidence) -> str:
    return f"make ensemble COMP={evidence.name}"


def published(evidence: Evidence) -> tuple:
    """(stage, AUC, what of) of the paper, where the competition's file tells any; the ensemble is a
    stage."""
    return tuple(getattr(evidence.competition.module, "published", ()))


def summary(evidence: Evidence) -> str:
    """Every member's mean AUC with its interval, the paper's numbers beside; then label by
    label."""
    scores, theirs = evidence.scores, published(evidence)
    means, beside = scores[scores["label"] == "mean"], {}
    for stage, value, _ in theirs:
        beside.setdefault(stage, value)
    limits = limits_of([*means["low"], *means["high"], *beside.values()])
    rows, strong = [], []
    for _, row in means.iterrows():
        final = row["member"] == "ensemble"
        mark = beside.get(
            "final" if final and row["stage"] == evidence.final_stage else row["stage"]
        )
        mark = None if final and row["stage"] != evidence.final_stage else mark
        strong += [len(rows)] if final and row["stage"] == evidence.final_stage else []
        bar = interval_bar(
            row["auc"], row["low"], row["high"], limits, style_of(row["stage"]), mark
        )
        cells = [f"{int(row['n']):,}", f"{int(row['positives']):,}", int(row["views"])]
        rows.append(
            [
                named(row["member"], row["stage"]),
                with_interval(row),
                drawn(bar),
                *cells,
                *([f"{mark:.4f}" if mark else ""] if theirs else []),
            ]
        )
    head = ["member", "AUC [95 % interval]", scale(limits), "n", "positives", "views"]
    what = "mean over labels, out of fold" if len(evidence.labels) > 1 else "out of fold"
    made = table([*head, *(["the paper's ◇"] if theirs else [])], rows, f"AUC, {what}", strong)
    if theirs:
        made += paragraph(
            "◇ The paper's numbers are of other data (its test set, its training set): "
            + "; ".join(f"{value:.4f} {told}" for _, value, told in theirs)
            + ". They stand beside ours for orientation; the difference measures nothing.",
            "soft",
        )
    return (
        made
        + by_label(evidence)
        + partial(evidence)
        + source(f"{models_folder(evidence.name)}/scores.csv", made_by(evidence))
    )


def by_label(evidence: Evidence) -> str:
    """Members by labels, where there is more than one label."""
    if len(evidence.labels) == 1:
        return ""
    scores = evidence.scores.set_index(["member", "stage", "label"])
    rows = []
    for member, stage in (
        evidence.scores[["member", "stage"]].drop_duplicates().itertuples(index=False)
    ):
        found = [
            scores.loc[key] if (key := (member, stage, label)) in scores.index else None
            for label in evidence.labels
        ]
        rows.append(
            [named(member, stage), *("–" if row is None else with_interval(row) for row in found)]
        )
    counted = evidence.scores.drop_duplicates("label").set_index("label")
    heads = [
        Html(
            f"{escape(label)}<br>{int(counted['positives'][label]):,} of "
            f"{int(counted['n'][label]):,}"
        )
        if label in counted.index
        else label
        for label in evidence.labels
    ]
    return table(
        ["member", *heads], rows, "AUC [95 % interval] label by label; in the heading the positives"
    )


def partial(evidence: Evidence) -> str:
    """The partial AUC, where that is the organiser's score."""
    if "partial_auc" not in evidence.scores:
        return ""
    known = evidence.scores[evidence.scores["partial_auc"].notna()]
    rows = [
        [
            named(row["member"], row["stage"]),
            row["label"],
            f"{row['partial_auc']:.4f} [{row['partial_low']:.4f}, {row['partial_high']:.4f}]",
        ]
        for _, row in known.iterrows()
    ]
    return table(
        ["member", "label", "partial AUC [95 % interval]"],
        rows,
        "Area above 80 % sensitivity, 0 to 0.2",
    )


def differences(evidence: Evidence) -> str:
    """Which difference is more than noise."""
    found = evidence.facts["differences"]
    if not found:
        return paragraph("Nothing to compare: one member, one stage.")
    limits = limits_of([0, *(row[key] for row in found for key in ("low", "high"))], 0.01)
    rows = []
    for row in found:
        real = row["low"] > 0 or row["high"] < 0
        better = "first" if row["difference"] > 0 else "second"
        rows.append(
            [
                f"{pair_name(row['first'])} − {pair_name(row['second'])}",
                f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
                drawn(
                    interval_bar(
                        row["difference"],
                        row["low"],
                        row["high"],
                        limits,
                        "c-final" if real else "c-soft",
                        zero=0,
                    )
                ),
                f"{row['p']:.3f}",
                f"the {better} is better" if real else "within noise",
            ]
        )
    text = (
        "Both are scored on the same 1,000 resamples of patients, so that what they share cancels "
        "out. The best "
        "single run is the best on these very rows, which flatters it."
    )
    return (
        paragraph(text)
        + table(
            ["difference", "AUC [95 % interval]", scale(limits), "p", "verdict"],
            rows,
            "Paired differences of the mean AUC",
        )
        + source(f"{models_folder(evidence.name)}/ensemble.json", made_by(evidence))
    )


def pair_name(text: str) -> str:
    """`b5_384 AUC-M` as ensemble.json says it, as the tables here do."""
    return named(*text.split(" ", 1))


def members(evidence: Evidence) -> str:
    """How alike the members rank, and what the ensemble made of it."""
    facts, names = evidence.facts, list(evidence.facts["weights"])
    stacked = np.array(
        [
            [[np.nan if value is None else value for value in row] for row in matrix]
            for matrix in facts["correlations"].values()
        ],
        float,
    )
    there = ~np.isnan(stacked)
    mean = np.where(
        there.any(0), np.where(there, stacked, 0).sum(0) / np.maximum(there.sum(0), 1), np.nan
    )
    rows = [
        [name, *map(shaded, mean[place]), weights_text(facts["weights"][name])]
        for place, name in enumerate(names)
    ]
    over = "" if len(evidence.labels) == 1 else ", mean over labels"
    made = table(
        ["run", *names, "weight"], rows, f"Rank correlation of out-of-fold scores{over}, and weight"
    )
    if len(names) == 1:
        made = paragraph(f"{names[0]} is the only run: nothing is averaged over runs.")
    method = {
        "mean": "scores",
        "rank": "ranks within fold",
        "quantile": "quantiles by frozen out-of-fold maps",
    }
    lines = [
        f"The members' {method[facts['method']]} are averaged over folds and runs, "
        f"{facts['weighting']} weights.",
        *selection_lines(facts),
        f"Metadata has the weight {facts['metadata']:g} beside the mean of the runs."
        if facts["metadata"]
        else "Metadata is not blended in.",
    ]
    lines += [
        f"Near-duplicates on {twin['label']}: {twin['first']} and {twin['second']} (ρ = "
        f"{twin['rho']:.5f}); they "
        "count once."
        for twin in facts["near_duplicates"]
    ] or (["No two runs rank any label alike (ρ > .999)."] if len(names) > 1 else [])
    return (
        made
        + bullets(lines)
        + source(f"{models_folder(evidence.name)}/ensemble.json", made_by(evidence))
    )


def weights_text(weights: dict[str, float]) -> str:
    """One number where all labels have the same weight, else one a label."""
    values = [f"{value:.3g}" for value in weights.values()]
    return (
        values[0]
        if len(set(values)) == 1
        else ", ".join(f"{k} {v}" for k, v in zip(weights, values))
    )


def selection_lines(facts: dict) -> list[str]:
    """Whether fitted weights held in the nested estimate."""
    if "selection" not in facts:
        return []
    gain = facts["selection"]
    told = f"{gain['gain']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
    used = (
        "so they are used"
        if gain["accepted"]
        else "an interval that does not exclude 0, so they are not used"
    )
    return [f"Selected weights gain {told} over uniform ones in a nested estimate: {used}."]
