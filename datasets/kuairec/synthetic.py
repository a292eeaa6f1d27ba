"""Synthetic data in the form of KuaiRec: every number was chosen by hand, and none is fitted to data.

Log watch ratios are low rank: ``level + user + item + <user's tastes, item's traits> + noise``. Items of a category
share most of their traits, so users have tastes for categories. Noise is drawn once per pair in the truth and once per
row in the log. Consecutive items have the same author, and a blocked author's items are blocked together. Exposures
follow popularity alone.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import encode
from rapport.datasets.kuairand.pure import USER_FEATURES
from rapport.datasets.kuairec.matrices import CLIP
from rapport.datasets.kuairec.read import NAMES_FILE, Parts, tag_features
from rapport.datasets.schema import (
    Catalog,
    DataError,
    Features,
    Int32Array,
    IntArray,
    InteractionLog,
    Population,
    Tables,
)
from rapport.datasets.splits import CHINA_OFFSET_MS, DAY_MS

DAYS = 30
FIRST_DAY = np.datetime64("2020-07-05", "D")
RANK = 8
ROWS_PER_USER = 60
BLOCKED_SHARE = 0.004
ITEMS_PER_AUTHOR = 4

_LEVEL, _USER_SPREAD, _ITEM_SPREAD, _TASTE_SPREAD, _NOISE = -0.4, 0.3, 0.4, 0.6, 0.5
_CENTRE_SHARE = 0.8
"""Share of the variance of an item's traits that its category explains."""
_FEATURE_VALUES = 4

_Float = NDArray[np.float64]


def draw(n_users: int, n_truth_users: int, n_items: int, click_at: float, rng: np.random.Generator) -> Parts:
    """Draw tables and matrices (see :func:`rapport.datasets.kuairec.load.synthetic_kuairec`).

    Raises:
        DataError: a size is too small, or there are more fully observed users than users.
    """
    for name, value, least in (("n_users", n_users, 10), ("n_truth_users", n_truth_users, 3), ("n_items", n_items, 2)):
        if value < least:
            raise DataError(f"{name}={value} is too small; give at least {least}")
    if n_truth_users > n_users:
        raise DataError(f"n_truth_users={n_truth_users} is more than n_users={n_users}; give at most as many")
    catalog, tags = _catalog(n_items, rng)
    population = Population(np.arange(n_users), _features(n_users, rng))
    expected = _expected(catalog, n_users, rng)

    truth_users = np.sort(rng.permutation(n_users)[:n_truth_users])
    blocked = _blocked(n_truth_users, n_items, rng)
    watch_ratio = _ratio(expected[truth_users], rng)
    watch_ratio[blocked] = 0.0
    log = _log(expected, click_at, rng)
    return Parts(Tables(catalog, population, log), truth_users, watch_ratio.astype(np.float32), blocked, tags)


def _catalog(n_items: int, rng: np.random.Generator) -> tuple[Catalog, Int32Array]:
    """Return items in at most 38 categories of unequal size, none empty, and one or two tags per item."""
    names = [entry["english"] for entry in json.loads(NAMES_FILE.read_text(encoding="utf-8")).values()][:n_items]
    share = 1.0 / np.arange(1, len(names) + 1)
    extra = rng.choice(len(names), size=n_items - len(names), p=share / share.sum())
    category = rng.permutation(np.concatenate([np.arange(len(names)), extra])).astype(np.int32)
    other = rng.integers(0, len(names), n_items)
    second = np.where((rng.random(n_items) < 0.2) & (other != category), other, -1)
    tags = np.stack([category, second], axis=1).astype(np.int32)
    features = encode({"second_level_category": rng.integers(0, 100, n_items).astype(np.str_)} | tag_features(tags))
    return Catalog(np.arange(n_items), category, tuple(names), features), tags


def _features(n_users: int, rng: np.random.Generator) -> Features:
    """Return user features without meaning: uniform codes."""
    values = tuple(str(v) for v in range(_FEATURE_VALUES))
    codes = rng.integers(0, _FEATURE_VALUES, (n_users, len(USER_FEATURES))).astype(np.int32)
    return Features(USER_FEATURES, (values,) * len(USER_FEATURES), codes)


def _expected(catalog: Catalog, n_users: int, rng: np.random.Generator) -> _Float:
    """Return the mean log watch ratio of every pair, shape (U, N)."""
    tastes = rng.normal(size=(n_users, RANK))
    centres = rng.normal(size=(catalog.n_categories, RANK))[catalog.category]
    own = rng.normal(size=(catalog.n_items, RANK))
    traits = np.sqrt(_CENTRE_SHARE) * centres + np.sqrt(1 - _CENTRE_SHARE) * own
    affinity = tastes @ traits.T / np.sqrt(RANK)
    generosity = rng.normal(0.0, _USER_SPREAD, (n_users, 1))
    quality = rng.normal(0.0, _ITEM_SPREAD, catalog.n_items)
    return np.asarray(_LEVEL + generosity + quality + _TASTE_SPREAD * affinity, dtype=np.float64)


def _ratio(expected: _Float, rng: np.random.Generator) -> _Float:
    """Draw watch ratios around the given means of their logarithms, same shape."""
    return np.asarray(np.minimum(np.exp(expected + rng.normal(0.0, _NOISE, expected.shape)), CLIP), dtype=np.float64)


def _blocked(n_truth_users: int, n_items: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw blocked pairs of user and author, shape (S, N)."""
    author = np.arange(n_items) // ITEMS_PER_AUTHOR
    return np.asarray((rng.random((n_truth_users, int(author[-1]) + 1)) < BLOCKED_SHARE)[:, author])


def _log(expected: _Float, click_at: float, rng: np.random.Generator) -> InteractionLog:
    """Draw the log: Poisson rows per user, times uniform over the days, items by popularity."""
    n_users, n_items = expected.shape
    user = np.repeat(np.arange(n_users), rng.poisson(ROWS_PER_USER, n_users) + 1).astype(np.int32)
    popularity = rng.permutation(1.0 / np.arange(1, n_items + 1) ** 0.7)
    item = rng.choice(n_items, size=len(user), p=popularity / popularity.sum()).astype(np.int32)
    first = int(FIRST_DAY.astype(np.int64)) * DAY_MS - CHINA_OFFSET_MS
    time_ms: IntArray = first + rng.integers(0, DAYS * DAY_MS, len(user))
    click = _ratio(expected[user, item], rng) >= click_at
    order = np.lexsort((time_ms, user))
    return InteractionLog(
        user=user[order],
        item=item[order],
        time_ms=time_ms[order],
        feedback=click[order].astype(np.int8)[:, None],
        behaviours=("click",),
        randomised=np.zeros(len(user), dtype=np.bool_),
    )
