"""The second level: its columns against hand and brute force, its nestedness, its files, and the
real SIIM-ISIC.
"""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.core.ensemble.averages import normalised_ranks, quantile_map
from pipeline.core.ensemble.earned import (
    CANDIDATES,
    last_earned,
    nested_choice,
    nested_scores,
    score_candidates,
    with_recipe,
)
from pipeline.core.ensemble.fitted import (
    FittedCandidate,
    FittedCombination,
    combined_scores,
    read_combinations,
    whole_patients,
    write_combinations,
)
from pipeline.core.ensemble.patient_context import (
    SHRINK,
    Columns,
    Members,
    category_levels,
    context_columns,
    logit,
)
from pipeline.core.ensemble.second_level import (
    Recipe,
    nested_logits,
    out_of_fold_members,
    stacking_rows,
)
from pipeline.core.metrics import auc, auc_difference, partial_auc
from pipeline.core.runtime.errors import UserError
from tests.bench import siim_second_level as siim

COLUMNS = Columns(("age",), ("sex", "site"), "site")

QUICK = Recipe(seeds=(0, 1), rounds=40, least_rows=20)


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values, float)))


def case(patients=200, seed=0, strength=1.5, members=2, folds=4):
    """Patients of 1 to 12 images with a level of their own, and members that know something of the
    labels.

    The labels depend on the image against its patient's level, so that relative columns help.
    """
    generator = np.random.default_rng(seed)
    size = generator.integers(1, 13, patients)
    code = np.repeat(np.arange(patients), size)
    n = len(code)
    labels = (generator.random(n) < 0.12).astype(float)
    level = generator.normal(0, 1.5, patients)[code]
    scores = sigmoid(
        strength * labels[:, None] + level[:, None] + generator.normal(size=(n, members))
    )
    table = pd.DataFrame(
        {
            "patient_id": [f"p{number:03d}" for number in code],
            "age": generator.choice([40.0, 45.0, 50.0, np.nan], n),
            "sex": np.where(code % 2, "female", "male"),
            "site": generator.choice(["torso", "arm", None], n, p=[0.6, 0.3, 0.1]),
        }
    )
    names = tuple(f"m{number}" for number in range(members))
    fold = code % folds
    return table, out_of_fold_members(names, scores, fold), labels, fold


def made(**changes):
    table, members, labels, fold = case(**changes)
    return stacking_rows(table, members, labels, fold, COLUMNS)


def one_member(values, **passes):
    quantiles = sigmoid(values)[:, None]
    return Members(("m",), quantiles, quantiles, passes)


# --- columns --------------------------------------------------------------------------------------


