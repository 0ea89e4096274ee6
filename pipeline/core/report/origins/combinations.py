"""Section "Ways to combine the members": every candidate scored nested, which one has earned its
place, what the second level learned from, and what should not tell anything but does."""

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.config.stages import EARNED
from pipeline.core.ensemble.scores import DIFFERENCE, with_interval
from pipeline.core.ensemble.suspects import suspicion_lines
from pipeline.core.report.figures.svg import Plot
from pipeline.core.report.figures.training import axis_range
from pipeline.core.report.html import (
    bullets,
    figure,
    html_table,
    legend,
    paragraph,
    side_by_side,
    source,
)
from pipeline.core.report.inputs import Evidence

METRIC_NAMES = {"auc": "AUC", "partial_auc": "partial AUC"}


def combinations(evidence: Evidence) -> str:
    """A table of candidates for each label; columns and learning curve of the second level."""
    told = evidence.facts.get("second_level")
    if not told:
        return paragraph(
            "Only the average above was scored: the competition's file does not ask for more "
            "(second_level=True), or folds or positives are too few to score it nested.",
            "soft",
        )
    parts = [
        paragraph(
            "From simple to involved, each fitted on some folds' patients and scored on others "
            "(nested): no image is scored by a weight or a learner that saw its patient. A way "
            "has earned its place where its gain over the one that has it lies above 0."
        )
    ]
    for label, one in told.items():
        parts += [candidate_table(evidence, label, one["candidates"]), *columns_of(one)]
        parts.append(bullets([*chosen_lines(evidence, label), *suspect_lines(one)]))
    written = source(f"{models_folder(evidence.name)}/ensemble.json", evidence.made_by)
    return "".join(parts) + written


def candidate_table(evidence: Evidence, label: str, rows: list[dict]) -> str:
    """The metric of each candidate and its gain over the first."""
    metric = evidence.competition.task.metric
    name = METRIC_NAMES[metric]
    cells = []
    for row in rows:
        gain = with_interval(row["gain"], row["low"], row["high"], DIFFERENCE)
        cells.append([row["candidate"], f"{row[metric]:.4f}", gain if row["gain"] else "–"])
    chosen = evidence.facts["choice"][label]
    strong = [place for place, row in enumerate(rows) if row["candidate"] == chosen]
    head = ["way to combine", f"{name}, nested", f"over the {rows[0]['candidate']} [95 %]"]
    caption = f"{label}: ways to combine, in bold the one that has earned its place"
    return html_table(head, cells, caption, strong)


def columns_of(told: dict) -> list[str]:
    """Which columns mattered, and the learning curve, where there is a second level."""
    if not told.get("columns"):
        return []
    rows = [
        [row["column"], f"{row['gain']:.1%}", f"{-row['fall']:+.4f}"] for row in told["columns"]
    ]
    caption = (
        "What the second level learned from: share of the trees' gain, and change of the metric on "
        "held-out patients when the columns are permuted among them; kinds of columns first"
    )
    parts = [html_table(["column", "gain", "permuted"], rows, caption)]
    if told["curve"]:
        keys = [("c-aucm", "held-out patients"), ("c-ce dashed", "patients it was fitted on")]
        text = "the trees' metric against boosting rounds, mean over folds"
        drawing = figure(curve_plot(told["curve"]), "Learning curve", text)
        parts += [legend(keys), side_by_side([drawing], pairs=True)]
    return parts


def curve_plot(curve: list[dict]) -> str:
    """Training and held-out metric against rounds."""
    rounds = [row["rounds"] for row in curve]
    training = [row["training"] for row in curve]
    held_out = [row["held_out"] for row in curve]
    plot = Plot((0, 1.02 * rounds[-1]), axis_range([*training, *held_out]), "rounds", "metric")
    plot.line(rounds, training, "c-ce dashed")
    plot.line(rounds, held_out, "c-aucm")
    for x, y in zip(rounds, held_out):
        plot.dot(x, y, "c-aucm small", f"{x} rounds: {y:.4f}")
    return plot.svg(f"Learning curve of the second level, {held_out[-1]:.4f} at the end")


def chosen_lines(evidence: Evidence, label: str) -> list[str]:
    """What is submitted."""
    chosen = evidence.facts["choice"][label]
    if evidence.final_stage == EARNED:
        return [f"Submitted: {chosen}."]
    share = evidence.facts["metadata"]
    average = f"the runs' mean with {share:g} of metadata" if share else "the runs' mean"
    return [
        f"Earned its place: {chosen}. Submitted is {average}, as the competition's file says; "
        "weights='earned' there would submit the other."
    ]


def suspect_lines(told: dict) -> list[str]:
    """What was looked at for leaks, and what was found."""
    looked = ", ".join(row["column"] for row in told["suspects"] if not row["used"])
    lines = [f"Should tell nothing of the label, looked at alone: {looked or 'nothing is there'}."]
    found = [f"{line[0].upper()}{line[1:]}." for line in suspicion_lines(told["suspects"])]
    return lines + (found or ["None of them does beyond noise, and no column names patients."])
