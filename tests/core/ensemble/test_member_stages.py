"""Which stages of a run are averaged, against the rule worked out by hand."""

import numpy as np
import pytest

from pipeline.core.ensemble.member_stages import choose_stages, stage_lines
from pipeline.core.ensemble.members import Member
from pipeline.core.metrics import auc_difference

RNG = np.random.default_rng(0)
TRUTH = (RNG.random((400, 1)) < 0.3).astype(float)
PATIENTS = np.arange(400) // 2


def member(stage: str, strength: float, name: str = "one") -> Member:
    scores = strength * TRUTH + RNG.normal(size=TRUTH.shape)
    return Member(name, stage, scores, np.zeros((2, 3, 1)), 1, stage)


def choose(asked: str, before: Member, after: Member):
    """`choose_stages` of one run whose units are its images."""
    return choose_stages({"one": asked}, [before], [after], TRUTH, PATIENTS, lambda scores: scores)


WEAK = member("CE", 0.3)
STRONG = member("AUC-M", 2.0)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("finetuned", ["one"]),
        ("pretrained", ["one-pretrained"]),
        ("both", ["one-pretrained", "one"]),
        ("best", ["one"]),
    ],
)
def test_the_members_are_those_asked_for(asked, names):
    members, facts = choose(asked, WEAK, STRONG)
    assert [one.name for one in members] == names
    for one in members:
        source = WEAK if one.name == "one-pretrained" else STRONG
        assert one.out_of_fold is source.out_of_fold and one.digest == source.digest
    assert set(facts) == (set() if asked == "finetuned" else {"one"})


def test_the_later_stage_must_earn_its_place():
    # a gain, but of the size of its noise
    before = member("CE", 1.0)
    later = before.out_of_fold + 0.02 * TRUTH + 0.3 * RNG.normal(size=TRUTH.shape)
    after = Member("one", "AUC-M", later, before.test, 1, "AUC-M")
    gain, low, _, _ = auc_difference(later, before.out_of_fold, TRUTH, PATIENTS)
    assert low <= 0
    members, facts = choose("best", before, after)
    assert [one.name for one in members] == ["one-pretrained"]
    assert facts["one"]["members"] == ["CE"]
    assert facts["one"]["difference"]["difference"] == pytest.approx(gain)
    assert "not above 0, so the simpler one" in stage_lines(facts)[0]


def test_members_from_elsewhere_have_no_stage():
    foreign = member("imported", 1.0, "theirs")
    members, facts = choose_stages({}, [], [foreign], TRUTH, PATIENTS, lambda scores: scores)
    assert members == [foreign] and facts == {}


def test_the_lines_say_what_was_chosen_and_by_how_much():
    _, facts = choose("best", WEAK, STRONG)
    row = facts["one"]["difference"]
    assert row["low"] > 0
    line = stage_lines(facts)[0]
    assert line.startswith("one: AUC-M is averaged (stage='best'); AUC-M - CE out of fold: +")
    assert f"{row['difference']:+.4f} [{row['low']:+.4f}" in line and "above 0" in line
    assert stage_lines(choose("both", WEAK, STRONG)[1])[0].startswith("one: CE and AUC-M")
