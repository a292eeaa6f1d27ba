"""A statistical twin: a log drawn from aggregates of a real one, without any of its rows.

:func:`measure` reduces a data set to shares, rates, quantiles and three variances; :func:`draw` makes a data set of any
size with the same schema from them; :func:`twin` does so from the figures that the package ships. The twin keeps
category shares and click rates, click rates by user activity, the variances of items, users and tastes
(:mod:`rapport.datasets.effects`), the other behaviours given click or no click, rows per user, session lengths and
pauses, days and hours. It does not keep trends, satiation, dependence between features, or a policy that shows users
what they like. It is for running everything without a download and for tests; it supports no claim about real users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.effects import additive_offsets, sigmoid, variances
from rapport.datasets.schema import (
    UNKNOWN,
    Catalog,
    DataError,
    Features,
    Int32Array,
    IntArray,
    InteractionLog,
    Population,
    SessionData,
    Tables,
)
from rapport.datasets.splits import CHINA_OFFSET_MS, DAY_MS, assemble, china_day

FIGURES_FILE = Path(__file__).with_name("twin_kuairand_pure.json")
ACTIVITY = "user_active_degree"
"""The user feature by which click rates are grouped."""
SESSION_PAUSE_MS = 30 * 60 * 1000
"""A longer pause between two exposures begins a new session."""

_QUANTILES = np.linspace(0.0, 1.0, 21)
_LEAST_ROWS = 100
"""A rate from fewer exposures is replaced by the overall rate."""
_LEAST_MEMBERS = 10
"""A feature value of fewer users or items is left out, so that no figure describes only a few."""
_LEAST_DAY_SHARE = 0.01
_HOUR_MS = 60 * 60 * 1000

_FloatArray = NDArray[np.float64]


def measure(data: SessionData) -> dict[str, Any]:
    """Reduce a data set to the figures that a twin is drawn from.

    Clicks, other behaviours, sessions and days come from the fully recorded rows of the standard policy; rows per user
    count all rows of the standard policy, also earlier exposures of which less is recorded.

    Returns:
        A JSON-ready dict of shares (summing to 1), rates, quantiles (at 0, 5, ..., 100 %) and variances (squared
        log-odds), rounded.
    """
    log, category = data.log, data.catalog.category
    full = (log.feedback != UNKNOWN).all(axis=1) & ~log.randomised
    user, item, time_ms = log.user[full], log.item[full], log.time_ms[full]
    click = log.feedback[full, 0].astype(np.float64)
    group_names, group_of_user = _activity(data.population.features)
    rate = float(click.mean())
    by_category = _rates(click, category[item], data.catalog.n_categories)
    by_group = _rates(click, group_of_user[user], len(group_names))
    index = category[item], group_of_user[user]
    offset, lift = additive_offsets((by_category, by_group), index, np.zeros(len(click)))
    spread = variances(click - sigmoid(offset[index[0]] + lift[index[1]]), rate, user, item, index[0])
    others = log.feedback[full, 1:]
    shown = np.bincount(category[item], minlength=data.catalog.n_categories)
    return {
        "categories": {
            "names": list(data.catalog.category_names),
            "share_of_items": _round(data.catalog.category_sizes / data.catalog.n_items, 4),
            "share_of_exposures": _round(shown / shown.sum(), 4),
            "click_rate": _round(by_category, 3),
        },
        "activity": {"names": list(group_names), "click_rate": _round(by_group, 3)},
        "variances": {name: round(value, 3) for name, value in spread._asdict().items()},
        "behaviours": {
            "names": list(log.behaviours),
            "rate_if_click": _round(others[click == 1].mean(axis=0), 4),
            "rate_if_no_click": _round(others[click == 0].mean(axis=0), 4),
        },
        "rows_per_user": _quantiles(np.bincount(log.user[~log.randomised])),
        "popularity": _popularity(item, category, data.catalog.n_items),
        **_rhythm(user, time_ms),
        "user_features": _shares(data.population.features),
        "item_features": _shares(data.catalog.features),
    }


def draw(
    figures: Mapping[str, Any],
    n_users: int = 2_000,
    n_items: int = 1_000,
    seed: int = 0,
    days: int | None = None,
    name: str = "twin",
) -> SessionData:
    """Draw a twin; equal arguments give equal data.

    Args:
        figures: as :func:`measure` returns them.
        n_users: users, at least 5; each has at least one row.
        n_items: items, at least 1. With fewer items than categories the largest categories are kept.
        seed: of the generator.
        days: calendar days, at least 3; by default as many as were measured, with their shares.
        name: of the data set.

    Raises:
        DataError: a size is too small, or a figure is missing.
    """
    for argument, value, least in (("n_users", n_users, 5), ("n_items", n_items, 1), ("days", days or 3, 3)):
        if value < least:
            raise DataError(f"twin: {argument}={value} is too small; give at least {least}")
    rng = np.random.default_rng(seed)
    try:
        catalog, kept = _draw_catalog(rng, figures, n_items)
        population = Population(np.arange(n_users), _draw_features(rng, figures["user_features"], n_users))
        user, time_ms = _draw_times(rng, figures, n_users, days)
        item = _draw_items(rng, figures, catalog, kept, len(user))
        feedback = _draw_feedback(rng, figures, catalog, population, kept, user, item)
        behaviours = tuple(figures["behaviours"]["names"])
    except KeyError as error:
        raise DataError(f"twin: the figures lack {error}; make them again with `rapport twin measure`") from error
    log = InteractionLog(
        user=user,
        item=item,
        time_ms=time_ms,
        feedback=feedback,
        behaviours=behaviours,
        randomised=np.zeros(len(user), dtype=np.bool_),
    )
    return assemble(name, Tables(catalog, population, log), seed=seed)


def twin(n_users: int = 2_000, n_items: int = 1_000, seed: int = 0, days: int | None = None) -> SessionData:
    """Draw a twin of KuaiRand-Pure from the figures that come with the package (see :func:`draw`)."""
    return draw(read_figures(), n_users, n_items, seed, days)


def read_figures(path: Path = FIGURES_FILE) -> dict[str, Any]:
    """Read the figures that ``rapport twin measure`` has written.

    Raises:
        DataError: the file is missing or not a table of figures.
    """
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no figures of a twin ({error}); make them with `rapport twin measure`") from error
    if not isinstance(figures, dict):
        raise DataError(f"{path}: 'figures' is not a table; make it again with `rapport twin measure`")
    return figures


# --- measuring -------------------------------------------------------------------------------------------------------


def _activity(features: Features) -> tuple[tuple[str, ...], Int32Array]:
    if ACTIVITY not in features.names:
        return ("all",), np.zeros(len(features.codes), dtype=np.int32)
    column = features.names.index(ACTIVITY)
    return features.values[column], features.codes[:, column]


def _rates(click: _FloatArray, group: Int32Array, size: int) -> _FloatArray:
    """Click rate by group, shape (size,); the overall rate for groups of too few rows; never 0 or 1."""
    count = np.bincount(group, minlength=size)
    rates = np.bincount(group, weights=click, minlength=size) / np.maximum(count, 1)
    return np.asarray(np.clip(np.where(count < _LEAST_ROWS, click.mean(), rates), 0.01, 0.99), dtype=np.float64)


def _popularity(item: Int32Array, category: Int32Array, n_items: int) -> list[float]:
    """Quantiles of an item's exposures relative to the mean of its category."""
    count = np.bincount(item, minlength=n_items)
    mean = np.bincount(category, weights=count) / np.bincount(category)
    return _quantiles(count / np.maximum(mean[category], 1e-9), 3)


