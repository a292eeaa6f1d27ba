"""Who the users are, in groups, so that nobody is served worse unnoticed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from rapport.datasets.schema import IntArray, SessionData

ACTIVITY = ("least active third", "middle third", "most active third")
TENURE_FEATURE = "register_days_range"
"""User feature that says for how long somebody has been a user, where the data has it: ranges such as ``31-60``."""
TENURE = {0: "up to 90 days", 91: "91 to 365 days", 366: "366 to 730 days", 730: "over 730 days"}
"""First day of each group of tenure, and its name."""


@dataclass(frozen=True)
class Grouping:
    """One way to tell users apart.

    Attributes:
        name: e.g. ``"activity"``.
        groups: G names.
        of_user: shape (U,), the group of each user; -1 where it is not known.
    """

    name: str
    groups: tuple[str, ...]
    of_user: IntArray


def groupings(data: SessionData) -> list[Grouping]:
    """By activity and, where the data tells it, by tenure."""
    features = data.population.features
    if TENURE_FEATURE not in features.names:
        return [activity(data)]
    column = features.names.index(TENURE_FEATURE)
    days = [int("".join(re.findall(r"\d+", value)[:1]) or -1) for value in features.values[column]]
    group = np.searchsorted(list(TENURE), days, side="right") - 1
    return [activity(data), Grouping("tenure", tuple(TENURE.values()), group[features.codes[:, column]])]


def activity(data: SessionData) -> Grouping:
    """Thirds of the held-out users by exposures before the test days; users of equal number share a third."""
    log = data.log
    seen = np.bincount(log.user[log.time_ms < data.test_from_ms], minlength=data.population.n_users)
    bounds = np.quantile(seen[data.held_out], [1 / 3, 2 / 3])
    return Grouping("activity", ACTIVITY, np.searchsorted(bounds, seen, side="left").astype(np.int64))
