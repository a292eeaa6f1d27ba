"""Reading the columns of a CSV file strictly: a damaged file is an error that names it, never a table with holes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from rapport.datasets.files.reading import reading
from rapport.datasets.schema import DataError, Features, Int32Array, IntArray

LONGEST_HEADER = 1 << 20
"""Bytes of a file's first line."""
AGAIN = "get it again with `rapport data fetch`, or unpack the original archive again"


def read_csv(path: Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Read the named columns of a CSV file with a header; a row that is cut off is an error.

    Args:
        path: the file.
        columns: Arrow type of each column wanted. Integers must be present in every row; floats may be empty
            (null); text is unchanged and may be empty.

    Raises:
        DataError: the file is missing, empty, cut off, lacks a column, or holds a value of another type.
    """
    check_ends(path, columns)
    try:
        table = pacsv.read_csv(path, convert_options=_conversion(columns))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {error}; the file is damaged; {AGAIN}") from error
    _check_integers(path, table, columns)
    return table


def csv_batches(path: Path, columns: Mapping[str, pa.DataType], block_bytes: int = 1 << 24) -> Iterator[pa.Table]:
    """Read the named columns piece by piece, in file order and in memory that does not grow with the file.

    Args:
        path: the file; text in it must not contain line breaks.
        columns: as in :func:`read_csv`.
        block_bytes: bytes of the file in one piece, about.

    Raises:
        DataError: as :func:`read_csv`; a bad value is found when its piece is reached.
    """
    check_ends(path, columns)
    try:
        options = pacsv.ReadOptions(block_size=block_bytes)
        with pacsv.open_csv(path, read_options=options, convert_options=_conversion(columns)) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                _check_integers(path, table, columns)
                yield table
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {error}; the file is damaged; {AGAIN}") from error


def check_ends(path: Path, columns: Iterable[str]) -> None:
    """Check that a CSV file exists, has the columns, and ends with a whole line.

    Raises:
        DataError: one of these does not hold.
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


def _conversion(columns: Mapping[str, pa.DataType]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(
        column_types=dict(columns), include_columns=list(columns), strings_can_be_null=False, null_values=[""]
    )


def _check_integers(path: Path, table: pa.Table, columns: Mapping[str, pa.DataType]) -> None:
    for name, kind in columns.items():
        if pa.types.is_integer(kind) and table[name].null_count:
            raise DataError(f"{path}: column {name!r} is empty in {table[name].null_count} row(s); {AGAIN}")


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
        what: beginning of the error message: column, and the table of the ids, e.g. ``"log.csv: video_id, in ..."``.

    Raises:
        DataError: an id is not in ``ids``.
    """
    if ids[-1] - ids[0] == len(ids) - 1:  # ids without gaps, such as KuaiRand's: no search among millions
        position: IntArray = np.clip(wanted - ids[0], 0, len(ids) - 1)
    else:
        position = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    stray = ids[position] != wanted
    if stray.any():
        raise DataError(
            f"{what}: {wanted[stray][0]} is unknown there ({int(stray.sum())} row(s) do not join); "
            "use files of one and the same release"
        )
    return position.astype(np.int32)


def encode(columns: Mapping[str, Sequence[str] | NDArray[np.str_]]) -> Features:
    """Encode text columns of N rows each: values sorted by name, empty text as ``missing``."""
    values: list[tuple[str, ...]] = []
    codes: list[IntArray] = []
    for column in columns.values():
        text = np.asarray(column, dtype=np.str_)
        vocabulary, inverse = np.unique(np.where(text == "", "missing", text), return_inverse=True)
        values.append(tuple(str(v) for v in vocabulary))
        codes.append(inverse)
    return Features(tuple(columns), tuple(values), np.stack(codes, axis=1).astype(np.int32))


def encode_text(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> Features:
    """Encode Arrow columns of text (or dictionaries of text) as :func:`encode` does, without copying the text."""
    values: list[tuple[str, ...]] = []
    codes: list[Int32Array] = []
    for column in columns.values():
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
        indices = np.asarray(coded.indices.to_numpy())
        words = [word or "missing" for word in coded.dictionary.to_pylist()]
        used = np.bincount(indices, minlength=len(words)) > 0
        vocabulary = sorted({word for word, there in zip(words, used, strict=True) if there})
        place = {word: code for code, word in enumerate(vocabulary)}
        values.append(tuple(vocabulary))
        codes.append(np.array([place.get(word, -1) for word in words], dtype=np.int32)[indices])
    return Features(tuple(columns), tuple(values), np.stack(codes, axis=1))


def text(table: pa.Table, name: str, order: IntArray) -> NDArray[np.str_]:
    """Return one text column in the given order of rows, shape (rows,)."""
    return np.asarray(table[name].to_pylist(), dtype=np.str_)[order]


def _ends(path: Path) -> tuple[list[str], bool]:
    """Return the header fields, and whether the file ends with a whole line."""
    with path.open("rb") as file:
        first = file.readline(LONGEST_HEADER)
        file.seek(0, 2)
        if file.tell():
            file.seek(-1, 2)
        last = file.read(1)
    with reading(path, "the header", f"the file is damaged; {AGAIN}"):
        if len(first) >= LONGEST_HEADER:
            raise ValueError(f"its first line has more than {LONGEST_HEADER:,} bytes")
        header = next(csv.reader([first.decode("utf-8-sig", errors="replace").strip()]), [])
    return header, last == b"\n"
