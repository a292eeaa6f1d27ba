"""When a plan that holds for several slates is given up early: the session goes otherwise than expected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapport.agents.planning.planner import BoolArray

STRENGTH = 10.0
"""Items that the click rate of all sessions is worth against a session's own."""


class ClickWatch:
    """Counts what B sessions click and tells which of them surprise.

    Since its plan was made a session was shown n items and clicked k of them. It was expected to click each with chance
    p = (c + m q) / (s + m): c of the s items shown before that plan were clicked in this session, q = (C + 1) / (S + 2)
    is the running rate of all sessions watched so far, C clicks on S items, and m is :data:`STRENGTH`. The session
    surprises where k is further than z standard deviations of the binomial from its mean:
    |k - n p| > z sqrt(n p (1 - p)).

    Click rates of the log have no part in it: a good recommender beats them everywhere, and that is no surprise.
    """

    def __init__(self, n_sessions: int, deviations: float) -> None:
        """Watch sessions that have just begun.

        Args:
            n_sessions: B.
            deviations: z, above 0.

        Raises:
            ValueError: z is not above 0.
        """
        if not deviations > 0:
            raise ValueError(f"surprise={deviations}; give a number of standard deviations above 0, or None")
        self._deviations = deviations
        self._before, self._since = np.zeros((2, n_sessions), np.int64), np.zeros((2, n_sessions), np.int64)
        self._all = np.zeros(2, np.int64)

    def count(self, rows: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        """Take in the slates just shown to some sessions, shape (len(rows), K), 1 where an item was clicked."""
        self._since[0, rows] += clicks.sum(axis=1)
        self._since[1, rows] += clicks.shape[1]
        self._all += [clicks.sum(), clicks.size]

    def planned(self, rows: NDArray[np.int64]) -> None:
        """These sessions have a new plan: what they clicked so far is now what is expected of them."""
        self._before[:, rows] += self._since[:, rows]
        self._since[:, rows] = 0

    def begun(self, rows: NDArray[np.int64]) -> None:
        """New sessions take these places."""
        self._before[:, rows] = self._since[:, rows] = 0

    def surprised(self) -> BoolArray:
        """Sessions that go otherwise than expected, shape (B,)."""
        rate = (self._all[0] + 1) / (self._all[1] + 2)
        clicked, shown = self._before
        chance = (clicked + STRENGTH * rate) / (shown + STRENGTH)
        k, n = self._since
        far: BoolArray = (k - n * chance) ** 2 > self._deviations**2 * n * chance * (1 - chance)
        return far