def test_a_patient_by_hand():
    table = pd.DataFrame(
        {
            "patient_id": ["a", "b", "a", "a"],
            "age": [40.0, 70.0, 40.0, 50.0],
            "sex": ["male", "female", "male", "male"],
            "site": ["torso", "arm", "torso", "arm"],
        }
    )
    passes = np.array([[0.5, 0.5], [0.5, 0.5], [sigmoid(1), sigmoid(3)], [0.5, 0.5]])
    found = context_columns(
        table, one_member([0, 2, 1, 3], m=passes), COLUMNS, category_levels(table, COLUMNS)
    )
    spread = np.sqrt(14 / 9)  # of 0, 1, 3
    total = 1 + np.e + np.e**3
    expected = {  # rows a, b, a, a
        "m": [0, 2, 1, 3],
        "m: logit": [0, 2, 1, 3],
        "m: patient mean": [4 / 3, 2, 4 / 3, 4 / 3],
        "m: others mean": [2, np.nan, 1.5, 0.5],
        "m: others max": [3, np.nan, 3, 1],
        "m: patient spread": [spread, np.nan, spread, spread],
        "m: to mean": [-4 / 3, 0, -1 / 3, 5 / 3],
        "m: to median": [-1, 0, 0, 2],
        "m: to max": [-3, 0, -2, 0],
        "m: to others mean": [-2, np.nan, -0.5, 2.5],
        "m: to others median": [-2, np.nan, -0.5, 2.5],
        "m: to others max": [-3, np.nan, -2, 2],
        "m: z": [
            -4 / 3 / (spread + SHRINK),
            0,
            -1 / 3 / (spread + SHRINK),
            5 / 3 / (spread + SHRINK),
        ],
        "m: rank": [0, np.nan, 0.5, 1],
        "m: above": np.log([3, 1, 2, 1]),
        "m: share": [-np.log(total), 0, 1 - np.log(total), 3 - np.log(total)],
        "m: to same place": [-1, np.nan, 1, np.nan],
        "m: pass spread": [0, 0, 1, 0],
        "m: highest pass": [0, 0, 3, 0],
        "m: lowest pass": [0, 0, 1, 0],
        "images": np.log([3, 1, 3, 3]),
        "age": [40, 70, 40, 50],
        "age: to mean": [-10 / 3, 0, -10 / 3, 20 / 3],
        "age: to lowest": [0, 0, 0, 10],
        "age: to highest": [-10, 0, -10, 0],
        "age: same": np.log([2, 1, 2, 1]),
        "age: same share": [2 / 3, 1, 2 / 3, 1 / 3],
        "sex=female": [0, 1, 0, 0],
        "sex=male": [1, 0, 1, 1],
        "site=arm": [0, 1, 0, 1],
        "site=torso": [1, 0, 1, 0],
        "site: same": np.log([2, 1, 2, 1]),
        "site: same share": [2 / 3, 1, 2 / 3, 1 / 3],
    }
    assert set(found.columns) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_columns_against_brute_force_over_each_patient():
    table, members, _, _ = case(patients=60, seed=3)
    values = np.round(logit(members.quantiles[:, 0]), 1)  # ties
    members = one_member(values)
    found = context_columns(table, members, COLUMNS, category_levels(table, COLUMNS))
    values = logit(members.quantiles[:, 0])
    patient = table["patient_id"].to_numpy()
    site = table["site"].to_numpy()
    for row in range(len(table)):
        own = np.flatnonzero(patient == patient[row])
        others = values[own[own != row]]
        same = [
            i
            for i in own
            if i != row and (site[i] == site[row] or (pd.isna(site[i]) and pd.isna(site[row])))
        ]
        expected = {
            "m: patient mean": values[own].mean(),
            "m: to median": values[row] - np.median(values[own]),
            "m: share": values[row] - np.log(np.exp(values[own]).sum()),
            "m: above": np.log1p((others > values[row]).sum() + (others == values[row]).sum() / 2),
        }
        if len(others):
            below = (others < values[row]).sum() + (others == values[row]).sum() / 2
            expected |= {
                "m: others mean": others.mean(),
                "m: others max": others.max(),
                "m: to others median": values[row] - np.median(others),
                "m: rank": below / len(others),
            }
        if same:
            expected["m: to same place"] = values[row] - values[same].mean()
        for name, value in expected.items():
            assert found[name].iloc[row] == pytest.approx(value, abs=2e-5), (name, row)
        assert np.isnan(found["m: rank"].iloc[row]) == (len(others) == 0)
        assert np.isnan(found["m: to same place"].iloc[row]) == (not same)


