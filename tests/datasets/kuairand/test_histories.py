from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.kuairand import histories
from rapport.datasets.kuairand import pure as kuairand
from rapport.datasets.schema import DataError

NAME = "user_sequences_4_09_to_4_24.parquet"
LAST = 1_650_815_000_000  # before every row of the small log
Row = tuple[int, int, int, list[int], list[int], list[int]]


@pytest.fixture
def data(kuairand_files: ModuleType, tmp_path: Path) -> Path:
    folder: Path = kuairand_files.write_kuairand(tmp_path)
    return folder


def write(files: ModuleType, data: Path, rows: list[Row]) -> None:
    files.sequences(rows).to_parquet(data.parent / NAME)


def early(root: Path, user: int) -> tuple[list[int], list[list[int]], list[int]]:
    """Items, feedback and times of a user's rows up to LAST."""
    log = kuairand.read(root).log
    rows = (log.user == user) & (log.time_ms <= LAST)
    return log.item[rows].tolist(), log.feedback[rows].tolist(), log.time_ms[rows].tolist()


def test_what_a_sequence_tells(kuairand_files: ModuleType, data: Path, tmp_path: Path) -> None:
    write(kuairand_files, data, [(2, 4, LAST, [9, 1, 5, 7], [5], [1, 5])])
    items, feedback, times = early(tmp_path, 2)
    assert items == [9, 1, 5, 7]
    assert times == [LAST - 3_000, LAST - 2_000, LAST - 1_000, LAST]
    assert feedback == [
        [-1, 0, 0, -1, -1, -1, -1],
        [-1, 1, 0, -1, -1, -1, -1],
        [-1, 1, 1, -1, -1, -1, -1],
        [-1, 0, 0, -1, -1, -1, -1],
    ]
    assert len(kuairand.read(tmp_path).log) == 604
    assert len(kuairand.read(tmp_path, histories=False).log) == 600


def test_repeats_are_told_apart_by_order_and_merged_when_adjacent(
    kuairand_files: ModuleType, data: Path, tmp_path: Path
) -> None:
    write(kuairand_files, data, [(2, 7, LAST, [4, 1, 4, 6, 6, 1, 8], [6, 6], [4, 1, 6])])
    items, feedback, _ = early(tmp_path, 2)
    assert items == [4, 1, 4, 6, 1, 8]
    assert [row[1] for row in feedback] == [1, 1, 0, 1, 0, 0]
    assert [row[2] for row in feedback] == [0, 0, 0, 1, 0, 0]


def test_lists_that_reach_beyond_the_window(kuairand_files: ModuleType, data: Path, tmp_path: Path) -> None:
    window = [i % 40 for i in range(50)]
    older = [39, 38, 37]  # long-watched before the window
    write(kuairand_files, data, [(2, 120, LAST, window, [], [*older, 11, 30, 9])])
    items, feedback, _ = early(tmp_path, 2)
    assert items == window
    assert np.flatnonzero([row[1] for row in feedback]).tolist() == [11, 30, 49]


def test_the_log_wins_where_it_is_whole(kuairand_files: ModuleType, data: Path, tmp_path: Path) -> None:
    log = pd.read_csv(data / kuairand.STANDARD_LOGS[1])
    mine = log[log["user_id"] == 2].head(3).assign(time_ms=[LAST - 20, LAST - 10, LAST])
    mine = pd.concat([mine, mine.iloc[:1]])  # history_len counts the repeated report, too
    mine.to_csv(data / kuairand.STANDARD_LOGS[0], index=False)
    write(kuairand_files, data, [(2, 4, LAST, [9, 1, 1, 7], [], [])])
    assert early(tmp_path, 2)[2] == [LAST - 20, LAST - 10, LAST]


def test_otherwise_the_sequence_replaces_the_rows_up_to_its_end(
    kuairand_files: ModuleType, data: Path, tmp_path: Path
) -> None:
    log = pd.read_csv(data / kuairand.STANDARD_LOGS[1])
    mine = log[log["user_id"] == 2].head(2).assign(time_ms=[LAST - 20, LAST - 10])
    random = mine.assign(is_rand=1)
    mine.to_csv(data / kuairand.STANDARD_LOGS[0], index=False)
    random.to_csv(data / kuairand.RANDOM_LOG, index=False)
    write(kuairand_files, data, [(2, 4, LAST, [9, 1, 5, 7], [], [])])
    tables = kuairand.read(tmp_path)
    rows = (tables.log.user == 2) & (tables.log.time_ms <= LAST)
    assert tables.log.randomised[rows].sum() == 2  # random exposures are no part of the history
    assert tables.log.item[rows & ~tables.log.randomised].tolist() == [9, 1, 5, 7]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((99, 1, LAST, [1], [], []), "user_id, in the user features: 99 is unknown"),
        ((2, 1, LAST, [777], [], []), "watch_seq, in the video features: 777 is unknown"),
        ((2, 60, LAST, [1] * 51, [], []), "watch_seq has 51 entries; at most 50"),
    ],
)
def test_bad_sequences(kuairand_files: ModuleType, data: Path, tmp_path: Path, row: Row, message: str) -> None:
    write(kuairand_files, data, [row])
    with pytest.raises(DataError, match=f"{NAME}: {message}"):
        kuairand.read(tmp_path)


def test_damaged_file(kuairand_files: ModuleType, data: Path, tmp_path: Path) -> None:
    write(kuairand_files, data, [(2, 1, LAST, [1], [], [])])
    path = data.parent / NAME
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{NAME}: .*or remove it \(it is optional\)"):
        kuairand.read(tmp_path)
    kuairand_files.sequences([(2, 1, LAST, [1], [], [])]).drop(columns="like_seq").to_parquet(path)
    with pytest.raises(DataError, match=f"{NAME}: no column 'like_seq'"):
        kuairand.read(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=120))
@settings(max_examples=200, deadline=None)
def test_matching_finds_every_positive_of_the_window(history: list[tuple[int, bool]]) -> None:
    """Whatever the history, no positive of the window is missed; for a whole history their number is exact."""
    watched = [item for item, _ in history][-50:]
    listed = [item for item, positive in history if positive][-50:]
    truth = sum(positive for _, positive in history[-50:])
    left = np.full((1, 50), -1)
    right = np.full((1, 50), -2)
    left[0, 50 - len(watched) :] = watched
    right[0, 50 - len(listed) :] = listed
    marks = histories._match_backwards(left, right)[0]
    assert marks.sum() >= truth
    if len(history) <= 50:
        assert marks.sum() == truth
        assert left[0][marks].tolist() == listed
