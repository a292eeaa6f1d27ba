"""The tab of the application in which each exposure of KuaiRand-Pure was shown, and how long it was watched.

Users click several times as often on some tabs as on others, so a study of satiation has to hold the tab fixed. No
environment reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import integers, join, read_csv
from rapport.datasets.files.directory import data_directory
from rapport.datasets.kuairand.pure import STANDARD_LOGS, find
from rapport.datasets.schema import IntArray, SessionData

UNKNOWN_TAB = -1
_COLUMNS = ("user_id", "video_id", "time_ms", "tab", "play_time_ms")


class Surfaces(NamedTuple):
    """Information of the official files that is not in the log.

    Attributes:
        tab: shape (rows of the log,), int64; -1 if a row is not in the files.
        seconds: mean watch time of an exposure, seconds.
    """

    tab: IntArray
    seconds: float


def surfaces(data: SessionData, root: str | Path | None = None) -> Surfaces | None:
    """Tab of every row of the log and mean watch time, or None if the official files are missing.

    Args:
        data: KuaiRand-Pure as :func:`~rapport.datasets.registry.load.load` gives it.
        root: the data directory.

    Raises:
        DataError: a file is damaged or does not match the data.
    """
    layout = find(data_directory(root))
    if data.name != "kuairand-pure" or layout is None:
        return None
    parts = [_rows(layout.folder / name, data) for name in STANDARD_LOGS]
    user, item, time_ms, tab, played = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((item, time_ms, user))
    known = _keys(user[order], item[order], time_ms[order])
    wanted = _keys(data.log.user, data.log.item, data.log.time_ms)
    found = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return Surfaces(np.where(known[found] == wanted, tab[order][found], UNKNOWN_TAB), float(played.mean() / 1_000))


def _rows(path: Path, data: SessionData) -> tuple[IntArray, ...]:
    table = read_csv(path, dict.fromkeys(_COLUMNS, pa.int64()))
    user = join(data.population.user_ids, integers(table, "user_id"), f"{path}: user_id, in the user features")
    item = join(data.catalog.item_ids, integers(table, "video_id"), f"{path}: video_id, in the video features")
    return user.astype(np.int64), item.astype(np.int64), *(integers(table, name) for name in _COLUMNS[2:])


def _keys(user: NDArray[np.integer], item: NDArray[np.integer], time_ms: IntArray) -> NDArray[np.void]:
    """One comparable value per row, shape (R,), ordered by user, time, item."""
    rows = np.empty(len(user), dtype=[("user", ">i8"), ("time", ">i8"), ("item", ">i8")])
    rows["user"], rows["time"], rows["item"] = user, time_ms, item
    return rows.view("V24")
