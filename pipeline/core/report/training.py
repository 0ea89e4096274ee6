"""Sections of the report about how the networks came to be: training curves, test-time views, folds."""
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.core.artifacts.tables import data_folder, fold_folder, models_folder
from pipeline.core.config.run import METADATA
from pipeline.core.folds.balance import balance_column
from pipeline.core.report.curves import Curves, curves_of, read_log
from pipeline.core.report.html import bullets, drawn, figure, legend, panels, paragraph, scale, source, table
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.svg import Plot, interval_bar, limits_of
from pipeline.core.report.views import gains, read_views

MARGIN = 0.03  # of a curve's range, kept free above and below


def training(evidence: Evidence) -> str:
    """Per run: AUC over the steps of both stages, and α beside the gap of the class means."""
    drawings = []
    runs = [*evidence.after, *([METADATA] if evidence.metadata is not None else [])]
    for run in runs:
        logs = [curves_of(read_log(path, f"make finetune COMP={evidence.name} RUN={run}"))
                for path in logs_of(evidence, run)]
        told = "AUC; the dotted line is where stage 2 begins" if logs[0].border else "AUC"
        drawings.append(figure(auc_plot(run, logs), run, told))
        if any(len(log.alpha[0]) > 1 for log in logs):
            drawings.append(figure(alpha_plot(run, logs), run, "stage 2: α and the gap of class means it acts on"))
    text = ("Thin lines are single folds. In stage 2, α grows as long as the gap between the mean scores of the "
            "classes is below the margin, and falls to 0 when it is beyond it. The gap is that of one batch, so it "
            "jumps; with normalised scores it cannot exceed its bound.")
    keys = [("c-aucm", "validation AUC"), ("c-ce dashed", "training AUC, last scores"), ("c-final", "α"),
            ("c-other thin", "gap of class means"), ("c-soft dashed", "bound of the gap")]
    return (paragraph(text) + legend(keys) + panels(drawings, pairs=True)
            + source(f"{models_folder(evidence.name)}/<run>/fold*/log.jsonl", f"make finetune COMP={evidence.name}"))


def logs_of(evidence: Evidence, run: str) -> list[Path]:
    return [fold_folder(evidence.name, run, fold) / "log.jsonl" for fold in evidence.rows.folds]


def span(values: list[float], least: float = 0.02) -> tuple[float, float]:
    """A range that holds the values with a margin."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    free = max((high - low) * MARGIN, least / 2)
    return low - free, high + free


def auc_plot(run: str, logs: list[Curves]) -> str:
    """Validation and training AUC of all folds."""
    values = [value for log in logs for curve in (log.valid, log.train) for value in curve[1]]
    last, best = max(log.last for log in logs), [log.valid[1][-1] for log in logs if log.valid[1]]
    low, high = span(values)
    plot = Plot((0, 1.02 * last), (max(low, 0), min(high, 1)), "step", "AUC")
    border = max(log.border for log in logs)
    if border:
        plot.line([border, border], [low, high], "c-soft dotted")
    for log in logs:
        plot.line(*log.train, "c-ce thin dashed")
    for log in logs:
        plot.line(*log.valid, "c-aucm" if len(logs) == 1 else "c-aucm thin")
        for x, y in zip(*log.valid):
            plot.dot(x, y, "c-aucm small", f"step {x}: {y:.4f}")
    ended = f"{np.mean(best):.3f} on average over {len(best)} folds" if best else "unknown"
    return plot.svg(f"Training curves of {run}. Validation AUC at the end: {ended}", clip=f"auc-{run}")


def alpha_plot(run: str, logs: list[Curves]) -> str:
    """α of all folds, the gap between class means, and the gap's bound."""
    curves = [curve for log in logs for curve in (log.alpha, log.gap, log.reach)]
    start = min(log.alpha[0][0] for log in logs if log.alpha[0])
    low, high = span([0.0, *(value for curve in curves for value in curve[1])])
    plot = Plot((min(start, *(log.border for log in logs)), 1.02 * max(log.last for log in logs)), (low, high), "step",
                "α, gap of means")
    for log in logs:
        plot.line(*log.reach, "c-soft thin dashed")
        plot.line(*log.gap, "c-other thin")
    for log in logs:
        plot.line(*log.alpha, "c-final" if len(logs) == 1 else "c-final thin strong")
    ends = [log.alpha[1][-1] for log in logs if log.alpha[1]]
    return plot.svg(f"α of {run} over the steps of stage 2; at the end {np.mean(ends):.3f} on average over folds",
                    clip=f"alpha-{run}")


