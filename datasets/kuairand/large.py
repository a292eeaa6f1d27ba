"""KuaiRand-1K and KuaiRand-27K: every exposure of 1,000 and 27,285 users in a month, 12 and 322 million.

Columns are those of KuaiRand-Pure and are read by the same functions (:mod:`rapport.datasets.kuairand.pure`).
The logs may not fit into memory, so they are converted once, in pieces (:mod:`rapport.datasets.kuairand.streaming`),
then mapped.

A video was shown 3 and 10 times on average (4 and 32 million videos): too rarely to learn a response from, and too many
videos for an agent to choose among. By default only the most shown are kept; rows of the others are dropped and
counted.

Layout: ``ROOT/KuaiRand-1K/data/*.csv`` as in the official archive; ROOT may also be the ``KuaiRand-1K`` folder or its
``data`` folder. As in KuaiRand-Pure the random log and ``tag_names.csv`` are optional, and the statistical features are
not read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rapport.datasets.files.csv_tables import AGAIN, csv_batches, integers, join
from rapport.datasets.kuairand.pure import (
    BEHAVIOURS,
    ITEM_COLUMNS,
    LOG_COLUMNS,
    TAG_NAMES_FILE,
    catalog_of,
    log_flags,
    read_population,
)
from rapport.datasets.kuairand.streaming import ROW, Rows, Spill, open_tables, store_people, whole_folder, write_log
from rapport.datasets.schema import Catalog, DataError, Int32Array, IntArray, Tables

LOGGER = logging.getLogger("rapport")

FORMAT = 1
"""Raise it when a conversion of the same files would give another result."""

MAX_ITEMS = 100_000
"""Default number of videos that are kept."""

ROWS_PER_PART = 1_000_000
"""Approximate number of rows sorted in memory at once."""

BLOCK_BYTES = 1 << 22
"""Bytes of a CSV file in one piece. Arrow reads dozens ahead, so larger pieces only cost memory."""

_BYTES_PER_ROW = 71
"""Bytes per row of the published logs; it determines only the number of parts."""


@dataclass(frozen=True)
class Version:
    """One of the two large versions of KuaiRand.

    Sizes are those of the publisher's README; the number of rows in the file of videos is not stated there.
    """

    folder: str
    standard_logs: tuple[str, ...]
    random_log: str
    user_file: str
    item_file: str
    users: int
    standard_rows: int
    random_rows: int

    def find(self, root: Path) -> Path | None:
        """Return the ``data`` folder under ``root``, or None if none of the files is there."""
        for folder in (root / self.folder / "data", root / "data", root):
            if any((folder / name).is_file() for name in self.required()):
                return folder
        return None

    def required(self) -> tuple[str, ...]:
        """Names of the files that are required."""
        return (*self.standard_logs, self.user_file, self.item_file)

    def logs(self, folder: Path) -> list[Path]:
        """The logs, including the random one if it exists."""
        random = folder / self.random_log
        return [folder / name for name in self.standard_logs] + ([random] if random.is_file() else [])


def _version(name: str, parts: tuple[str, ...], users: int, standard_rows: int, random_rows: int) -> Version:
    short = name.lower()
    periods = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08")
    return Version(
        folder=f"KuaiRand-{name}",
        standard_logs=tuple(f"{period}_{short}{part}.csv" for period in periods for part in parts),
        random_log=f"log_random_4_22_to_5_08_{short}.csv",
        user_file=f"user_features_{short}.csv",
        item_file=f"video_features_basic_{short}.csv",
        users=users,
        standard_rows=standard_rows,
        random_rows=random_rows,
    )


VERSIONS = {
    "kuairand-1k": _version("1K", ("",), 1_000, 11_713_045, 43_028),
    "kuairand-27k": _version("27K", ("_part1", "_part2"), 27_285, 322_278_385, 1_186_059),
}


@dataclass(frozen=True)
class Conversion:
    """Counts of rows and videos in a conversion."""

    rows_read: int
    """Rows of all logs."""
    rows_dropped: int
    """Of these, rows of videos that were not kept."""
    rows_repeated: int
    """Of the others, duplicates: equal in user, video, time, policy and feedback."""
    rows: int
    """Rows of the converted log."""
    videos_read: int
    """Videos in the file of features."""
    videos: int
    """Videos kept."""


def read(
    name: str,
    root: Path,
    cache: Path,
    max_items: int | None = MAX_ITEMS,
    *,
    again: bool = False,
    rows_per_part: int = ROWS_PER_PART,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tables, Conversion]:
    """Open a large version of KuaiRand, after converting it if that has not been done.

    The conversion is keyed by the names, sizes and times of the source files, which are too large to be hashed at every
    start.

    Args:
        name: a key of :data:`VERSIONS`.
        root: the data directory (see the module for the layouts).
        cache: folder that holds a folder for each conversion.
        max_items: keep this many of the most shown videos (random exposures counted, ties to the smaller id), or all.
        again: convert in any case.
        rows_per_part: approximate number of rows sorted in memory at once.
        block_bytes: bytes of a CSV file read at once.

    Returns:
        The tables, whose arrays are read-only views of files in ``cache``, and the counts of the conversion.

    Raises:
        DataError: a file is missing or damaged, the files do not fit together, or ``cache`` cannot be written.
    """
    version = VERSIONS[name]
    if max_items is not None and max_items < 1:
        raise DataError(f"max_items={max_items} is below 1; give a number of videos to keep, or None for all")
    data = version.find(root)
    if data is None:
        raise DataError(
            f"{root}: no {version.folder} here (looked for {version.folder}/data/{version.item_file}); run "
            f"`rapport data fetch {name}`, or name the folder that has it with --data-dir or RAPPORT_DATA_DIR"
        )
    for file in version.required():
        if not (data / file).is_file():
            raise DataError(f"{data / file}: no such file; {AGAIN}")
    folder = cache / f"{name}-{_key(version, data, max_items)}"
    if not again and folder.exists():
        try:
            return _opened(folder)
        except (ValueError, KeyError, TypeError, OSError) as error:
            LOGGER.warning("%s is damaged (%s); converting again", folder, error)
    LOGGER.warning("converting %s into %s, once; the full 27K takes a while", data, folder)
    with whole_folder(folder) as work:
        _convert(version, data, work, max_items, rows_per_part, block_bytes)
    return _opened(folder)


def _opened(folder: Path) -> tuple[Tables, Conversion]:
    tables, note = open_tables(folder, BEHAVIOURS)
    return tables, Conversion(**note)


def _key(version: Version, data: Path, max_items: int | None) -> str:
    files = [*version.logs(data), data / version.user_file, data / version.item_file, data.parent / TAG_NAMES_FILE]
    facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(repr((FORMAT, max_items, facts)).encode()).hexdigest()[:32]


def _convert(
    version: Version, data: Path, work: Path, max_items: int | None, rows_per_part: int, block_bytes: int
) -> None:
    """Write log, catalogue and population of the files in ``data`` as columns in ``work``."""
    item_file = data / version.item_file
    population = read_population(data / version.user_file)
    ids = _item_ids(item_file, block_bytes)
    shown = np.zeros(len(ids), dtype=np.int32)
    parts = 1 + sum(path.stat().st_size for path in version.logs(data)) // (_BYTES_PER_ROW * rows_per_part)
    with Spill(work, population.n_users, parts) as spill:
        for rows in _blocks(version, data, population.user_ids, ids, block_bytes):
            items, counts = np.unique(rows["item"], return_counts=True)
            shown[items] += counts.astype(np.int32)
            spill.add(rows)
        read_rows, n_ids = int(shown.sum(dtype=np.int64)), len(ids)
        kept = most_shown(shown, max_items)
        ids = ids[kept]
        place = np.full(n_ids, -1, dtype=np.int32)
        place[kept] = np.arange(len(kept), dtype=np.int32)
        del shown, kept

        def selected(rows: Rows) -> Rows:
            item = place[rows["item"]]
            rows = rows[item >= 0]
            rows["item"] = item[item >= 0]
            return rows

        kept_rows, written = write_log(work, spill, BEHAVIOURS, selected)
    if written == 0:
        raise DataError(f"{data}: the logs hold no row; {AGAIN}")
    catalog = _catalog(item_file, ids, data.parent / TAG_NAMES_FILE, block_bytes)
    found = Conversion(read_rows, read_rows - kept_rows, kept_rows - written, written, n_ids, len(ids))
    store_people(work, catalog, population, asdict(found))


def most_shown(shown: Int32Array, max_items: int | None) -> IntArray:
    """Return the indices of the ``max_items`` largest counts in increasing order, equal counts by index."""
    if max_items is None or max_items >= len(shown):
        return np.arange(len(shown))
    least = np.partition(shown, len(shown) - max_items)[len(shown) - max_items]
    above = np.flatnonzero(shown > least)
    return np.sort(np.concatenate([above, np.flatnonzero(shown == least)[: max_items - len(above)]]))


def _blocks(version: Version, data: Path, users: IntArray, items: IntArray, block_bytes: int) -> Iterator[Rows]:
    """Yield the rows of all logs, block by block, with users and items by index."""
    for path in version.logs(data):
        line = 2
        for table in csv_batches(path, LOG_COLUMNS, block_bytes):
            rows = np.empty(table.num_rows, dtype=ROW)
            rows["flags"] = log_flags(table, path, line)
            if len(rows):
                rows["user"] = join(users, integers(table, "user_id"), f"{path}: user_id, in {version.user_file}")
                rows["item"] = join(items, integers(table, "video_id"), f"{path}: video_id, in {version.item_file}")
            rows["time_ms"] = integers(table, "time_ms")
            line += table.num_rows
            yield rows


def _item_ids(path: Path, block_bytes: int) -> IntArray:
    """Return the ids of all videos in increasing order, shape (N,)."""
    blocks = [integers(table, "video_id") for table in csv_batches(path, {"video_id": pa.int64()}, block_bytes)]
    ids = np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)
    if len(ids) == 0:
        raise DataError(f"{path}: has a header but no row; {AGAIN}")
    ids.sort()
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise DataError(f"{path}: video_id {twice[0]} occurs twice; keep one row per video_id")
    return ids


def _catalog(path: Path, ids: IntArray, tag_names: Path, block_bytes: int) -> Catalog:
    """Read the features of the videos ``ids``, which are increasing."""
    pieces = []
    for table in csv_batches(path, ITEM_COLUMNS, block_bytes):
        wanted = integers(table, "video_id")
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        pieces.append(table.filter(pa.array(ids[place] == wanted)))
    return catalog_of(pa.concat_tables(pieces), path, tag_names)
