"""An interaction log as a data set, from pandas frames."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rapport.datasets.custom import columns
from rapport.datasets.custom.columns import Bins as Bins
from rapport.datasets.custom.columns import Threshold as Threshold
from rapport.datasets.custom.columns import TimeUnit as TimeUnit
from rapport.datasets.custom.columns import row_ids as row_ids
from rapport.datasets.custom.nominal import Labels as Labels
from rapport.datasets.custom.nominal import categories
from rapport.datasets.files.csv_tables import encode_text
from rapport.datasets.schema import (
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
from rapport.datasets.splits import assemble

Behaviours = Sequence[str] | Mapping[str, str | Threshold]
"""Names of columns, or a mapping from each behaviour's name to its column or threshold."""

FeatureNames = Sequence[str | Bins]
"""Columns of features, numbers with fractions cut into :class:`Bins`."""

HOUR_MS = 60 * 60 * 1000
FEW_ITEMS = 2.0
"""Items per category below which a warning says that the categories hardly group anything."""

LOGGER = logging.getLogger("rapport")


def from_frames(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None = None,
    *,
    name: str,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "time",
    time_unit: TimeUnit = "s",
    category: str | Labels = "category",
    behaviours: Behaviours = ("click",),
    item_features: FeatureNames = (),
    user_features: FeatureNames = (),
    randomised: str | None = None,
    test_share: float = 0.10,
    valid_share: float = 0.05,
    held_out_share: float = 0.20,
    seed: int = 0,
    utc_offset_hours: float = 0.0,
    licence: str = "",
    citation: str = "",
) -> SessionData:
    """Make a data set of a log, for every environment that takes ``data=``.

    Args:
        interactions: one row for each time an item was shown to a user, in any order.
        items: one row per item, including items never shown.
        users: one row per user, including users without a row in the log; by default the users of the log.
        name: of the data set: letters, digits, ``.``, ``_`` and ``-``.
        user: column with the user's id, in ``interactions`` and ``users``. Ids are whole numbers or text.
        item: column with the item's id, in ``interactions`` and ``items``.
        time: column of ``interactions`` with the time: numbers, dates and times, or text in ISO 8601.
        time_unit: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"`` since 1970, of times that are numbers.
        category: column of ``items`` with the item's category, a name or a number; may be empty. If its cells are
            lists, or with :class:`~rapport.datasets.custom.nominal.Labels`, text with a separator, an item may have
            several; their order does not matter.
        behaviours: columns of ``interactions`` that hold 0 and 1, empty where not recorded; or a mapping from the
            behaviour's name to its column or to a :class:`~rapport.datasets.custom.columns.Threshold` of one. The first
            is rewarded.
        item_features: categorical columns of ``items``, or :class:`~rapport.datasets.custom.columns.Bins` of numeric
            ones. A missing value is a value of its own. The category need not be repeated.
        user_features: the same for ``users``.
        randomised: column of ``interactions`` that is 1 if the item was chosen at random; by default none was.
        test_share: least share of the rows in the test days, the last ones.
        valid_share: least share of the remaining rows in the validation days before them.
        held_out_share: share of the users that are held out from agents' learning.
        seed: draws the held-out users.
        utc_offset_hours: days begin at midnight of a clock so many hours ahead of UTC.
        licence: of the data, as pages shall state it.
        citation: of the data, likewise.

    Returns:
        The data. ``row_ids(items[item])[i]`` is the id of item i, ``row_ids(users[user])[u]`` that of user u.

    Raises:
        DataError: a column is missing, a value cannot be used, or the frames do not fit together.

    >>> import pandas as pd
    >>> items = pd.DataFrame({"item_id": ["tea", "cup"], "category": ["drinks", "kitchen"]})
    >>> rows = [("ann", "tea", 0, 1), ("bob", "cup", 1, 0), ("ann", "cup", 2, 1), ("bob", "tea", 3, 0)]
    >>> log = pd.DataFrame(rows, columns=["user_id", "item_id", "day", "click"])
    >>> data = from_frames(log.assign(time=log["day"] * 86_400), items, name="shop", held_out_share=0.5)
    >>> data.catalog.category_names, data.population.n_users, row_ids(items["item_id"])[0]
    (('drinks', 'kitchen'), 2, 'cup')
    """
    check_name(name)
    tables = frame_tables(
        interactions,
        items,
        users,
        user=user,
        item=item,
        time=time,
        time_unit=time_unit,
        category=category,
        behaviours=behaviours,
        item_features=item_features,
        user_features=user_features,
        randomised=randomised,
    )
    offset_ms = clock_offset_ms(utc_offset_hours)
    return assemble(name, tables, test_share, valid_share, held_out_share, seed, offset_ms, licence, citation)


def clock_offset_ms(hours: float) -> int:
    """Offset of a clock from UTC, in milliseconds.

    Raises:
        DataError: there is no such clock.
    """
    if not -24 <= hours <= 24:
        raise DataError(f"utc_offset_hours={hours}; give a number from -24 to 24")
    return round(hours * HOUR_MS)


