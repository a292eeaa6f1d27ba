"""A log as the satiation study needs it: exposures in order, and how much of the same category came just before.

Gaps between exposures are minutes. Only rows whose time and feedback are fully recorded are taken, of the platform's
own policy. Where two rows of a user carry the same time, their order is unknown, and the one listed later is left out
of the regressions (:attr:`Exposures.known_gap`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import UNKNOWN, IntArray, SessionData
from rapport.datasets.splits import china_day

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

GAP_EDGES = (1.0, 5.0, 30.0, 360.0)
"""Upper ends, minutes, of the bins of the gap to the exposure before; the last bin is open."""
GAP_NAMES = ("up to 1 min", "1 to 5 min", "5 to 30 min", "30 min to 6 h", "over 6 h")
MINUTE_MS = 60_000.0


@dataclass(frozen=True)
class Exposures:
    """R exposures, sorted by user, then time.

    Attributes:
        user: shape (R,), int64.
        item: shape (R,), int64.
        category: shape (R,), int64.
        minute: shape (R,), float64, time in minutes, of any origin.
        day: shape (R,), int64.
        feedback: shape (R, F), float64 in {0, 1}.
        behaviours: F names.
        surface: shape (R,), int64: where in the application it was shown; zeros where the log does not tell.
        group: shape (R,), int64, user's group.
        group_names: what the codes of ``group`` mean.
        n_categories: C.
    """

    user: IntArray
    item: IntArray
    category: IntArray
    minute: Floats
    day: IntArray
    feedback: Floats
    behaviours: tuple[str, ...]
    surface: IntArray
    group: IntArray
    group_names: tuple[str, ...]
    n_categories: int

    def __len__(self) -> int:
        """Number of exposures, R."""
        return len(self.user)

    @property
    def first(self) -> Bools:
        """Shape (R,): the user's first exposure here."""
        return np.append(True, self.user[1:] != self.user[:-1])

    @property
    def gap(self) -> Floats:
        """Minutes since the user's exposure before, shape (R,); infinite at the first."""
        gap = np.append(np.inf, np.diff(self.minute))
        gap[self.first] = np.inf
        return gap

    @property
    def gap_after(self) -> Floats:
        """Minutes to the user's next exposure, shape (R,); infinite at the last."""
        return np.append(self.gap[1:], np.inf)

    @property
    def known_gap(self) -> Bools:
        """Shape (R,): not at the very time of the exposure before."""
        return self.gap > 0

    @property
    def cell(self) -> IntArray:
        """Number of the (user, category) pair, shape (R,)."""
        return self.user * self.n_categories + self.category

    def outcome(self, behaviour: str) -> Floats:
        """One behaviour, shape (R,)."""
        return self.feedback[:, self.behaviours.index(behaviour)]

    def take(self, rows: NDArray[np.generic]) -> Exposures:
        """Some of the exposures, by mask or by increasing index."""
        names = ("user", "item", "category", "minute", "day", "feedback", "surface", "group")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def same_as(self, places: int) -> Bools:
        """Whether the exposure ``places`` earlier (negative: later) had the same category, shape (R,)."""
        n, k = len(self), abs(places)
        same = np.zeros(n, np.bool_)
        if k < n:
            pair = (self.cell[k:] == self.cell[: n - k]) if k else np.ones(n, np.bool_)
            same[k:] = pair
        return same if places > 0 else np.append(same[k:], np.zeros(k, np.bool_))

    def follows(self, places: int) -> Bools:
        """Whether there is an exposure of this user ``places`` earlier (negative: later), shape (R,)."""
        n, k = len(self), abs(places)
        there = np.zeros(n, np.bool_)
        if k < n:
            there[k:] = self.user[k:] == self.user[: n - k]
        return there if places > 0 else np.append(there[k:], np.zeros(k, np.bool_))

    def gap_bins(self) -> list[Bools]:
        """For each of :data:`GAP_NAMES` the rows whose gap lies in it, shapes (R,)."""
        bins = np.digitize(self.gap, GAP_EDGES, right=True)
        return [(bins == b) & ~self.first for b in range(len(GAP_NAMES))]


def exposures(data: SessionData, surface: IntArray | None = None, group_by: str = "user_active_degree") -> Exposures:
    """The fully recorded exposures of the platform's policy.

    Args:
        data: the log.
        surface: shape (rows of the log,), where each row was shown, if known.
        group_by: the user feature that users are grouped by; one group where there is none.
    """
    log, features = data.log, data.population.features
    rows = whole_rows(data)
    user, item = log.user[rows].astype(np.int64), log.item[rows].astype(np.int64)
    column = features.names.index(group_by) if group_by in features.names else None
    return Exposures(
        user=user,
        item=item,
        category=data.catalog.category[item].astype(np.int64),
        minute=log.time_ms[rows] / MINUTE_MS,
        day=china_day(log.time_ms[rows]),
        feedback=log.feedback[rows].astype(np.float64),
        behaviours=log.behaviours,
        surface=np.zeros(len(rows), np.int64) if surface is None else surface[rows].astype(np.int64),
        group=np.zeros(len(rows), np.int64) if column is None else features.codes[user, column].astype(np.int64),
        group_names=("all",) if column is None else features.values[column],
        n_categories=data.catalog.n_categories,
    )


def whole_rows(data: SessionData) -> IntArray:
    """Rows of the log that :func:`exposures` takes, shape (R,)."""
    return np.flatnonzero((data.log.feedback != UNKNOWN).all(axis=1) & ~data.log.randomised)


def recent_count(group: IntArray, clock: Floats, tau: float, counted: Bools | None = None) -> Floats:
    """How much of its own group came before each row, older rows counting less.

    ``s_t = sum over earlier rows t' of the same group of exp(-(clock_t - clock_t') / tau)``

    Args:
        group: shape (R,), e.g. (user, category); the rows of a group stand in the order of the clock.
        clock: shape (R,), non-decreasing within a group: minutes, or places.
        tau: time constant, in the clock's unit.
        counted: shape (R,), which rows count as earlier ones; all by default.

    Returns:
        Shape (R,).
    """
    order = np.argsort(group, kind="stable")
    begins = np.append(True, np.diff(group[order]) != 0)
    place = np.arange(len(group))
    rank = place - np.maximum.accumulate(np.where(begins, place, 0))
    fade = np.exp(-np.append(0.0, np.diff(clock[order])).clip(min=0) / tau)
    added = np.ones(len(group)) if counted is None else counted[order].astype(np.float64)
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, rank.max(initial=0) + 2))
    level = np.zeros(len(group))
    for begin, end in pairwise(bounds):  # as often as the largest group has rows
        rows = by_rank[begin:end]
        level[rows] = (level[rows - 1] + added[rows - 1]) * fade[rows]
    result = np.empty(len(group))
    result[order] = level
    return result