def _rhythm(user: Int32Array, time_ms: IntArray) -> dict[str, Any]:
    """Session lengths (rows), pauses within sessions (s), and shares of days and of hours (China time)."""
    same = np.diff(user) == 0
    pause = np.diff(time_ms)
    start = np.append(True, ~same | (pause > SESSION_PAUSE_MS))
    lengths = np.diff(np.append(np.flatnonzero(start), len(user)))
    day, day_rows = np.unique(china_day(time_ms), return_counts=True)
    common = day_rows >= _LEAST_DAY_SHARE * len(user)
    hour = (time_ms + CHINA_OFFSET_MS) % DAY_MS // _HOUR_MS
    return {
        "session_length": _quantiles(lengths),
        "pause_s": _quantiles(pause[same & (pause <= SESSION_PAUSE_MS)] / 1_000, 1),
        "first_day": str(np.datetime64(int(day[common][0]), "D")),
        "share_of_days": _round(day_rows[common] / day_rows[common].sum(), 4),
        "share_of_hours": _round(np.bincount(hour, minlength=24) / len(hour), 4),
    }


def _shares(features: Features) -> dict[str, dict[str, float]]:
    """Share of each common value of each feature."""
    table = {}
    for column, (name, values) in enumerate(zip(features.names, features.values, strict=True)):
        count = np.bincount(features.codes[:, column], minlength=len(values))
        kept = {v: int(c) for v, c in zip(values, count, strict=True) if c >= _LEAST_MEMBERS}
        kept = kept or {values[int(count.argmax())]: 1}
        table[name] = {value: round(c / sum(kept.values()), 4) for value, c in kept.items()}
    return table


