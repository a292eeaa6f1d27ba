"""Reading the columns of a CSV file strictly: a damaged file is an error that names it, never a table with holes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from rapport.datasets.schema import DataError, Features, Int32Array, IntArray

AGAIN = "get it again with `rapport data fetch`, or unpack the original archive again"


def read_csv(path: Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read the named columns of a CSV file with a header, and nothing but whole rows.

    Args:
        path: the file.
        columns: Arrow type of each column wanted. Integers must be present in every row; floats may be empty
            (null); text is taken as it stands, empty included.

    Raises:
        DataError: the file is missing, empty, cut off, lacks a column, or holds a value of another type.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; {AGAIN}")
    header, whole = _ends(path)
    if missing := [name for name in columns if name not in header]:
        raise DataError(
            f"{path}: no column {missing[0]!r} ({len(missing)} missing); found {', '.join(header) or 'none'}; {AGAIN}"
        )
    if not whole:
        raise DataError(f"{path}: the last line is cut off, so the file is only half there; {AGAIN}")
    options = pacsv.ConvertOptions(
        column_types=dict(columns), include_columns=list(columns), strings_can_be_null=False, null_values=[""]
    )
    try:
        table = pacsv.read_csv(path, convert_options=options)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {error}; the file is damaged; {AGAIN}") from error
    for name, kind in columns.items():
        if pa.types.is_integer(kind) and table[name].null_count:
            raise DataError(f"{path}: column {name!r} is empty in {table[name].null_count} row(s); {AGAIN}")
    return table


def integers(table: pa.Table, name: str) -> IntArray:
    """Return one integer column as an int64 array, shape (rows,)."""
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def sorted_ids(table: pa.Table, name: str, path: Path) -> tuple[IntArray, IntArray]:
    """Return the ids in increasing order and the row order that sorts them, shapes (N,) and (N,).

    Raises:
        DataError: the table is empty or an id occurs twice.
    """
    ids = integers(table, name)
    if len(ids) == 0:
        raise DataError(f"{path}: has a header but no row; {AGAIN}")
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(twice := ids[1:][np.diff(ids) == 0]):
        raise DataError(f"{path}: {name} {twice[0]} occurs twice; keep one row per {name}")
    return ids, order


def join(ids: IntArray, wanted: IntArray, what: str) -> Int32Array:
    """Return the position of every wanted id in the increasing ``ids``, shape of ``wanted``.

    Args:
        ids: shape (N,), strictly increasing.
        wanted: shape (R,).
        what: how to begin the error, e.g. ``"log.csv: video_id"``, and where the ids should have been.

    Raises:
        DataError: an id is not there.
    """
    position = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    stray = ids[position] != wanted
    if stray.any():
        raise DataError(
            f"{what}: {wanted[stray][0]} is unknown there ({int(stray.sum())} row(s) do not join); "
            "use files of one and the same release"
        )
    return position.astype(np.int32)


def encode(columns: Mapping[str, Sequence[str] | NDArray[np.str_]]) -> Features:
    """Code text columns of N rows each: values sorted by name, empty text shown as ``missing``."""
    values: list[tuple[str, ...]] = []
    codes: list[IntArray] = []
    for column in columns.values():
        text = np.asarray(column, dtype=np.str_)
        vocabulary, inverse = np.unique(np.where(text == "", "missing", text), return_inverse=True)
        values.append(tuple(str(v) for v in vocabulary))
        codes.append(inverse)
    return Features(tuple(columns), tuple(values), np.stack(codes, axis=1).astype(np.int32))


def text(table: pa.Table, name: str, order: IntArray) -> NDArray[np.str_]:
    """Return one text column, rows taken in the given order, shape (rows,)."""
    return np.asarray(table[name].to_pylist(), dtype=np.str_)[order]


def _ends(path: Path) -> tuple[list[str], bool]:
    """Return the header fields, and whether the file ends with a whole line."""
    with path.open("rb") as file:
        first = file.readline()
        file.seek(0, 2)
        if file.tell():
            file.seek(-1, 2)
        last = file.read(1)
    header = next(csv.reader([first.decode("utf-8-sig", errors="replace").strip()]), [])
    return header, last == b"\n"
