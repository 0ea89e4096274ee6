"""The plan: in order of value, within the time there is. A clock that only work moves makes it
exact."""

import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.artifacts.tables import nine_digits
from pipeline.core.config.run import Finetune, Pretrain, Run
from pipeline.core.config.task import Resize
from pipeline.core.images.resize import resized, to_jpeg
from pipeline.deploy.away import stream as streaming
from pipeline.deploy.away.stream import (
    Progress,
    RawImages,
    Scorer,
    affordable,
    read_chunk,
    stream,
)
from tests.cases import bad_files

RUN = Run(network="n", size=32, pretrain=Pretrain(lr=0.1), finetune=Finetune(), views=8)


class Clock:
    """Time that passes by work alone: `reading` seconds for each image, `cost[name]` for each image
    and view."""

    def __init__(self, reading: float, cost: dict[str, float]) -> None:
        self.now = 0.0
        self.longest = 0.0
        self.reading = reading
        self.cost = cost
        self.scored = []

    def read(self, _images, chunk, _scores):
        self.now += self.reading * len(chunk)
        return [{32: b""}] * len(chunk)

    def score(self, scorer, jpegs, _units=None):
        seconds = self.cost[scorer.name] * scorer.run.views * len(jpegs)
        self.now += seconds
        self.longest = max(self.longest, seconds + self.reading * len(jpegs))
        self.scored.append((scorer.name, len(jpegs), scorer.run.views))
        return np.full((len(jpegs), 1), 0.5)


@pytest.fixture(scope="module")
def world():
    """Make a world of such a clock: (clock, scorers)."""
    patch = pytest.MonkeyPatch()

    def make(reading: float, **cost: float) -> tuple[Clock, list[Scorer]]:
        clock = Clock(reading, cost)
        patch.setattr(streaming, "time", SimpleNamespace(monotonic=lambda: clock.now))
        patch.setattr(streaming, "read_chunk", clock.read)
        patch.setattr(streaming, "score_chunk", clock.score)
        return clock, [Scorer(name, 0, RUN, ("a",), Resize(), None) for name in cost]

    yield make
    patch.undo()


def test_all_scorers_where_there_is_time(world):
    clock, scorers = world(0.01, b=0.001, a=0.002)
    scores = Progress()
    stream(scorers, range(3000), lambda: float("inf"), scores)
    assert list(scores.tables) == [("b", 0), ("a", 0)]
    assert all(table.notna().all().all() and len(table) == 3000 for table in scores.tables.values())
    assert clock.scored[0] == ("b", 64, 8) and max(count for _, count, _ in clock.scored) == 1024


def test_scorers_that_do_not_fit_are_left_out_and_cheaper_ones_kept(world):
    # 8, 800 and 8 s for a thousand images.
    clock, scorers = world(0.0, best=0.001, dear=0.1, cheap=0.001)
    scores = Progress()
    stream(scorers, range(2000), lambda: 120 - clock.now, scores)
    assert list(scores.tables) == [("best", 0), ("cheap", 0)] and clock.now < 120


def test_the_first_network_goes_down_to_one_view_and_gets_to_the_end(world):
    clock, scorers = world(0.001, best=0.01)  # 81 s a thousand with eight views, 11 s with one
    scores = Progress()
    stream(scorers, range(2000), lambda: 60 - clock.now, scores, partial=True)
    assert scores.tables["best", 0].notna().all().all() and clock.now < 60
    assert clock.scored[0][2] == 8 and clock.scored[-1][2] == 1


def test_half_a_million_images_and_too_little_time(world):
    clock, scorers = world(0.001, best=0.001)  # 1,000 s for all, with one view
    scores = Progress()
    stream(scorers, range(500_000), lambda: 300 - clock.now, scores, partial=True)
    done = scores.tables["best", 0]["a"].notna()
    assert 120_000 < done.sum() < 180_000 and done[:120_000].all()
    assert clock.now < 300 + clock.longest


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 5000),
    st.floats(0, 0.05),
    st.lists(st.floats(0.0001, 0.05), min_size=1, max_size=4),
    st.floats(1, 200),
    st.booleans(),
)
def test_the_time_is_kept_to_within_a_chunk(world, count, reading, costs, limit, partial):
    clock, scorers = world(reading, **{f"m{number}": cost for number, cost in enumerate(costs)})
    scorers = scorers[:1] if partial else scorers
    scores = Progress()
    stream(scorers, range(count), lambda: limit - clock.now, scores, partial=partial)
    assert clock.now <= limit + max(clock.longest, 64 * (reading + 8 * sum(costs)))
    if not partial:
        assert all(table.notna().all().all() for table in scores.tables.values())


def test_affordable_keeps_the_order_of_value():
    scorers = [
        replace(Scorer(name, 0, RUN, ("a",), Resize(), None), seconds=seconds)
        for name, seconds in (("a", 1.0), ("b", 5.0), ("c", 1.0))
    ]
    assert [one.name for one in affordable(scorers, 1.0, 10, 100)] == ["a", "b", "c"]
    assert [one.name for one in affordable(scorers, 1.0, 10, 40)] == ["a", "c"]
    assert affordable(scorers, 1.0, 10, 15) == []


@given(
    st.lists(
        st.one_of(st.none(), st.floats(1e-6, 1e9), st.floats(-1e9, -1e-6), st.just(0.0)), min_size=1
    )
)
def test_numbers_are_those_of_a_table(values):
    column = pd.Series(values, dtype="float64")
    table = [float(format(value, ".9g")) for value in column]
    np.testing.assert_allclose(nine_digits(column), table, rtol=1.1e-9)
    exact = pd.Series([float(format(np.log1p(2), ".9g"))])
    assert nine_digits(pd.Series([np.log1p(2)])) == pytest.approx(exact, rel=1e-15)


class Strange(RawImages):
    """Images of which one kills its process and one fills its memory."""

    def __getitem__(self, index: int) -> dict[int, bytes] | str:
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 2:
            raise MemoryError
        return super().__getitem__(index)


def test_a_strangers_image_costs_itself_alone(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(bad_files.encoded(number))
    (tmp_path / "3.jpg").write_bytes(b"no image")
    files = [f"{number}.jpg" for number in range(5)]
    resize = Resize(fit="short")
    scores = Progress()
    jpegs = read_chunk(Strange(tmp_path, files, (16,), resize), range(5), scores)
    assert [jpeg is not None for jpeg in jpegs] == [True, False, False, False, True]
    assert scores.unreadable == {
        1: "1.jpg: the decoder died (SIGKILL)",
        2: "2.jpg: too large: memory ran out",
        3: "3.jpg: not an image of a kind that is read (begins with b'no image')",
    }
    by_size, _ = resized(bad_files.encoded(4), (16,), resize)
    assert jpegs[4] == {16: to_jpeg(by_size[16], resize)}
