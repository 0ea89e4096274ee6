"""Section "Members of the ensemble": how alike the runs rank, and how they are averaged."""

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.ensemble.member_stages import stage_lines
from pipeline.core.ensemble.scores import gain_text
from pipeline.core.ensemble.selection import SAME_MEMBER_CORRELATION
from pipeline.core.report.html import bullets, html_table, paragraph, shaded, source
from pipeline.core.report.inputs import Evidence

# Blend.method in words
METHODS = {
    "mean": "scores",
    "rank": "ranks within fold",
    "quantile": "quantiles by frozen out-of-fold maps",
}


def members_section(evidence: Evidence) -> str:
    """How alike the members rank, and what the ensemble made of it."""
    facts = evidence.facts
    lines = [
        average_line(facts),
        *stage_lines(facts["stages"]),
        *selection_lines(facts),
        metadata_line(facts),
        *near_duplicate_lines(facts),
    ]
    return (
        correlation_table(evidence)
        + bullets(lines)
        + source(f"{models_folder(evidence.name)}/ensemble.json", evidence.made_by)
    )


def average_line(facts: dict) -> str:
    """What the ensemble makes of its members."""
    if facts["weighting"] == "earned":
        return "The members are combined as has earned its place: see the next section."
    return (
        f"The members' {METHODS[facts['method']]} are averaged over folds and runs, "
        f"{facts['weighting']} weights."
    )


def correlation_table(evidence: Evidence) -> str:
    """Rank correlations of the runs, averaged over the labels that both predict, and weights."""
    facts = evidence.facts
    names = list(facts["weights"])
    if len(names) == 1:
        return paragraph(f"{names[0]} is the only member: nothing is averaged over runs.")
    # (labels, M, M); null in the file, NaN here, where one does not predict the label
    correlations = np.array(list(facts["correlations"].values()), dtype=float)
    known = ~np.isnan(correlations)
    total = np.where(known, correlations, 0).sum(axis=0)
    mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
    rows = []
    for place, name in enumerate(names):
        rows.append([name, *map(shaded, mean[place]), weights_text(facts["weights"][name])])
    over = "" if len(evidence.labels) == 1 else ", mean over labels"
    caption = f"Rank correlation of out-of-fold scores{over}, and weight"
    return html_table(["member", *names, "weight"], rows, caption)


def weights_text(weights: dict[str, float]) -> str:
    """One number where all labels have the same weight, else one a label."""
    texts = {label: f"{value:.3g}" for label, value in weights.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{label} {text}" for label, text in texts.items())


def selection_lines(facts: dict) -> list[str]:
    """Whether fitted weights held in the nested estimate."""
    if "selection" not in facts:
        return []
    selection = facts["selection"]
    gain = gain_text(selection)
    used = "so they are used"
    if not selection["accepted"]:
        used = "an interval that does not exclude 0, so they are not used"
    return [f"Selected weights gain {gain} over uniform ones in a nested estimate: {used}."]


def metadata_line(facts: dict) -> str:
    """The metadata network's share."""
    if not facts["metadata"]:
        return "Metadata is not blended in."
    return f"Metadata has the weight {facts['metadata']:g} beside the mean of the runs."


def near_duplicate_lines(facts: dict) -> list[str]:
    """The pairs of runs that rank a label alike."""
    lines = []
    for pair in facts["near_duplicates"]:
        lines.append(
            f"Near-duplicates on {pair['label']}: {pair['first']} and {pair['second']} "
            f"(ρ = {pair['rho']:.5f}); they count once."
        )
    if not lines and len(facts["weights"]) > 1:
        limit = f"{SAME_MEMBER_CORRELATION:g}".removeprefix("0")
        lines.append(f"No two runs rank any label alike (ρ > {limit}).")
    return lines
