"""Scales, frozen maps, and weighted means."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

from pipeline.core.ensemble.averages import (
    apply_map,
    blend_metadata,
    normalised_ranks,
    quantile_map,
    ranks_within,
    weighted_mean,
)
from pipeline.core.metrics import auc, mean_auc
from tests.cases.ensembles import (
    members_of,
)

NUMBERS = arrays(
    np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6).map(lambda x: round(x, 1))
)


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


def test_ranking_within_folds_mends_folds_on_different_scales():
    """Fold 1's network says 0.1 more of everything: pooled scores lose AUC, ranks within the fold
    do not."""
    generator = np.random.default_rng(0)
    labels = generator.random(2000) < 0.2
    fold = np.arange(2000) % 2
    good = generator.normal(size=2000) + 1.5 * labels
    shifted = np.where(fold == 1, good + 3, good)
    ranked = ranks_within(shifted[:, None], fold)[:, 0]
    assert auc(shifted, labels) < auc(good, labels) - 0.05
    assert auc(ranked, labels) == pytest.approx(auc(good, labels), abs=0.01)


def test_weighted_mean_leaves_out_missing_columns():
    one = np.array([[1.0, np.nan], [3.0, np.nan]])
    other = np.array([[3.0, 5.0], [5.0, 7.0]])
    assert np.array_equal(weighted_mean([one, other]), [[2, 5], [4, 7]])
    assert np.array_equal(weighted_mean([one, other], np.array([3, 1])), [[1.5, 5], [3.5, 7]])
    assert np.isnan(weighted_mean([one, one])[:, 1]).all()
    assert np.array_equal(blend_metadata(one, other, 0.25), [[1.5, 5], [3.5, 7]])


def test_the_mean_of_members_beats_each():
    """Three readings with independent noise of strength 1 average to one of strength 1.73: AUC .76
    to .89."""
    members, truth = members_of([1, 1, 1])
    assert (
        mean_auc(weighted_mean(members), truth)
        > max(mean_auc(member, truth) for member in members) + 0.02
    )
