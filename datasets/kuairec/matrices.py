"""The two matrices of KuaiRec: the fully observed users' watch ratios, and the log of all users."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import AGAIN, csv_batches, integers, join
from rapport.datasets.schema import DataError, FloatArray, Int32Array, IntArray, InteractionLog

logger = logging.getLogger(__name__)

CLIP = 5.0
"""Watch ratios of the truth are clipped here, as in EasyRL4Rec: a looped video counts as five views at most."""
LEAST_DENSITY = 0.95
"""Below this share of observed pairs the small matrix is damaged: 99.6 % are published."""
MOST_UNTIMED = 0.01
"""A larger share of log rows without a time is an error; fewer are dropped with a warning."""

SMALL_FILE = "small_matrix.csv"
BIG_FILE = "big_matrix.csv"
ITEM_FILE = "kuairec_caption_category.csv"
USER_FILE = "user_features.csv"
_PAIR = {name: pa.int64() for name in ("user_id", "video_id", "play_duration")} | {"watch_ratio": pa.float64()}
_ROW = np.dtype([("user", np.int32), ("item", np.int32), ("time_ms", np.int64), ("ratio", np.float32)])


class Truth(NamedTuple):
    """The small matrix, dense."""

    users: IntArray
    """Positions in the population, shape (S,), increasing."""
    videos: IntArray
    """Positions in the file of videos, shape (N,), increasing."""
    watch_ratio: FloatArray
    """Shape (S, N), in [0, CLIP]; 0 where blocked."""
    blocked: NDArray[np.bool_]
    """Shape (S, N): pairs without a row."""


def read_truth(path: Path, user_ids: IntArray, video_ids: IntArray) -> Truth:
    """Read the small matrix; its times are not used (they are missing where a video was shown to complete it).

    Args:
        path: the file.
        user_ids: ids of all users, shape (U,), increasing.
        video_ids: ids of all videos, shape (V,), increasing.

    Raises:
        DataError: damaged, an unknown id, a pair twice, or fewer than 95 % of the pairs.
    """
    user, video, ratio = _pairs(path, user_ids, video_ids)
    users, row = np.unique(user, return_inverse=True)
    videos, column = np.unique(video, return_inverse=True)
    shape = len(users), len(videos)
    density = len(user) / (shape[0] * shape[1])
    if density < LEAST_DENSITY:
        raise DataError(
            f"{path}: {len(user):,} rows fill {density:.1%} of {shape[0]:,} users x {shape[1]:,} videos; at least "
            f"{LEAST_DENSITY:.0%} is needed (99.6% is published), so the file is incomplete; {AGAIN}"
        )
    count = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape)
    if (count > 1).any():
        u, v = np.argwhere(count > 1)[0]
        raise DataError(
            f"{path}: user_id {user_ids[users[u]]} and video_id {video_ids[videos[v]]} occur {count[u, v]} times "
            "together; keep one row per pair"
        )
    watch_ratio = np.zeros(shape, dtype=np.float32)
    watch_ratio[row, column] = np.minimum(ratio, CLIP)
    blocked = count == 0
    logger.info("%s: %s of %s pairs are blocked", path, f"{int(blocked.sum()):,}", f"{blocked.size:,}")
    return Truth(users.astype(np.int64), videos.astype(np.int64), watch_ratio, blocked)


def _pairs(path: Path, user_ids: IntArray, video_ids: IntArray) -> tuple[Int32Array, Int32Array, FloatArray]:
    """Return positions of user and video and the watch ratio of every row, each of shape (rows,)."""
    pieces, first = [], 2
    for table in csv_batches(path, _PAIR):
        ratio = _ratio(table, path, first).astype(np.float32)
        pieces.append((*_positions(table, path, user_ids, video_ids), ratio))
        first += table.num_rows
    if not sum(len(piece[0]) for piece in pieces):
        raise DataError(f"{path}: has a header but no row; {AGAIN}")
    user, video, ratio = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return user, video, ratio


def _positions(table: pa.Table, path: Path, user_ids: IntArray, video_ids: IntArray) -> tuple[Int32Array, Int32Array]:
    user = join(user_ids, integers(table, "user_id"), f"{path}: user_id, in {USER_FILE}")
    return user, join(video_ids, integers(table, "video_id"), f"{path}: video_id, in {ITEM_FILE}")


def _ratio(table: pa.Table, path: Path, first: int) -> NDArray[np.float64]:
    """Return the watch ratios of a piece that begins in the given line; play time and ratio must be 0 or more."""
    for name in ("play_duration", "watch_ratio"):
        values: NDArray[np.float64] = table[name].to_numpy().astype(np.float64)
        if len(bad := np.flatnonzero(~((values >= 0) & np.isfinite(values)))):
            line = first + bad[0]
            raise DataError(f"{path}: line {line}: {name} is {values[bad[0]]:g}; it must be 0 or more; {AGAIN}")
    return values


def read_log(
    path: Path, user_ids: IntArray, video_ids: IntArray, catalogue: IntArray, click_at: float
) -> InteractionLog:
    """Read the big matrix piece by piece and keep the rows on the catalogue, sorted by user, then time.

    Rows that are equal in user, video, millisecond and watch ratio are duplicates, which the publisher leaves in, and
    are kept once. A video watched again later is another row.

    Args:
        path: the file.
        user_ids: ids of all users, shape (U,), increasing.
        video_ids: ids of all videos, shape (V,), increasing.
        catalogue: positions of the catalogue's videos among all, shape (N,), increasing.
        click_at: least watch ratio that counts as a click.

    Raises:
        DataError: damaged, an unknown id, too many rows without a time, or no row on the catalogue.
    """
    item_of = np.full(len(video_ids), -1, dtype=np.int32)
    item_of[catalogue] = np.arange(len(catalogue))
    pieces, first, untimed = [np.empty(0, dtype=_ROW)], 2, 0
    for table in csv_batches(path, _PAIR | {"timestamp": pa.float64()}):
        ratio = _ratio(table, path, first)
        user, video = _positions(table, path, user_ids, video_ids)
        seconds = table["timestamp"].to_numpy()
        timed = seconds > 0
        untimed += int((~timed).sum())
        kept = np.flatnonzero(timed & (item_of[video] >= 0))
        piece = np.empty(len(kept), dtype=_ROW)
        piece["user"], piece["item"], piece["ratio"] = user[kept], item_of[video[kept]], ratio[kept]
        piece["time_ms"] = np.rint(seconds[kept] * 1_000)
        pieces.append(piece)
        first += table.num_rows
    _check_times(path, untimed, first - 2)
    return _sorted_log(np.concatenate(pieces), path, click_at)


def _check_times(path: Path, untimed: int, rows: int) -> None:
    if untimed > MOST_UNTIMED * rows:
        raise DataError(f"{path}: timestamp is missing or not positive in {untimed:,} of {rows:,} rows; {AGAIN}")
    if untimed:
        logger.warning("%s: dropped %d of %d rows: their timestamp is missing or not positive", path, untimed, rows)


def _sorted_log(rows: NDArray[np.void], path: Path, click_at: float) -> InteractionLog:
    if len(rows) == 0:
        raise DataError(f"{path}: no row is about a video of {SMALL_FILE}; use files of one and the same release")
    order = np.lexsort((rows["ratio"], rows["item"], rows["time_ms"], rows["user"]))
    rows = rows[order]
    again = rows[1:] == rows[:-1]
    rows = rows[np.append(True, ~again)]
    if again.any():
        logger.info("%s: %d rows report a viewing once more and are dropped", path, int(again.sum()))
    return InteractionLog(
        user=np.ascontiguousarray(rows["user"]),
        item=np.ascontiguousarray(rows["item"]),
        time_ms=np.ascontiguousarray(rows["time_ms"]),
        feedback=(rows["ratio"] >= np.float32(click_at)).astype(np.int8)[:, None],
        behaviours=("click",),
        randomised=np.zeros(len(rows), dtype=np.bool_),
    )
