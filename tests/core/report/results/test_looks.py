"""Heat maps in the report: of which network, of which images, and what is said where there are
none; pointing, on masks whose answer is known."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline import report as stage
from pipeline.core.artifacts.paths import FINETUNED, PREDICTIONS, data_folder, fold_folder
from pipeline.core.artifacts.prepared_images import prepared_images
from pipeline.core.images.views import read_prepared_image
from pipeline.core.metrics import auc, rate_interval
from pipeline.core.networks.heat_maps import hottest_place
from pipeline.core.networks.image import load_weights
from pipeline.core.raw.masks import as_mask
from pipeline.core.report.inputs import read_evidence
from pipeline.core.report.results.gallery import HIGH, MANY_LABELS, chosen_cases
from pipeline.core.report.results.looks import look_at
from pipeline.core.report.results.pointing import place_in_file, pointing_sections
from pipeline.core.runs.job import Job
from tests.cases.reports import FOLDS, NAME, SIZE, competition, write_all, write_weights


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two labels of single images, with weights of both runs."""
    root = tmp_path_factory.mktemp("looks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "MODELS", "SUBMISSIONS"):
            patch.setenv(name, str(root / name.lower()))
        found = competition()
        write_all(found, 240)
        for run in ("one", "two"):
            write_weights(found, run)
        (data_folder(NAME) / "raw").mkdir()
        yield found


def asked_for(evidence, label: int, units=range(6)):
    keys = evidence.units.keys
    return [(keys["image_id"][unit], int(keys["fold"][unit]), label) for unit in units]


def test_the_best_run_of_the_images_own_fold_looks(case, capsys):
    evidence = read_evidence(case)
    truth = evidence.units.truth[:, 1]
    best = max(("one", "two"), key=lambda run: auc(evidence.after[run][:, 1], truth))
    asked = asked_for(evidence, 1)
    looks = look_at(evidence, asked)
    assert looks.missing == () and looks.runs == [best] and len(looks.found) == 6
    for image, fold, _ in asked:
        job = Job(case, case.run(best), fold)
        network = load_weights(job.folder / FINETUNED, job.run, job.labels)
        pixels = read_prepared_image(prepared_images(NAME, SIZE, [image])[0], 3)
        with torch.no_grad():
            score = torch.sigmoid(network(torch.from_numpy(pixels[None])))[0, 1].item()
        look = looks.found[image, 1]
        assert look.score == pytest.approx(score, abs=1e-4)
        # an average under a linear classifier: the mean of the map is the score
        assert 1 / (1 + np.exp(-look.heat.mean())) == pytest.approx(score, abs=1e-4)
    assert "heat maps of 6 images by" in capsys.readouterr().out


def test_the_page_shows_each_image_beside_its_map(case):
    evidence = read_evidence(case)
    page = stage.report(evidence)
    cases = chosen_cases(evidence)
    assert len(cases) == 2 * 3 * MANY_LABELS
    assert page.count("<img ") == 2 * len(cases)
    assert page.count(" looked: highest ") == len(cases)
    assert "one scale for all pictures" in page and "No heat maps" not in page


def test_positives_scored_high_are_above_most_negatives(case):
    evidence = read_evidence(case)
    for shown in chosen_cases(evidence):
        scores = evidence.final[:, shown.label]
        truth = evidence.units.truth[:, shown.label]
        assert truth[shown.unit] == ("positive" in shown.kind)
        if shown.kind == "positive, scored high":
            assert (scores[truth == 0] < scores[shown.unit]).mean() >= HIGH


def test_one_scale_holds_all_pictures_of_a_label(case):
    evidence = read_evidence(case)
    looks = look_at(evidence, [*asked_for(evidence, 0), *asked_for(evidence, 1)])
    heats = np.stack([look.heat for (_, label), look in looks.found.items() if label == 0])
    low, high = looks.limits(0)
    assert low == pytest.approx(np.median(heats)) and np.median(heats) < high <= heats.max()
    assert looks.limits(1) != (low, high)


def test_weights_that_are_elsewhere_or_new_are_said_and_not_looked_through(
    case, tmp_path, monkeypatch
):
    evidence = read_evidence(case)
    (run,) = look_at(evidence, asked_for(evidence, 0, [0])).runs
    moved = fold_folder(NAME, run, 0) / FINETUNED
    moved.rename(tmp_path / "away")
    try:
        asked = asked_for(evidence, 0, range(len(evidence.units.keys)))
        looks = look_at(evidence, asked)
        assert looks.missing == (f"{NAME}/{run}/fold0: {FINETUNED} is not here",)
        folds = {image: fold for image, fold, _ in asked}
        assert {folds[image] for image, _ in looks.found} == set(FOLDS) - {0}
        page = stage.report(evidence)
        assert "No heat maps" in page and f"{run}/fold0" in page
    finally:
        (tmp_path / "away").rename(moved)

    other = "pipeline.core.report.results.looks.predicted_with_other_weights"
    monkeypatch.setattr(other, lambda job, path: path.name == PREDICTIONS and job.fold == 1)
    (reason,) = look_at(evidence, asked).missing
    assert reason == f"{NAME}/{run}/fold1: {FINETUNED} was trained again since it predicted"


def mask_of(*pixels: tuple[int, int], side: int = 10) -> dict:
    """A mask of side x side with these (row, column) inside."""
    flat = np.zeros((side, side), int)
    for row, column in pixels:
        flat[row, column] = 1
    flat = flat.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return as_mask(json.loads(json.dumps({"size": [side, side], "counts": lengths.tolist()})))


def test_pointing_counts_the_masks_that_the_highest_place_is_in(case):
    # Masks made from the maps themselves: every third misses.
    plain = read_evidence(case)
    asked = asked_for(plain, 1, range(30))
    looks = look_at(plain, asked)
    masks = {}
    hits = []
    for number, (image, _, _) in enumerate(asked):
        x, y = hottest_place(looks.found[image, 1].heat)
        hits.append(number % 3 != 0)
        row, column = int(y * 10), int(x * 10)
        masks[image] = {"scar": mask_of((row, column) if hits[-1] else ((row + 5) % 10, column))}
    owner = replace(case, module=SimpleNamespace(masks=lambda raw: masks if raw.is_dir() else {}))
    ((name, _, html),) = pointing_sections(read_evidence(owner))
    patients = plain.patients[:30]
    low, high = rate_interval(np.array(hits, float), patients)
    assert name == "pointing" and f"{20 / 30:.3f} [{low:.3f}, {high:.3f}]" in html
    assert "<td>0.010</td><td>30</td>" in html and "nevus" not in html
    assert "Pointing at findings" in stage.report(read_evidence(owner))


def test_without_masks_there_is_no_section(case):
    assert pointing_sections(read_evidence(case)) == []
    nothing = replace(case, module=SimpleNamespace(masks=lambda _raw: {}))
    assert pointing_sections(read_evidence(nothing)) == []


@pytest.mark.parametrize(
    ("fit", "place", "expected"),
    [
        ("square", (0.1, 0.9), (0.1, 0.9)),
        # 200 wide, 100 high: the square of 100 in the middle, or of 200 with padding above
        ("short", (0.0, 0.5), (0.25, 0.5)),
        ("short", (0.5, 0.1), (0.5, 0.1)),
        ("long", (0.3, 0.5), (0.3, 0.5)),
        ("long", (0.3, 0.25), (0.3, 0.0)),
        ("long", (0.3, 0.1), (0.3, -0.3)),
    ],
)
def test_places_of_the_prepared_image_in_the_file(fit, place, expected):
    assert place_in_file(place, 100, 200, fit) == pytest.approx(expected)
