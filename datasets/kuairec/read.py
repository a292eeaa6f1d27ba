"""The official files of KuaiRec: read, checked, joined and encoded (see :mod:`rapport.datasets.kuairec.load`)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import AGAIN, check_ends, encode, join, read_csv, sorted_ids, text
from rapport.datasets.kuairand.pure import USER_FEATURES
from rapport.datasets.kuairec.matrices import BIG_FILE, ITEM_FILE, SMALL_FILE, USER_FILE, read_log, read_truth
from rapport.datasets.schema import (
    Catalog,
    DataError,
    FloatArray,
    Int32Array,
    IntArray,
    Population,
    Tables,
)

if TYPE_CHECKING:
    import pandas as pd  # imported where videos are read: it takes longer to import than everything else here

TAG_FILE = "item_categories.csv"
NAMES_FILE = Path(__file__).with_name("names.json")

UNKNOWN_ID = -124
"""The publisher's id of an unknown category."""
UNKNOWN_CATEGORY = "Unknown"
_LEVELS = ("first_level_category_id", "second_level_category_id")
_FIRST_NAME = "first_level_category_name"


class Parts(NamedTuple):
    """Everything in the files that an environment needs; shapes as in
    :class:`rapport.datasets.kuairec.load.KuaiRec`.
    """

    tables: Tables
    truth_users: IntArray
    watch_ratio: FloatArray
    blocked: NDArray[np.bool_]
    tags: Int32Array


@dataclass(frozen=True)
class Layout:
    """Folder of one copy of the files."""

    folder: Path
    """The official ``data`` folder."""

    def required(self) -> list[Path]:
        """Return the files that are required; no other file is read."""
        return [self.folder / name for name in (SMALL_FILE, BIG_FILE, ITEM_FILE, TAG_FILE, USER_FILE)]


def find(root: Path) -> Layout | None:
    """Return the copy of KuaiRec under ``root``, or None if none of its files is there."""
    for folder in (root / "KuaiRec" / "data", root / "KuaiRec 2.0" / "data", root / "data", root):
        layout = Layout(folder)
        if any(path.is_file() for path in layout.required()):
            return layout
    return None


def read(root: Path, click_at: float) -> Parts:
    """Read, check, join and encode KuaiRec.

    Args:
        root: the data directory.
        click_at: least watch ratio that counts as a click in the log.

    Raises:
        DataError: a file is missing or damaged, or the files do not fit together.
    """
    layout = find(root)
    if layout is None:
        raise DataError(
            f"{root}: no KuaiRec here (looked for KuaiRec/data/{SMALL_FILE}); run `rapport data fetch kuairec`, "
            "or name the folder that has it with --data-dir or RAPPORT_DATA_DIR"
        )
    population = read_population(layout.folder / USER_FILE)
    videos, video_ids = read_videos(layout.folder / ITEM_FILE)
    truth = read_truth(layout.folder / SMALL_FILE, population.user_ids, video_ids)
    tags = read_tags(layout.folder / TAG_FILE, video_ids[truth.videos])
    catalog = make_catalog(videos.iloc[truth.videos], video_ids[truth.videos], tags)
    log = read_log(layout.folder / BIG_FILE, population.user_ids, video_ids, truth.videos, click_at)
    return Parts(Tables(catalog, population, log), truth.users, truth.watch_ratio, truth.blocked, tags)


def read_population(path: Path) -> Population:
    """Return all users, with the same thirteen features as KuaiRand's."""
    table = read_csv(path, {"user_id": pa.int64()} | {name: pa.string() for name in USER_FEATURES})
    ids, order = sorted_ids(table, "user_id", path)
    return Population(ids, encode({name: text(table, name, order) for name in USER_FEATURES}))


