"""Columns of a user's CSV and Parquet files as frames."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from rapport.datasets.schema import DataError

_WHOLE_NUMBER = r"-?(0|[1-9][0-9]{0,17})"


def read_columns(path: Path, columns: list[str], ids: tuple[str, ...]) -> pd.DataFrame:
    """Read columns of a CSV file (also compressed) or, if its name ends in ``.parquet``, of a Parquet file.

    Args:
        path: the file.
        columns: the columns to read; repetitions are ignored.
        ids: columns of ids, which are read as text from CSV files, so that ``007`` is not 7.

    Raises:
        DataError: the file cannot be read or lacks a column.
    """
    columns = list(dict.fromkeys(columns))
    try:
        parquet = path.suffix == ".parquet"
        there = pq.read_schema(path).names if parquet else pacsv.open_csv(path).schema.names
        if missing := [name for name in columns if name not in there]:
            raise DataError(
                f"{path}: no column {missing[0]!r} ({len(missing)} missing); found {', '.join(there)}; "
                "name the right one in the manifest"
            )
        table = pq.read_table(path, columns=columns) if parquet else _read_csv(path, columns, ids)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}; give a CSV (also .csv.gz) or Parquet file with a header") from error
    frame: pd.DataFrame = table.to_pandas()
    return frame


def whole_numbers(column: str, *frames: pd.DataFrame) -> None:
    """Convert ids that were read as text to whole numbers, in place, if all ids of all frames are written as such.

    With an id such as ``007`` they stay text in every frame.
    """
    texts = [frame for frame in frames if not pd.api.types.is_integer_dtype(frame[column])]
    distinct = [pd.Series(frame[column].unique()) for frame in texts]
    if all(ids.notna().all() and ids.astype(str).str.fullmatch(_WHOLE_NUMBER).all() for ids in distinct):
        for frame in texts:
            frame[column] = frame[column].astype("int64")


def _read_csv(path: Path, columns: list[str], ids: tuple[str, ...]) -> pa.Table:
    return pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in ids},
            include_columns=columns,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
