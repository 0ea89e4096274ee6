"""Alignment, scales, quantile maps, units, near-duplicates and selection."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from pipeline.core.artifacts.paths import PREDICTIONS, STAGE_1_PREDICTIONS
from pipeline.core.artifacts.provenance import table_hashes
from pipeline.core.artifacts.tables import align
from pipeline.core.ensemble.averages import (
    apply_map,
    blend_metadata,
    normalised_ranks,
    quantile_map,
    ranks_within,
    weighted_mean,
)
from pipeline.core.ensemble.members import comparable, member_maps, read_member, read_rows
from pipeline.core.ensemble.scores import score_rows
from pipeline.core.ensemble.selection import (
    Climber,
    nearly_equal_members,
    nested_gain,
    nested_scores,
    patient_folds,
    select,
    without_duplicates,
)
from pipeline.core.ensemble.units import aggregate, to_units, units_of
from pipeline.core.metrics import auc, mean_auc, partial_auc
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition, fold_of, noisy, write_run, write_tables

LABELS = ("nevus", "scar")
NUMBERS = arrays(
    np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6).map(lambda x: round(x, 1))
)


@pytest.fixture
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))


def read(run="one", labels=LABELS, folds=None):
    rows = read_rows(competition(), folds)
    return read_member(NAME, run, "AUC-M", PREDICTIONS, rows, labels, "make predict"), rows


@pytest.mark.usefixtures("roots")
def test_a_member_is_aligned_by_id_whatever_the_order():
    images = write_tables()
    scores = noisy(images, LABELS, 2, 1)
    paths = write_run(images, "one", scores)
    straight, rows = read()
    for path in paths:
        table = pd.read_csv(path, dtype={"image_id": "str"}).sample(frac=1, random_state=3)
        write_predictions(
            path, table[["image_id", "split", "fold", "scar", "nevus"]], table_hashes(NAME), views=4
        )
    shuffled, _ = read()
    assert np.array_equal(straight.out_of_fold, shuffled.out_of_fold) and np.array_equal(
        straight.test, shuffled.test
    )
    by_id = scores.set_index(images["image_id"]).loc[rows.validated["image_id"]].to_numpy()
    assert straight.out_of_fold == pytest.approx(by_id, rel=1e-8)
    assert (
        rows.validated["fold"].to_numpy() == fold_of(images)[rows.validated["image_id"].astype(int)]
    ).all()
    assert not (set(rows.validated["image_id"]) & set(images["image_id"][fold_of(images) == -1]))
    assert straight.views == 4 and straight.test.shape == (3, 40, 2)


def rewrite(path, change):
    """Change a fold's table behind the stage's back."""
    change(pd.read_csv(path, dtype={"image_id": "str"})).to_csv(path, index=False)


@pytest.mark.usefixtures("roots")
def test_missing_extra_and_repeated_rows_are_named():
    images = write_tables()
    path = write_run(images, "one", noisy(images, LABELS, 2, 1))[1]
    kept = path.read_text()
    first = images["image_id"][fold_of(images) == 1].iloc[0]
    stranger = images["image_id"][fold_of(images) == 2].iloc[0]
    rewrite(path, lambda table: table[table["image_id"] != first])
    with pytest.raises(
        UserError,
        match=rf"fold1/predictions\.csv: 1 of the \d+ rows that fold 1 validates.*{first}",
    ):
        read()
    path.write_text(kept)
    rewrite(
        path,
        lambda table: pd.concat(
            [table, table[table["image_id"] == first].assign(image_id=stranger)]
        ),
    )
    with pytest.raises(
        UserError, match=rf"1 rows are not among the \d+ that fold 1 validates: {stranger}"
    ):
        read()
    path.write_text(kept)
    rewrite(path, lambda table: pd.concat([table, table[table["image_id"] == first]]))
    with pytest.raises(UserError, match=f"'{first}' stands there twice"):
        read()
    path.write_text(kept)
    rewrite(path, lambda table: table.iloc[:-1])
    with pytest.raises(UserError, match="1 of the 40 rows of the test set are missing"):
        read()


@pytest.mark.usefixtures("roots")
def test_only_stage_1_may_leave_the_test_rows_out():
    images = write_tables()
    write_run(images, "one", noisy(images, LABELS, 2, 1), STAGE_1_PREDICTIONS)
    rows = read_rows(competition())
    assert read_member(NAME, "one", "CE", STAGE_1_PREDICTIONS, rows, LABELS, "").test.shape == (
        3,
        0,
        2,
    )
    for path in write_run(images, "one", noisy(images, LABELS, 2, 1)):
        rewrite(path, lambda table: table[table["split"] != "test"])
    with pytest.raises(UserError, match="40 of the 40 rows of the test set are missing"):
        read()


def test_score_rows_of_a_partial_auc():
    members, truth = members_of([1.5])
    row, mean = score_rows(
        members[0], truth, np.arange(600), ["scar"], "partial_auc", replicates=50
    )
    assert row["partial_auc"] == partial_auc(members[0, :, 0], truth[:, 0])
    assert row["partial_low"] < row["partial_auc"] < row["partial_high"] < 0.2
    assert mean["label"] == "mean" and mean["auc"] == row["auc"] and mean["low"] == row["low"]


@pytest.mark.usefixtures("roots")
def test_other_tables_folds_and_scores_are_named():
    images = write_tables()
    path = write_run(images, "one", noisy(images, LABELS, 2, 1))[1]
    kept = path.read_text()
    rewrite(path, lambda table: table.assign(fold=0))
    with pytest.raises(UserError, match="row 2, column fold: 0, not 1"):
        read()
    rewrite(path, lambda table: table.assign(fold=1, nevus=np.nan))
    with pytest.raises(UserError, match="row 2, column nevus: 'nan' is no finite number"):
        read()
    path.write_text(kept)
    sidecar = path.with_suffix(".json")
    facts = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(facts | {"hashes": facts["hashes"] | {"folds": "0" * 64}}))
    with pytest.raises(UserError, match=r"predictions\.csv: made from another folds\.csv"):
        read()
    sidecar.unlink()
    with pytest.raises(UserError, match=r"predictions\.json: there is no such file"):
        read()
    path.unlink()
    with pytest.raises(UserError, match="no such file; `make predict` makes it"):
        read()


@pytest.mark.usefixtures("roots")
def test_unknown_folds_are_refused():
    write_tables()
    with pytest.raises(UserError, match=r"fold 7: folds\.csv of lesions has the folds 0, 1, 2"):
        read_rows(competition(), [7])


def test_align_lists_a_few_ids_and_counts_the_rest():
    table = pd.DataFrame({"image_id": ["a"]})
    with pytest.raises(UserError, match="4 of the 5 rows wanted are missing: b, c, d and 1 more"):
        align("file.csv", table, pd.Series(list("abcde")), "wanted")


@settings(deadline=None)
@given(NUMBERS)
def test_normalised_ranks_are_scipys(values):
    assert normalised_ranks(values) == pytest.approx((rankdata(values) - 0.5) / len(values))


@settings(deadline=None)
@given(NUMBERS)
def test_a_frozen_map_ranks_its_own_scores(values):
    """With at most 512 distinct scores every one is a knot, so the map gives the normalised ranks
    exactly."""
    frozen = quantile_map(values)
    assert apply_map(values, frozen) == pytest.approx(normalised_ranks(values), abs=1e-12)
    assert json.loads(json.dumps(frozen)) == frozen


@settings(deadline=None)
@given(NUMBERS, arrays(np.float64, 20, elements=st.floats(-1e7, 1e7, allow_nan=False)))
def test_a_frozen_map_keeps_the_order_of_new_scores_and_stays_inside(values, new):
    new = np.sort(new.round(1))
    mapped = apply_map(new, quantile_map(values))
    assert (np.diff(mapped) >= 0).all() and (mapped > 0).all() and (mapped < 1).all()


def test_scores_beyond_all_seen_keep_their_order():
    mapped = apply_map(
        np.array([0.95, 0.97, 0.99, 0.01, 0.02]), quantile_map(np.linspace(0.1, 0.9, 1000))
    )
    assert mapped[0] < mapped[1] < mapped[2] and mapped[3] < mapped[4]


def test_a_map_of_many_scores_is_short_and_exact_at_the_top():
    scores = np.random.default_rng(0).normal(size=50_000) ** 3
    frozen = quantile_map(scores)
    assert len(frozen["values"]) < 2000
    assert np.abs(apply_map(scores, frozen) - normalised_ranks(scores)).max() < 5e-4
    top = np.sort(scores)[-200:]
    assert apply_map(top, frozen) == pytest.approx(
        (np.arange(49_800, 50_000) + 0.5) / 50_000, abs=1e-12
    )


@pytest.mark.usefixtures("roots")
def test_one_row_at_a_time_gives_the_same_quantiles():
    """A gateway that feeds one row, or a test set of one row, must give what the whole test set
    gives."""
    images = write_tables()
    write_run(images, "one", noisy(images, LABELS, 2, 1))
    member, rows = read()
    whole = comparable(member, "quantile", rows)[1]
    maps = json.loads(json.dumps(member_maps(member, rows, LABELS)))
    for row in range(5):
        alone = [
            [
                apply_map(member.test[k, row : row + 1, column], maps[f"fold{k}"][label])[0]
                for column, label in enumerate(LABELS)
            ]
            for k in range(3)
        ]
        assert whole[row] == pytest.approx(np.mean(alone, axis=0), abs=1e-12)


@pytest.mark.usefixtures("roots")
def test_quantiles_out_of_fold_are_ranks_within_the_fold():
    images = write_tables()
    write_run(images, "one", noisy(images, LABELS, 2, 1))
    member, rows = read()
    quantiles, ranks = (comparable(member, method, rows)[0] for method in ("quantile", "rank"))
    assert quantiles == pytest.approx(ranks, abs=1e-12)
    assert comparable(member, "mean", rows)[1] == pytest.approx(member.test.mean(axis=0))


def test_ranking_within_folds_mends_folds_on_different_scales():
    """Fold 1's network says 0.1 more of everything: pooled scores lose AUC, ranks within the fold
    do not."""
    generator = np.random.default_rng(0)
    labels, fold = generator.random(2000) < 0.2, np.arange(2000) % 2
    good = generator.normal(size=2000) + 1.5 * labels
    shifted = np.where(fold == 1, good + 3, good)
    ranked = ranks_within(shifted[:, None], fold)[:, 0]
    assert auc(shifted, labels) < auc(good, labels) - 0.05
    assert auc(ranked, labels) == pytest.approx(auc(good, labels), abs=0.01)


def test_weighted_mean_leaves_out_missing_columns():
    one, other = np.array([[1.0, np.nan], [3.0, np.nan]]), np.array([[3.0, 5.0], [5.0, 7.0]])
    assert np.array_equal(weighted_mean([one, other]), [[2, 5], [4, 7]])
    assert np.array_equal(weighted_mean([one, other], np.array([3, 1])), [[1.5, 5], [3.5, 7]])
    assert np.isnan(weighted_mean([one, one])[:, 1]).all()
    assert np.array_equal(blend_metadata(one, other, 0.25), [[1.5, 5], [3.5, 7]])


@pytest.mark.usefixtures("roots")
def test_one_disease_per_run_is_averaged_over_the_runs_that_have_it():
    images = write_tables()
    both, scar = noisy(images, LABELS, 2, 1), noisy(images, LABELS[1:], 2, 2)
    write_run(images, "one", both)
    write_run(images, "two", scar)
    members = [read(run)[0].out_of_fold for run in ("one", "two")]
    mean = weighted_mean(members)
    assert np.array_equal(mean[:, 0], members[0][:, 0])
    assert mean[:, 1] == pytest.approx((members[0][:, 1] + members[1][:, 1]) / 2)


@pytest.mark.parametrize(
    ("how", "expected"), [("max", [3, 9, 4]), ("mean", [2, 7, 4]), ("frontal_first", [1, 7, 4])]
)
def test_images_to_units(how, expected):
    """Study b comes first in the rows that are kept, so units stand in order of first appearance; c
    is lateral only."""
    scores = np.array([[1.0], [5.0], [3.0], [9.0], [4.0]])
    frontal = np.array([True, True, False, True, False])
    assert (
        aggregate(scores, np.array(list("abab") + ["c"]), how, frontal)[:, 0].tolist() == expected
    )


@pytest.mark.usefixtures("roots")
def test_study_truth_is_that_of_its_images():
    images = write_tables(views=2)
    images.loc[0, "nevus"] = np.nan
    task = competition(unit="study").task
    train = images[images["split"] == "train"]
    units = units_of(train, task)
    assert len(units.keys) == 150 and units.keys["unit_id"].is_unique
    assert units.keys["image_id"].tolist() == train["image_id"].iloc[::2].tolist()
    assert units.truth[0, 0] == images["nevus"][1]
    scores = np.arange(len(train) * 2, dtype=float).reshape(-1, 2)
    assert np.array_equal(to_units(train, scores, task), scores[1::2])


def members_of(strengths, n=600, seed=0):
    """(members (M, n, 1), truth (n, 1)); independent noise, so that averaging helps."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.3).astype(float)
    members = [generator.normal(size=n) + strength * labels for strength in strengths]
    return np.stack(members)[:, :, None], labels[:, None]


