"""Sessions that go otherwise than expected, against the formula worked out session by session."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.agents.planning.surprise import STRENGTH, ClickWatch


class Slow:
    """The same in plain Python: one list of clicks per session, cut where its plan was made."""

    def __init__(self, n_sessions: int, deviations: float) -> None:
        self.before: list[list[int]] = [[] for _ in range(n_sessions)]
        self.since: list[list[int]] = [[] for _ in range(n_sessions)]
        self.all: list[int] = []
        self.deviations = deviations

    def count(self, rows: list[int], clicks: list[list[int]]) -> None:
        for row, slate in zip(rows, clicks, strict=True):
            self.since[row] += slate
            self.all += slate

    def planned(self, row: int) -> None:
        self.before[row] += self.since[row]
        self.since[row] = []

    def begun(self, row: int) -> None:
        self.before[row], self.since[row] = [], []

    def surprised(self, row: int) -> bool:
        rate = (sum(self.all) + 1) / (len(self.all) + 2)
        chance = (sum(self.before[row]) + STRENGTH * rate) / (len(self.before[row]) + STRENGTH)
        n, k = len(self.since[row]), sum(self.since[row])
        return n > 0 and abs(k - n * chance) > self.deviations * sqrt(n * chance * (1 - chance))


@given(data=st.data())
def test_surprise_matches_a_slow_reference(data: st.DataObject) -> None:
    n_sessions, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    deviations = data.draw(st.sampled_from([0.317, 1.04, 1.96, 3.3]))
    watch, slow = ClickWatch(n_sessions, deviations), Slow(n_sessions, deviations)
    slate = st.lists(st.integers(0, 1), min_size=size, max_size=size)
    some = st.lists(st.integers(0, n_sessions - 1), unique=True)
    for _ in range(data.draw(st.integers(1, 6))):
        shown = data.draw(some)
        clicks = data.draw(st.lists(slate, min_size=len(shown), max_size=len(shown)))
        watch.count(np.array(shown, np.int64), np.array(clicks, np.int8).reshape(-1, size))
        slow.count(shown, clicks)
        assert watch.surprised().tolist() == [slow.surprised(row) for row in range(n_sessions)]
        planned, begun = data.draw(some), data.draw(some)
        watch.planned(np.array(planned, np.int64))
        watch.begun(np.array(begun, np.int64))
        for row in planned:
            slow.planned(row)
        for row in begun:
            slow.begun(row)


def test_only_the_session_that_changed_surprises() -> None:
    watch = ClickWatch(3, 3.0)
    usual = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]], np.int8)
    for _ in range(10):
        watch.count(np.arange(3), usual)
    watch.planned(np.arange(3))
    assert not watch.surprised().any()
    for _ in range(3):
        watch.count(np.arange(3), np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], np.int8))
    assert watch.surprised().tolist() == [False, True, False]
    watch.planned(np.array([1]))
    assert not watch.surprised().any()


@pytest.mark.parametrize("deviations", [0.0, -1.0, float("nan")])
def test_a_surprise_needs_a_size(deviations: float) -> None:
    with pytest.raises(ValueError, match=rf"^surprise={deviations}; give a number of standard deviations above 0"):
        ClickWatch(1, deviations)