def _quantiles(values: NDArray[Any], digits: int = 0) -> list[float]:
    """The extremes are cut to the 1st and 99th percentile, because the largest value is that of one user."""
    levels = np.clip(_QUANTILES, 0.01, 0.99)
    return _round(np.quantile(values, levels), digits)


def _round(values: NDArray[Any], digits: int) -> list[float]:
    return [round(float(v), digits) for v in values]


# --- drawing ---------------------------------------------------------------------------------------------------------


def _draw_catalog(rng: np.random.Generator, figures: Mapping[str, Any], n_items: int) -> tuple[Catalog, IntArray]:
    """Return items, at least one in every kept category, and the measured categories that were kept."""
    share = _normalised(figures["categories"]["share_of_items"])
    kept = np.sort(np.argsort(-share, kind="stable")[:n_items])
    category = np.concatenate([np.arange(len(kept)), _choice(rng, share[kept], n_items - len(kept))])
    names = figures["categories"]["names"]
    features = _draw_features(rng, figures["item_features"], n_items)
    shuffled = rng.permutation(category).astype(np.int32)
    return Catalog(np.arange(n_items), shuffled, tuple(names[k] for k in kept), features), kept


def _draw_features(rng: np.random.Generator, shares: Mapping[str, Mapping[str, float]], n: int) -> Features:
    """Draw every feature independently."""
    codes = [_choice(rng, _normalised(list(s.values())), n) for s in shares.values()]
    matrix = np.stack(codes, axis=1).astype(np.int32)
    return Features(tuple(shares), tuple(tuple(s) for s in shares.values()), matrix)


