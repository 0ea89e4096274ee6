"""The check of a submission file: no malformed file passes, no valid one fails."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.config.task import Submission, Task
from pipeline.core.runtime.errors import UserError
from pipeline.core.submission.organiser_file import Wanted, check_file, fill, wanted

SHARED = Path(os.environ.get("SHARED_DATA", "../shared/data"))
CHEXPERT = ("Study", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
STUDIES = [f"CheXpert-v1.0/test/patient{64741 + i}/study1" for i in range(40)]
IMAGES = [f"ISIC_{i:07d}" for i in range(40)]
TABLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def want_melanoma(ids=IMAGES, **changes) -> Wanted:
    return Wanted(
        **{
            "ids": pd.Series(ids, dtype="str"),
            "columns": ("image_name", "target"),
            "id_column": "image_name",
            **changes,
        }
    )


def want_chexpert(**changes) -> Wanted:
    return Wanted(
        **{
            "ids": pd.Series(STUDIES, dtype="str"),
            "columns": CHEXPERT,
            "id_column": "Study",
            "strict": False,
            "unit": "study",
            **changes,
        }
    )


def scores(want: Wanted, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).beta(1, 4, size=(len(want.ids), len(want.scores)))
    return pd.DataFrame({want.id_column: want.ids, **dict(zip(want.scores, values.T))})[
        list(want.columns)
    ]


def check(
    folder: Path, table: pd.DataFrame | str | bytes, want: Wanted, **more
) -> tuple[list[str], list[str]]:
    """The texts of the errors and of the warnings."""
    path = folder / "submission.csv"
    text = table.to_csv(index=False) if isinstance(table, pd.DataFrame) else table
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = check_file(path, want, **more)
    return tuple(
        [str(one) for one in found if one.severity == severity] for severity in ("error", "warning")
    )


def only(found: tuple[list[str], list[str]], part: str, severity: int = 0) -> None:
    """Exactly one error (or warning), which holds that text, and nothing else."""
    assert len(found[severity]) == 1 and not found[1 - severity], found
    assert part in found[severity][0], found


def test_a_valid_file_has_no_finding(tmp_path):
    assert check(tmp_path, scores(want_melanoma()), want_melanoma()) == ([], [])
    assert check(tmp_path, scores(want_chexpert()), want_chexpert()) == ([], [])


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "the file is empty"),
        ("image_name;target\nISIC_0000000;0.5\n", "not separated by commas"),
        ('image_name,target\n"ISIC_0000000,0.5\n', "not CSV"),
        (b"image_name,target\nISIC_0000000\xff,0.5\n", "not UTF-8"),
        ("image_name,Target\nISIC_0000000,0.5\n", "'Target' for 'target'"),
        ("image_name,target\nISIC_0000000,0.5,0.5\n", "row 2 has 3 fields"),
    ],
)
def test_a_file_that_is_not_such_a_table(tmp_path, text, part):
    errors, _ = check(tmp_path, text, want_melanoma(IMAGES[:1]))
    assert any(part in error for error in errors), errors


@pytest.mark.parametrize(
    "cell, part",
    [
        ("", "blank or NaN"),
        ("NaN", "blank or NaN"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e999", "infini"),
        ("0,5", "not a number"),
        ("maybe", "not a number"),
        ("True", "not a number"),
        ("0x1", "not a number"),
        ("1_0", "not a number"),
        ("٠", "not a number"),
        ("0.5.1", "not a number"),
    ],
)
def test_a_cell_that_is_not_a_score(tmp_path, cell, part):
    table = scores(want_melanoma()).astype({"target": "str"})
    table.loc[15, "target"] = cell
    found = check(tmp_path, table, want_melanoma())
    only(found, part)
    assert f"row 17: {cell!r} of 'ISIC_0000015'" in found[0][0]


def test_ids(tmp_path):
    table = scores(want_melanoma())
    want = want_melanoma()
    only(check(tmp_path, table.drop(index=3), want), "missing (1): 'ISIC_0000003'")
    only(check(tmp_path, table.iloc[::-1], want), "not in the organiser's order", severity=1)
    only(
        check(tmp_path, pd.concat([table, table.iloc[[7]]]), want),
        "twice (1): row 42: 'ISIC_0000007'",
    )
    extra = table.copy()
    extra.loc[len(extra)] = ["ISIC_9", 0.5]
    only(check(tmp_path, extra, want), "row 42: 'ISIC_9'")


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda one: one + ".jpg", "file endings"),
        (lambda one: " " + one, "white space"),
        (lambda one: one[:0], "blank id"),
    ],
)
def test_ids_that_were_damaged(tmp_path, change, part):
    table = scores(want_melanoma())
    errors, _ = check(
        tmp_path, table.assign(image_name=table["image_name"].map(change)), want_melanoma()
    )
    assert part in errors[0]


def test_numeric_ids_keep_their_zeros(tmp_path):
    ids = [f"{i:07d}" for i in range(40)]
    table = scores(want_melanoma(ids))
    assert check(tmp_path, table, want_melanoma(ids)) == ([], [])
    errors, _ = check(tmp_path, table.astype({"image_name": int}), want_melanoma(ids))
    assert "read as numbers" in errors[0]


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda one: one + "/view1_frontal.jpg", "these are images; a row is a study"),
        (lambda one: one.replace("/test/", "/valid/"), "another prefix"),
        (lambda one: one.replace("v1.0", "v1.0-small"), "another prefix"),
        (lambda one: one.replace("test/patient6", "valid/patient7"), "another prefix"),
    ],
)
def test_studies_of_another_kind(tmp_path, change, part):
    table = scores(want_chexpert())
    errors, _ = check(tmp_path, table.assign(Study=table["Study"].map(change)), want_chexpert())
    assert len(errors) == 2 and part in errors[0] and "missing (40)" in errors[1]


def test_a_last_slash_is_the_scorers_own(tmp_path):
    table = scores(want_chexpert())
    assert check(tmp_path, table.assign(Study=table["Study"] + "/"), want_chexpert()) == ([], [])
    twice = pd.concat([table, table.iloc[[0]].assign(Study=STUDIES[0] + "/")])
    only(check(tmp_path, twice, want_chexpert()), "twice")


def test_columns(tmp_path):
    want = want_chexpert()
    table = scores(want)
    only(check(tmp_path, table[list(reversed(CHEXPERT))], want), "in the order", severity=1)
    only(
        check(tmp_path, table.assign(Fracture=0.1), want), "did not ask for: 'Fracture'", severity=1
    )
    only(check(tmp_path, table.drop(columns="Edema"), want), "missing columns: Edema")
    only(
        check(tmp_path, scores(want_melanoma()).assign(fold=1), want_melanoma()),
        "did not ask for: 'fold'",
    )
    twice = table.to_csv(index=False).replace("Study,Atelectasis", "Study,Edema", 1)
    assert any("twice: Edema" in error for error in check(tmp_path, twice, want)[0])


def test_constants_ties_and_decisions(tmp_path):
    want = want_melanoma()
    table = scores(want_melanoma())
    only(check(tmp_path, table.assign(target=0.25), want), "every score is 0.25, so its AUC is 0.5")
    only(
        check(tmp_path, table.assign(target=(table["target"] > 0.2) * 1), want),
        "decisions",
        severity=1,
    )
    table.loc[:9, "target"] = 0.018
    only(check(tmp_path, table, want), "share the score 0.018 (10): 'ISIC_0000000'", severity=1)
    want = want_chexpert()
    table = scores(want_chexpert())
    table.loc[[4, 9], list(CHEXPERT[1:])] = 0.3
    only(check(tmp_path, table, want), "same scores in all columns", severity=1)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_few_rows(tmp_path, rows):
    want = want_melanoma(IMAGES[:rows])
    assert check(tmp_path, scores(want), want) == ([], [])
    assert bool(check(tmp_path, "image_name,target\n", want)[0]) == bool(rows)


def test_probabilities(tmp_path):
    table = scores(want_melanoma())
    table.loc[2, "target"] = 2.81
    only(
        check(tmp_path, table, want_melanoma()),
        "outside [0, 1] (1): 'ISIC_0000002' 2.81",
        severity=1,
    )
    only(check(tmp_path, table, want_melanoma(probability=True)), "row 4: '2.81'")


def test_inverted_and_swapped_scores(tmp_path):
    want = want_chexpert()
    table = scores(want_chexpert())
    home = table.set_index("Study")
    rare = pd.Series(dict.fromkeys(want.scores, 0.2))
    assert check(tmp_path, table, want, prevalence=rare) == ([], [])
    inverted = table.assign(Edema=1 - table["Edema"])
    only(
        check(tmp_path, inverted, want, prevalence=rare), "column Edema: the mean score", severity=1
    )
    only(
        check(tmp_path, inverted, want, reference=home),
        "column Edema: rank correlation -1.00",
        severity=1,
    )
    swapped = table.rename(columns={"Edema": "Consolidation", "Consolidation": "Edema"})[
        list(CHEXPERT)
    ]
    _, warnings = check(tmp_path, swapped, want, reference=home)
    assert len(warnings) == 2 and all("swapped columns" in warning for warning in warnings)


def test_fill_is_by_id_and_refuses_gaps():
    task = Task(title="t", labels=("melanoma",), slug="siim")
    submission = Submission(
        file="submission.csv", id_column="image_name", columns={"melanoma": "target"}
    )
    sample = pd.DataFrame({"image_name": ["b", "a"], "target": [0, 0]})
    table = pd.DataFrame({"unit_id": ["a", "b", "c"], "melanoma": [0.1, 0.2, 0.3]})
    assert fill(sample, table, submission)["target"].tolist() == [0.2, 0.1]
    assert wanted(sample, submission, task).scores == ("target",)
    with pytest.raises(UserError, match="1 of the organiser's 2 ids have no score, first 'a'"):
        fill(sample, table.iloc[1:], submission)
    with pytest.raises(UserError, match="unit 'a' has two rows"):
        fill(sample, pd.concat([table, table]), submission)


names = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="/"
    ),
    min_size=1,
    max_size=8,
)
numbers = st.floats(0, 1, allow_nan=False).map(lambda one: format(one, ".17g"))


@st.composite
def files(draw) -> tuple[Wanted, list[list[str]]]:
    """A wanted submission and the rows of a valid file, header first, as text."""
    count = draw(st.integers(3, 12))
    ids = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    columns = draw(
        st.lists(names, min_size=1, max_size=4, unique=True).filter(lambda some: "id" not in some)
    )
    table = [[one, *(draw(numbers) for _ in columns)] for one in ids]
    table[0][1:] = ["0.123"] * len(columns)  # two different scores: no column is constant
    table[1][1:] = ["0.456"] * len(columns)
    return want_melanoma(ids, columns=("id", *columns), id_column="id"), [["id", *columns], *table]


def as_bytes(table: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue().encode()


@TABLES
@given(files())
def test_no_valid_file_fails(tmp_path, file):
    want, table = file
    assert check(tmp_path, as_bytes(table), want)[0] == []


def spoil(draw, table: list[list[str]]) -> None:
    """Make one thing wrong that no organiser accepts."""
    row = draw(st.integers(1, len(table) - 1))
    column = draw(st.integers(1, len(table[0]) - 1))
    kind = draw(
        st.sampled_from(
            ["drop", "twice", "extra", "id", "cell", "constant", "ragged", "column", "header"]
        )
    )
    if kind == "drop":
        del table[row]
    elif kind == "twice":
        table.insert(draw(st.integers(1, len(table))), list(table[row]))
    elif kind == "extra":
        table.append(["an id nobody has", *table[row][1:]])
    elif kind == "id":
        table[row][0] += draw(st.sampled_from([" ", "x", ".0", "\t"]))
    elif kind == "cell":
        table[row][column] = draw(
            st.sampled_from(["", "nan", "inf", "-inf", "1e400", "0,5", "1 2", "None", "5f"])
        )
    elif kind == "constant":
        for one in table[1:]:
            one[column] = "0.5"
    elif kind == "ragged":
        table[row] = draw(st.sampled_from([table[row][:-1], [*table[row], "0.5"]]))
    elif kind == "column":
        for one in table:
            del one[column]
    else:
        table[0][column] += draw(st.sampled_from([" ", "_", ".1"]))


@TABLES
@given(files(), st.data())
def test_no_malformed_file_passes(tmp_path, file, data):
    want, table = file
    spoil(data.draw, table)
    assert check(tmp_path, as_bytes(table), want)[0], table


@pytest.mark.skipif(not (SHARED / "siim_isic").is_dir(), reason="needs the real submissions")
def test_real_submissions_pass_and_their_complements_are_noticed(tmp_path):
    """On one test set of 10,982 images, made by several networks and ensembles; all thirteen pass,
    four are tried."""
    real = pd.read_csv(
        SHARED / "siim_isic" / "siim_test_submissions_masdevallia.csv.gz",
        dtype={"image_name": "str"},
    )
    want = want_melanoma(real["image_name"])
    rare = pd.Series({"target": 0.0176})
    for name in real.columns[1::4]:
        table = real[["image_name", name]].rename(columns={name: "target"})
        assert check(tmp_path, table, want, prevalence=rare) == ([], []), name
        only(
            check(tmp_path, table.assign(target=1 - table["target"]), want, prevalence=rare),
            "inverted",
            severity=1,
        )


@pytest.mark.skipif(
    not (SHARED / "chexpert_test").is_dir(), reason="needs the released leaderboard files"
)
@pytest.mark.parametrize("name", ["drnet", "ihil", "jfaboy", "sensexdr", "uestc", "yww211"])
def test_released_leaderboard_files_pass(name):
    truth = pd.read_csv(SHARED / "chexpert_test" / "groundtruth.csv")
    want = want_chexpert(ids=truth["Study"].astype("str"))
    found = check_file(SHARED / "chexpert_test" / "predictions" / f"{name}.csv", want)
    assert [one for one in found if one.severity == "error"] == []
    outside = truth[["Study"]].merge(
        pd.read_csv(SHARED / "chexpert_test" / "predictions" / f"{name}.csv")
    )
    above = outside[list(CHEXPERT[1:])].max().max() > 1
    assert any("outside" in one.message for one in found) == above


def test_one_slash_after_a_study_is_allowed_and_two_are_not(tmp_path):
    want = want_chexpert()
    one = scores(want)
    one["Study"] += "/"
    assert check(tmp_path, one, want) == ([], [])
    two = one.assign(Study=one["Study"] + "/")
    errors, _ = check(tmp_path, two, want)
    assert errors and all("//" in text or "missing" in text for text in errors)


def test_ids_that_a_spreadsheet_would_run_are_a_warning(tmp_path):
    ids = ["=cmd|' /C calc'!A0", "+1-2", "@SUM(A1)", *IMAGES]
    want = want_melanoma(ids)
    only(check(tmp_path, scores(want), want), "ids that a spreadsheet would run (3)", severity=1)
    want = want_melanoma(["-1", "+2.5", *IMAGES])
    assert check(tmp_path, scores(want), want) == ([], [])
