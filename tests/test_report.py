"""The report: a page of valid HTML that needs nothing from elsewhere, whose numbers are those of
the artifacts."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline import report as stage
from pipeline.core.artifacts.files import file_hash, read_json, write_sealed
from pipeline.core.artifacts.labels import truth
from pipeline.core.artifacts.paths import data_folder, fold_folder, models_folder
from pipeline.core.ensemble.scores import with_interval
from pipeline.core.metrics import auc, auc_interval, point_at_specificity
from pipeline.core.report.inputs import read_evidence
from pipeline.core.report.results import readers as against
from pipeline.core.runtime.errors import UserError
from pipeline.summary import NAME as NAME_WIDTH
from pipeline.summary import competition_summary
from tests.cases.reports import NAME, competition, write_all

VOID = {"meta", "img", "br", "link", "input", "hr"}
PUBLISHED = (("CE", 0.9345, "is one network"), ("final", 0.9438, "ten <of> them"))


def published(competition):
    """The same competition, whose file has the paper's numbers."""
    return replace(competition, module=SimpleNamespace(published=PUBLISHED))


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A competition of studies and two labels, every artifact written once for all tests of this
    file."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "MODELS", "SUBMISSIONS"):
            patch.setenv(name, str(root / name.lower()))
        write_all(competition(unit="study"))
        yield root


@pytest.fixture(scope="module")
def page(roots):  # noqa: ARG001  # the artifacts it is made from
    return stage.report(read_evidence(published(competition(unit="study"))))


@pytest.fixture
def copy(roots, tmp_path, monkeypatch):
    """The artifacts again, to be damaged."""
    for name in ("DATA", "MODELS", "SUBMISSIONS"):
        if (roots / name.lower()).exists():
            shutil.copytree(roots / name.lower(), tmp_path / name.lower())
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    return tmp_path


