"""Metrics against definitions, scikit-learn, closed forms and naive resampling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.core import metrics
from pipeline.core.metrics import (
    auc,
    auc_interval,
    bootstrap_curves,
    bootstrap_metric,
    bootstrap_partial_aucs,
    delong,
    delong_interval,
    delong_test,
    mean_auc,
    mean_auc_interval,
    partial_auc,
    partial_auc_difference,
    reader_point,
    readers_below_curve,
    roc_points,
)
from tests.cases.bootstrap import bootstrap_aucs

# Few distinct values, so that ties are common; -0.0 beside 0.0, and infinities.
VALUES = st.sampled_from([-np.inf, -2.5, -1.0, -0.0, 0.0, 1e-300, 0.5, 1.0, 3.0, np.inf])
ROWS = st.lists(st.tuples(VALUES, st.integers(0, 1)), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)
FINITE_ROWS = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)


def pairs_in_order(scores, labels) -> float:
    """The definition of AUC over all pairs, O(n^2)."""
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    one = scores[labels == 1][:, None]
    other = scores[labels == 0][None, :]
    return ((one > other).sum() + 0.5 * (one == other).sum()) / (one.size * other.size)


def sample(rows=400, columns=1, seed=0, rate=0.2, groups=60):
    """(scores (rows, columns), labels, groups) with a patient effect, so that rows of one patient
    are alike."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, groups, rows)
    labels = (generator.random(rows) < rate).astype(int)
    effect = generator.normal(size=groups)[patient]
    return (
        generator.normal(size=(rows, columns)) + 1.2 * labels[:, None] + effect[:, None],
        labels,
        patient,
    )


@settings(deadline=None)
@given(ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, labels = zip(*rows)
    assert auc(scores, labels) == pairs_in_order(scores, labels)


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint8, bool]
)
@pytest.mark.parametrize("label_dtype", [bool, np.int8, np.int64, np.float32, np.float64, object])
def test_auc_takes_every_dtype(dtype, label_dtype):
    generator = np.random.default_rng(3)
    scores = generator.integers(0, 2 if dtype is bool else 20, 300).astype(dtype)
    labels = generator.integers(0, 2, 300)
    assert auc(scores, labels.astype(label_dtype)) == pairs_in_order(scores, labels)
    assert auc(list(scores), list(labels)) == pairs_in_order(scores, labels)


def test_large_integers_are_not_rounded_to_floats():
    assert auc(np.array([2**60, 2**60 + 1]), [0, 1]) == 1.0


def test_auc_of_many_rows_equals_scikit_learn():
    generator = np.random.default_rng(0)
    for rate in (0.02, 0.5, 0.98):
        labels = generator.random(20_000) < rate
        scores = generator.normal(size=20_000) + labels
        for values in (scores, scores.astype(np.float32), scores.round(1)):
            assert auc(values, labels) == pytest.approx(roc_auc_score(labels, values), abs=1e-12)


def test_auc_of_the_papers_table_6():
    """59 of 66 pairs in order, 6 positives against 11 negatives: .8939."""
    labels = [1] * 6 + [0] * 11
    wins = np.array([11, 11, 11, 11, 9, 6])  # negatives below each positive: 59 of 66 pairs
    assert auc([*(wins - 0.5), *range(11)], labels) == 59 / 66


@settings(deadline=None)
@given(FINITE_ROWS)
def test_auc_symmetries(rows):
    scores, labels = (np.array(column) for column in zip(*rows))
    area = auc(scores, labels)
    assert auc(-scores, labels) == pytest.approx(1 - area, abs=1e-15)
    assert auc(scores, 1 - labels) == pytest.approx(1 - area, abs=1e-15)
    assert auc(np.exp(scores), labels) == area
    assert auc(scores[::-1], labels[::-1]) == area


def test_negative_zero_ties_with_zero():
    assert auc([0.0, -0.0], [1, 0]) == 0.5
    assert auc(np.array([-0.0, 0.0], np.float32), [1, 0]) == 0.5


def test_unlabelled_rows_are_left_out():
    assert auc([9.0, 1, 2, 0, np.nan], [np.nan, 0, 1, 0, np.nan]) == 1.0


def test_one_class_is_undefined():
    for labels in ([1, 1], [0, 0], [np.nan, 1], [np.nan, np.nan]):
        assert math.isnan(auc([0.1, 0.2], labels))
        assert math.isnan(partial_auc([0.1, 0.2], labels))
        assert all(map(math.isnan, auc_interval([0.1, 0.2], labels)))
    assert math.isnan(auc([], []))
    with pytest.raises(ValueError, match="both classes"):
        roc_points([0.1, 0.2], [1, 1])


