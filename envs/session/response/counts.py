"""Counts of how often each behaviour was done and recorded, by item and by user."""

from __future__ import annotations

import numpy as np

from rapport.datasets.schema import FloatArray, Int8Array, IntArray, InteractionLog
from rapport.datasets.splits import china_day


def counts_before(log: InteractionLog, until_ms: int, n_items: int) -> FloatArray:
    """Counts of done, then of recorded behaviours by item in the rows before ``until_ms``, shape (N, 2 F)."""
    early = log.time_ms < until_ms
    item, marks = log.item[early], _marks(log.feedback[early])
    return np.stack([np.bincount(item, mark, n_items) for mark in marks], axis=1).astype(np.float32)


def counts_on_earlier_days(log: InteractionLog) -> FloatArray:
    """Counts of done, then of recorded behaviours with each row's item on earlier days, shape (R, 2 F).

    A row's own outcome is not in its counts, so a model can learn from them without looking ahead.
    """
    rows = np.arange(len(log))
    order = np.lexsort((rows, china_day(log.time_ms), log.item))
    item, day = log.item[order], china_day(log.time_ms)[order]
    first_of_item = _run_starts(item)
    first_of_day = _run_starts(item.astype(np.int64) * (day.max() + 1 if len(day) else 1) + day)
    counts = np.empty((len(log), 2 * log.feedback.shape[1]), np.float32)
    for column, mark in enumerate(_marks(log.feedback)):
        before = np.concatenate([[0], np.cumsum(mark[order], dtype=np.int64)])
        counts[order, column] = before[first_of_day] - before[first_of_item]
    return counts


def counts_of_earlier_rows(log: InteractionLog) -> FloatArray:
    """Counts of done, then of recorded behaviours by each row's user in earlier rows, shape (R, 2 F)."""
    first = _run_starts(log.user)
    counts = np.empty((len(log), 2 * log.feedback.shape[1]), np.float32)
    for column, mark in enumerate(_marks(log.feedback)):
        before = np.concatenate([[0], np.cumsum(mark, dtype=np.int64)])
        counts[:, column] = before[:-1] - before[first]
    return counts


def _marks(feedback: Int8Array) -> list[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    return [column > 0 for column in feedback.T] + [column >= 0 for column in feedback.T]


def _run_starts(values: np.ndarray[tuple[int, ...], np.dtype[np.integer]]) -> IntArray:
    """Start of the run of equal values that each position belongs to, shape (R,)."""
    new = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))
