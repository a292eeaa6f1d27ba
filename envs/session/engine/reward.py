"""Rewards that are looked up in a table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Int8Array, Int32Array, IntArray


class TableReward:
    """The mean of a table's entries over the slate.

    Args:
        table: shape (S, N), reward of each item for each user.
        users: shape (S,), the users of the rows; no other user may be asked about.
        n_users: users in the population.
    """

    def __init__(self, table: NDArray[np.floating], users: IntArray, n_users: int) -> None:
        self.table = np.ascontiguousarray(table).reshape(-1)
        self.first = np.zeros(n_users, np.int64)
        self.first[users] = np.arange(len(users)) * table.shape[1]

    def __call__(self, users: IntArray, slates: Int32Array, feedback: Int8Array) -> NDArray[np.float64]:
        """Rewards, shape (B,)."""
        shown = self.table.take(self.first.take(users)[:, None] + slates)
        total: NDArray[np.float64] = np.add.reduce(shown, axis=1, dtype=np.float64)
        total /= slates.shape[1]
        return total

    def sums_exactly(self, n: int) -> bool:
        """Whether float64 holds any sum of ``n`` entries exactly, so that their order does not matter."""
        sizes = np.abs(self.table[self.table != 0])
        if not len(sizes):
            return True
        finest = 2.0 ** (int(np.frexp(sizes.min())[1]) - 1 - np.finfo(self.table.dtype).nmant)
        return bool(n * float(sizes.max()) <= 2.0**53 * finest)
