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

The page opens from disk: no script, no font, no request. Intervals are 95 %, of 1,000 resamples of
patients.
"""

import argparse
from html import escape
from pathlib import Path

import numpy as np

from pipeline.core.artifacts.files import write_text
from pipeline.core.artifacts.paths import submissions_folder
from pipeline.core.artifacts.provenance import note_ensemble
from pipeline.core.config.competition import load
from pipeline.core.config.target import parse_target
from pipeline.core.report import (
    differences,
    folds,
    gallery,
    histograms,
    members,
    roc_curves,
    scores,
    sources,
    subgroups,
    training,
    views,
)
from pipeline.core.report.html import page
from pipeline.core.report.inputs import Evidence, read_evidence
from pipeline.core.report.readers import against_readers
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError


def main(arguments: argparse.Namespace) -> None:
    if bool(arguments.truth) != bool(arguments.readers):
        raise UserError(
            "--truth and --readers go together: the radiologists' calls and what is true of those "
            "cases"
        )
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        evidence = read_evidence(load(name))
        path = submissions_folder(name) / "report.html"
        write_text(path, report(evidence, arguments.truth, arguments.readers))
        note_ensemble(path, name)
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
        ("summary", "Scores", scores.summary(evidence)),
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
        ("members", "Members of the ensemble", members.members(evidence)),
        ("subgroups", "Subgroups", subgroups.subgroups(evidence)),
        ("errors", "The most confident errors", gallery.gallery(evidence)),
        ("folds", "Folds", folds.folds(evidence)),
        ("origins", "Sources", sources.origins(evidence)),
    ]
    return page(evidence.competition.task.title, lead(evidence), sections)


def lead(evidence: Evidence) -> str:
    """The four figures that one would be asked for first, and what they are of."""
    final = evidence.scores[
        (evidence.scores["member"] == "ensemble")
        & (evidence.scores["label"] == "mean")
        & (evidence.scores["stage"] == evidence.final_stage)
    ]
    unit = {"image": "images", "study": "studies"}[evidence.competition.task.unit]
    counts = [
        (f"{len(evidence.units.keys):,}", f"{unit} scored, {len(evidence.rows.folds)} fold(s)"),
        (f"{len(np.unique(evidence.patients)):,}", "patients, the unit of every interval"),
        (
            f"{int((evidence.units.truth == 1).sum()):,}",
            "positives"
            if len(evidence.labels) == 1
            else f"positives of {len(evidence.labels)} labels",
        ),
    ]
    if len(final):
        row = final.iloc[0]
        counts.insert(
            0,
            (
                f"{row['auc']:.3f}",
                f"{'mean ' if len(evidence.labels) > 1 else ''}AUC, 95 % interval "
                f"{row['low']:.3f} to {row['high']:.3f}",
            ),
        )
    boxes = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in counts
    )
    runs, blended = (
        len(evidence.after),
        " and a network on patient columns" if evidence.facts["metadata"] else "",
    )
    return (
        f'<p class="soft">{"Mean of " + str(runs) + " runs" if runs > 1 else next(iter(evidence.after))}'
        f"{blended}. Every score is of a network that never saw the patient (out of fold).</p>"
        f'<div class="head">{boxes}</div>'
    )


if __name__ == "__main__":
    run_stage(main, parser())
