from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.schema import DataError, InteractionLog
from rapport.datasets.splits import CHINA_OFFSET_MS, DAY_MS, china_day, time_split, user_split


def make_log(days: list[int], unknown: list[int] | None = None, random: list[int] | None = None) -> InteractionLog:
    """One row at noon of each day; further days of half recorded and of random rows."""
    groups = (sorted(days), sorted(unknown or []), sorted(random or []))
    time_ms = np.array([d for g in groups for d in g], dtype=np.int64) * DAY_MS - CHINA_OFFSET_MS + DAY_MS // 2
    kind = np.repeat([0, 1, 2], [len(g) for g in groups])
    order = np.argsort(time_ms, kind="stable")
    return InteractionLog(
        user=np.zeros(len(time_ms), dtype=np.int32),
        item=np.zeros(len(time_ms), dtype=np.int32),
        time_ms=time_ms[order],
        feedback=np.where(kind[order] == 1, -1, 0).astype(np.int8)[:, None],
        behaviours=("click",),
        randomised=(kind == 2)[order],
    )


def day_of(time_ms: int) -> int:
    return int(china_day(np.array([time_ms]))[0])


def test_days_begin_at_midnight_in_china() -> None:
    midnight = 1_650_816_000_000  # 2022-04-25 00:00 UTC+8
    np.testing.assert_array_equal(np.diff(china_day(np.array([midnight - 1, midnight, midnight + DAY_MS - 1]))), [1, 0])


def test_latest_boundaries_that_leave_enough() -> None:
    log = make_log([1] * 50 + [2] * 30 + [3] * 10 + [4] * 6 + [5] * 4)
    valid, test = time_split(log, 0.10, 0.05)
    assert (day_of(valid), day_of(test)) == (3, 4)
    assert (valid + CHINA_OFFSET_MS) % DAY_MS == 0
    assert day_of(time_split(log, 0.101, 0.05)[1]) == 3


def test_only_fully_recorded_standard_rows_count() -> None:
    plain = make_log([1] * 80 + [2] * 10 + [3] * 10)
    mixed = make_log([1] * 80 + [2] * 10 + [3] * 10, unknown=[1] * 500, random=[9] * 500)
    assert time_split(plain) == time_split(mixed)


@pytest.mark.parametrize("days", [[1] * 9, [1] * 9 + [2] * 9])
def test_too_few_days(days: list[int]) -> None:
    with pytest.raises(DataError, match="leave no training day"):
        time_split(make_log(days))


def test_nothing_to_split() -> None:
    with pytest.raises(DataError, match="no fully recorded row"):
        time_split(make_log([], unknown=[1, 2, 3]))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_shares_are_checked(share: float) -> None:
    with pytest.raises(DataError, match=f"test_share={share} is outside"):
        time_split(make_log([1, 2, 3]), test_share=share)


@given(st.lists(st.integers(0, 8), min_size=3, max_size=80), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
@settings(max_examples=150, deadline=None)
def test_parts_are_as_large_as_asked_and_minimal(days: list[int], test_share: float, valid_share: float) -> None:
    try:
        valid, test = time_split(make_log(days), test_share, valid_share)
    except DataError:
        return
    d = np.array(days)
    later, rest = d >= day_of(test), d[d < day_of(test)]
    assert later.sum() >= test_share * len(d)
    assert (d > d[later].min()).sum() < test_share * len(d)
    middle = rest[rest >= day_of(valid)]
    assert len(middle) >= valid_share * len(rest)
    assert (rest > middle.min()).sum() < valid_share * len(rest)


@given(st.integers(2, 500), st.floats(0.05, 0.95), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_user_split_is_exact_and_seeded(n: int, share: float, seed: int) -> None:
    if not 0 < round(share * n) < n:
        with pytest.raises(DataError, match="one side is empty"):
            user_split(n, share, seed)
        return
    held_out = user_split(n, share, seed)
    assert held_out.sum() == round(share * n)
    np.testing.assert_array_equal(held_out, user_split(n, share, seed))
