"""Running sessions as they go, slate by slate, for a critic that is told of each one when it has ended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapport.agents.planning.planner import FinishedSession


class SessionBuffer:
    """Keeps the slates of B running sessions.

    They are gathered while the sessions run and never read from an observation, which belongs to the next user once a
    session has ended.

    Args:
        n_sessions: B.
        longest: most slates in a session.
        slate_size: K.
    """

    def __init__(self, n_sessions: int, longest: int, slate_size: int) -> None:
        self._categories = np.zeros((n_sessions, longest, slate_size), np.int64)
        self._clicks = np.zeros((n_sessions, longest, slate_size), np.int8)
        self._length = np.zeros(n_sessions, np.int64)

    def reset(self) -> None:
        """Forget all sessions."""
        self._length[:] = 0

    def add(self, categories: NDArray[np.integer], clicks: NDArray[np.integer]) -> None:
        """Add the slates just shown: categories and clicks, shapes (B, K)."""
        rows = np.arange(len(self._length))
        self._categories[rows, self._length] = categories
        self._clicks[rows, self._length] = clicks
        self._length += 1

    def finish(self, rows: NDArray[np.int64], users: NDArray[np.integer]) -> list[FinishedSession]:
        """The sessions that ended in these rows, copied out; their places are free for the next ones.

        Args:
            rows: shape (n,).
            users: shape (n,), whose sessions they were.
        """
        finished = [
            FinishedSession(user, self._categories[row, :length].copy(), self._clicks[row, :length].copy())
            for row, user, length in zip(rows.tolist(), users.tolist(), self._length[rows].tolist(), strict=True)
        ]
        self._length[rows] = 0
        return finished
