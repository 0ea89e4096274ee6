"""One self-contained HTML page about a competition: what can be claimed, how sure that is, and
where it is from.

    python -m pipeline.report melanoma
    python -m pipeline.report chexpert --truth groundtruth.csv --readers benchmark_radiologists
                                             and the test scores against radiologists, where their
                                             truth is known

reads   data/<comp>/images.csv, folds.csv, folds_audit.json, images/<size>/
        models/<comp>/ensemble.csv, ensemble.json, scores.csv
        models/<comp>/<run>/fold<k>/predictions.csv, predictions_pretrained.csv,
        predictions_views.npz, log.jsonl
writes  submissions/<comp>/report.html

The page opens from disk: no script, no font, no request. Intervals are 95 %, over patients.
"""

import argparse
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import submissions_folder
from pipeline.core.artifacts.provenance import notice, write_sidecar
from pipeline.core.config.competition import load_competition
from pipeline.core.config.stages import EARNED
from pipeline.core.config.target_path import parse_target
from pipeline.core.report.figures import histograms, roc_curves, training
from pipeline.core.report.html import page
from pipeline.core.report.inputs import Evidence, read_evidence
from pipeline.core.report.origins import combinations, folds, members, sources
from pipeline.core.report.results import differences, gallery, scores, subgroups, views
from pipeline.core.report.results.readers import against_readers
from pipeline.core.runs.missing import report_facts
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError


def main(arguments: argparse.Namespace) -> None:
    if bool(arguments.truth) != bool(arguments.readers):
        raise UserError(
            "--truth and --readers go together: the radiologists' calls and what is true of those "
            "cases"
        )
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        evidence = read_evidence(load_competition(name))
        path = submissions_folder(name) / "report.html"
        write_text(path, report(evidence, arguments.truth, arguments.readers))
        write_sidecar(path, name, **report_facts(evidence.competition))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__)
    options.add_argument("--truth", type=Path, metavar="CSV", help="true labels of the test cases")
    options.add_argument(
        "--readers", type=Path, metavar="DIR", help="folder with a CSV of 0/1 calls per radiologist"
    )
    return options


def report(evidence: Evidence, truth: Path | None = None, readers: Path | None = None) -> str:
    """The page's HTML."""
    sections = [
        ("summary", "Scores", scores.scores_section(evidence)),
        ("differences", "Which differences are real", differences.differences(evidence)),
        ("roc", "ROC curves", roc_curves.roc(evidence)),
        *(
            [("readers", "Against radiologists", against_readers(evidence, truth, readers))]
            if truth
            else []
        ),
        ("histograms", "Scores of positives and negatives", histograms.histograms(evidence)),
        ("training", "Training", training.training(evidence)),
        ("views", "Test-time views", views.views(evidence)),
        ("members", "Members of the ensemble", members.members_section(evidence)),
        ("combinations", "Ways to combine the members", combinations.combinations(evidence)),
        ("subgroups", "Subgroups", subgroups.subgroups(evidence)),
        ("errors", "The most confident errors", gallery.gallery(evidence)),
        ("folds", "Folds", folds.folds(evidence)),
        ("origins", "Sources", sources.origins(evidence)),
    ]
    title = evidence.competition.task.title
    return page(title, lead(evidence), sections, notice(evidence.competition.name))


def lead(evidence: Evidence) -> str:
    """The four figures that one would be asked for first, and what they are of."""
    several = len(evidence.labels) > 1
    positives = int((evidence.units.truth == 1).sum())
    unit = {"image": "images", "study": "studies"}[evidence.competition.task.unit]
    folds = f"{len(evidence.rows.folds)} fold(s)"

    # (figure, what it is), the AUC first.
    figures = [
        (f"{len(evidence.units.keys):,}", f"{unit} scored, {folds}"),
        (f"{len(np.unique(evidence.patients)):,}", "patients, the unit of every interval"),
        (
            f"{positives:,}",
            f"positives of {len(evidence.labels)} labels" if several else "positives",
        ),
    ]
    final = final_row(evidence)
    if final is not None:
        what = "mean AUC" if several else "AUC"
        interval = f"{what}, 95 % interval {final['low']:.3f} to {final['high']:.3f}"
        figures.insert(0, (f"{final['auc']:.3f}", interval))
    boxes = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in figures
    )

    # What was averaged.
    runs = len(evidence.after)
    average = f"Mean of {runs} runs" if runs > 1 else next(iter(evidence.after))
    if evidence.final_stage == EARNED:
        chosen = ", ".join(dict.fromkeys(evidence.facts["choice"].values()))
        average = f"{chosen.capitalize()} of {runs} members"
    blended = " and a network on patient columns" if evidence.facts["metadata"] else ""
    return (
        f'<p class="soft">{escape(average)}{blended}. Every score is of a network that never saw '
        f'the patient (out of fold).</p><div class="head">{boxes}</div>'
    )


def final_row(evidence: Evidence) -> pd.Series | None:
    """The row of scores.csv of what is submitted, over all labels; None where there is none."""
    table = evidence.scores
    final = table[
        (table["member"] == "ensemble")
        & (table["label"] == "mean")
        & (table["stage"] == evidence.final_stage)
    ]
    return final.iloc[0] if len(final) else None


if __name__ == "__main__":
    run_stage(main, parser())