def _draw_times(
    rng: np.random.Generator, figures: Mapping[str, Any], n_users: int, days: int | None
) -> tuple[Int32Array, IntArray]:
    """Return user and time of every row, sorted.

    Session lengths are one stream that is cut where a user's rows end.
    """
    rows = np.maximum(np.rint(_from_quantiles(rng, figures["rows_per_user"], n_users)), 1).astype(np.int64)
    user = np.repeat(np.arange(n_users), rows)
    total = len(user)
    lengths = np.maximum(np.rint(_from_quantiles(rng, figures["session_length"], total)), 1).astype(np.int64)
    start = np.zeros(total, dtype=np.bool_)
    start[rows.cumsum() - rows] = True
    ends = lengths.cumsum()
    start[ends[ends < total]] = True
    session = start.cumsum() - 1

    day_share = _normalised(figures["share_of_days"])
    if days is not None:
        day_share = _normalised(day_share[np.arange(days) % len(day_share)])
    n_sessions = int(session[-1]) + 1
    day = _choice(rng, day_share, n_sessions)
    hour = _choice(rng, _normalised(figures["share_of_hours"]), n_sessions)
    midnight = int(np.datetime64(figures["first_day"], "D").astype(np.int64)) * DAY_MS - CHINA_OFFSET_MS
    begin = midnight + day * DAY_MS + hour * _HOUR_MS + rng.integers(0, _HOUR_MS, n_sessions)
    pause = (_from_quantiles(rng, figures["pause_s"], total) * 1_000).astype(np.int64) + 1
    pause[start] = 0
    elapsed = pause.cumsum()
    time_ms = begin[session] + elapsed - elapsed[start][session]
    # A session that begins shortly before midnight stays on its day: the last day must not spill over.
    end_of_day = midnight + (day[session] + 1) * DAY_MS - 1
    time_ms = np.minimum(time_ms, end_of_day)
    order = np.lexsort((time_ms, user))
    return user[order].astype(np.int32), time_ms[order]


def _draw_items(
    rng: np.random.Generator, figures: Mapping[str, Any], catalog: Catalog, kept: IntArray, n: int
) -> Int32Array:
    """Draw a category by its share of exposures, then an item of it by popularity."""
    share = _normalised(np.asarray(figures["categories"]["share_of_exposures"])[kept] + 1e-6)
    weight = np.maximum(_from_quantiles(rng, figures["popularity"], catalog.n_items), 1e-3)
    within = np.bincount(catalog.category, weights=weight)
    return _choice(rng, _normalised(share[catalog.category] * weight / within[catalog.category]), n).astype(np.int32)


def _draw_feedback(
    rng: np.random.Generator,
    figures: Mapping[str, Any],
    catalog: Catalog,
    population: Population,
    kept: IntArray,
    user: Int32Array,
    item: Int32Array,
) -> NDArray[np.int8]:
    """Clicks from latent effects, calibrated to rates by category and activity; other behaviours given the click."""
    spread = {name: float(np.sqrt(value)) for name, value in figures["variances"].items()}
    category = catalog.category[item]
    quality = rng.normal(0.0, spread["item"], catalog.n_items)
    tendency = rng.normal(0.0, spread["user"], population.n_users)
    taste = rng.normal(0.0, spread["user_category"], (population.n_users, catalog.n_categories))
    effect = quality[item] + tendency[user] + taste[user, category]

    names, group_of_user = _activity(population.features)
    rate_of = dict(zip(figures["activity"]["names"], figures["activity"]["click_rate"], strict=True))
    by_group = np.array([rate_of[value] for value in names])
    by_category = np.asarray(figures["categories"]["click_rate"], dtype=np.float64)[kept]
    index = category, group_of_user[user]
    offset, lift = additive_offsets((by_category, by_group), index, effect)
    click = rng.random(len(user)) < sigmoid(offset[index[0]] + lift[index[1]] + effect)

    rates = figures["behaviours"]
    chance = np.where(click[:, None], np.asarray(rates["rate_if_click"]), np.asarray(rates["rate_if_no_click"]))
    others = rng.random(chance.shape) < chance
    return np.column_stack([click, others]).astype(np.int8)


def _from_quantiles(rng: np.random.Generator, quantiles: Sequence[float], n: int) -> _FloatArray:
    return np.asarray(np.interp(rng.random(n), _QUANTILES, quantiles), dtype=np.float64)


def _choice(rng: np.random.Generator, shares: _FloatArray, n: int) -> IntArray:
    """Draw n codes with the given shares; faster than ``Generator.choice`` and the same on every platform."""
    return np.minimum(np.searchsorted(shares.cumsum(), rng.random(n), side="right"), len(shares) - 1)


def _normalised(shares: Sequence[float] | _FloatArray) -> _FloatArray:
    values = np.asarray(shares, dtype=np.float64)
    return np.asarray(values / values.sum(), dtype=np.float64)
