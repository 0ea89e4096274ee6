"""Members are read from every fold, aligned by id, and brought to one scale."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline.core.artifacts.files import read_json, write_sealed
from pipeline.core.artifacts.paths import PREDICTIONS, STAGE_1_PREDICTIONS
from pipeline.core.artifacts.provenance import table_hashes
from pipeline.core.artifacts.tables import align
from pipeline.core.ensemble.averages import (
    apply_map,
    weighted_mean,
)
from pipeline.core.ensemble.members import comparable, member_maps, read_member, read_rows
from pipeline.core.runs.predictions import write_predictions
from pipeline.core.runtime.errors import UserError
from tests.cases.ensembles import NAME, competition, fold_of, noisy, write_run, write_tables

LABELS = ("nevus", "scar")


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
    with pytest.raises(UserError, match=f"'{first}' is there twice"):
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


@pytest.mark.usefixtures("roots")
def test_other_tables_folds_and_scores_are_named():
    images = write_tables()
    path = write_run(images, "one", noisy(images, LABELS, 2, 1))[1]
    kept = path.read_text()
    rewrite(path, lambda table: table.assign(fold=0))
    with pytest.raises(UserError, match="row 2, column fold: 0, not 1"):
        read()
    rewrite(path, lambda table: table.assign(fold=1, nevus=np.nan))
    with pytest.raises(UserError, match="row 2, column nevus: 'nan' is not a finite number"):
        read()
    path.write_text(kept)
    sidecar = path.with_suffix(".json")
    facts = read_json(sidecar)
    write_sealed(sidecar, facts | {"hashes": facts["hashes"] | {"folds": "0" * 64}})
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


@pytest.mark.usefixtures("roots")
def test_one_disease_per_run_is_averaged_over_the_runs_that_have_it():
    images = write_tables()
    both = noisy(images, LABELS, 2, 1)
    scar = noisy(images, LABELS[1:], 2, 2)
    write_run(images, "one", both)
    write_run(images, "two", scar)
    members = [read(run)[0].out_of_fold for run in ("one", "two")]
    mean = weighted_mean(members)
    assert np.array_equal(mean[:, 0], members[0][:, 0])
    assert mean[:, 1] == pytest.approx((members[0][:, 1] + members[1][:, 1]) / 2)
