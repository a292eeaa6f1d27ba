"""Columns of a custom log's frames as codes: ids, times, behaviours and features.

Every error names the frame, the column, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from rapport.datasets.schema import DataError, Int8Array, Int32Array, IntArray

TimeUnit = Literal["s", "ms", "us", "ns"]
"""Of times that are numbers."""

UNKNOWN_CATEGORY = "Unknown"
"""Category of items without one."""

_PER_MS = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}
_LATEST_MS = 1 << 43  # the year 2248


@dataclass(frozen=True)
class Threshold:
    """A behaviour that is derived from a number, such as a rating: it happened if the number is large enough.

    Attributes:
        column: a numeric column of the interactions; an empty cell means that the behaviour is not recorded.
        at_least: the least number with which it happened.
    """

    column: str
    at_least: float


@dataclass(frozen=True)
class Bins:
    """A numeric feature, cut into ranges of about equally many rows.

    Attributes:
        column: a numeric column.
        bins: number of ranges; fewer result if many values are equal.
    """

    column: str
    bins: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= 99:
            raise DataError(f"bins={self.bins} of feature {self.column!r}; give a number from 2 to 99")


def check_columns(frame: pd.DataFrame, what: str, wanted: Iterable[str]) -> None:
    """Check that a frame has columns.

    Raises:
        DataError: a column is missing or occurs twice.
    """
    for name in wanted:
        if name not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            raise DataError(f"{what}: no column {name!r}; found {found or 'none'}; rename one, or name the right one")
        if frame.columns.tolist().count(name) > 1:
            raise DataError(f"{what}: column {name!r} occurs twice; keep one")


def row_ids(column: pd.Series[Any], what: str = "frame") -> pd.Index[Any]:
    """Return the distinct ids in the order of catalogues and populations: whole numbers by size, others as text.

    Entry ``i`` is the id of item or user ``i``, so the result maps indices to ids:
    ``row_ids(items["sku"])[index]``. Whole numbers are kept in ``Catalog.item_ids``; for text it holds 0, 1, 2, ...

    Args:
        column: ids, none missing.
        what: name of the frame, for messages.

    Raises:
        DataError: an id is missing.
    """
    ids: pd.Index[Any] = pd.Index(np.unique(_ids(column, what)))
    return ids


def position(ids: pd.Index[Any], column: pd.Series[Any], what: str, where: str) -> Int32Array:
    """Return the position of each row's id in ``ids``, shape (rows,).

    Args:
        ids: as of :func:`row_ids`.
        column: ids of other rows.
        what: the frame of ``column``, for messages.
        where: the frame of ``ids``, for messages.

    Raises:
        DataError: an id is missing, or is not in ``ids``.
    """
    wanted = _ids(column, what)
    if (wanted.dtype == object) != (ids.dtype.kind not in "iu"):
        kinds = ("text", "whole numbers") if wanted.dtype == object else ("whole numbers", "text")
        raise DataError(
            f"{what}: column {column.name!r} holds {kinds[0]}, such as {wanted[0]!r}, but {kinds[1]} in {where}; "
            "make both alike, e.g. with .astype(str)"
        )
    found = ids.get_indexer(pd.Index(wanted))
    if len(stray := wanted[found < 0]):
        raise DataError(
            f"{what}: {column.name} {stray[0]!r} is not in {where} ({len(stray)} row(s) do not join); "
            f"add it there, or drop these rows"
        )
    return found.astype(np.int32)


def times_ms(column: pd.Series[Any], unit: TimeUnit, what: str) -> IntArray:
    """Return times as milliseconds since 1970 UTC, shape (rows,).

    Args:
        column: numbers of ``unit`` since 1970; dates and times (UTC if they name no time zone); or text in ISO 8601.
        unit: unit of numbers.
        what: name of the frame, for messages.

    Raises:
        DataError: a time is missing, cannot be parsed, or is out of range.
    """
    if unit not in _PER_MS:
        raise DataError(f"time_unit={unit!r} is unknown; choose one of {', '.join(_PER_MS)}")
    _no_gaps(column, what)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        try:
            moments = pd.DatetimeIndex(pd.to_datetime(column, utc=True, format="ISO8601"))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{what}: column {column.name!r} is not a time ({error}); give numbers with time_unit, or text such as "
                "2026-01-31 23:59:00"
            ) from error
        return np.asarray(moments.as_unit("ms").asi8, dtype=np.int64)
    numbers = column.to_numpy()
    times = numbers / _PER_MS[unit]
    if len(odd := numbers[~(np.abs(times) < _LATEST_MS)]):
        raise DataError(
            f"{what}: column {column.name!r} holds {odd[0]}, which is no time in {unit!r} since 1970; "
            "give the right time_unit"
        )
    whole = numbers.dtype.kind in "iu"
    if whole and unit in ("s", "ms"):
        return np.asarray(numbers.astype(np.int64) * (1_000 if unit == "s" else 1))
    if whole:
        return np.asarray(numbers.astype(np.int64) // int(_PER_MS[unit]))
    return np.rint(times).astype(np.int64)


def done(column: pd.Series[Any], at_least: float | None, what: str) -> Int8Array:
    """Return whether a behaviour happened, shape (rows,): 1 did, 0 did not, -1 not recorded.

    Args:
        column: 0 and 1 or truth values, empty where not recorded; or any numbers if ``at_least`` is given.
        at_least: see :class:`Threshold`.
        what: name of the frame, for messages.

    Raises:
        DataError: the column holds anything else.
    """
    numbers = _numbers(column, what, "a behaviour is 0 or 1")
    known = ~np.isnan(numbers)
    if at_least is None:
        if len(odd := numbers[known & (numbers != 0) & (numbers != 1)]):
            raise DataError(
                f"{what}: column {column.name!r} holds {odd[0]:g}; a behaviour is 0 or 1, empty where not recorded; "
                f"for ratings and counts give Threshold({column.name!r}, at_least=...)"
            )
        at_least = 1.0
    return np.where(known, numbers >= at_least, -1).astype(np.int8)


def feature(column: pd.Series[Any], bins: int | None, what: str) -> pa.DictionaryArray:
    """Return a feature as text, empty where it is missing.

    Raises:
        DataError: a feature without bins holds fractions, or one with bins holds no numbers.
    """
    if bins is None:
        codes, names = _named(column, what)
        return _dictionary(codes, names)
    numbers = _numbers(column, what, "only numbers can be cut into bins")
    known = ~np.isnan(numbers)
    if not known.any():
        raise DataError(f"{what}: column {column.name!r} is empty in every row; leave it out")
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.unique(np.quantile(numbers[known], inner, method="lower"))
    names = [f"{i + 2:02d}: {low:g} to {high:g}" for i, (low, high) in enumerate(pairwise(edges))]
    names = [f"01: under {edges[0]:g}", *names, f"{len(edges) + 1:02d}: {edges[-1]:g} or more"]
    codes = np.where(known, np.searchsorted(edges, numbers, side="right"), -1)
    return _dictionary(codes.astype(np.int32), names)


def category(column: pd.Series[Any], what: str) -> tuple[Int32Array, tuple[str, ...]]:
    """Return each item's category and the names in order; items without a category get the last one, ``Unknown``."""
    codes, names = _named(column, what)
    if (codes < 0).any():
        if UNKNOWN_CATEGORY not in names:
            names = [*names, UNKNOWN_CATEGORY]
        codes = np.where(codes < 0, names.index(UNKNOWN_CATEGORY), codes)
    return codes.astype(np.int32), tuple(names)


