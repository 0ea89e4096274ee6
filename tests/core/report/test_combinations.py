"""The section about combinations: every candidate, what mattered, what is submitted, what leaks."""

from types import SimpleNamespace

from pipeline.core.report.origins.combinations import combinations

TOLD = {
    "candidates": [
        {"candidate": "uniform mean", "auc": 0.9, "gain": 0.0, "low": 0.0, "high": 0.0, "p": 1.0},
        {"candidate": "second level", "auc": 0.92, "gain": 0.02, "low": 0.01, "high": 0.03, "p": 0},
    ],
    "columns": [{"column": "all scores columns", "kind": True, "gain": 0.75, "fall": 0.0123}],
    "curve": [
        {"rounds": 10, "training": 0.91, "held_out": 0.9},
        {"rounds": 300, "training": 0.95, "held_out": 0.92},
    ],
    "suspects": [
        {"column": "row in images.csv", "auc": 0.7, "tells": True, "names_patients": 0, "used": 0}
    ],
}


def evidence(final_stage: str, **facts) -> SimpleNamespace:
    task = SimpleNamespace(metric="auc")
    return SimpleNamespace(
        name="lesions",
        made_by="make ensemble COMP=lesions",
        final_stage=final_stage,
        competition=SimpleNamespace(task=task),
        facts={"metadata": 0.5, **facts},
    )


def test_candidates_columns_curve_and_suspects_are_shown():
    html = combinations(
        evidence("blend", choice={"nevus": "second level"}, second_level={"nevus": TOLD})
    )
    assert "+0.0200 [+0.0100, +0.0300]" in html
    assert "75.0%" in html and "-0.0123" in html
    assert html.count("<svg") == 1 and "300 rounds: 0.9200" in html
    assert "Earned its place: second level. Submitted is the runs&#x27; mean with 0.5" in html
    assert "Tells the label though it should not (AUC): row in images.csv 0.700." in html


def test_what_is_submitted_is_said_and_so_is_that_nothing_was_scored():
    submitted = evidence("earned", choice={"nevus": "second level"}, second_level={"nevus": TOLD})
    assert "Submitted: second level." in combinations(submitted)
    assert "Only the average above was scored" in combinations(evidence("blend"))