def views(evidence: Evidence) -> str:
    """What 2, 4, … views gain over one, per run."""
    task, tables = evidence.competition.task, []
    found = {run: gains(read_views(evidence.name, run, evidence.rows, task.labels), evidence.rows,
                        evidence.units.truth, evidence.patients, task)
             for run in tqdm(evidence.after, desc="gain of views", unit="run", leave=False)}
    limits = limits_of([0, *(row[key] for rows in found.values() for row in rows for key in ("low", "high")
                             if key in row)], 0.01)
    for run, rows in found.items():
        lines = [[row["views"], f"{row['auc']:.4f}",
                  *([f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
                     drawn(interval_bar(row["difference"], row["low"], row["high"], limits,
                                        "c-final" if row["low"] > 0 or row["high"] < 0 else "c-soft", zero=0))]
                    if "difference" in row else ["", ""])] for row in rows]
        tables.append(table(["views", "AUC", "gain over 1 [95 %]", scale(limits)], lines,
                            f"{run}, {evidence.stage_2}"))
    text = ("The first view is the picture itself; the others are its mirror images and turns, then small changes of "
            "angle, size and place. Scores of the first v views are averaged; gains are paired, over patients. Green "
            "where the interval excludes 0.")
    return (paragraph(text) + panels(tables, pairs=True)
            + source(f"{models_folder(evidence.name)}/<run>/fold*/predictions_views.npz",
                     f"make predict COMP={evidence.name}"))


def folds(evidence: Evidence) -> str:
    """The audit: balance of the folds, groups, test twins, leaks, and what a split by image would have reported."""
    audit = evidence.audit
    columns = [balance_column(row) for row in audit["folds"]] + [balance_column({**audit["all"], "deviation": None})]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "0") for column in columns)] for name in names]
    head = ["", *(f"fold {row['fold']}" for row in audit["folds"]), "all"]
    made = table(head, rows, "What each fold validates; in percent the deviation from the mean fold")
    lines = [f"Leaks from training into validation: {len(audit['leaks'])}.", *group_lines(audit), *audit["warnings"]]
    made_how = ", ".join(f"{key} {value}" for key, value in audit["made"].items())
    return (paragraph(f"All images of a patient, and all near-identical images, are in one fold ({made_how}).")
            + made + bullets(lines) + why(audit)
            + source(f"{data_folder(evidence.name)}/folds_audit.json", f"python -m pipeline.folds {evidence.name} "
                                                                      "--audit"))


def group_lines(audit: dict) -> list[str]:
    """What was joined, dropped, and shared with the test set."""
    groups, test, always = audit["groups"], audit["test"], audit["always_trains"]
    joined = ", ".join(f"{count} by {reason}" for reason, count in groups["links"].items()) or "none"
    lines = [f"{groups['patients']} patients in {groups['groups']} groups, the largest of "
             f"{groups['largest_patients']}; links between images beyond the patient: {joined}.",
             f"Test: {test['images']} images; {test['patients_in_training']} of its patients also train; "
             f"{test['linked_to_training']} links to training images."]
    if always["images"]:
        lines.append(f"{always['images']} images of {always['patients']} patients always train.")
    return lines + [f"Dropped from training: {count} images, {reason}." for reason, count in audit["dropped"].items()]


def why(audit: dict) -> str:
    """What a split by image would have added for nothing, where that was asked."""
    if not audit.get("why"):
        return ""
    rows = [[f"{row['model']}, {row['label']}", f"{row['by_image']:.4f}", f"{row['by_group']:.4f}",
             f"{row['difference']:+.4f} ± {row['standard_error']:.4f}", row["images"], row["patients"]]
            for row in audit["why"]]
    return table(["model, label", "by image", "by patient", "difference ± SE", "images", "patients"], rows,
                 "Why by patient: the AUC of two cheap models under a split by image, and by groups of patients")
