"""Selection bias: whether the simulator is too generous to items that nobody would have been shown.

The platform shows users what it expects them to like, and a user model learns from those exposures alone. Under
uniformly random exposure real users click far less (KuaiRand publishes such a log). A simulator whose click rate falls
less than theirs, from the platform's items to random ones, rewards unusual recommendations too well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import Features, IntArray, SessionData
from rapport.envs.session.response.base import ResponseModel

PUBLISHED_OF = "kuairand-pure"
"""The data set that the published rates are of."""
PUBLISHED_SOURCE = (
    "KuaiRand-Pure, 22 April to 8 May 2022, 289,119 standard and 1,186,049 random exposures; from the analysis outputs "
    "published with Aylayan/KuaiRand_Pure and the report of limings02/kuairand. Data: KuaiRand (Gao et al., CIKM "
    "2022), CC BY-SA 4.0"
)
PUBLISHED_RATES: dict[str, dict[str, tuple[float, float]]] = {
    "click": {
        "all": (0.451171, 0.176160),
        "full_active": (0.423103, 0.169184),
        "high_active": (0.494886, 0.190234),
        "middle_active": (0.530598, 0.197598),
        "low_active": (0.573218, 0.234714),
        "2_14_day_new": (0.477584, 0.183941),
        "under 15 s": (0.406586, 0.177379),
        "15 to 30 s": (0.455617, 0.181543),
        "30 to 60 s": (0.485126, 0.185716),
        "60 to 120 s": (0.487355, 0.189694),
        "120 s or more": (0.436209, 0.167159),
    },
    "long_view": {
        "all": (0.318329, 0.084962),
        "full_active": (0.295933, 0.081322),
        "high_active": (0.354676, 0.093523),
        "middle_active": (0.380572, 0.092184),
        "low_active": (0.412331, 0.119387),
        "2_14_day_new": (0.332313, 0.088136),
        "under 15 s": (0.303871, 0.112767),
        "15 to 30 s": (0.311642, 0.079636),
        "30 to 60 s": (0.353349, 0.091860),
        "60 to 120 s": (0.355987, 0.091766),
        "120 s or more": (0.295669, 0.075415),
    },
}
"""Behaviour -> group -> (rate under the platform's policy, rate under random exposure); :data:`PUBLISHED_SOURCE`."""
GROUP_FEATURE, DURATION_FEATURE = "user_active_degree", "duration"
DURATIONS = {
    "under 15 s": ("a: under 15 s",),
    "15 to 30 s": ("b: 15 to 30 s",),
    "30 to 60 s": ("c: 30 to 60 s",),
    "60 to 120 s": ("d: 60 to 120 s",),
    "120 s or more": ("e: 120 to 300 s", "f: 300 s or more"),
}
"""Groups of videos that rates are published for, as values of the catalogue's feature."""
PARTS = 10
"""Parts of the items by how often they were shown before the test days, each as many items."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Selection:
    """What the simulator says of logged and of random items, beside what was published.

    Attributes:
        behaviour: e.g. ``"click"``.
        kind: ``"all"``, or what the group is one of: ``"users"`` (by ``user_active_degree``), ``"duration"`` (of the
            video) or ``"popularity"`` (tenths of the items, from the least shown).
        group: which.
        rows: logged exposures of the test days.
        observed_logged: share of positives among them.
        simulated_logged: mean chance of these users and items, at the users' starting states.
        simulated_random: mean chance of the same users with uniformly random items, at the same states.
        published_logged: published rate under the platform's policy, or None.
        published_random: published rate under random exposure, or None.
    """

    behaviour: str
    kind: str
    group: str
    rows: int
    observed_logged: float
    simulated_logged: float
    simulated_random: float
    published_logged: float | None
    published_random: float | None

    @property
    def simulated_ratio(self) -> float:
        """Simulated rate of random items as a share of that of logged items."""
        return self.simulated_random / self.simulated_logged

    @property
    def published_ratio(self) -> float | None:
        """The same for real people, where published."""
        if self.published_logged is None or self.published_random is None:
            return None
        return self.published_random / self.published_logged


def selection(
    data: SessionData, response: ResponseModel, pairs: int, rng: np.random.Generator, least_rows: int = 200
) -> tuple[Selection, ...]:
    """Compare logged with random items, over all and for groups of at least ``least_rows`` logged exposures.

    Args:
        data: standard exposures of its test days are the logged pairs.
        response: whose chances are averaged.
        pairs: random (user, item) pairs, users drawn as often as they come in the logged pairs.
        rng: draws them.
        least_rows: smallest group.
    """
    log, names = data.log, data.log.behaviours
    rows = np.flatnonzero((log.time_ms >= data.test_from_ms) & ~log.randomised & (log.feedback[:, 0] >= 0))
    if len(rows) == 0:
        return ()
    someone = log.user[rows[rng.integers(len(rows), size=pairs)]].astype(np.int64)
    anything = rng.integers(data.catalog.n_items, size=pairs)
    behaviours = [(b, names.index(b), response.behaviours.index(b)) for b in PUBLISHED_RATES if b in names]
    columns = [column for _, _, column in behaviours]
    logged = _chances(response, log.user[rows].astype(np.int64), log.item[rows].astype(np.int64), columns)
    random = _chances(response, someone, anything, columns)
    result = []
    for kind, group, members in _groups(data):
        of_items = kind in ("duration", "popularity")
        here, there = (
            members[pairs] for pairs in ((log.item[rows], anything) if of_items else (log.user[rows], someone))
        )
        if group != "all" and (here.sum() < least_rows or there.sum() < least_rows):
            continue
        for place, (behaviour, column, _) in enumerate(behaviours):
            truth = log.feedback[rows[here], column]
            published = PUBLISHED_RATES[behaviour].get(group) if data.name == PUBLISHED_OF else None
            result.append(
                Selection(
                    behaviour,
                    kind,
                    group,
                    int(here.sum()),
                    float(truth[truth >= 0].mean()),
                    float(logged[here, place].mean()),
                    float(random[there, place].mean()),
                    *(published or (None, None)),
                )
            )
    return tuple(result)


def _groups(data: SessionData) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Kinds and names of groups, and their members: of users, shape (U,), or of items, shape (N,), bool."""
    yield "all", "all", np.ones(data.population.n_users, dtype=np.bool_)
    for code, value, codes in _values(data.population.features, GROUP_FEATURE):
        yield "users", value, codes == code
    for group, values in DURATIONS.items():
        members = [
            codes == code for code, value, codes in _values(data.catalog.features, DURATION_FEATURE) if value in values
        ]
        if members:
            yield "duration", group, np.any(members, axis=0)
    early = data.log.time_ms < data.test_from_ms
    shown = np.bincount(data.log.item[early], minlength=data.catalog.n_items)
    place = np.argsort(np.argsort(shown, kind="stable"), kind="stable") * PARTS // data.catalog.n_items
    for part in np.unique(place):
        least, most = shown[place == part].min(), shown[place == part].max()
        yield "popularity", f"{part + 1}: shown {least:,} to {most:,} times", place == part


def _values(features: Features, name: str) -> Iterator[tuple[int, str, NDArray[np.int32]]]:
    """Codes of a feature, what they mean, and everybody's code; nothing where there is no such feature."""
    if name in features.names:
        column = features.names.index(name)
        for code, value in enumerate(features.values[column]):
            yield code, str(value), features.codes[:, column]


def _chances(response: ResponseModel, users: IntArray, items: IntArray, columns: list[int]) -> NDArray[np.float64]:
    """Chances at the users' starting states, shape (pairs, len(columns))."""
    parts = []
    for start in range(0, len(users), _CHUNK):
        some = slice(start, start + _CHUNK)
        state = response.initial_state(users[some])
        chance = response.probabilities(state, users[some], items[some, None].astype(np.int32))
        parts.append(chance[:, 0, columns].astype(np.float64))
    return np.concatenate(parts)