def test_columns_against_pandas_groupby():
    table, members, _, _ = case(patients=300, seed=4)
    found = context_columns(table, members, COLUMNS, category_levels(table, COLUMNS))
    values = pd.Series(logit(members.quantiles[:, 1]))
    grouped = values.groupby(table["patient_id"])
    np.testing.assert_allclose(found["m1: to mean"], values - grouped.transform("mean"), atol=1e-5)
    np.testing.assert_allclose(
        found["m1: to median"], values - grouped.transform("median"), atol=1e-5
    )
    np.testing.assert_allclose(found["m1: to max"], values - grouped.transform("max"), atol=1e-5)
    np.testing.assert_allclose(np.exp(found["images"]), grouped.transform("size"), rtol=1e-5)
    ages = table["age"].groupby(table["patient_id"])
    np.testing.assert_allclose(
        found["age: to mean"], table["age"] - ages.transform("mean"), atol=1e-5
    )
    np.testing.assert_allclose(
        found["age: to lowest"], table["age"] - ages.transform("min"), atol=1e-5
    )
    np.testing.assert_allclose(
        found["age: to highest"], table["age"] - ages.transform("max"), atol=1e-5
    )
    both = logit(members.quantiles)
    np.testing.assert_allclose(found["consensus"], both.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(found["members: spread"], both.std(axis=1), atol=1e-5)


def test_columns_do_not_depend_on_the_order_of_rows_or_on_other_patients():
    table, members, _, fold = case(patients=80, seed=5)
    levels = category_levels(table, COLUMNS)
    whole = context_columns(table, members, COLUMNS, levels)
    order = np.random.default_rng(0).permutation(len(table))
    mixed = context_columns(table.iloc[order], taken(members, order), COLUMNS, levels)
    np.testing.assert_allclose(mixed, whole.iloc[order], atol=1e-5)
    for number in np.unique(fold):  # what a call for each split gives
        rows = np.flatnonzero(fold == number)
        alone = context_columns(table.iloc[rows], taken(members, rows), COLUMNS, levels)
        np.testing.assert_allclose(alone, whole.iloc[rows], atol=1e-5)


def taken(members, rows):
    return Members(
        members.names,
        members.scores[rows],
        members.quantiles[rows],
        {name: values[rows] for name, values in members.passes.items()},
    )


# --- nested scores --------------------------------------------------------------------------------


def test_permuted_labels_are_not_predicted():
    areas = []
    for seed in range(3):
        data = made(seed=seed, patients=300)
        shuffled = np.random.default_rng(seed).permutation(data.labels)
        data = replace(data, labels=shuffled)
        areas.append(auc(nested_logits(data, QUICK), shuffled))
    assert abs(np.mean(areas) - 0.5) < 0.03


def test_labels_that_relative_columns_tell_are_predicted_better_than_by_the_mean():
    data = made(patients=400, seed=1)
    gain, low, _, _ = auc_difference(
        nested_logits(data, QUICK), data.quantiles.mean(axis=0), data.labels, data.patients
    )
    assert gain > 0.03
    assert low > 0


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_patients_labels_never_change_its_own_nested_scores(name):
    data = made(seed=2)
    patient = data.patients[np.flatnonzero(data.labels == 1)[0]]
    own = data.patients == patient
    changed = replace(data, labels=np.where(own, 1 - data.labels, data.labels))
    candidate = with_recipe(QUICK)[name]
    before = nested_scores(candidate, data)[0]
    after = nested_scores(candidate, changed)[0]
    np.testing.assert_array_equal(before[own], after[own])
    same_fold = data.fold == data.fold[own][0]
    np.testing.assert_array_equal(before[same_fold], after[same_fold])
    if name == "second level":
        assert (before[~same_fold] != after[~same_fold]).any()


def test_the_choice_of_a_fold_does_not_see_its_labels():
    data = made(seed=2, patients=120)
    candidates = {
        name: with_recipe(QUICK)[name] for name in ("uniform mean", "fitted share", "second level")
    }
    held = data.fold == 1
    before, choice = nested_choice(data, candidates)
    generator = np.random.default_rng(0)
    labels = data.labels.copy()
    labels[held] = generator.permutation(labels[held])
    after, other = nested_choice(replace(data, labels=labels), candidates)
    assert choice[1] == other[1]
    np.testing.assert_array_equal(before[held], after[held])


def test_blank_labels_are_left_out_of_the_fit_but_scored():
    data = made(seed=6)
    blank = np.random.default_rng(0).random(len(data.labels)) < 0.3
    some = replace(data, labels=np.where(blank, np.nan, data.labels))
    scores = nested_logits(some, QUICK)
    assert np.isfinite(scores).all()
    assert auc(scores, some.labels) > 0.6


def test_threads_and_repetition_change_nothing():
    data = made(seed=7)
    first = nested_logits(data, QUICK)
    np.testing.assert_array_equal(first, nested_logits(data, QUICK))
    short = replace(QUICK, seeds=(0,), rounds=5)
    few = nested_logits(data, short, data.fold < 2)
    np.testing.assert_allclose(
        few, nested_logits(data, replace(short, threads=2), data.fold < 2), atol=1e-12
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_drawing_negatives_leaves_the_level_of_the_logits(share):
    data = made(seed=8, patients=800)
    recipe = replace(QUICK, share=share, part_patients=1.0)
    all_rows = nested_logits(data, recipe)
    some = nested_logits(data, replace(recipe, most_rows=2500))
    assert not np.array_equal(all_rows, some)
    assert np.corrcoef(all_rows, some)[0, 1] > 0.95
    assert abs(all_rows.mean() - some.mean()) < 0.2
    assert auc(some, data.labels) > auc(all_rows, data.labels) - 0.02


# --- fitted, written, read, applied -------------------------------------------------------------


@pytest.fixture(scope="module", params=list(CANDIDATES))
def fitted(request):
    """Each candidate, fitted on all rows, and the frozen maps of fold 0."""
    table, members, labels, fold = case(seed=9)
    data = stacking_rows(table, members, labels, fold, COLUMNS)
    candidate = with_recipe(QUICK)[request.param]
    found = candidate(data, np.ones(len(labels), bool))
    combination = FittedCombination(
        request.param, members.names, COLUMNS, category_levels(table, COLUMNS), found
    )
    return combination, [quantile_map(column) for column in members.scores[fold == 0].T]


def test_written_and_read_it_gives_the_same_values(fitted, tmp_path):
    combination, maps = fitted
    write_combinations(tmp_path / "combination.json", {"nevus": combination})
    again = read_combinations(tmp_path / "combination.json")["nevus"]
    table, members, _, _ = case(patients=20, seed=10)
    before = combined_scores(combination, table, members.scores, maps)
    np.testing.assert_array_equal(before, combined_scores(again, table, members.scores, maps))
    assert (again.candidate, again.levels) == (combination.candidate, combination.levels)
    assert [path.name for path in tmp_path.iterdir()] == ["combination.json"]
    with pytest.raises(UserError, match="no such file"):
        read_combinations(tmp_path / "elsewhere.json")


def test_one_patient_alone_scores_as_among_all_and_in_blocks(fitted):
    combination, maps = fitted
    table, members, _, _ = case(patients=90, seed=11)
    whole = combined_scores(combination, table, members.scores, maps)
    assert ((whole >= 0) & (whole <= 1)).all()
    blocks = combined_scores(combination, table, members.scores, maps, block=7)
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)
    size = table.groupby("patient_id")["patient_id"].transform("size").to_numpy()
    for wanted in (1, 3):
        rows = np.flatnonzero(size == wanted)[:wanted]  # one whole patient
        assert table["patient_id"].iloc[rows].nunique() == 1
        assert len(rows) == wanted
        few = combined_scores(combination, table.iloc[rows], members.scores[rows], maps)
        np.testing.assert_allclose(few, whole[rows], rtol=1e-12)
    assert len(combined_scores(combination, table[:0], members.scores[:0], maps)) == 0


def test_a_patient_with_one_image_and_categories_never_seen(fitted):
    combination, maps = fitted
    table = pd.DataFrame({"patient_id": ["x"], "age": [np.nan], "sex": ["unheard"], "site": [None]})
    scores = np.array([[0.9, 0.8]])
    found = combined_scores(combination, table, scores, maps)
    blank = combined_scores(combination, table.assign(sex=None), scores, maps)
    assert found.shape == (1,)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, blank)