def test_near_duplicates_are_found_and_count_once():
    members, _ = members_of([1, 1, 1])
    members[2] = np.exp(members[0])
    assert [(label, i, j) for label, i, j, _ in nearly_equal_members(members)] == [(0, 0, 2)]
    assert without_duplicates(members)[:, 0].tolist() == [1, 1, 0]
    members[1] = -members[0]
    inverted = [pair for pair in nearly_equal_members(members) if pair[3] < 0]
    assert [(i, j) for _, i, j, _ in inverted] == [(0, 1), (1, 2)]
    assert without_duplicates(members)[:, 0].tolist() == [1, 1, 0]


def test_duplicates_of_a_missing_column_or_a_constant_are_none():
    members, _ = members_of([1, 1])
    members[1] = np.nan
    assert nearly_equal_members(members) == [] and without_duplicates(members)[:, 0].tolist() == [
        1,
        0,
    ]
    members[1] = 0.5
    assert nearly_equal_members(members) == []


def test_a_step_of_the_climb_is_the_best_by_brute_force():
    members, truth = members_of([1, 0.5, 0.8, 0], n=200)
    climber, counts = Climber(members[:, :, 0], truth[:, 0]), np.array([2.0, 0, 1, 0])
    areas = [auc(members[:, :, 0].T @ (counts + one), truth[:, 0]) for one in np.eye(4)]
    assert climber.best_step(counts, np.arange(4)) == (
        int(np.argmax(areas)),
        pytest.approx(max(areas)),
    )
    final = climber.climb(np.arange(4), 10)
    assert climber.auc(final) >= max(auc(member[:, 0], truth[:, 0]) for member in members)


