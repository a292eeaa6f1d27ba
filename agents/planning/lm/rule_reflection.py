"""Rule-based reflections on finished sessions: the target completions of the embedded model's critic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapport.agents.planning.planner import FinishedSession
from rapport.agents.planning.preference import category_counts

_MIN_IMPRESSIONS = 3
"""Fewest impressions of a category that a reflection names."""
_WELL_BELOW = 0.75
"""Share of the session's click rate below which a category counts as passed over."""


@dataclass(frozen=True)
class StandoutCategories:
    """Categories of a session that were clicked much more or much less than the others.

    Attributes:
        liked: at most two categories above the session's click rate, the best first.
        passed_over: at most one category well below the session's click rate.
    """

    liked: tuple[int, ...]
    passed_over: tuple[int, ...]


def standout_categories(session: FinishedSession, n_categories: int) -> StandoutCategories:
    """The two best categories of a session and the worst one, where they differ enough from its click rate."""
    seen, clicked = (
        counts[0]
        for counts in category_counts(session.categories.reshape(1, -1), session.clicks.reshape(1, -1), n_categories)
    )
    overall = clicked.sum() / max(seen.sum(), 1)
    rate = (clicked + overall) / (seen + 1)
    known = np.flatnonzero(seen >= _MIN_IMPRESSIONS)
    order = known[np.argsort(-rate[known], kind="stable")]
    liked = [int(c) for c in order if rate[c] > overall][:2]
    passed_over = [int(c) for c in order[::-1] if rate[c] < _WELL_BELOW * overall][:1]
    return StandoutCategories(tuple(liked), tuple(passed_over))


def rule_reflection(session: FinishedSession, names: list[str]) -> str:
    """A sentence of at most about 20 words on the standout categories."""
    standout = standout_categories(session, len(names))
    liked, passed = (" and ".join(names[c] for c in part) for part in (standout.liked, standout.passed_over))
    if liked and passed:
        return f"Show {liked} more, clicked most here; show {passed} less."
    if liked:
        return f"Show {liked} more, clicked most here."
    if passed:
        return f"Show {passed} less, it was passed over here."
    return "No category stood out; vary the slates."
