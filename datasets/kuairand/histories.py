"""Exposures before the log begins, given per user as item sequences instead of rows.

``user_sequences_4_09_to_4_24.parquet`` holds for a user the last 50 exposures before 25 April (``watch_seq``, oldest
first) and the last 50 that were liked (``like_seq``) and long-watched (``long_watch_seq``). Each exposure is read as
follows:

* *long_view and like* are known, both 0 and 1. Each list holds the last 50 positives of the whole history, and the
  window holds 50 exposures, so a positive inside the window is always in its list; an exposure that is not listed is
  negative. This also holds for histories longer than 50.
* *Repeats* are resolved by order. A list is a subsequence of the history and is matched from the end backwards: an item
  that was watched twice and liked once is liked once (at the later time, if the order allows both). A list that
  reaches back beyond the window stops matching there; in rare cases an item seen both before and inside the window is
  taken as positive inside.
* *click* is not recorded, not even for a long view (which nearly always is a click): a label that is known only if it
  is positive would teach every model that users always click.
* *Times* are not recorded except the last one: rows are placed one second apart, ending there. Only their order is
  meaningful.
* The same item twice in a row is a duplicate (2.3 % of the pairs, as in the raw log, where all but 0.5 % are exact
  duplicates): it becomes one row, positive if either report is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import join
from rapport.datasets.schema import UNKNOWN, DataError, Int8Array, Int32Array, IntArray, InteractionLog

WINDOW = 50
_COLUMNS = ("user_id", "history_len", "last_time_ms", "watch_seq", "like_seq", "long_watch_seq")
_PADDING = -1
_NOTHING = -2


def add_histories(
    log: InteractionLog, path: Path, user_ids: IntArray, item_ids: IntArray, reports: tuple[Int32Array, IntArray]
) -> InteractionLog:
    """Return the log with each user's earlier exposures, without duplicates.

    Per user: if the log itself holds the whole window (at least ``min(history_len, 50)`` rows up to the sequence's
    last time) the sequence is ignored; otherwise it replaces the user's standard-policy rows up to that time.

    Args:
        log: the rows read so far.
        path: the Parquet file.
        user_ids: shape (U,), increasing.
        item_ids: shape (N,), increasing.
        reports: user index and time of every standard-policy row *before* duplicates were dropped, shapes (R',):
            ``history_len`` counts duplicates, so the comparison has to.

    Raises:
        DataError: the file is damaged, lacks a column, or its ids do not join.
    """
    table = _read(path)
    user = join(user_ids, _integers(table, "user_id"), f"{path}: user_id, in the user features")
    length, last = _integers(table, "history_len"), _integers(table, "last_time_ms")
    needed = np.minimum(length, WINDOW)
    last_of_user = np.full(len(user_ids), np.iinfo(np.int64).min)
    last_of_user[user] = last
    logged = np.bincount(reports[0][reports[1] <= last_of_user[reports[0]]], minlength=len(user_ids))
    used = logged[user] < needed
    last_of_user[user[~used]] = np.iinfo(np.int64).min  # the log is complete for them: nothing is replaced
    keep = log.randomised | (log.time_ms > last_of_user[log.user])

    rows = _rows(table.filter(pa.array(used)), path)
    item = join(item_ids, rows.item, f"{path}: watch_seq, in the video features")
    feedback = _feedback(log.behaviours, rows.liked, rows.long_watched)
    merged_user = np.concatenate([log.user[keep], user[used][rows.owner]])
    merged_time = np.concatenate([log.time_ms[keep], rows.time_ms])
    order = np.lexsort((merged_time, merged_user))
    return InteractionLog(
        user=merged_user[order].astype(np.int32),
        item=np.concatenate([log.item[keep], item])[order],
        time_ms=merged_time[order],
        feedback=np.concatenate([log.feedback[keep], feedback])[order],
        behaviours=log.behaviours,
        randomised=np.concatenate([log.randomised[keep], np.zeros(len(item), dtype=np.bool_)])[order],
    )


class _Rows:
    """Exposures of all sequences one after another, each array of shape (rows,)."""

    def __init__(self, owner: IntArray, item: IntArray, time_ms: IntArray, marks: NDArray[np.bool_]) -> None:
        self.owner, self.item, self.time_ms = owner, item, time_ms
        self.liked, self.long_watched = marks[:, 0], marks[:, 1]


def _rows(table: pa.Table, path: Path) -> _Rows:
    """Unroll the sequences of the given users into rows, oldest first, with duplicates merged."""
    watched = _right_aligned(table, "watch_seq", path, _PADDING)
    marks = np.stack(
        [_match_backwards(watched, _right_aligned(table, n, path, _NOTHING)) for n in ("like_seq", "long_watch_seq")], 2
    )
    again = np.zeros(watched.shape, dtype=np.bool_)  # position repeats the one before it
    again[:, 1:] = (watched[:, 1:] == watched[:, :-1]) & (watched[:, 1:] != _PADDING)
    for step in range(1, WINDOW):  # carry marks to the last report of a run, which is the one kept
        marks[:, step] |= marks[:, step - 1] & again[:, step, None]
    kept = watched != _PADDING
    kept[:, :-1] &= ~again[:, 1:]
    owner, position = np.nonzero(kept)
    back = kept[:, ::-1].cumsum(axis=1)[:, ::-1][owner, position] - 1  # rows of this user still to come
    time_ms = _integers(table, "last_time_ms")[owner] - 1_000 * back
    return _Rows(owner, watched[owner, position], time_ms, marks[owner, position])


def _match_backwards(watched: IntArray, listed: IntArray) -> NDArray[np.bool_]:
    """Mark the exposures that a list names, matching both from their ends; shapes (U, W), (U, W) -> (U, W)."""
    marks = np.zeros(watched.shape, dtype=np.bool_)
    users = np.arange(len(watched))
    pointer = np.full(len(watched), listed.shape[1] - 1)
    for position in range(watched.shape[1] - 1, -1, -1):
        hit = (pointer >= 0) & (listed[users, np.maximum(pointer, 0)] == watched[:, position])
        marks[:, position] = hit
        pointer -= hit
    return marks


def _right_aligned(table: pa.Table, name: str, path: Path, padding: int) -> IntArray:
    """Return a list column as an array of shape (U, WINDOW), each list at the right end."""
    column = table[name].combine_chunks()
    lengths = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    if len(lengths) and lengths.max() > WINDOW:
        raise DataError(f"{path}: {name} has {lengths.max()} entries; at most {WINDOW} are expected")
    out = np.full((len(lengths), WINDOW), padding, dtype=np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    start = np.repeat(lengths.cumsum() - lengths, lengths)
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.int64)
    out[owner, np.arange(len(owner)) - start + WINDOW - lengths[owner]] = values
    return out


def _feedback(behaviours: tuple[str, ...], liked: NDArray[np.bool_], long_watched: NDArray[np.bool_]) -> Int8Array:
    """Return the known feedback of each exposure, shape (rows, F)."""
    feedback = np.full((len(liked), len(behaviours)), UNKNOWN, dtype=np.int8)
    feedback[:, behaviours.index("like")] = liked
    feedback[:, behaviours.index("long_view")] = long_watched
    return feedback


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: {error}; the file is damaged: replace it, or remove it (it is optional)") from error
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise DataError(f"{path}: no column {missing[0]!r}; replace the file, or remove it (it is optional)")
    if holes := [name for name in _COLUMNS if table[name].null_count]:
        raise DataError(f"{path}: column {holes[0]!r} has empty rows; replace the file, or remove it (it is optional)")
    return table


def _integers(table: pa.Table, name: str) -> IntArray:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)