def read_videos(path: Path) -> tuple[pd.DataFrame, IntArray]:
    """Return categories and ids of all videos in order of their ids: columns of text, and shape (V,).

    Captions contain bare carriage returns, which are not line ends; only line feeds outside quotes are.
    """
    import pandas as pd

    columns = ["video_id", *_LEVELS, _FIRST_NAME]
    check_ends(path, columns)
    try:
        frame = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, lineterminator="\n")
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: {error}; the file is damaged; {AGAIN}") from error
    for name in columns[:-1]:
        frame[name] = _whole_numbers(frame[name].replace("", str(UNKNOWN_ID)), path)
    frame = frame.sort_values("video_id", kind="stable", ignore_index=True)
    ids, _ = sorted_ids(pa.table({"video_id": frame["video_id"].to_numpy()}), "video_id", path)
    return frame, ids


def _whole_numbers(column: pd.Series[str], path: Path) -> NDArray[np.int64]:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if len(bad := np.flatnonzero(~(np.floor(numbers) == numbers))):
        raise DataError(
            f"{path}: row {bad[0] + 1}: {column.name} is {column.iloc[bad[0]]!r} instead of an integer; {AGAIN}"
        )
    return numbers.astype(np.int64)


def read_tags(path: Path, video_ids: IntArray) -> Int32Array:
    """Return the tags of the given videos, shape (N, L), padded with -1 at the end.

    Raises:
        DataError: a cell is not a list of tags such as ``[27, 9]``, or a video has no row.
    """
    table = read_csv(path, {"video_id": pa.int64(), "feat": pa.string()})
    ids, order = sorted_ids(table, "video_id", path)
    cells = text(table, "feat", order)[join(ids, video_ids, f"{path}: video_id of {SMALL_FILE}")]
    lists: list[list[int]] = []
    for cell in cells.tolist():
        try:
            tags = json.loads(cell)
        except ValueError:
            tags = None
        if not isinstance(tags, list) or not all(isinstance(tag, int) and tag >= 0 for tag in tags):
            raise DataError(f"{path}: feat is {cell!r}; it must be a list of tags such as [27, 9]; {AGAIN}")
        lists.append(tags)
    width = max(1, *map(len, lists))
    return np.array([tags + [-1] * (width - len(tags)) for tags in lists], dtype=np.int32)


def make_catalog(videos: pd.DataFrame, ids: IntArray, tags: Int32Array) -> Catalog:
    """Return the catalogue of N videos: rows as of :func:`read_videos`, ids (N,), tags (N, L).

    Categories are of the first level, in order of their ids, without those that have no video; an unknown one is last.
    """
    first = videos[_LEVELS[0]].to_numpy()
    key = np.where(first == UNKNOWN_ID, np.iinfo(np.int64).max, first)
    _, row, code = np.unique(key, return_index=True, return_inverse=True)
    names = category_names(first[row].tolist(), videos[_FIRST_NAME].iloc[row].tolist())
    second = videos[_LEVELS[1]]
    features = encode(
        {
            "second_level_category": second.astype(str).where(second != UNKNOWN_ID, "").to_numpy(dtype=np.str_),
            **tag_features(tags),
        }
    )
    return Catalog(ids, code.astype(np.int32), names, features)


def tag_features(tags: Int32Array) -> dict[str, NDArray[np.str_]]:
    """Return the first two tags of each video as text, shape (N,) each; ``none`` if it has fewer."""
    padded = np.pad(tags[:, :2], ((0, 0), (0, max(0, 2 - tags.shape[1]))), constant_values=-1)
    words = np.where(padded < 0, "none", padded.astype(np.str_))
    return {"first_tag": words[:, 0], "second_tag": words[:, 1]}


def category_names(ids: list[int], source: list[str]) -> tuple[str, ...]:
    """Return English names of first-level categories; those missing in the table keep the name of the source.

    Args:
        ids: the publisher's ids.
        source: the publisher's names. A name that is not the one translated under its id is not translated.
    """
    table = json.loads(NAMES_FILE.read_text(encoding="utf-8"))
    names = []
    for identity, name in zip(ids, source, strict=True):
        entry = table.get(str(identity), {})
        known = entry["english"] if entry.get("source") == name else name or f"category {identity}"
        names.append(UNKNOWN_CATEGORY if identity == UNKNOWN_ID else known)
    shared = Counter(names)
    return tuple(f"{n} (category {i})" if shared[n] > 1 else n for i, n in zip(ids, names, strict=True))