@pytest.mark.parametrize("call", [auc, partial_auc, roc_points, auc_interval, delong, mean_auc])
def test_errors_name_the_row_and_the_value(call):
    with pytest.raises(ValueError, match=r"row 2: the label -1"):
        call([0.1, 0.2, 0.3], [0, 1, -1])
    with pytest.raises(ValueError, match=r"row 0: the label 0\.7"):
        call([0.1, 0.2, 0.3], [0.7, 1, 0])
    with pytest.raises(ValueError, match="row 1: the score is NaN"):
        call([0.1, np.nan, 0.3], [0, 1, 0])
    with pytest.raises(ValueError, match="shape"):
        call([0.1, 0.2, 0.3], [0, 1])


@settings(deadline=None)
@given(FINITE_ROWS)
def test_roc_points_equal_scikit_learn(rows):
    scores, labels = (np.array(column) for column in zip(*rows))
    for ours, theirs in zip(roc_points(scores, labels), roc_curve(labels, scores)):
        assert np.array_equal(ours, theirs)
    full = roc_points(scores, labels, drop_collinear=False)
    for ours, theirs in zip(full, roc_curve(labels, scores, drop_intermediate=False)):
        assert np.array_equal(ours, theirs)
    assert np.trapezoid(full[1], full[0]) == pytest.approx(auc(scores, labels), abs=1e-12)


@settings(deadline=None)
@given(FINITE_ROWS, st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.95]))
def test_partial_auc_is_the_organisers(rows, min_tpr):
    """ISIC 2024's own formula around scikit-learn's standardised partial AUC of the swapped
    problem."""
    scores, labels = (np.array(column) for column in zip(*rows))
    limit = 1 - min_tpr
    scaled = roc_auc_score(1 - labels, -scores, max_fpr=limit)
    smallest = 0.5 * limit**2
    expected = scaled if limit == 1 else smallest + (limit - smallest) * (scaled - 0.5) / 0.5
    assert partial_auc(scores, labels, min_tpr) == pytest.approx(expected, abs=1e-9)


def test_partial_auc_closed_forms():
    labels = np.repeat([0, 1], 1000)
    assert partial_auc(labels, labels) == pytest.approx(0.2)  # perfect
    assert partial_auc(np.zeros(2000), labels) == pytest.approx(
        0.02
    )  # chance: the triangle above 0.8
    assert partial_auc(-labels, labels) == pytest.approx(0.0)  # every pair in the wrong order
    with pytest.raises(ValueError, match="min_tpr=1"):
        partial_auc(labels, labels, 1.0)


def organisers_count(scores, labels, points) -> int:
    """The organiser's rule written over scikit-learn's curve, one step at a time."""
    false_positive, true_positive, _ = roc_curve(labels, scores)
    count = 0
    for specificity, sensitivity in points:
        i = 0
        while false_positive[i] < 1 - specificity:
            i += 1
        count += true_positive[i - 1] >= sensitivity
    return int(count)


@settings(deadline=None)
@given(
    FINITE_ROWS,
    st.lists(
        st.tuples(
            st.sampled_from([0, 0.25, 0.5, 0.75, 0.9, 1]), st.sampled_from([0, 0.3, 0.5, 0.8, 1])
        ),
        max_size=5,
    ),
)
def test_readers_below_curve_is_the_organisers_rule(rows, points):
    scores, labels = (np.array(column) for column in zip(*rows))
    assert readers_below_curve(scores, labels, points) == organisers_count(scores, labels, points)


def test_readers_are_read_at_the_step_on_the_left():
    """Curve (0,0) (0,.5) (.5,.5) (.5,1) (1,1): at x = 0.5 the step on the left has sensitivity 0.5,
    not 1."""
    scores = [4, 3, 2, 1]
    labels = [1, 0, 1, 0]
    assert readers_below_curve(scores, labels, [(0.5, 0.5)]) == 1
    assert readers_below_curve(scores, labels, [(0.5, 0.6)]) == 0
    assert readers_below_curve(scores, labels, [(0.4, 1.0)]) == 1


def test_a_reader_without_false_positives_always_counts():
    """x = 0: the organiser's index is -1, the last point of the curve, (1, 1)."""
    assert readers_below_curve([1, 2, 3, 4], [1, 1, 0, 0], [(1.0, 1.0), (1.0, 0.0)]) == 2


def test_a_point_outside_the_unit_square_is_an_error():
    with pytest.raises(ValueError, match=r"specificity 1\.5"):
        readers_below_curve([1, 2], [0, 1], [(1.5, 0.5)])


def test_reader_point():
    assert reader_point([1, 0, 1, 0, 1], [1, 1, 0, 0, np.nan]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="row 1: the reader's call 2"):
        reader_point([1, 2], [0, 1])


