"""What a good critic writes about a finished session: the teacher of the embedded model's reflections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rapport.agents.planning.planner import FinishedSession
from rapport.agents.planning.preference import category_counts

_ENOUGH = 3
"""Items of a category below which nothing is said of it."""
_WELL_BELOW = 0.75
"""Share of the session's own click rate."""


@dataclass(frozen=True)
class Verdict:
    """Which categories of a session were liked and which were passed over, best and worst first."""

    liked: tuple[int, ...]
    passed: tuple[int, ...]


def verdict(session: FinishedSession, n_categories: int) -> Verdict:
    """The two best-clicked categories of a session above its own click rate, and the worst one well below it."""
    seen, clicked = (
        counts[0]
        for counts in category_counts(session.categories.reshape(1, -1), session.clicks.reshape(1, -1), n_categories)
    )
    overall = clicked.sum() / max(seen.sum(), 1)
    rate = (clicked + overall) / (seen + 1)
    known = np.flatnonzero(seen >= _ENOUGH)
    order = known[np.argsort(-rate[known], kind="stable")]
    liked = [int(c) for c in order if rate[c] > overall][:2]
    passed = [int(c) for c in order[::-1] if rate[c] < _WELL_BELOW * overall][:1]
    return Verdict(tuple(liked), tuple(passed))


def composed_reflection(session: FinishedSession, names: list[str]) -> str:
    """The verdict in words, at most about 20 of them."""
    found = verdict(session, len(names))
    liked, passed = (" and ".join(names[c] for c in part) for part in (found.liked, found.passed))
    if liked and passed:
        return f"Show {liked} more, clicked most here; show {passed} less."
    if liked:
        return f"Show {liked} more, clicked most here."
    if passed:
        return f"Show {passed} less, it was passed over here."
    return "No category stood out; vary the slates."