def test_selection_prefers_good_members():
    members, truth = members_of([1.5, 1.5, 0, 0])
    weights = select(members[:, :, 0], truth[:, 0])
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[:2].sum() > 0.7
    assert np.array_equal(weights, select(members[:, :, 0], truth[:, 0]))
    assert select(members[:, :, 0], np.ones(600)).tolist() == [0.25] * 4


def test_the_nested_estimate_never_sees_the_rows_it_scores():
    """Labels of fold 0 are turned round: weights fitted on the others, and so fold 0's scores, must
    not change."""
    members, truth = members_of([1, 0.8, 0.2])
    folds, candidates = np.arange(600) % 3, np.ones((3, 1))
    before = nested_scores(members, truth, candidates, folds)
    truth[folds == 0] = 1 - truth[folds == 0]
    after = nested_scores(members, truth, candidates, folds)
    assert np.array_equal(before[folds == 0], after[folds == 0])
    assert not np.array_equal(before[folds == 1], after[folds == 1])


def test_a_gain_is_accepted_only_when_it_is_more_than_noise():
    """Good members beside useless ones: fitted weights win. Members equally good: they must not be
    accepted."""
    members, truth = members_of([1.5, 1.5, 0, 0, 0, 0])
    groups, folds = np.arange(600), np.arange(600) % 3
    useful = nested_gain(members, truth, np.ones((6, 1)), folds, groups)
    assert useful["accepted"] and useful["gain"] > 0.02 and useful["low"] > 0
    accepted = 0
    for seed in range(10):
        members, truth = members_of([1, 1, 1], n=300, seed=seed)
        accepted += nested_gain(members, truth, np.ones((3, 1)), folds[:300], groups[:300])[
            "accepted"
        ]
    assert accepted <= 1


def test_patient_folds_keep_patients_together():
    groups = np.random.default_rng(0).integers(0, 50, 300)
    folds = patient_folds(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert set(folds) == set(range(5)) and np.array_equal(folds, patient_folds(groups))


def test_the_mean_of_members_beats_each():
    """Three readings with independent noise of strength 1 average to one of strength 1.73: AUC .76
    to .89."""
    members, truth = members_of([1, 1, 1])
    assert (
        mean_auc(weighted_mean(members), truth)
        > max(mean_auc(member, truth) for member in members) + 0.02
    )
