"""Splits of a data set: by days for simulators, by users for agents."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import UNKNOWN, DataError, IntArray, InteractionLog, SessionData, Tables, pieces

DAY_MS = 24 * 60 * 60 * 1000
CHINA_OFFSET_MS = 8 * 60 * 60 * 1000
"""KuaiRand's days are days in China (UTC+8). Its ``date`` column is the day of the log file's hour, up to 52 minutes
after ``time_ms`` and so on the next day for 0.9 % of the rows; the exposure's own time decides here."""


def china_day(time_ms: IntArray) -> IntArray:
    """Return the number of the day in China (days since 1970-01-01 UTC+8), same shape."""
    return (np.asarray(time_ms, dtype=np.int64) + CHINA_OFFSET_MS) // DAY_MS


def time_split(
    log: InteractionLog, test_share: float = 0.10, valid_share: float = 0.05, offset_ms: int = CHINA_OFFSET_MS
) -> tuple[int, int]:
    """Return ``(valid_from_ms, test_from_ms)``, both midnights, by default in China.

    The test days begin at the latest midnight that leaves them at least ``test_share`` of the rows, the validation
    days at the latest midnight that leaves them at least ``valid_share`` of the rest. Only exposures by the platform's
    own policy with every behaviour recorded count: random exposures and histories without times say nothing about days.

    Args:
        log: the rows.
        test_share: in (0, 1).
        valid_share: in (0, 1).
        offset_ms: offset from UTC of the clock that defines midnight, milliseconds.

    Raises:
        DataError: the log is empty or spans too few days for three parts.
    """
    for name, share in (("test_share", test_share), ("valid_share", valid_share)):
        if not 0 < share < 1:
            raise DataError(f"{name}={share} is outside (0, 1); give a share such as 0.1")
    days, counts = _rows_by_day(log, offset_ms)
    if len(days) == 0:
        raise DataError("log: no fully recorded row of the standard policy, so no split by days; give a fuller log")
    test_day = _last_boundary(days, counts, test_share)
    rest = days < test_day
    valid_day = _last_boundary(days[rest], counts[rest], valid_share) if rest.any() else test_day
    if not (days < valid_day).any():
        raise DataError(
            f"log: its {len(days)} day(s) leave no training day before validation and test; "
            "give a log that spans more days or smaller shares"
        )
    return valid_day * DAY_MS - offset_ms, test_day * DAY_MS - offset_ms


def user_split(n_users: int, held_out_share: float = 0.20, seed: int = 0) -> NDArray[np.bool_]:
    """Return the mask of held-out users, shape (n_users,), of whom there are ``round(held_out_share * n_users)``.

    Raises:
        DataError: one part would be empty.
    """
    chosen = round(held_out_share * n_users)
    if not 0 < chosen < n_users:
        raise DataError(
            f"held_out_share={held_out_share} of {n_users} user(s) holds out {chosen}: one side is empty; "
            "give a share strictly between 0 and 1, or more users"
        )
    held_out = np.zeros(n_users, dtype=np.bool_)
    held_out[np.random.default_rng(seed).permutation(n_users)[:chosen]] = True
    return held_out


def _rows_by_day(log: InteractionLog, offset_ms: int) -> tuple[IntArray, IntArray]:
    """Return the days with rows that count, in order, and the numbers of these rows, shapes (D,) and (D,)."""
    total: Counter[int] = Counter()
    for rows in pieces(len(log)):
        counted = ~log.randomised[rows] & (log.feedback[rows] != UNKNOWN).all(axis=1)
        days, counts = np.unique((log.time_ms[rows][counted] + offset_ms) // DAY_MS, return_counts=True)
        total.update(dict(zip(days.tolist(), counts.tolist(), strict=True)))
    ordered = sorted(total)
    return np.array(ordered, dtype=np.int64), np.array([total[day] for day in ordered], dtype=np.int64)


def _last_boundary(days: IntArray, counts: IntArray, share: float) -> int:
    """Return the latest day such that it and the days after it hold at least ``share`` of the rows."""
    tail = counts[::-1].cumsum()[::-1]
    return int(days[np.flatnonzero(tail >= share * counts.sum())[-1]])


def assemble(
    name: str,
    tables: Tables,
    test_share: float = 0.10,
    valid_share: float = 0.05,
    held_out_share: float = 0.20,
    seed: int = 0,
    offset_ms: int = CHINA_OFFSET_MS,
    licence: str | None = None,
    citation: str | None = None,
) -> SessionData:
    """Split tables by days (of a clock ``offset_ms`` ahead of UTC) and by users, and freeze their arrays.

    Licence and citation are those of :class:`~rapport.datasets.schema.SessionData`, the other arguments those of
    :func:`rapport.datasets.registry.load.load`.

    Raises:
        DataError: a part would be empty.
    """
    valid_from, test_from = time_split(tables.log, test_share, valid_share, offset_ms)
    held_out = user_split(tables.population.n_users, held_out_share, seed)
    catalog, population, log = tables
    _freeze(catalog.item_ids, catalog.category, catalog.features.codes, population.user_ids, population.features.codes)
    _freeze(log.user, log.item, log.time_ms, log.feedback, log.randomised, held_out)
    if catalog.further is not None:
        _freeze(catalog.further)
    return SessionData(name, catalog, population, log, test_from, valid_from, held_out, licence, citation)


def _freeze(*arrays: NDArray[np.generic]) -> None:
    for array in arrays:
        array.setflags(write=False)
