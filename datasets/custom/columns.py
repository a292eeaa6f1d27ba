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

from rapport.datasets.custom.nominal import ids, missing, named, no_gaps, refuse_objects
from rapport.datasets.schema import DataError, Int8Array, Int32Array, IntArray

TimeUnit = Literal["s", "ms", "us", "ns"]
"""Of times that are numbers."""

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
    found: pd.Index[Any] = pd.Index(np.unique(ids(column, what)))
    return found


def position(known: pd.Index[Any], column: pd.Series[Any], what: str, where: str) -> Int32Array:
    """Return the position of each row's id in ``known``, shape (rows,).

    Args:
        known: as of :func:`row_ids`.
        column: ids of other rows.
        what: the frame of ``column``, for messages.
        where: the frame of ``known``, for messages.

    Raises:
        DataError: an id is missing, or is not in ``known``.
    """
    wanted = ids(column, what)
    if (wanted.dtype == object) != (known.dtype.kind not in "iu"):
        kinds = ("text", "whole numbers") if wanted.dtype == object else ("whole numbers", "text")
        raise DataError(
            f"{what}: column {column.name!r} holds {kinds[0]}, such as {wanted[0]!r}, but {kinds[1]} in {where}; "
            "make both alike, e.g. with .astype(str)"
        )
    found = known.get_indexer(pd.Index(wanted))
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
        DataError: a time is missing, cannot be parsed, is out of range, or its type rounds it.
    """
    if unit not in _PER_MS:
        raise DataError(f"time_unit={unit!r} is unknown; choose one of {', '.join(_PER_MS)}")
    refuse_objects(column, what)
    no_gaps(column, what)
    column = column.infer_objects()
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        moments = pd.to_datetime(column.astype(object), utc=True, format="ISO8601", errors="coerce")
        if not moments.isna().any():
            return np.asarray(pd.DatetimeIndex(moments).as_unit("ms").asi8, dtype=np.int64)
        column = _numbers_as_text(column, np.asarray(moments.isna()), what)
    numbers = column.to_numpy()
    _check_precision(column, numbers, unit, what)
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


def _numbers_as_text(column: pd.Series[Any], unread: NDArray[np.bool_], what: str) -> pd.Series[Any]:
    """Text that is no date as numbers, or an error that names the value which is neither."""
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    if numbers.notna().mean() >= 0.5:  # a column of numbers: a date among them is the odd one, and not the numbers
        unread = np.asarray(numbers.isna())
    if bad := np.flatnonzero(unread).tolist():
        raise DataError(
            f"{what}: column {column.name!r} is not a time in {len(bad)} row(s), the first being row {bad[0]} "
            f"({column.iloc[bad[0]]!r}); give numbers with time_unit, or text such as 2026-01-31 23:59:00"
        )
    return pd.Series(numbers, name=column.name)


def _check_precision(column: pd.Series[Any], numbers: NDArray[Any], unit: str, what: str) -> None:
    """Refuse times whose type rounds them to more than a unit and a millisecond."""
    if numbers.dtype.kind != "f" or not np.isfinite(numbers).any():
        return
    step = float(np.spacing(np.abs(numbers[np.isfinite(numbers)]).max()))
    if step > 1 and step / _PER_MS[unit] > 1:
        raise DataError(
            f"{what}: column {column.name!r} holds times as {column.dtype}, which rounds {numbers.max():.0f} to steps "
            f"of {step:g} {unit}, so that their order is lost; read them as whole numbers (int64)"
        )


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
        codes, names = named(column, what)
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


def _numbers(column: pd.Series[Any], what: str, rule: str) -> NDArray[np.float64]:
    """Numbers and truth values as floats, NaN where missing."""
    refuse_objects(column, what)
    gaps = missing(column)
    if gaps.all():
        return np.full(len(column), np.nan)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("integer", "floating", "mixed-integer-float", "boolean", "decimal"):
        return np.asarray(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))
    cells = column.astype(object).where(~gaps, None)
    truth = {"true": 1.0, "false": 0.0}
    numbers = pd.to_numeric(
        cells.map(lambda cell: truth.get(cell.lower(), cell) if isinstance(cell, str) else cell), errors="coerce"
    ).to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~gaps & (np.isnan(numbers) | kind.startswith(("date", "time")))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{what}: column {column.name!r} holds {column.iloc[row]!r} in row {row}; {rule}: convert it to numbers"
        )
    return np.asarray(numbers)


def _dictionary(codes: NDArray[Any], names: list[str]) -> pa.DictionaryArray:
    """Text of the codes; -1 becomes empty text."""
    places = np.where(codes < 0, len(names), codes).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array([*names, ""], type=pa.string()))
