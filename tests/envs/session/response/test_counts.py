"""Counts against plain loops, without a look ahead."""

from __future__ import annotations

import numpy as np
import pytest

from rapport.datasets.schema import SessionData
from rapport.datasets.splits import china_day
from rapport.envs.session.response.counts import counts_before, counts_of_earlier_rows, counts_on_earlier_days

pytestmark = pytest.mark.filterwarnings("error")


def by_hand(feedback: np.ndarray, rows: np.ndarray) -> list[int]:
    return [*(feedback[rows] > 0).sum(axis=0), *(feedback[rows] >= 0).sum(axis=0)]


def test_items_before_a_time(small_data: SessionData) -> None:
    log = small_data.log
    counts = counts_before(log, small_data.valid_from_ms, small_data.catalog.n_items)
    assert counts.shape == (150, 14)
    for item in range(0, 150, 7):
        rows = (log.item == item) & (log.time_ms < small_data.valid_from_ms)
        assert counts[item].tolist() == by_hand(log.feedback, rows)


def test_items_on_earlier_days_and_users_in_earlier_rows(small_data: SessionData) -> None:
    log = small_data.log
    day, rows = china_day(log.time_ms), np.arange(len(log))
    of_items, of_users = counts_on_earlier_days(log), counts_of_earlier_rows(log)
    for row in range(0, len(log), len(log) // 60):
        assert of_items[row].tolist() == by_hand(log.feedback, (log.item == log.item[row]) & (day < day[row]))
        assert of_users[row].tolist() == by_hand(log.feedback, (log.user == log.user[row]) & (rows < row))
