"""Section "Which differences are real": paired differences of mean AUCs, with interval and p."""

import numpy as np

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.ensemble.scores import TOO_FEW, difference_text, excludes_zero
from pipeline.core.report.figures.svg import difference_bar, limits_of
from pipeline.core.report.html import drawn, html_table, paragraph, scale, source
from pipeline.core.report.inputs import Evidence
from pipeline.core.report.names import pair_title


def differences(evidence: Evidence) -> str:
    """Which difference is more than noise."""
    pairs = evidence.facts["differences"]
    if not pairs:
        return paragraph("Nothing to compare: one member, one stage.")
    # one scale for all rows, 0 within
    ends = [0.0]
    for pair in pairs:
        ends += [pair["low"], pair["high"]]
    limits = limits_of(ends, 0.01)

    # green where the interval excludes 0
    rows = []
    for pair in pairs:
        rows.append(
            [
                f"{pair_title(pair['first'])} − {pair_title(pair['second'])}",
                difference_text(pair),
                drawn(difference_bar(pair, limits)),
                p_text(pair["p"]),
                verdict(pair),
            ]
        )
    text = (
        "Paired, over patients: what the two share cancels out. p is of an exchange test: were the "
        "two alike, their scores of a patient could be exchanged. The best single run is the best "
        "on these very rows, which flatters it."
    )
    head = ["difference", "AUC [95 % interval]", scale(limits), "p", "verdict"]
    return (
        paragraph(text)
        + html_table(head, rows, "Paired differences of the mean AUC")
        + source(f"{models_folder(evidence.name)}/ensemble.json", evidence.made_by)
    )


def verdict(pair: dict) -> str:
    """Which of the two is better, where that is more than noise; pair: of `difference_row`."""
    if np.isnan(pair["low"]):
        return TOO_FEW
    if not excludes_zero(pair):
        return "within noise"
    return "the first is better" if pair["difference"] > 0 else "the second is better"


def p_text(p: float) -> str:
    """`0.012`, `< 0.001`, a dash for NaN."""
    if np.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