def naive_delong(columns, labels):
    """DeLong's covariance from the full matrix of pairs."""
    kernels = []
    for scores in columns.T:
        one = scores[labels == 1][:, None]
        other = scores[labels == 0][None, :]
        kernels.append((one > other) + 0.5 * (one == other))
    of_rows = np.cov([kernel.mean(axis=1) for kernel in kernels]) / kernels[0].shape[0]
    return of_rows + np.cov([kernel.mean(axis=0) for kernel in kernels]) / kernels[0].shape[1]


def test_delong_equals_the_pair_matrix():
    scores, labels, _ = sample(columns=3)
    scores = scores.round(1)
    areas, covariance = delong(scores, labels)
    assert areas == pytest.approx(
        [pairs_in_order(column, labels) for column in scores.T], abs=1e-14
    )
    assert covariance == pytest.approx(naive_delong(scores, labels), rel=1e-10)


def test_delong_of_single_row_groups_is_plain_delong():
    scores, labels, _ = sample(columns=2)
    names = [f"patient{i}" for i in range(len(labels))]
    assert delong(scores, labels, names)[1] == pytest.approx(delong(scores, labels)[1], rel=1e-12)


def test_delong_of_doubled_rows_is_that_of_the_rows():
    """Every patient photographed twice, alike: no more information, so the clustered variance must
    not shrink."""
    scores, labels, _ = sample(columns=2)
    twice = np.repeat(scores, 2, axis=0)
    names = np.repeat(np.arange(len(labels)), 2)
    clustered = delong(twice, np.repeat(labels, 2), names)[1]
    assert clustered == pytest.approx(delong(scores, labels)[1], rel=1e-10)
    assert delong(twice, np.repeat(labels, 2))[1][0, 0] < 0.6 * clustered[0, 0]


def test_delong_interval_and_test():
    scores, labels, _ = sample(columns=2)
    low, high = delong_interval(scores[:, 0], labels)
    assert 0 < low < auc(scores[:, 0], labels) < high < 1
    difference, low, high, p = delong_test(scores[:, 0], scores[:, 1], labels)
    forward = (difference, low, high, p)
    backward = delong_test(scores[:, 1], scores[:, 0], labels)
    assert backward == pytest.approx((-difference, -high, -low, p))
    assert difference == pytest.approx(auc(scores[:, 0], labels) - auc(scores[:, 1], labels))
    assert (p < 0.05) == (forward[1] > 0 or forward[2] < 0)
    assert delong_test(scores[:, 0], np.exp(scores[:, 0]), labels) == (0, 0, 0, 1)


def naive_bootstrap(scores, labels, groups, replicates, seed):
    """Resample rows of drawn groups, score each with the definition; the same draws as ours."""
    generator = np.random.default_rng(seed)
    count = groups.max() + 1
    rows = [np.flatnonzero(groups == group) for group in range(count)]
    areas = []
    for _ in range(replicates):
        drawn = np.concatenate([rows[group] for group in generator.integers(count, size=count)])
        areas.append(roc_auc_score(labels[drawn], scores[drawn]))
    return np.array(areas)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_bootstrap_equals_resample_and_score(rate):
    scores, labels, groups = sample(rate=rate)
    groups = np.unique(groups, return_inverse=True)[1]
    scores = scores[:, 0].round(1)
    ours = bootstrap_aucs(scores, labels, groups, replicates=50, seed=7)
    assert ours == pytest.approx(naive_bootstrap(scores, labels, groups, 50, 7), abs=1e-12)


def test_bootstrap_of_columns_shares_the_resample():
    scores, labels, groups = sample(columns=3)
    together = bootstrap_aucs(scores, labels, groups, replicates=40)
    apart = [bootstrap_aucs(column, labels, groups, replicates=40) for column in scores.T]
    assert np.array_equal(together, np.stack(apart, axis=1))


def test_any_metric_is_resampled_alike():
    scores, labels, groups = sample()
    ours = bootstrap_metric(auc, scores[:, 0], labels, groups, replicates=30, seed=2)
    assert ours == pytest.approx(
        bootstrap_aucs(scores[:, 0], labels, groups, replicates=30, seed=2), abs=1e-12
    )


