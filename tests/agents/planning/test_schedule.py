"""Sessions whose click rate changes, against the formula worked out session by session."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapport.agents.planning.schedule import STRENGTH, PlanSchedule, ReplanTrigger


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

    def begin(self, row: int) -> None:
        self.before[row], self.since[row] = [], []

    def fired(self, row: int) -> bool:
        rate = (sum(self.all) + 1) / (len(self.all) + 2)
        chance = (sum(self.before[row]) + STRENGTH * rate) / (len(self.before[row]) + STRENGTH)
        n, k = len(self.since[row]), sum(self.since[row])
        return n > 0 and abs(k - n * chance) > self.deviations * sqrt(n * chance * (1 - chance))


@given(data=st.data())
def test_the_trigger_matches_a_slow_reference(data: st.DataObject) -> None:
    n_sessions, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    deviations = data.draw(st.sampled_from([0.317, 1.04, 1.96, 3.3]))
    trigger, slow = ReplanTrigger(n_sessions, deviations), Slow(n_sessions, deviations)
    slate = st.lists(st.integers(0, 1), min_size=size, max_size=size)
    some = st.lists(st.integers(0, n_sessions - 1), unique=True)
    for _ in range(data.draw(st.integers(1, 6))):
        shown = data.draw(some)
        clicks = data.draw(st.lists(slate, min_size=len(shown), max_size=len(shown)))
        trigger.count(np.array(shown, np.int64), np.array(clicks, np.int8).reshape(-1, size))
        slow.count(shown, clicks)
        assert trigger.fired().tolist() == [slow.fired(row) for row in range(n_sessions)]
        planned, begins = data.draw(some), data.draw(some)
        trigger.planned(np.array(planned, np.int64))
        trigger.begin(np.array(begins, np.int64))
        for row in planned:
            slow.planned(row)
        for row in begins:
            slow.begin(row)


def test_only_the_session_that_changed_fires() -> None:
    trigger = ReplanTrigger(3, 3.0)
    usual = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]], np.int8)
    for _ in range(10):
        trigger.count(np.arange(3), usual)
    trigger.planned(np.arange(3))
    assert not trigger.fired().any()
    for _ in range(3):
        trigger.count(np.arange(3), np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], np.int8))
    assert trigger.fired().tolist() == [False, True, False]
    trigger.planned(np.array([1]))
    assert not trigger.fired().any()


@pytest.mark.parametrize("deviations", [0.0, -1.0, float("nan")])
def test_a_trigger_needs_a_threshold(deviations: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^replan_threshold={deviations}; give a number of standard deviations above 0"
    ):
        ReplanTrigger(1, deviations)


@pytest.mark.parametrize("period", [1, 3, 5])
def test_a_schedule_is_periods_and_triggers(period: int) -> None:
    """Two sessions, one of them not planned for; clicks stop after ten slates."""
    schedule = PlanSchedule(2, period, 3.0)
    active, due = np.array([True, False]), []
    for step in range(20):
        if schedule.due(np.array([step, step]), active).tolist():
            due.append(step)
        schedule.count(np.array([0]), np.full((1, 4), step < 10, np.int8))
    expected = [step for step in range(20) if step % period == 0]
    assert set(expected) <= set(due) and schedule.triggered == len(due) - len(expected)
    assert (schedule.triggered > 0) == (period > 1)
    schedule.reset()
    assert schedule.due(np.zeros(2, int), active).tolist() == [0]