def test_blocks_hold_whole_patients_and_every_row_once():
    generator = np.random.default_rng(0)
    patients = pd.Series(generator.integers(0, 30, 400).astype(str))
    for block in (1, 20, 150, 1000):
        blocks = list(whole_patients(patients, block))
        assert sorted(np.concatenate(blocks)) == list(range(400))
        names = [set(patients.iloc[rows]) for rows in blocks]
        assert sum(map(len, names)) == 30
        for rows, inside in zip(blocks, names):
            assert len(rows) <= block or len(inside) == 1


def test_a_weighted_mean_by_hand():
    table = pd.DataFrame({"patient_id": ["a", "b"], "age": [1.0, 2.0], "sex": "m", "site": "arm"})
    maps = [
        {"values": [0.0, 1.0], "quantiles": [0.0, 1.0]},
        {"values": [0, 1], "quantiles": [1, 0]},
    ]
    scores = np.array([[0.2, 0.6], [0.4, 0.9]])
    levels = category_levels(table, COLUMNS)
    for on, expected in (("scores", [0.3, 0.525]), ("quantiles", [0.25, 0.325])):
        one = FittedCombination("x", ("p", "q"), COLUMNS, levels, FittedCandidate((0.75, 0.25), on))
        found = combined_scores(one, table, scores, maps)
        np.testing.assert_allclose(found, expected)


def test_a_category_of_the_held_out_fold_alone_changes_nothing():
    table, members, labels, fold = case(seed=13)
    rows = np.flatnonzero(fold == 0)[:5]
    rare = table.copy()
    rare.loc[rows, "sex"] = "rare"
    blank = table.copy()
    blank.loc[rows, "sex"] = None
    for changed in (rare, blank):
        assert np.isfinite(
            nested_logits(stacking_rows(changed, members, labels, fold, COLUMNS), QUICK)
        ).all()


# --- errors ---------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong(fitted):
    table, members, labels, fold = case(patients=30, seed=14)
    torn = fold.copy()
    many = table["patient_id"].value_counts().index[0]
    torn[np.flatnonzero(table["patient_id"] == many)[0]] = 3 - torn[table["patient_id"] == many][0]
    with pytest.raises(UserError, match=f"patient {many} has images in the folds"):
        stacking_rows(table, members, labels, torn, COLUMNS)
    with pytest.raises(UserError, match="'age' is missing"):
        stacking_rows(table.drop(columns="age"), members, labels, fold, COLUMNS)
    scores = members.scores.copy()
    scores[7, 1] = np.nan
    with pytest.raises(UserError, match="row 7, column m1: nan"):
        stacking_rows(table, replace(members, scores=scores), labels, fold, COLUMNS)
    with pytest.raises(UserError, match=r"row 0, the label 2.0"):
        stacking_rows(table, members, np.full(len(table), 2.0), fold, COLUMNS)
    with pytest.raises(UserError, match="one class"):
        nested_logits(stacking_rows(table, members, np.zeros(len(table)), fold, COLUMNS), QUICK)
    combination, maps = fitted
    with pytest.raises(UserError, match=r"2 members \(m0, m1\)"):
        combined_scores(combination, table, np.zeros((len(table), 5)), maps)


