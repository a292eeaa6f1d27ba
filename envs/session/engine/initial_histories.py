"""Initial histories: whose session begins, and what that user had seen before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import UNKNOWN, Int8Array, Int32Array, IntArray, InteractionLog, SessionData


@dataclass(frozen=True)
class Histories:
    """The last H items that each user had seen when a session begins.

    Attributes:
        items: shape (U, H), int32, item index + 1, oldest first; 0 where there is none.
        feedback: shape (U, H, F), int8 in {-1, 0, 1}.
    """

    items: Int32Array
    feedback: Int8Array

    @classmethod
    def before(cls, data: SessionData, until_ms: int, length: int) -> Histories:
        """The last ``length`` rows of each user's log before ``until_ms``, right-aligned."""
        log, n_users = data.log, data.population.n_users
        rows = np.flatnonzero(log.time_ms < until_ms)
        end_of_user = np.cumsum(np.bincount(log.user[rows], minlength=n_users))
        age = end_of_user[log.user[rows]] - 1 - np.arange(len(rows))
        rows, age = rows[age < length], age[age < length]
        user = log.user[rows]
        items = np.zeros((n_users, length), np.int32)
        feedback = np.full((n_users, length, len(log.behaviours)), UNKNOWN, np.int8)
        items[user, length - 1 - age] = log.item[rows] + 1
        feedback[user, length - 1 - age] = log.feedback[rows]
        for array in (items, feedback):
            array.flags.writeable = False
        return cls(items, feedback)


@dataclass(frozen=True)
class LogRows:
    """LERL's and KuaiSim's initial state: a random row of the log, with the rows of that user before it as history.

    Users with more rows are drawn more often, so active users are over-sampled; :class:`Histories` has no such bias.

    Attributes:
        log: the interactions.
        rows: shape (P,), the rows that are drawn from.
        length: H, rows of history.
    """

    log: InteractionLog
    rows: IntArray
    length: int

    def at(self, rows: IntArray) -> tuple[IntArray, Int32Array, Int8Array]:
        """Users (B,), items (B, H) and feedback (B, H, F), as in :class:`Histories`, of sessions that begin at rows."""
        users = self.log.user[rows].astype(np.int64)
        before = rows[:, None] + np.arange(-self.length, 0)
        there = before >= 0
        before = np.maximum(before, 0)
        own: NDArray[np.bool_] = there & (self.log.user[before] == users[:, None])
        items = np.where(own, self.log.item[before] + 1, 0).astype(np.int32)
        feedback = np.where(own[..., None], self.log.feedback[before], np.int8(UNKNOWN))
        return users, items, feedback
