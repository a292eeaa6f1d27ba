"""When a session gets a new plan: every few slates, or earlier where its click rate changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rapport.agents.planning.planner import BoolArray

STRENGTH = 10.0
"""Items that the click rate of all sessions is worth against a session's own."""


class ReplanTrigger:
    """Detects sessions whose click rate changed since their plan was made (change detection).

    Since its plan was made a session was shown n items and clicked k of them. It was expected to click each with
    probability p = (c + m q) / (s + m): c of the s items shown before that plan were clicked in this session,
    q = (C + 1) / (S + 2) is the running rate of all sessions counted so far, C clicks on S items, and m is
    :data:`STRENGTH`. The trigger fires where k is further than z standard deviations of the binomial from its mean:
    |k - n p| > z sqrt(n p (1 - p)).

    Click rates of the log are not used: a good recommender beats them everywhere, which is no change within a session.

    Args:
        n_sessions: B, sessions that have just begun.
        threshold: z, standard deviations, above 0.

    Raises:
        ValueError: the threshold is not above 0.
    """

    def __init__(self, n_sessions: int, threshold: float) -> None:
        if not threshold > 0:
            raise ValueError(f"replan_threshold={threshold}; give a number of standard deviations above 0, or None")
        self._threshold = threshold
        self._before, self._since = np.zeros((2, n_sessions), np.int64), np.zeros((2, n_sessions), np.int64)
        self._all = np.zeros(2, np.int64)

    def count(self, rows: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        """Count the slates just shown to some sessions, shape (len(rows), K), 1 where an item was clicked."""
        self._since[0, rows] += clicks.sum(axis=1)
        self._since[1, rows] += clicks.shape[1]
        self._all += [clicks.sum(), clicks.size]

    def planned(self, rows: NDArray[np.int64]) -> None:
        """These sessions have a new plan: what they clicked so far sets what is expected of them."""
        self._before[:, rows] += self._since[:, rows]
        self._since[:, rows] = 0

    def begin(self, rows: NDArray[np.int64]) -> None:
        """New sessions begin in these rows."""
        self._before[:, rows] = self._since[:, rows] = 0

    def fired(self) -> BoolArray:
        """Sessions whose click rate changed, shape (B,)."""
        rate = (self._all[0] + 1) / (self._all[1] + 2)
        clicked, shown = self._before
        chance = (clicked + STRENGTH * rate) / (shown + STRENGTH)
        k, n = self._since
        far: BoolArray = (k - n * chance) ** 2 > self._threshold**2 * n * chance * (1 - chance)
        return far


class PlanSchedule:
    """Tells which sessions need a plan: at their start, every ``period`` steps, and where the replan trigger fires.

    Args:
        n_sessions: B.
        period: steps a plan holds.
        threshold: standard deviations of :class:`ReplanTrigger`; None for no trigger.

    Raises:
        ValueError: the period is below 1 or the threshold is not above 0.

    Attributes:
        triggered: plans asked for before their period was over.
    """

    def __init__(self, n_sessions: int, period: int, threshold: float | None) -> None:
        if period < 1:
            raise ValueError(f"period={period}; a plan holds at least one step")
        self._n_sessions, self._period, self._threshold = n_sessions, period, threshold
        self.triggered = 0
        self.reset()

    def reset(self) -> None:
        """All sessions begin, and the running click rate with them."""
        self._trigger = None if self._threshold is None else ReplanTrigger(self._n_sessions, self._threshold)

    def begin(self, rows: NDArray[np.int64]) -> None:
        """New sessions begin in these rows."""
        if self._trigger is not None:
            self._trigger.begin(rows)

    def count(self, rows: NDArray[np.int64], clicks: NDArray[np.integer]) -> None:
        """Count the clicks (len(rows), K) on the slates just shown to some sessions."""
        if self._trigger is not None:
            self._trigger.count(rows, clicks)

    def due(self, step: NDArray[np.int64], active: BoolArray) -> NDArray[np.int64]:
        """Rows of the sessions that need a plan now; they count as planned from here on.

        Args:
            step: shape (B,), slates already shown in each session.
            active: shape (B,), sessions that are planned for at all.
        """
        due = active & (step % self._period == 0)
        if self._trigger is not None:
            triggered = active & ~due & self._trigger.fired()
            self.triggered += int(triggered.sum())
            due |= triggered
            self._trigger.planned(np.flatnonzero(due))
        return np.flatnonzero(due)
