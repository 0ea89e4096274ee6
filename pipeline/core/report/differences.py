"""Section "Which differences are real": paired differences of mean AUCs, with interval and p."""

from pipeline.core.artifacts.paths import models_folder
from pipeline.core.ensemble.scores import difference_text, excludes_zero
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
        better = "first" if pair["difference"] > 0 else "second"
        verdict = f"the {better} is better" if excludes_zero(pair) else "within noise"
        rows.append(
            [
                f"{pair_title(pair['first'])} − {pair_title(pair['second'])}",
                difference_text(pair),
                drawn(difference_bar(pair, limits)),
                f"{pair['p']:.3f}",
                verdict,
            ]
        )
    text = (
        "Both are scored on the same 1,000 resamples of patients, so that what they share cancels "
        "out. The best single run is the best on these very rows, which flatters it."
    )
    head = ["difference", "AUC [95 % interval]", scale(limits), "p", "verdict"]
    return (
        paragraph(text)
        + html_table(head, rows, "Paired differences of the mean AUC")
        + source(f"{models_folder(evidence.name)}/ensemble.json", evidence.made_by)
    )
