"""What is wrong with a copy of KuaiRec is said, with the file, the field, the value and the remedy."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from rapport.datasets.files import csv_tables as tables
from rapport.datasets.kuairec import matrices as kuairec_matrices
from rapport.datasets.kuairec.load import load_kuairec
from rapport.datasets.schema import DataError


@pytest.fixture
def folder(kuairec_files: ModuleType, tmp_path: Path) -> Path:
    """The data folder of a small copy in tmp_path."""
    data: Path = kuairec_files.write_kuairec(tmp_path, reported_twice=0.01)
    return data


@pytest.mark.parametrize("file", ["small_matrix.csv", "big_matrix.csv"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("watch_ratio", -0.5, r"line 5: watch_ratio is -0\.5; it must be 0 or more; get it again"),
        ("watch_ratio", np.nan, r"line 5: watch_ratio is nan; it must be 0 or more"),
        ("watch_ratio", "inf", r"line 5: watch_ratio is inf; it must be 0 or more"),
        ("watch_ratio", "much", r"invalid value 'much'; the file is damaged"),
        ("play_duration", -7, r"line 5: play_duration is -7; it must be 0 or more"),
        ("user_id", 40, r"user_id, in user_features\.csv: 40 is unknown there \(1 row\(s\) do not join\)"),
        ("video_id", 60, r"video_id, in kuairec_caption_category\.csv: 60 is unknown there"),
        ("video_id", np.nan, r"column 'video_id' is empty in 1 row\(s\)"),
    ],
)
def test_bad_rows_of_a_matrix(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path, file: str, column: str, value: object, message: str
) -> None:
    kuairec_files.change(folder / file, kuairec_files.put(column, value))
    with pytest.raises(DataError, match=re.escape(file) + ".*(" + message + ")"):
        load_kuairec(tmp_path)


def test_line_of_a_bad_value_is_counted_over_pieces(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec_files.change(folder / "big_matrix.csv", kuairec_files.put("watch_ratio", -1, row=2_000))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DataError, match=r"line 2002: watch_ratio is -1"):
        patch.setattr(kuairec_matrices, "csv_batches", lambda p, c: tables.csv_batches(p, c, block_bytes=4_096))
        load_kuairec(tmp_path)


def test_pair_twice_in_the_small_matrix(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    path = folder / "small_matrix.csv"
    kuairec_files.change(path, lambda table: pd.concat([table, table.iloc[[5]]]))
    user, video = kuairec_files.frame(path).iloc[5][["user_id", "video_id"]].astype(int)
    with pytest.raises(DataError, match=f"user_id {user} and video_id {video} occur 2 times together; keep one row"):
        load_kuairec(tmp_path)


def test_small_matrix_with_holes(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec_files.change(folder / "small_matrix.csv", lambda table: table.iloc[::2])
    with pytest.raises(DataError, match=r"small_matrix\.csv: 150 rows fill 50\.0% of 12 users x 25 videos"):
        load_kuairec(tmp_path)


@pytest.mark.parametrize(
    "file", ["small_matrix.csv", "big_matrix.csv", "kuairec_caption_category.csv", "item_categories.csv"]
)
def test_cut_off_empty_or_headless_file(folder: Path, tmp_path: Path, file: str) -> None:
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=f"{re.escape(file)}: the last line is cut off"):
        load_kuairec(tmp_path)
    path.write_bytes(whole[whole.index(b"\n") + 1 :])
    with pytest.raises(DataError, match=f"{re.escape(file)}: no column "):
        load_kuairec(tmp_path)
    path.write_bytes(whole[: whole.index(b"\n") + 1])
    with pytest.raises(DataError, match=f"{re.escape(file)}: .*no row"):
        load_kuairec(tmp_path)


def test_rows_without_a_time(
    kuairec_files: ModuleType, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = len(load_kuairec(tmp_path).data.log)
    item = load_kuairec(tmp_path).data.catalog.item_ids[0]
    path = folder / "big_matrix.csv"
    kuairec_files.change(path, lambda table: table.drop_duplicates())
    row = int(kuairec_files.frame(path)["video_id"].eq(item).idxmax())
    kuairec_files.change(path, kuairec_files.put("timestamp", np.nan, row=row))
    with caplog.at_level(logging.WARNING):
        assert len(load_kuairec(tmp_path).data.log) == rows - 1
    assert re.search(r"big_matrix\.csv: dropped 1 of 3000 rows: their timestamp is missing", caplog.text)
    kuairec_files.change(path, lambda table: table.assign(timestamp=table["timestamp"].where(table.index % 10 > 0)))
    with pytest.raises(DataError, match=r"timestamp is missing or not positive in 30\d of 3,000 rows"):
        load_kuairec(tmp_path)


def test_log_of_other_videos(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    catalogue = set(kuairec_files.frame(folder / "small_matrix.csv")["video_id"])
    kuairec_files.change(folder / "big_matrix.csv", lambda table: table[~table["video_id"].isin(catalogue)])
    with pytest.raises(DataError, match=r"big_matrix\.csv: no row is about a video of small_matrix\.csv"):
        load_kuairec(tmp_path)


@pytest.mark.parametrize("cell", ["8", "[8", "[x]", "[-1]", "[8.5]", "", "{}"])
def test_bad_tags(kuairec_files: ModuleType, folder: Path, tmp_path: Path, cell: str) -> None:
    video = int(kuairec_files.frame(folder / "small_matrix.csv")["video_id"].iloc[0])
    kuairec_files.change(folder / "item_categories.csv", kuairec_files.put("feat", cell, row=video))
    with pytest.raises(
        DataError, match=rf"feat is {re.escape(repr(cell))}; it must be a list of tags such as \[27, 9\]"
    ):
        load_kuairec(tmp_path)


def test_video_twice(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec_files.change(folder / "kuairec_caption_category.csv", kuairec_files.put("video_id", 7, row=8))
    with pytest.raises(DataError, match=r"kuairec_caption_category\.csv: video_id 7 occurs twice; keep one row"):
        load_kuairec(tmp_path)


def test_video_without_tags(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    video = int(kuairec_files.frame(folder / "small_matrix.csv")["video_id"].iloc[0])
    kuairec_files.change(folder / "item_categories.csv", lambda table: table.drop(video))
    with pytest.raises(
        DataError, match=rf"item_categories\.csv: video_id of small_matrix\.csv: {video} is unknown there"
    ):
        load_kuairec(tmp_path)


def test_category_that_is_no_number(kuairec_files: ModuleType, folder: Path, tmp_path: Path) -> None:
    kuairec_files.change(folder / "kuairec_caption_category.csv", kuairec_files.put("first_level_category_id", "颜值"))
    with pytest.raises(DataError, match="row 4: first_level_category_id is '颜值' instead of an integer"):
        load_kuairec(tmp_path)


@pytest.mark.parametrize("click_at", [0.0, -1.0, 5.5, float("nan")])
def test_threshold_out_of_range(tmp_path: Path, click_at: float) -> None:
    with pytest.raises(DataError, match=r"click_at=.* is outside \(0, 5\]"):
        load_kuairec(tmp_path, click_at=click_at)