class Checker(HTMLParser):
    """Every element is closed where it should be; what is referred to, and ids, are collected."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.links = []
        self.ids = []
        self.images = []
        self.cells = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag not in ("script", "link", "iframe", "object"), tag
        self.links += [
            attributes[name]
            for name in ("href", "src", "xlink:href", "srcset")
            if name in attributes
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            assert attributes["alt"]
            self.images.append(attributes["src"])
        if tag == "svg":
            assert (
                attributes.get("aria-label")
                or "aria-hidden" in attributes
                or "overflow" in attributes
            )
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "object"), tag
        attributes = dict(attributes)
        assert "NaN" not in str(attributes) and "nan" not in (attributes.get("d") or ""), attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


def test_html_is_well_formed_and_needs_nothing_from_elsewhere(page):
    found = Checker(page)
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        assert link.startswith("data:image/jpeg;base64,") or link[1:] in found.ids, link
    assert not re.search(r"https?://|@import|url\((?!#)|@font-face|<script|javascript:", page)
    assert len(found.images) == 2 * 3 * 4  # labels, kinds, images: no weights, no heat maps
    assert page.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_text_of_the_data_is_escaped(page):
    for text in ("Lesions &amp; scars", "&lt;leg&gt; &amp; foot", "ten &lt;of&gt; them"):
        assert text in page
    assert "<leg>" not in page


def test_numbers_are_those_of_scores_csv(page):
    cells = set(Checker(page).cells)
    table = pd.read_csv(models_folder(NAME) / "scores.csv")
    assert len(table) == 9 * 3
    for row in table.itertuples():
        assert f"{row.auc:.4f} [{row.low:.4f}, {row.high:.4f}]" in cells, row
    for row in json.loads((models_folder(NAME) / "ensemble.json").read_text())["differences"]:
        assert f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]" in cells


def test_the_first_screen_answers(page):
    """Sensitivity at 95 % specificity, its interval, the data and how it was made, before any
    section; the figures are those of the rows."""
    header = page[: page.index("<main>")]
    evidence = read_evidence(competition(unit="study"))
    for k, label in enumerate(evidence.labels):
        own = (evidence.final[:, k], evidence.units.truth[:, k])
        point = point_at_specificity(*own, 0.95, evidence.patients)
        ends = f"({100 * point.low:.0f} to {100 * point.high:.0f} %)"
        assert f"{label}</th><td>{100 * point.sensitivity:.0f} % {ends}</td>" in header
    for text in ("real data; full run", "uniform weights", "not recorded", "275 images", "commit"):
        assert text in header, text


@pytest.mark.usefixtures("copy")
def test_synthetic_data_stand_beside_no_paper():
    (data_folder(NAME) / "raw").mkdir()
    (data_folder(NAME) / "raw" / ".made-by-demo.json").write_text("{}")
    html = stage.report(read_evidence(published(competition(unit="study"))))
    assert "SYNTHETIC DATA" in html and "synthetic data; full run; no figure" in html
    assert 'class="theirs"' not in html and "0.9345" not in html


def test_a_final_row_below_another_is_said(page):
    assert ("The final scores are not the highest row" in page) == final_is_beaten()


def final_is_beaten() -> bool:
    table = pd.read_csv(models_folder(NAME) / "scores.csv").query("label == 'mean'")
    final = table[(table["member"] == "ensemble") & (table["stage"] == "blend")]["auc"].iloc[0]
    return bool((table["auc"] > final).any())


def test_the_papers_numbers_are_marked_as_theirs(page):
    assert page.count('class="theirs"') == 2 + 1  # CE of both runs, and the final row
    assert "other data" in page
    assert ".9345" not in stage.report(read_evidence(competition(unit="study")))


@pytest.mark.usefixtures("roots")
def test_evidence_agrees_with_scores_read_independently():
    evidence = read_evidence(competition(unit="study"))
    images = pd.read_csv(data_folder(NAME) / "images.csv", dtype={"image_id": "str"}).set_index(
        "image_id"
    )
    parts = [
        pd.read_csv(fold_folder(NAME, "one", fold) / "predictions.csv", dtype={"image_id": "str"})
        for fold in range(3)
    ]
    table = pd.concat([part[part["split"] != "test"] for part in parts])
    unit = table["image_id"].map(images["unit_id"])
    expected = (
        table[["nevus", "scar"]].groupby(unit.to_numpy()).max().loc[evidence.units.keys["unit_id"]]
    )
    assert np.allclose(evidence.after["one"], expected)
    known = truth(
        images[images["split"] != "test"]
        .groupby("unit_id")
        .first()
        .loc[evidence.units.keys["unit_id"]]
        .reset_index()
        .assign(image_id=""),
        ("nevus", "scar"),
        evidence.competition.task,
    )
    assert np.array_equal(evidence.units.truth, known)
    row = evidence.scores.set_index(["member", "stage", "label"]).loc[("ensemble", "blend", "scar")]
    assert auc(evidence.final[:, 1], known[:, 1]) == pytest.approx(row["auc"], abs=1e-9)


def test_gallery_shows_the_worst_negative_and_the_worst_positive(page):
    evidence = read_evidence(competition(unit="study"))
    for k in range(2):
        label = evidence.labels[k]
        scores = evidence.final[:, k]
        ids = evidence.units.keys["image_id"].to_numpy()
        negatives = np.flatnonzero(evidence.units.truth[:, k] == 0)
        positives = np.flatnonzero(evidence.units.truth[:, k] == 1)
        high = negatives[np.argmax(scores[negatives])]
        low = positives[np.argmin(scores[positives])]
        for unit, kind in ((high, "negative, scored high"), (low, "positive, scored low")):
            assert f'alt="{label}, {kind}: {ids[unit]}, score {scores[unit]:.3f}' in page


@pytest.mark.parametrize(
    "path, message",
    [
        (
            "models/lesions/scores.csv",
            "there is no such file; `make ensemble COMP=lesions` makes it",
        ),
        (
            "models/lesions/ensemble.csv",
            "there is no such file; `make ensemble COMP=lesions` makes it",
        ),
        (
            "models/lesions/ensemble.json",
            "there is no such file; `make ensemble COMP=lesions` makes it",
        ),
        ("models/lesions/one/fold1/predictions.csv", "make predict COMP=lesions RUN=one"),
        ("models/lesions/one/fold1/predictions_views.npz", "make predict COMP=lesions RUN=one"),
        ("models/lesions/two/fold2/log.jsonl", "make finetune COMP=lesions RUN=two"),
        ("data/lesions/folds_audit.json", "python -m pipeline.folds lesions --audit"),
        ("data/lesions/images.csv", "make prepare COMP=lesions"),
        ("data/lesions/images/64", "no prepared images in it; `make prepare COMP=lesions`"),
    ],
)
def test_a_missing_artifact_is_an_error_that_names_it(copy, path, message):
    victim = copy / path
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    with pytest.raises(UserError) as caught:
        stage.report(read_evidence(competition(unit="study")))
    text = str(caught.value)
    assert message in text
    assert str(victim.parent) in text
    assert "\n" not in text


@pytest.mark.usefixtures("copy")
def test_predictions_made_after_the_ensemble_are_refused():
    path = fold_folder(NAME, "two", 0) / "predictions.csv"
    table = pd.read_csv(path, dtype={"image_id": "str"})
    table.assign(nevus=table["nevus"] / 2).to_csv(path, index=False)
    sidecar = path.with_suffix(".json")
    write_sealed(sidecar, read_json(sidecar) | {"digest": file_hash(path)})
    with pytest.raises(UserError, match="other predictions of two than today's"):
        read_evidence(competition(unit="study"))


@pytest.mark.usefixtures("copy")
def test_views_that_do_not_average_to_the_predictions_are_refused():
    path = fold_folder(NAME, "one", 0) / "predictions_views.npz"
    stored = dict(np.load(path))
    np.savez(path, **stored | {"views": stored["views"] * 0.9})
    with pytest.raises(UserError, match=r"its mean is not the score in predictions\.csv"):
        stage.report(read_evidence(competition(unit="study")))


@pytest.mark.usefixtures("copy")
def test_an_audit_of_other_tables_is_refused():
    path = data_folder(NAME) / "folds_audit.json"
    audit = read_json(path)
    write_sealed(path, audit | {"hashes": audit["hashes"] | {"folds": "0"}})
    with pytest.raises(UserError, match="about other tables than today's"):
        read_evidence(competition(unit="study"))


@pytest.mark.usefixtures("roots")
def test_radiologists_are_drawn_and_counted(tmp_path):
    evidence = read_evidence(competition(unit="study"))
    ids = evidence.test["unit_id"].to_numpy()
    generator = np.random.default_rng(0)
    known = pd.DataFrame(
        {
            "unit_id": ids,
            **{label: generator.permutation(np.arange(len(ids)) % 2) for label in evidence.labels},
        }
    )
    known.to_csv(tmp_path / "truth.csv", index=False)
    (tmp_path / "readers").mkdir()
    known.to_csv(tmp_path / "readers" / "perfect.csv", index=False)  # never below the curve
    known.assign(nevus=1 - known["nevus"], scar=1 - known["scar"]).to_csv(
        tmp_path / "readers" / "wrong.csv", index=False
    )  # always
    html = stage.report(evidence, tmp_path / "truth.csv", tmp_path / "readers")
    section = html[html.index('<section id="readers">') : html.index('<section id="histograms">')]
    scores = evidence.test.set_index("unit_id").loc[ids]
    for label in evidence.labels:
        own = (scores[label].to_numpy(), known[label].to_numpy())
        assert with_interval(auc(*own), *auc_interval(*own)) in section
    assert section.count('<circle class="dot c-other"') == 2 * 2 * 2  # labels, both panels, readers
    assert Checker(html).open == []
    known.assign(unit_id="x" + known["unit_id"]).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(UserError, match=r"rows of .*other\.csv are missing: x"):
        stage.report(evidence, tmp_path / "other.csv", tmp_path / "readers")


def test_truth_of_the_other_download_is_aligned_by_what_follows_its_folder():
    test = pd.DataFrame(
        {
            "unit_id": ["small/test/p1/study1", "small/test/p2/study1", "small/test/p2/study2"],
            "nevus": [0.1, 0.2, 0.3],
        }
    )
    evidence = SimpleNamespace(test=test, name=NAME, labels=("nevus",))

    def scores(*ids):
        return against.scores_of_truth(evidence, "truth.csv", SimpleNamespace(ids=pd.Series(ids)))[
            :, 0
        ].tolist()

    assert scores("full/test/p2/study2", "full/test/p1/study1") == [0.3, 0.1]
    assert scores("small/test/p2/study1") == [0.2]
    with pytest.raises(
        UserError, match=r"1 of the 2 rows of truth\.csv are missing: full/test/p1/study1"
    ):
        scores("full/test/p1/study1", "small/test/p2/study1")
    with pytest.raises(UserError, match="2 of the 2 rows"):
        scores("full/test/p1/study1", "full/test/p3/study1")


@pytest.mark.usefixtures("roots")
def test_summary_fits_a_terminal_and_says_what_scores_csv_says(monkeypatch):
    scored = competition(unit="study")
    text = competition_summary(scored)
    table = pd.read_csv(models_folder(NAME) / "scores.csv").set_index(["member", "stage", "label"])
    lines = {line[2 : NAME_WIDTH + 2].strip(): line for line in text.splitlines()}
    for member, stage_name, line in (
        ("one", "CE", "one"),
        ("one", "AUC-M", "one"),
        ("two", "blend", "two"),
        ("metadata", "metadata", "metadata"),
        ("ensemble", "blend", "ensemble of 2"),
    ):
        row = table.loc[(member, stage_name, "mean")]
        assert f"{row['auc']:.4f} [{row['low']:.3f}, {row['high']:.3f}]" in lines[line]
    figures = text.split("\n\n")[0].splitlines()
    assert max(map(len, figures)) <= 100
    assert str(data_folder(NAME) / "folds_audit.json") in text and "0 leaks" in text
    # A smoke run also says what to expect of its stages.
    assert "stage 2 lost" not in text
    monkeypatch.setenv("SMOKE", "1")
    assert "which stage is\n  better here is chance" in competition_summary(scored)