# --- the rule -------------------------------------------------------------------------------------


def test_the_rule_keeps_the_simplest_until_a_gain_is_more_than_noise():
    generator = np.random.default_rng(0)
    labels = (generator.random(3000) < 0.2).astype(float)
    patients = np.arange(3000) // 3
    base = labels + generator.normal(size=3000)
    better = labels * 1.5 + generator.normal(size=3000)
    best = labels * 3 + generator.normal(size=3000)
    noise = base + generator.normal(scale=0.01, size=3000)
    assert last_earned({"a": base, "b": noise}, labels, patients) == "a"
    assert last_earned({"a": base, "b": noise, "c": better}, labels, patients) == "c"
    assert last_earned({"a": base, "b": noise, "c": better, "d": best}, labels, patients) == "d"
    assert last_earned({"a": best, "b": better}, labels, patients) == "a"


# --- ISIC 2024's form ----------------------------------------------------------------------------


def test_the_objective_is_the_organisers_partial_auc():
    """Few positives, patients of very different sizes, and the partial AUC decides. A member that
    misses some positives altogether has as good an AUC, and the worse partial AUC."""
    generator = np.random.default_rng(0)
    patients = 240
    code = np.repeat(np.arange(patients), generator.integers(3, 30, patients))
    labels = (generator.random(len(code)) < 0.04).astype(float)
    steady = 1.2 * labels + generator.normal(size=len(code))
    lucky = generator.random(len(code)) < 0.82
    peaked = 5.0 * labels * lucky - 3.0 * labels * ~lucky + generator.normal(size=len(code))
    scores = np.column_stack([sigmoid(peaked), sigmoid(steady)])
    table = pd.DataFrame(
        {"patient_id": code.astype(str), "age": 40.0, "sex": "male", "site": "torso"}
    )
    members = out_of_fold_members(("peaked", "steady"), scores, code % 4)
    candidates = {
        "peaked": lambda *_: FittedCandidate((1.0, 0.0)),
        "steady": lambda *_: FittedCandidate((0.0, 1.0)),
    }
    choices = {}
    for metric, area in (("auc", auc), ("partial_auc", partial_auc)):
        data = stacking_rows(table, members, labels, code % 4, COLUMNS, metric)
        found, nested, _ = score_candidates(data, candidates)
        assert found[metric].tolist() == [area(one, labels) for one in nested.values()]
        choices[metric] = last_earned(nested, data.labels, data.patients, metric)
    assert choices == {"auc": "peaked", "partial_auc": "steady"}


# --- the real thing -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not siim.FOLDER.is_dir(), reason="../shared/data/siim_isic is not on this machine"
)
def test_the_real_melanomas():
    started = time.process_time()
    data = siim.read()
    assert (len(data.labels), data.labels.sum(), len(np.unique(data.patients))) == (
        33126,
        584,
        2056,
    )
    table, scores, _ = score_candidates(data)
    areas = table.set_index("candidate")["auc"]
    assert auc(data.scores[0], data.labels) == pytest.approx(0.9085, abs=5e-5)
    assert auc(data.scores[1], data.labels) == pytest.approx(0.8642, abs=5e-5)
    pooled = [normalised_ranks(one) for one in data.scores]  # not within fold
    assert auc(np.mean(pooled, axis=0), data.labels) == pytest.approx(0.9014, abs=5e-5)
    assert areas["half metadata"] < areas["uniform mean"]  # the paper's ratio loses here
    assert areas["rank mean"] == pytest.approx(0.9031, abs=2e-4)
    assert areas["second level"] > 0.920
    _, low, _, _ = auc_difference(
        scores["second level"], data.scores[0], data.labels, data.patients
    )
    assert low > 0
    assert last_earned(scores, data.labels, data.patients) == "second level"

    # With the pictures' sizes, which belong to the cameras more than to the skin.
    sized = nested_logits(siim.read(size=True))
    assert auc(sized, data.labels) > 0.922
    assert time.process_time() - started < 180  # of one core