@pytest.mark.parametrize("digits", [1, 8])
def test_partial_aucs_of_resamples_are_those_of_the_rows_drawn(digits):
    """With ties (one digit) and without."""
    generator = np.random.default_rng(digits)
    labels = (generator.random(600) < 0.15).astype(float)
    labels[::13] = np.nan
    scores = np.round(generator.normal(size=600) + np.nan_to_num(labels), digits)
    groups = generator.integers(0, 80, 600)
    ours = bootstrap_partial_aucs(scores, labels, groups, 40, 3)
    rows = bootstrap_metric(partial_auc, scores, labels, groups, 40, 3)
    np.testing.assert_allclose(ours, rows, atol=1e-14)
    difference, low, high, p = partial_auc_difference(scores, -scores, labels, groups)
    assert difference == partial_auc(scores, labels) - partial_auc(-scores, labels)
    assert 0 < low < difference < high and p < 0.05
    assert partial_auc_difference(scores, scores, labels, groups) == (0, 0, 0, 1)


def test_bootstrap_does_not_depend_on_the_chunk(monkeypatch):
    scores, labels, groups = sample()
    whole = bootstrap_aucs(scores[:, 0], labels, groups, replicates=30)
    monkeypatch.setattr("tests.cases.bootstrap.CHUNK", 7 * len(np.unique(groups)))
    assert np.array_equal(whole, bootstrap_aucs(scores[:, 0], labels, groups, replicates=30))


def test_standard_errors_agree():
    """Bootstrap against DeLong, independent rows and patients; ignoring patients is too narrow when
    they are alike."""
    scores, labels, groups = sample(rows=3000, groups=150)
    scores = scores[:, 0]
    labels = (groups % 5 == 0).astype(
        int
    )  # a patient's images share the label: the strongest clustering
    scores = scores + labels
    for cluster in (None, groups):
        error = math.sqrt(delong(scores, labels, cluster)[1][0, 0])
        assert bootstrap_aucs(scores, labels, cluster, 2000).std() == pytest.approx(error, rel=0.12)
    clustered, rows = (np.ptp(auc_interval(scores, labels, cluster)) for cluster in (groups, None))
    assert clustered > 2 * rows


def test_mean_of_columns():
    scores, labels, groups = sample(columns=3)
    table = np.stack([labels, 1 - labels, labels], axis=1).astype(float)
    table[:50, 2] = np.nan
    expected = np.mean([auc(scores[:, k], table[:, k]) for k in range(3)])
    assert mean_auc(scores, table) == pytest.approx(expected)
    low, high = mean_auc_interval(scores, table, groups)
    assert low < expected < high
    assert mean_auc_interval(scores[:, :1], labels, groups) == auc_interval(
        scores[:, 0], labels, groups
    )


def test_groups_may_be_names_and_must_be_there():
    scores, labels, groups = sample()
    ordered = np.unique(groups, return_inverse=True)[1]
    names = np.array([f"IP_{group:07d}" for group in ordered])
    expected = auc_interval(scores[:, 0], labels, ordered)
    assert auc_interval(scores[:, 0], labels, names) == expected
    with pytest.raises(ValueError, match="row 1: the group is missing"):
        auc_interval([1.0, 2], [0, 1], np.array(["a", None], object))
    with pytest.raises(ValueError, match="row 1: the group is missing"):
        auc_interval([1.0, 2], [0, 1], [0, np.nan])


def test_unlabelled_rows_do_not_count_as_groups():
    scores, labels, groups = sample()
    more = np.concatenate([scores[:, 0], np.full(100, np.nan)])
    assert auc_interval(
        more, [*labels, *[np.nan] * 100], [*groups, *range(1000, 1100)]
    ) == auc_interval(scores[:, 0], labels, groups)


def test_curves_of_resamples_are_scikit_learns():
    """Each replicate's curve equals scikit-learn's of the drawn rows."""
    scores, labels, groups = sample(rows=200, groups=40)
    groups, scores = np.unique(groups, return_inverse=True)[1], scores[:, 0].round(1)
    generator = np.random.default_rng(0)
    count = groups.max() + 1
    grid = np.linspace(0.005, 0.995, 50)
    curves = []
    for _ in range(100):
        drawn = np.bincount(generator.integers(count, size=count), minlength=count)[groups]
        x, y, _ = roc_curve(labels, scores, sample_weight=drawn, drop_intermediate=False)
        curves.append(np.interp(grid, x, y))
    ours = bootstrap_curves(scores, labels, grid, groups, replicates=100)
    assert ours == pytest.approx(np.array(curves), abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_bootstrap_with_a_rare_class_is_never_wrong_only_undefined(seed):
    """Two positives in two groups: replicates without one are NaN, the rest are within [0, 1]."""
    scores = np.random.default_rng(seed).normal(size=20)
    areas = bootstrap_aucs(scores, [1, 1] + [0] * 18, replicates=50, seed=seed)
    assert np.isnan(areas).sum() < 25
    assert ((areas >= 0) & (areas <= 1) | np.isnan(areas)).all()


def test_metrics_exports_what_it_says():
    assert all(callable(getattr(metrics, name)) for name in metrics.__all__)
