"""Index-encoded, id-joined, immutable tables of users, items and interactions.

Everything above this layer uses indices: item ``i`` is row ``i`` of the :class:`Catalog`, user ``u`` is row ``u`` of
the :class:`Population`. The original ids are kept to map back to the source.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Int32Array = NDArray[np.int32]
Int8Array = NDArray[np.int8]
FloatArray = NDArray[np.float32]

UNKNOWN = -1
"""Feedback value of a behaviour that the log did not record for that exposure."""

_ROWS_AT_ONCE = 1 << 20


class DataError(ValueError):
    """A data set is missing, damaged or inconsistent; the message names the file or field, the value and the remedy."""


@dataclass(frozen=True)
class Features:
    """Categorical features of users or items, one small integer code per feature.

    Attributes:
        names: F feature names.
        values: for each feature the names of its codes; code ``c`` of feature ``f`` means ``values[f][c]``.
        codes: shape (N, F), int32.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: Int32Array

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.shape[1] != len(self.names) or len(self.values) != len(self.names):
            raise DataError(
                f"features: {len(self.names)} names, {len(self.values)} vocabularies and codes of shape "
                f"{self.codes.shape} do not fit together; give one vocabulary and one column per name"
            )
        for column, (name, vocabulary) in enumerate(zip(self.names, self.values, strict=True)):
            _check_range(f"feature {name!r}", self.codes[:, column], len(vocabulary))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each feature."""
        return tuple(len(v) for v in self.values)


@dataclass(frozen=True)
class Catalog:
    """The items that can be shown.

    Attributes:
        item_ids: shape (N,), int64, the ids of the source; strictly increasing.
        category: shape (N,), int32 in [0, C): the item's category; of several the first in the order of the names.
        category_names: C names.
        features: categorical item features, N rows.
        further: shape (N, L - 1), int32: an item's other categories in increasing order, -1 where it has fewer; None
            where every item has one.
    """

    item_ids: IntArray
    category: Int32Array
    category_names: tuple[str, ...]
    features: Features
    further: Int32Array | None = None

    def __post_init__(self) -> None:
        _check_ids("item_ids", self.item_ids)
        _check_length("category", self.category, self.n_items)
        _check_length("item features", self.features.codes, self.n_items)
        _check_range("category", self.category, self.n_categories)
        if self.further is not None:
            _check_length("further", self.further, self.n_items)
            _check_range("further", np.maximum(self.further, 0), self.n_categories)
            inner = np.sort(self.labels, axis=1)
            if ((np.diff(inner, axis=1) == 0) & (inner[:, 1:] >= 0)).any():
                raise DataError("further: an item has a category twice; give each of its categories once")
        empty = [n for n, k in zip(self.category_names, self.category_sizes, strict=True) if k == 0]
        if empty:
            raise DataError(
                f"category_names: {empty[0]!r} ({len(empty)} in all) has no item, so no plan for it could be served; "
                "drop it from category_names or add its items"
            )

    @property
    def n_items(self) -> int:
        """Number of items, N."""
        return len(self.item_ids)

    @property
    def n_categories(self) -> int:
        """Number of categories, C."""
        return len(self.category_names)

    @property
    def category_sizes(self) -> IntArray:
        """Items in each category, shape (C,), int64; an item of several categories counts in each."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_categories)

    @functools.cached_property
    def labels(self) -> Int32Array:
        """All categories of each item, shape (N, L), int32: :attr:`category`, then :attr:`further`; -1 for none."""
        first = self.category[:, None]
        return first if self.further is None else np.concatenate([first, self.further], axis=1)

    def allowed(self, plans: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Items that plans allow, shape (B, N): those of which any category is planned.

        Args:
            plans: shape (B, C), allowed categories.
        """
        if self.further is None:
            return plans[:, self.category]
        padded = np.concatenate([plans, np.zeros((len(plans), 1), np.bool_)], axis=1)  # -1 reads the last column
        items = padded[:, self.category]
        for column in self.further.T:
            items |= padded[:, column]
        return items

    def with_categories(self) -> Features:
        """The item features and, behind them, the categories: the further ones, then, as the last, the first."""
        codes, names, values = [self.features.codes], [*self.features.names], [*self.features.values]
        for place, column in enumerate(() if self.further is None else self.further.T, 2):
            codes.append(np.where(column < 0, self.n_categories, column).astype(np.int32)[:, None])
            names.append(f"category {place}")
            values.append((*self.category_names, "none"))
        codes.append(self.category[:, None])
        joined = np.concatenate(codes, axis=1)
        return Features((*names, "category"), (*values, self.category_names), joined)


@dataclass(frozen=True)
class Population:
    """The users.

    Attributes:
        user_ids: shape (U,), int64, the ids of the source; strictly increasing.
        features: categorical user features, U rows.
    """

    user_ids: IntArray
    features: Features

    def __post_init__(self) -> None:
        _check_ids("user_ids", self.user_ids)
        _check_length("user features", self.features.codes, self.n_users)

    @property
    def n_users(self) -> int:
        """Number of users, U."""
        return len(self.user_ids)


@dataclass(frozen=True)
class InteractionLog:
    """Exposures and the users' feedback on them, sorted by user, then by time.

    Attributes:
        user: shape (R,), int32 in [0, U), non-decreasing.
        item: shape (R,), int32 in [0, N).
        time_ms: shape (R,), int64, milliseconds since 1970 UTC; non-decreasing within a user.
        feedback: shape (R, F), int8: 1 did, 0 did not, -1 (:data:`UNKNOWN`) not recorded.
        behaviours: F names; the first is the one that is rewarded (click).
        randomised: shape (R,), bool: the item was chosen at random, not by the platform's policy.
    """

    user: Int32Array
    item: Int32Array
    time_ms: IntArray
    feedback: Int8Array
    behaviours: tuple[str, ...]
    randomised: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name in ("item", "time_ms", "feedback", "randomised"):
            _check_length(name, getattr(self, name), len(self.user))
        if self.feedback.ndim != 2 or self.feedback.shape[1] != len(self.behaviours):
            raise DataError(
                f"feedback: shape {self.feedback.shape} does not fit the {len(self.behaviours)} behaviours "
                f"{', '.join(self.behaviours)}; give one column per behaviour"
            )
        for rows in pieces(len(self)):
            part = self.feedback[rows]
            if len(bad := part[(part < UNKNOWN) | (part > 1)]):
                raise DataError(f"feedback: found {bad[0]}; use 1 (did), 0 (did not) or -1 (not recorded)")
            rows = slice(rows.start, rows.stop + 1)  # and the next row, so that every pair of neighbours is compared
            step = np.diff(self.user[rows])
            if (step < 0).any() or ((step == 0) & (np.diff(self.time_ms[rows]) < 0)).any():
                raise DataError(
                    "log: rows are not sorted by user, then time; sort them with np.lexsort((time_ms, user))"
                )

    def __len__(self) -> int:
        """Number of rows, R."""
        return len(self.user)


class Tables(NamedTuple):
    """The result of a reader, before the splits."""

    catalog: Catalog
    population: Population
    log: InteractionLog


@dataclass(frozen=True, repr=False)
class SessionData:
    """A whole data set: users, items, interactions, and the splits.

    Attributes:
        name: e.g. ``"kuairand-pure"`` or ``"twin"``.
        catalog: the items.
        population: the users.
        log: the interactions.
        test_from_ms: rows at or after this time are test rows, which only simulator cards use.
        valid_from_ms: rows in [valid_from_ms, test_from_ms) are for early stopping and calibration.
        held_out: shape (U,), bool: users for evaluation, from whom no agent learns.
        licence: of the data, as pages state it; empty where it is not known. None: as the registry says of the name.
        citation: of the data, likewise.
    """

    name: str
    catalog: Catalog
    population: Population
    log: InteractionLog
    test_from_ms: int
    valid_from_ms: int
    held_out: NDArray[np.bool_]
    licence: str | None = None
    citation: str | None = None

    def __post_init__(self) -> None:
        _check_length("held_out", self.held_out, self.population.n_users)
        _check_range("log.user", self.log.user, self.population.n_users)
        _check_range("log.item", self.log.item, self.catalog.n_items)
        if not self.valid_from_ms < self.test_from_ms:
            raise DataError(f"valid_from_ms={self.valid_from_ms} is not before test_from_ms={self.test_from_ms}")
        found = np.zeros(3, dtype=np.bool_)
        for rows in pieces(len(self.log)):
            t = self.log.time_ms[rows]
            valid, test = t >= self.valid_from_ms, t >= self.test_from_ms
            found |= np.array([not valid.all(), (valid & ~test).any(), test.any()])
        for split, there in zip(("training", "validation", "test"), found, strict=True):
            if not there:
                raise DataError(f"{self.name}: the {split} split has no row; give a log that spans more days")
        for split, users in (("training", ~self.held_out), ("held-out", self.held_out)):
            if not users.any():
                raise DataError(f"{self.name}: there is no {split} user; give at least two users or another share")

    def __repr__(self) -> str:
        """Name and sizes: the arrays would fill pages of any message that prints an environment's arguments."""
        return (
            f"SessionData({self.name!r}, {self.population.n_users} users, {self.catalog.n_items} items, "
            f"{len(self.log)} rows)"
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every array and name (64 hex digits): the key of caches and checkpoints.

        Licence and citation are no part of it.
        """
        digest = hashlib.sha256()
        catalog, population, log = self.catalog, self.population, self.log
        words = (
            *(catalog.category_names, catalog.features.names, catalog.features.values),
            *(population.features.names, population.features.values, log.behaviours),
        )
        digest.update(repr((words, self.test_from_ms, self.valid_from_ms)).encode())
        further = () if catalog.further is None else (catalog.further,)
        for array in (
            *(catalog.item_ids, catalog.category, *further, catalog.features.codes),
            *(population.user_ids, population.features.codes),
            *(log.user, log.item, log.time_ms, log.feedback, log.randomised, self.held_out),
        ):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def pieces(n_rows: int) -> Iterator[slice]:
    """Slices of about a million rows that together are [0, n_rows).

    A log may be a view of files larger than memory, so no array of its size may be made at once.
    """
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, n_rows, _ROWS_AT_ONCE))


def _check_length(name: str, array: NDArray[np.generic], expected: int) -> None:
    if len(array) != expected:
        raise DataError(f"{name}: {len(array)} rows where {expected} are needed; give one per id")


def _check_ids(name: str, ids: IntArray) -> None:
    if len(ids) == 0:
        raise DataError(f"{name}: empty; at least one id is needed")
    if (np.diff(ids) <= 0).any():
        raise DataError(f"{name}: not strictly increasing; sort the ids and drop repeated ones")


def _check_range(name: str, codes: NDArray[np.integer], size: int) -> None:
    if len(codes) and not (int(codes.min()) >= 0 and int(codes.max()) < size):
        bad = int(codes.min()) if codes.min() < 0 else int(codes.max())
        raise DataError(f"{name}: code {bad} is outside [0, {size}); encode it or extend the vocabulary")
