"""Groups: what is linked is never apart, by hand-made chains and by brute force over random
tables."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.folds.audit import find_leaks
from pipeline.core.folds.split import training_images, validation_rows
from pipeline.core.images.near_duplicates import NEAR_BITS
from pipeline.core.runtime.errors import UserError
from tests.cases.synthetic_images import HASHES, TASK, fold_map, images_of, made, twelve


def few_bits_off(phash: str) -> str:
    """A hash 20 bits away."""
    return f"{int(phash, 16) ^ 0xFFFFF:0{len(phash)}x}"


@pytest.mark.parametrize("column, value", [("lesion_id", "L1"), ("phash", HASHES[1999])])
def test_patients_who_share_a_lesion_or_image_share_a_fold(column, value):
    images = twelve().assign(lesion_id=None)
    images.loc[[0, 7, 20], column] = value
    folds, dropped, _ = made(images, folds=3)
    fold = fold_map(folds)
    assert fold["p00"] == fold["p03"] == fold["p10"]
    assert dropped.empty


def test_a_chain_of_duplicates_stays_together_whatever_links_it():
    images = twelve().assign(lesion_id=None, duplicate_of=None)
    images.loc[0, "duplicate_of"] = images["image_id"][3]  # p00 - p01
    images.loc[2, "duplicate_of"] = images["image_id"][5]  # p01 - p02
    images.loc[[4, 8], "lesion_id"] = "L"  # p02 - p04
    images.loc[[9, 13], "phash"] = HASHES[1998]  # p04 - p06
    images.loc[[12, 15], "duplicate_of"] = "not in the table"  # p06 - p07
    fold = fold_map(made(images, folds=3)[0])
    assert len({fold[f"p{i:02d}"] for i in (0, 1, 2, 4, 6, 7)}) == 1
    assert set(fold.values()) == {0, 1, 2}


def test_a_chain_through_a_dropped_image_still_counts_as_a_leak():
    images = twelve().assign(duplicate_of=None)
    images.loc[[0, 2], "duplicate_of"] = (
        images["image_id"][2],
        images["image_id"][4],
    )  # p00 - p01 - p02
    folds = pd.DataFrame({"patient_id": sorted(set(images["patient_id"])), "fold": [0, 1, 2] * 4})
    dropped = pd.DataFrame({"image_id": [images["image_id"][2]], "reason": "removed", "twin": ""})
    found = find_leaks("folds.csv", images, folds, dropped, TASK)
    assert [(leak["first"], leak["second"], leak["reason"]) for leak in found] == [
        (images["image_id"][0], images["image_id"][4], "duplicate_of")
    ]


@pytest.mark.parametrize("same", [lambda phash: phash, few_bits_off])
def test_of_many_twins_all_are_linked(same):
    other = images_of(["e1", "e2"], source="other", start=50)
    images = pd.concat(
        [images_of(["t"], split="test", start=90), other, twelve()], ignore_index=True
    )
    images.loc[[1, 2, 5, 9], "phash"] = same(HASHES[1000])  # two of another source, p01 and p03
    images.loc[[0, 14], "phash"] = HASHES[1000]  # a test image and p05
    folds, dropped, _ = made(images, folds=3)
    fold = fold_map(folds)
    assert fold["p01"] == fold["p03"] == fold["p05"]
    assert set(dropped["image_id"]) == {"othertrain50", "othertrain51"}


def near(first: str, second: str) -> bool:
    return (int(first, 16) ^ int(second, 16)).bit_count() <= NEAR_BITS


def random_images(seed: int) -> pd.DataFrame:
    """A table with everything that may link images, in random amounts; other sources, valid and
    test rows."""
    random = np.random.RandomState(seed)
    count = random.randint(20, 80)
    split = random.choice(["train", "valid", "test"], count, p=[0.7, 0.1, 0.2])
    table = images_of([f"p{i:02d}" for i in random.randint(0, random.randint(12, 60), count)])
    table = table.assign(
        split=split,
        source=random.choice(["own", "other"], count, p=[0.8, 0.2]),
        melanoma=random.choice([1, 0, -1, np.nan], count, p=[0.1, 0.7, 0.1, 0.1]),
        lesion_id=None,
        duplicate_of=None,
    )
    for number in range(random.randint(0, 4)):
        table.loc[random.choice(count, 2), "lesion_id"] = f"L{number}"
        table.loc[random.choice(count, 3), "phash"] = HASHES[1000 + number]
        table.loc[random.choice(count, 2), "phash"] = few_bits_off(HASHES[1000 + number])
        table.loc[random.choice(count), "duplicate_of"] = random.choice(
            [*table["image_id"], "absent"]
        )
    return table


def naive_groups(images: pd.DataFrame) -> dict:
    """patient -> set of patients, by repeated union over all pairs of train and valid rows."""
    rows = images[images["split"] != "test"].to_dict("records")
    group = {row["patient_id"]: {row["patient_id"]} for row in rows}
    for a, b in combinations(rows, 2):
        same = (
            near(a["phash"], b["phash"])
            or (a["lesion_id"] and a["lesion_id"] == b["lesion_id"])
            or (a["duplicate_of"] and a["duplicate_of"] in (b["image_id"], b["duplicate_of"]))
            or (b["duplicate_of"] and b["duplicate_of"] == a["image_id"])
        )
        if same and group[a["patient_id"]] is not group[b["patient_id"]]:
            joined = group[a["patient_id"]] | group[b["patient_id"]]
            group.update(dict.fromkeys(joined, joined))
    return group


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9), folds=st.integers(2, 5))
def test_random_tables_never_leak(seed, folds):
    check_random_table(seed, folds)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(seed=st.integers(0, 10**9), folds=st.integers(2, 6))
def test_thousands_of_random_tables_never_leak(seed, folds):
    check_random_table(seed, folds)


def check_random_table(seed: int, folds: int) -> None:
    """No group in two folds; a scored image validates once and trains otherwise; no twin of a test
    image trains."""
    images = random_images(seed)
    try:
        table, dropped, _ = made(images, TASK, folds=folds, seed=seed % 7)
    except UserError as error:
        assert "groups of patients" in str(error)
        return
    fold = fold_map(table)
    group = naive_groups(images)
    assert set(fold) == set(group)
    assert sorted(set(fold.values()) - {-1}) == list(range(folds))
    own = set(images["patient_id"][(images["source"] == "own") & (images["split"] != "test")])
    for joined in group.values():
        if joined & own:
            assert len({fold[patient] for patient in joined if fold[patient] >= 0}) == 1
            assert all(fold[patient] >= 0 for patient in joined & own)
        else:
            assert {fold[patient] for patient in joined} == {-1}
    test_hashes = set(images["phash"][images["split"] == "test"])
    own_hashes = set(
        images["phash"][
            images["patient_id"].isin(own)
            & (images["source"] == "own")
            & (images["split"] != "test")
        ]
    )
    times = pd.Series(0, index=images["image_id"])
    for k in range(folds):
        trains = training_images(images, table, dropped, k)
        validates = validation_rows(images, table, dropped, k, TASK)
        times[validates["image_id"]] += 1
        assert not {id(group[p]) for p in trains["patient_id"]} & {
            id(group[p]) for p in validates["patient_id"]
        }
        assert not set(trains["phash"]) & set(validates["phash"])
        for other in set(trains["phash"][trains["source"] == "other"]):
            assert not any(near(other, phash) for phash in test_hashes | own_hashes)
        kept = images[(images["split"] != "test") & ~images["image_id"].isin(dropped["image_id"])]
        outside = kept[kept["patient_id"].map(fold) != k]
        assert set(trains["image_id"]) == set(outside["image_id"])
    scored = (images["source"] == "own") & (images["split"] != "test")
    assert (times[images["image_id"][scored]] == 1).all()
    assert (times[images["image_id"][~scored]] == 0).all()
    assert set(dropped["image_id"]) <= set(images["image_id"][~scored])
    assert find_leaks("folds.csv", images, table, dropped, TASK) == []
