"""Nominal columns of a custom log, whose values are names: ids, categories and categorical features.

One rule for frames and files: a name is the text of its value, and no number is guessed from it. Where every name is
written as a whole number, names are ordered by size, otherwise alphabetically.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rapport.datasets.schema import DataError, Int32Array

UNKNOWN_CATEGORY = "Unknown"
"""Category of items without one."""
MISSING = ("", "NULL", "null", r"\N", "NA", "N/A", "NaN", "nan", "None", "<NA>")
"""Texts that stand for a missing id, time or number."""
NO_NAME = ("", "NULL", "null", r"\N")
"""Texts that stand for a missing category or feature; ``NA`` there is a name, such as Namibia's."""
MOST_LABELS = 32
"""Categories that an item may have."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
WHOLE_NUMBER = r"-?(0|[1-9][0-9]{0,17})"


@dataclass(frozen=True)
class Labels:
    """A column of items that holds several categories each, such as ``Drama|Comedy``; in whatever order.

    Attributes:
        column: a column of text. Columns whose cells are lists need no separator: name them alone.
        separator: what stands between two categories; spaces beside it are no part of a name.
    """

    column: str
    separator: str = "|"

    def __post_init__(self) -> None:
        if not self.separator.strip():
            raise DataError(f"separator={self.separator!r} of category {self.column!r}; give one such as '|'")


def missing(column: pd.Series[Any], texts: tuple[str, ...] = MISSING) -> NDArray[np.bool_]:
    """Which cells are missing, shape (rows,): empty ones, and texts that stand for it."""
    gaps = np.asarray(column.isna(), dtype=np.bool_)
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(column.dtype):
        cells = column.astype(object)
        if pd.api.types.infer_dtype(cells, skipna=True) == "string":
            return np.asarray(gaps | cells.isin(texts))
        return gaps | np.array([isinstance(cell, str) and cell in texts for cell in cells], dtype=np.bool_)
    return gaps


def no_gaps(column: pd.Series[Any], what: str) -> None:
    """Check that no cell is missing.

    Raises:
        DataError: one is; the message names the first row, counted from 0, and what stands there.
    """
    gaps = np.flatnonzero(missing(column))
    if len(gaps):
        first = column.iloc[gaps[0]]
        text = f" ({first!r})" if isinstance(first, str) and first else ""
        raise DataError(
            f"{what}: column {column.name!r} is empty in {len(gaps)} row(s), the first being row {gaps[0]}{text}; "
            "fill them or drop them"
        )


def ids(column: pd.Series[Any], what: str) -> NDArray[Any]:
    """Ids as int64 where they are whole numbers, else as an object array of text.

    Raises:
        DataError: an id is missing, is no name or whole number, or its type rounds it.
    """
    refuse_objects(column, what)
    no_gaps(column, what)
    kind = pd.api.types.infer_dtype(column, skipna=False)
    if kind == "integer":
        wide = [value for value in (int(column.min()), int(column.max())) if not -(1 << 63) <= value < 1 << 63]
        if wide:
            raise DataError(f"{what}: {column.name} {wide[0]} does not fit into 64 bits; use .astype(str)")
        return column.to_numpy(dtype=np.int64)
    if pd.api.types.is_float_dtype(column):
        numbers = whole_floats(column, what)
        if len(odd := numbers[~(numbers % 1 == 0)]):
            raise DataError(f"{what}: {column.name} {odd[0]} is no id; give whole numbers or text")
        return numbers.astype(np.int64)
    if kind.startswith("mixed"):
        _refuse_mixture(column, what)
    return column.astype(str).to_numpy(dtype=object)


def whole_floats(column: pd.Series[Any], what: str) -> NDArray[np.float64]:
    """Whole numbers kept as floats, NaN where missing.

    Raises:
        DataError: one is so large that its type cannot tell it from its neighbours.
    """
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    dtype: Any = column.dtype
    kept = np.dtype(getattr(dtype, "numpy_dtype", dtype))
    limit = 2.0 ** (np.finfo(kept if kept.kind == "f" else np.float64).nmant + 1)
    if len(odd := numbers[np.isfinite(numbers) & (np.abs(numbers) > limit)]):
        raise DataError(
            f"{what}: column {column.name!r} holds {odd[0]:.0f} as {column.dtype}, which rounds numbers above "
            f"{limit:.0f}, so that different ones become equal; read it as whole numbers or as text"
        )
    return numbers


def named(column: pd.Series[Any], what: str) -> tuple[NDArray[np.int64], list[str]]:
    """Encode a column: codes, shape (rows,), -1 where missing, and the names in order.

    Raises:
        DataError: a value is no name: a fraction, bytes or a list; or its type rounds it.
    """
    refuse_objects(column, what)
    if pd.api.types.infer_dtype(column, skipna=True) in ("floating", "mixed-integer-float"):
        numbers = whole_floats(column, what)
        if len(odd := numbers[(numbers % 1 != 0) & ~np.isnan(numbers)]):
            raise _fractions(column, f"{odd[0]:g}", what)
        column = pd.Series(numbers, name=column.name).astype("Int64")
    codes, values = pd.factorize(column)
    texts = ["" if text in NO_NAME else text for text in map(str, values)]
    if all(_NUMBER.fullmatch(text) for text in texts if text):
        if odd_text := next((text for text in texts if float(text or 0) % 1 != 0), None):
            raise _fractions(column, odd_text, what)
        if all(text.endswith(".0") for text in texts if text):  # whole numbers that were kept as floats
            texts = [text.removesuffix(".0") for text in texts]
    names = _ordered(set(texts) - {""})
    place = {name: code for code, name in enumerate(names)}
    lookup = np.array([*(place.get(text, -1) for text in texts), -1], dtype=np.int64)
    return lookup[codes], names


def categories(
    column: pd.Series[Any], separator: str | None, what: str
) -> tuple[Int32Array, Int32Array | None, tuple[str, ...]]:
    """Categories of each item: the first, shape (N,); the others, (N, L - 1), if any item has several; and the names.

    An item's categories are taken in the order of the names, whatever order they are written in, each once. Items
    without one get the last one, ``Unknown``.

    Args:
        column: one name for each item, or a list of names.
        separator: between names in a cell of text; None: the cell is one name.
        what: name of the frame, for messages.

    Raises:
        DataError: as of :func:`named`, or an item has more than :data:`MOST_LABELS` categories.
    """
    if separator is None and not any(map(_is_list, column)):
        return _unknown_last(*named(column, what), None)
    cells = [*_cells(column, separator)]
    sizes = np.array([len(cell) for cell in cells], dtype=np.int64)
    row = np.repeat(np.arange(len(cells)), sizes)
    flat: pd.Series[Any] = pd.Series([name for cell in cells for name in cell], name=column.name, dtype=object)
    codes, names = named(flat.infer_objects(), what)
    pairs = np.unique(np.stack([row, codes])[:, codes >= 0], axis=1)
    held = np.bincount(pairs[0], minlength=len(cells))
    if (most := int(held.max(initial=0))) > MOST_LABELS:
        raise DataError(
            f"{what}: row {held.argmax()} has {most} categories in column {column.name!r}; give at most {MOST_LABELS}"
        )
    labels = np.full((len(cells), max(most, 1)), -1, dtype=np.int32)
    place = np.arange(pairs.shape[1]) - np.repeat(np.cumsum(held) - held, held)
    labels[pairs[0], place] = pairs[1]
    return _unknown_last(labels[:, 0], names, labels[:, 1:])


def _unknown_last(
    first: NDArray[np.integer], names: list[str], further: Int32Array | None
) -> tuple[Int32Array, Int32Array | None, tuple[str, ...]]:
    if (first < 0).any():
        if UNKNOWN_CATEGORY not in names:
            names = [*names, UNKNOWN_CATEGORY]
        first = np.where(first < 0, names.index(UNKNOWN_CATEGORY), first)
    several = further is not None and further.shape[1] > 0
    return first.astype(np.int32), further if several else None, tuple(names)


def _cells(column: pd.Series[Any], separator: str | None) -> Iterator[list[Any]]:
    """The names in each cell, none of them missing."""
    for value in column.astype(object):
        if _is_list(value):
            yield [name for name in value if not (name is None or name is pd.NA or name != name)]
        elif value is None or value is pd.NA or value != value:
            yield []
        elif separator is not None and isinstance(value, str):
            yield [name for part in value.split(separator) if (name := part.strip()) not in NO_NAME]
        else:
            yield [value]


def _fractions(column: pd.Series[Any], value: str, what: str) -> DataError:
    return DataError(
        f"{what}: column {column.name!r} holds {value}; cut numbers with fractions into ranges: "
        f"Bins({column.name!r}, 5)"
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _ordered(names: set[str]) -> list[str]:
    """By size where all are whole numbers, else alphabetically."""
    if all(re.fullmatch(WHOLE_NUMBER, name) for name in names):
        return sorted(names, key=int)
    return sorted(names)


def refuse_objects(column: pd.Series[Any], what: str) -> None:
    """Refuse bytes and lists, which have no text of their own."""
    if pd.api.types.infer_dtype(column, skipna=True) not in ("bytes", "mixed", "mixed-integer"):
        return
    for row, value in enumerate(column):
        if isinstance(value, bytes | bytearray):
            raise DataError(f"{what}: column {column.name!r} holds bytes in row {row}; decode them to text (UTF-8)")
        if _is_list(value) or isinstance(value, dict):
            raise DataError(
                f"{what}: column {column.name!r} holds {_short(value)} in row {row}; only an item's category may be a "
                "list: give one name or number a cell"
            )


def _refuse_mixture(column: pd.Series[Any], what: str) -> None:
    texts = np.array([isinstance(value, str) for value in column])
    if texts.any() and not texts.all():
        text, other = column.iloc[int(texts.argmax())], column.iloc[int(texts.argmin())]
        raise DataError(
            f"{what}: column {column.name!r} holds text such as {text!r} beside {_short(other)}; make all alike, e.g. "
            "with .astype(str)"
        )


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