def _ids(column: pd.Series[Any], what: str) -> NDArray[Any]:
    """Ids as int64 where they are whole numbers, else as an object array of text."""
    _no_gaps(column, what)
    if pd.api.types.infer_dtype(column, skipna=False) == "integer":
        if int(column.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{what}: {column.name} {column.max()} does not fit into 64 bits; use .astype(str)")
        return column.to_numpy(dtype=np.int64)
    if pd.api.types.is_float_dtype(column):
        numbers = column.to_numpy(dtype=np.float64)
        if len(odd := numbers[numbers % 1 != 0]):
            raise DataError(f"{what}: {column.name} {odd[0]} is no id; give whole numbers or text")
        return numbers.astype(np.int64)
    return column.astype(str).to_numpy(dtype=object)


def _no_gaps(column: pd.Series[Any], what: str) -> None:
    gaps = np.flatnonzero(column.isna())
    if len(gaps):
        raise DataError(
            f"{what}: column {column.name!r} is empty in {len(gaps)} row(s), the first being row {gaps[0]}; "
            "fill them or drop them"
        )


def _numbers(column: pd.Series[Any], what: str, rule: str) -> NDArray[np.float64]:
    """Numbers and truth values as floats, NaN where missing."""
    if column.isna().all():
        return np.full(len(column), np.nan)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("integer", "floating", "mixed-integer-float", "boolean", "decimal"):
        value = column[column.notna()].iloc[0]
        raise DataError(f"{what}: column {column.name!r} holds {value!r}; {rule}: convert it to numbers")
    return np.asarray(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))


def _named(column: pd.Series[Any], what: str) -> tuple[NDArray[np.int64], list[str]]:
    """Encode a column: codes (-1 where missing) and the names in order, whole numbers by size and others as text."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("floating", "mixed-integer-float"):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if len(odd := numbers[(numbers % 1 != 0) & ~np.isnan(numbers)]):
            raise DataError(
                f"{what}: column {column.name!r} holds {odd[0]:g}; cut numbers with fractions into ranges: "
                f"Bins({column.name!r}, 5)"
            )
        column = pd.Series(numbers, name=column.name).astype("Int64")
    elif kind != "integer":
        texts = column.astype(object).where(column.notna(), None)
        column = texts.map(lambda value: None if value is None or value == "" else str(value)).astype(object)
    codes, values = pd.factorize(column, sort=True)
    return np.asarray(codes, dtype=np.int64), [str(value) for value in values]


def _dictionary(codes: NDArray[Any], names: list[str]) -> pa.DictionaryArray:
    """Text of the codes; -1 becomes empty text."""
    places = np.where(codes < 0, len(names), codes).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array([*names, ""], type=pa.string()))