def check_name(name: str) -> None:
    """Check the name of a data set, which becomes part of file names and of an environment's id.

    Raises:
        DataError: a character is not allowed.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DataError(f"name {name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit")


def frame_tables(
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None,
    *,
    user: str,
    item: str,
    time: str,
    time_unit: TimeUnit,
    category: str | Labels,
    behaviours: Behaviours,
    item_features: FeatureNames,
    user_features: FeatureNames,
    randomised: str | None,
) -> Tables:
    """Check, join and encode frames; arguments and errors as of :func:`from_frames`."""
    read = behaviour_columns(behaviours)
    wanted = [user, item, time, *(column for column, _ in read.values()), *([randomised] if randomised else [])]
    columns.check_columns(interactions, "interactions", wanted)
    if len(interactions) == 0:
        raise DataError("interactions: no row; give a log that has some")
    item_ids, catalog = _catalog(items, item, category, item_features)
    user_ids, population = _population(interactions, users, user, user_features)
    where = "interactions" if users is None else "users"
    person = columns.position(user_ids, interactions[user], "interactions", where)
    shown = columns.position(item_ids, interactions[item], "interactions", "items")
    times = columns.times_ms(interactions[time], time_unit, "interactions")
    feedback = [columns.done(interactions[column], at_least, "interactions") for column, at_least in read.values()]
    order = np.lexsort((times, person))
    log = InteractionLog(
        user=person[order],
        item=shown[order],
        time_ms=times[order],
        feedback=np.stack(feedback, axis=1)[order],
        behaviours=tuple(read),
        randomised=_randomised(interactions, randomised)[order],
    )
    return Tables(catalog, population, log)


def behaviour_columns(behaviours: Behaviours) -> dict[str, tuple[str, float | None]]:
    """Return the column and the threshold, if any, of each behaviour.

    Raises:
        DataError: there is none, or a string is given instead of a tuple.
    """
    if isinstance(behaviours, str) or not behaviours:
        raise DataError(f"behaviours={behaviours!r}; give the columns as a tuple such as ('click', 'like')")
    if not isinstance(behaviours, Mapping):
        return {column: (column, None) for column in behaviours}
    return {
        name: (source.column, source.at_least) if isinstance(source, Threshold) else (source, None)
        for name, source in behaviours.items()
    }


def feature_columns(features: FeatureNames) -> dict[str, int | None]:
    """Return each feature's column and its number of bins, if it has any.

    Raises:
        DataError: a string is given instead of a tuple.
    """
    if isinstance(features, str):
        raise DataError(f"features={features!r}; give the columns as a tuple such as ({features!r},)")
    cut = [f if isinstance(f, str) else (f.column, f.bins) for f in features]
    return dict((f, None) if isinstance(f, str) else f for f in cut)


def category_column(category: str | Labels) -> tuple[str, str | None]:
    """Return the column of the categories, and their separator if it holds several in one text."""
    return (category, None) if isinstance(category, str) else (category.column, category.separator)


def _catalog(
    items: pd.DataFrame, item: str, category: str | Labels, features: FeatureNames
) -> tuple[pd.Index[Any], Catalog]:
    sources, (column, separator) = feature_columns(features), category_column(category)
    columns.check_columns(items, "items", [item, column, *sources])
    ids, rows = _one_row_each(items, item, "items")
    codes, further, names = categories(rows[column], separator, "items")
    if len(ids) < FEW_ITEMS * len(names):
        LOGGER.warning(
            "%d categories in column %r for %d items: plans, masks and quit rules work on categories, which hardly "
            "group these items; take a coarser column%s",
            *(len(names), column, len(ids)),
            "" if separator is not None else ", or name the separator if a cell holds several categories",
        )
    return ids, Catalog(_numbered(ids), codes, names, _features(rows, sources, "items"), further)


def _population(
    interactions: pd.DataFrame, users: pd.DataFrame | None, user: str, features: FeatureNames
) -> tuple[pd.Index[Any], Population]:
    sources = feature_columns(features)
    if users is None:
        if sources:
            raise DataError(f"user_features={list(sources)}, but no frame of users; give users=")
        ids = row_ids(interactions[user], "interactions")
        return ids, Population(_numbered(ids), _no_features(len(ids)))
    columns.check_columns(users, "users", [user, *sources])
    ids, rows = _one_row_each(users, user, "users")
    return ids, Population(_numbered(ids), _features(rows, sources, "users") if sources else _no_features(len(ids)))


def _one_row_each(frame: pd.DataFrame, column: str, what: str) -> tuple[pd.Index[Any], pd.DataFrame]:
    """Return the ids and the frame, sorted by them."""
    if len(frame) == 0:
        raise DataError(f"{what}: no row; give at least one")
    ids = row_ids(frame[column], what)
    place = columns.position(ids, frame[column], what, what)
    if len(ids) < len(frame):
        twice = ids[int(np.bincount(place).argmax())]
        raise DataError(f"{what}: {column} {twice!r} occurs twice; keep one row per {column}")
    return ids, frame.iloc[np.argsort(place)]


def _numbered(ids: pd.Index[Any]) -> IntArray:
    """Whole-number ids unchanged; positions for other ids."""
    return ids.to_numpy(dtype=np.int64) if ids.dtype.kind in "iu" else np.arange(len(ids))


def _features(rows: pd.DataFrame, sources: Mapping[str, int | None], what: str) -> Features:
    if not sources:
        return Features((), (), np.empty((len(rows), 0), dtype=np.int32))
    return encode_text({name: columns.feature(rows[name], bins, what) for name, bins in sources.items()})


def _no_features(n_users: int) -> Features:
    """One feature with the same value for all users, because models and observations need at least one."""
    codes: Int32Array = np.zeros((n_users, 1), dtype=np.int32)
    return Features(("user",), (("anonymous", "known"),), codes)


def _randomised(interactions: pd.DataFrame, column: str | None) -> NDArray[np.bool_]:
    if column is None:
        return np.zeros(len(interactions), dtype=np.bool_)
    flags = columns.done(interactions[column], None, "interactions")
    if (flags < 0).any():
        raise DataError(f"interactions: column {column!r} is empty in {(flags < 0).sum()} row(s); give 0 or 1")
    return flags.astype(np.bool_)
