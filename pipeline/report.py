"""One self-contained HTML page about a competition: what can be claimed, how sure that is, and
where it is from.

    python -m pipeline.report melanoma
    python -m pipeline.report melanoma --prevalence 0.005      of the patients one has in mind, for
                                                               PPV and NPV
    python -m pipeline.report chexpert --truth groundtruth.csv --readers benchmark_radiologists
                                             and the test scores against radiologists, where their
                                             truth is known

reads   data/<comp>/images.csv, folds.csv, folds_audit.json, images/<size>/
        models/<comp>/ensemble.csv, ensemble.json, scores.csv
        models/<comp>/<run>/fold<k>/predictions.csv, predictions_pretrained.csv,
        predictions_views.npz, log.jsonl, and the weights, from which come heat maps: one pass of
        each image shown, 7 s for 57 by a small network; without weights no maps
writes  submissions/<comp>/report.html, and beside it report_files/: every table as CSV, every
        figure as SVG

The page opens from disk: no script, no font, no request. Intervals are 95 %, over patients.
"""

import argparse
from pathlib import Path

from pipeline.core.artifacts.files import file_hashes, write_text
from pipeline.core.artifacts.paths import submissions_folder
from pipeline.core.artifacts.provenance import notice, write_sidecar
from pipeline.core.config.competition import load_competition
from pipeline.core.config.target_path import parse_target
from pipeline.core.report.downloads import write_downloads
from pipeline.core.report.figures import histograms, roc_curves, training
from pipeline.core.report.html import page
from pipeline.core.report.inputs import Evidence, read_evidence
from pipeline.core.report.origins import combinations, folds, members, sources
from pipeline.core.report.origins.first_screen import first_screen
from pipeline.core.report.results import differences, gallery, pointing, scores, subgroups, views
from pipeline.core.report.results.calibration import calibration
from pipeline.core.report.results.operating_points import (
    asked_points,
    operating_points,
    points_of_labels,
)
from pipeline.core.report.results.readers import against_readers
from pipeline.core.runs.missing import report_facts
from pipeline.core.runs.predictions import is_imported
from pipeline.core.runtime.command import run_stage, stage_parser
from pipeline.core.runtime.errors import UserError

STATED_PREVALENCE = 0.01  # of PPV and NPV, where none is stated


def main(arguments: argparse.Namespace) -> None:
    if bool(arguments.truth) != bool(arguments.readers):
        raise UserError(
            "--truth and --readers go together: the radiologists' calls and what is true of those "
            "cases"
        )
    if not 0 < arguments.prevalence < 1:
        raise UserError(f"--prevalence {arguments.prevalence} is not between 0 and 1")
    for name in dict.fromkeys(parse_target(text).competition for text in arguments.targets):
        evidence = read_evidence(load_competition(name))
        points = points_of_labels(evidence)
        sections = sections_of(evidence, points, arguments)
        path = submissions_folder(name) / "report.html"
        names = write_downloads(path.with_name("report_files"), sections)
        files = [f"report_files/{file}" for file in names]
        write_text(path, page_of(evidence, points, sections))
        beside = file_hashes(path.parent, files)
        write_sidecar(path, name, files=beside, **report_facts(evidence.competition))
        size = path.stat().st_size / 1e6
        what = f"{len(files)} tables and figures beside it"
        print(f"{path}: {size:.1f} MB, opens in any browser; {what}")


def parser() -> argparse.ArgumentParser:
    options = stage_parser(__doc__)
    options.add_argument("--truth", type=Path, metavar="CSV", help="true labels of the test cases")
    options.add_argument(
        "--readers", type=Path, metavar="DIR", help="folder with a CSV of 0/1 calls per radiologist"
    )
    options.add_argument(
        "--prevalence",
        type=float,
        default=STATED_PREVALENCE,
        metavar="P",
        help="of the patients one has in mind, for PPV and NPV (default %(default)s)",
    )
    return options


def report(evidence: Evidence, truth: Path | None = None, readers: Path | None = None) -> str:
    """The page's HTML."""
    points = points_of_labels(evidence)
    asked = argparse.Namespace(truth=truth, readers=readers, prevalence=STATED_PREVALENCE)
    return page_of(evidence, points, sections_of(evidence, points, asked))


def page_of(evidence: Evidence, points: dict, sections: list[tuple[str, str, str]]) -> str:
    """The page of these sections, below its first screen."""
    lead = first_screen(evidence, asked_points(points))
    return page(evidence.competition.task.title, lead, sections, notice(evidence.name))


def sections_of(
    evidence: Evidence, points: dict, asked: argparse.Namespace
) -> list[tuple[str, str, str]]:
    """(id, heading, HTML) in the order of the page; asked: truth, readers, prevalence."""
    trained = [run for run in evidence.after if not is_imported(evidence.name, run)]
    sections = [
        ("summary", "Scores", scores.scores_section(evidence)),
        ("points", "Operating points", operating_points(evidence, points, asked.prevalence)),
        ("roc", "ROC curves", roc_curves.roc(evidence)),
        ("calibration", "Calibration and benefit", calibration(evidence)),
        ("differences", "Which differences are real", differences.differences(evidence)),
    ]
    if asked.truth:
        against = against_readers(evidence, asked.truth, asked.readers)
        sections.append(("readers", "Against radiologists", against))
    sections += [
        ("histograms", "Scores of positives and negatives", histograms.histograms(evidence)),
        ("subgroups", "Subgroups", subgroups.subgroups(evidence)),
    ]
    # Predictions from elsewhere have no log, no views, and may have no images.
    if trained:
        sections += [
            ("errors", "The most confident errors", gallery.gallery(evidence)),
            *pointing.pointing_sections(evidence),
            ("training", "Training", training.training(evidence, trained)),
            ("views", "Test-time views", views.views(evidence, trained)),
        ]
    sections += [
        ("members", "Members of the ensemble", members.members_section(evidence)),
        ("combinations", "Ways to combine the members", combinations.combinations(evidence)),
        ("folds", "Folds", folds.folds(evidence)),
        ("origins", "Sources", sources.origins(evidence)),
    ]
    return sections


if __name__ == "__main__":
    run_stage(main, parser())
