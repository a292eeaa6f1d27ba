"""Columns of a user's CSV and Parquet files as frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from rapport.datasets.custom.nominal import WHOLE_NUMBER, refuse_objects
from rapport.datasets.schema import DataError

_SHOWN = 20
"""Names of columns that a message lists."""


def read_columns(path: Path, columns: list[str], names: tuple[str, ...]) -> pd.DataFrame:
    """Read columns of a CSV file (also compressed) or, if its name ends in ``.parquet``, of a Parquet file.

    Args:
        path: the file.
        columns: the columns to read; repetitions are ignored.
        names: those that hold names (ids, categories, categorical features), which are read as text from CSV files, so
            that ``007`` is not 7.

    Raises:
        DataError: the file cannot be read, is not in UTF-8, or lacks a column or has it twice.
    """
    columns = list(dict.fromkeys(columns))
    try:
        parquet = path.suffix == ".parquet"
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{path}: it is in UTF-16; save it as UTF-8")
        there = pq.read_schema(path).names if parquet else pacsv.open_csv(path).schema.names
        if missing := [name for name in columns if name not in there]:
            raise DataError(
                f"{path}: no column {missing[0]!r} ({len(missing)} missing); found {_listed(there)}; "
                "name the right one in the manifest"
            )
        if twice := [name for name in columns if there.count(name) > 1]:
            raise DataError(f"{path}: column {twice[0]!r} occurs twice; keep one")
        table = pq.read_table(path, columns=columns) if parquet else _read_csv(path, columns, names)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}; save it as UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        remedy = (
            "save it as UTF-8" if "UTF8" in str(error) else "give a CSV (also .csv.gz) or Parquet file with a header"
        )
        raise DataError(f"{path}: {_first_line(error)}; {remedy}") from error
    frame: pd.DataFrame = table.to_pandas()
    return frame


def whole_numbers(column: str, *frames: pd.DataFrame) -> None:
    """Convert ids that were read as text to whole numbers, in place, if all ids of all frames are written as such.

    With an id such as ``007`` they stay text in every frame.
    """
    texts = [frame for frame in frames if not pd.api.types.is_integer_dtype(frame[column])]
    for frame in texts:
        refuse_objects(frame[column], "ids")
    distinct = [pd.Series(frame[column].unique()) for frame in texts]
    if all(ids.notna().all() and ids.astype(str).str.fullmatch(WHOLE_NUMBER).all() for ids in distinct):
        for frame in texts:
            frame[column] = frame[column].astype("int64")


def _read_csv(path: Path, columns: list[str], names: tuple[str, ...]) -> pa.Table:
    return pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            include_columns=columns,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _listed(names: Iterable[str]) -> str:
    """Names of columns as a message shows them: few, short, and without what a terminal would obey."""
    shown = [name if name.isprintable() else ascii(name) for name in (name[:40] for name in names)]
    more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _first_line(error: Exception) -> str:
    """The first line of a message that may quote the file."""
    line = (str(error).splitlines() or [""])[0][:300]
    return line if line.isprintable() else ascii(line)
