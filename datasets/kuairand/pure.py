"""KuaiRand-Pure from its official files: exposures of short videos to users, with seven behaviours each.

Layout: ``ROOT/KuaiRand-Pure/data/*.csv`` as in the official archive; ROOT may also be the ``KuaiRand-Pure`` folder or
its ``data`` folder. ``log_random_4_22_to_5_08_pure.csv`` is used where present, and so are two files that are not part
of the official archive, in the ``KuaiRand-Pure`` folder: ``tag_names.csv`` and
``user_sequences_4_09_to_4_24.parquet`` (see :mod:`rapport.datasets.kuairand.histories`).

``video_features_statistic_pure.csv`` is not read. It averages counts over the whole month, test days included, so it
would leak labels of the test days to a model.

Reference: Gao et al., *KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos*, CIKM
2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rapport.datasets.files.csv_tables import AGAIN, encode, encode_text, integers, join, read_csv, sorted_ids, text
from rapport.datasets.kuairand.histories import add_histories
from rapport.datasets.schema import Catalog, DataError, Int32Array, IntArray, InteractionLog, Population, Tables

BEHAVIOURS = ("click", "long_view", "like", "comment", "forward", "follow", "hate")
"""Behaviours in the order of the feedback matrix; click is rewarded."""

STANDARD_LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
RANDOM_LOG = "log_random_4_22_to_5_08_pure.csv"
USER_FILE = "user_features_pure.csv"
ITEM_FILE = "video_features_basic_pure.csv"
TAG_NAMES_FILE = "tag_names.csv"
SEQUENCES_FILE = "user_sequences_4_09_to_4_24.parquet"

USER_FEATURES = (
    *("user_active_degree", "is_live_streamer", "is_video_author"),
    *("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range"),
    *("onehot_feat0", "onehot_feat1", "onehot_feat6", "onehot_feat9", "onehot_feat10", "onehot_feat11"),
)
"""The thirteen categorical features of at most nine values each that LERL and KuaiSim use."""

DURATION_EDGES_S = (15, 30, 60, 120, 300)
"""Upper bounds (exclusive, seconds) of the duration buckets; the last bucket is open."""

FIRST_MINOR_TAG = 40
"""Tags from this one on occur almost only beside a category tag (1 to 39); they become the feature ``second_tag``."""

UNKNOWN_CATEGORY = "Unknown"
_LOG_BEHAVIOURS = tuple(b if b == "long_view" else f"is_{b}" for b in BEHAVIOURS)
LOG_COLUMNS = {name: pa.int64() for name in ("user_id", "video_id", "time_ms", "is_rand", *_LOG_BEHAVIOURS)}
"""Columns of a log that are read."""

_ITEM_WORDS = ("video_type", "music_type", "upload_type", "tag")
ITEM_COLUMNS = {"video_id": pa.int64(), "video_duration": pa.float64()} | {n: pa.string() for n in _ITEM_WORDS}
"""Columns of the basic video features that are read."""


@dataclass(frozen=True)
class Layout:
    """Folders of one copy of the files."""

    folder: Path
    """The official ``data`` folder."""
    extras: Path
    """The folder around it, which holds the optional files."""

    def required(self) -> list[Path]:
        """Return the files that are required."""
        return [self.folder / name for name in (*STANDARD_LOGS, USER_FILE, ITEM_FILE)]

    def sources(self, histories: bool = True) -> list[Path]:
        """Return every file that is read, including those optional ones that exist."""
        optional = [self.folder / RANDOM_LOG, self.extras / TAG_NAMES_FILE]
        if histories:
            optional.append(self.extras / SEQUENCES_FILE)
        return self.required() + [path for path in optional if path.is_file()]


def find(root: Path) -> Layout | None:
    """Return the copy of KuaiRand-Pure under ``root``, or None if none of its files is there."""
    for folder in (root / "KuaiRand-Pure" / "data", root / "data", root):
        layout = Layout(folder, folder.parent)
        if any(path.is_file() for path in layout.required()):
            return layout
    return None


def read(root: Path, histories: bool = True) -> Tables:
    """Read, check, join and encode KuaiRand-Pure.

    Args:
        root: the data directory (see the module for the layouts).
        histories: also use the sequences of earlier exposures, if that file is present.

    Returns:
        All videos, all users (including those without a row), and the log. Rows that are equal in user, video, time,
        policy and feedback are duplicates (3 % of the published rows) and are kept once.

    Raises:
        DataError: a file is missing or damaged, or the files do not fit together.
    """
    layout = find(root)
    if layout is None:
        raise DataError(
            f"{root}: no KuaiRand-Pure here (looked for KuaiRand-Pure/data/{ITEM_FILE}); run "
            "`rapport data fetch kuairand-pure`, or name the folder that has it with --data-dir or RAPPORT_DATA_DIR"
        )
    item_file = layout.folder / ITEM_FILE
    catalog = catalog_of(read_csv(item_file, ITEM_COLUMNS), item_file, layout.extras / TAG_NAMES_FILE)
    population = read_population(layout.folder / USER_FILE)
    log, reports = _log(layout, population.user_ids, catalog.item_ids)
    sequences = layout.extras / SEQUENCES_FILE
    if histories and sequences.is_file():
        log = add_histories(log, sequences, population.user_ids, catalog.item_ids, reports)
    return Tables(catalog, population, log)


def read_population(path: Path) -> Population:
    """Read the official user features, whichever of the three versions they belong to.

    Raises:
        DataError: the file is missing or damaged.
    """
    table = read_csv(path, {"user_id": pa.int64()} | {name: pa.string() for name in USER_FEATURES})
    ids, order = sorted_ids(table, "user_id", path)
    return Population(ids, encode({name: text(table, name, order) for name in USER_FEATURES}))


def catalog_of(table: pa.Table, path: Path, tag_names: Path) -> Catalog:
    """Make a catalogue of basic video features.

    Args:
        table: :data:`ITEM_COLUMNS`, one row per video, in any order.
        path: where they were read, for messages.
        tag_names: the optional file of tag names.

    Raises:
        DataError: the table is empty, or an id or a tag is not what it should be.
    """
    ids, order = sorted_ids(table, "video_id", path)
    table = table.take(pa.array(order))
    cells = table["tag"].combine_chunks().dictionary_encode()  # few cells differ, so each is parsed once
    tags = _tags(cells.dictionary.to_pylist(), path)
    major = np.array([next((t for t in ts if t < FIRST_MINOR_TAG), 0) for ts in tags])
    minor = [next((str(t) for t in ts if t >= FIRST_MINOR_TAG), "none") for ts in tags]
    seconds = np.asarray(table["video_duration"].to_numpy(), dtype=np.float64) / 1_000
    # upload_dt is left out: the catalogue has three consecutive upload days, so it is not informative of age.
    features = {name: table[name] for name in _ITEM_WORDS[:3]}
    features |= {"duration": _duration(seconds), "second_tag": pa.DictionaryArray.from_arrays(cells.indices, minor)}
    category, names = _categories(major[np.asarray(cells.indices.to_numpy())], _tag_names(tag_names))
    return Catalog(ids, category, names, encode_text(features))


def _tags(cells: list[str], path: Path) -> list[list[int]]:
    """Split cells such as ``"62,4"`` (most have one tag; the order of two varies)."""
    try:
        return [[int(tag) for tag in cell.split(",")] if cell else [] for cell in cells]
    except ValueError as error:
        raise DataError(f"{path}: tag: {error}; tags are integers separated by commas; {AGAIN}") from error


def _duration(seconds: NDArray[np.float64]) -> pa.DictionaryArray:
    """Name the duration bucket of each video; values are sorted by name, hence the leading letters."""
    edges = DURATION_EDGES_S
    names = [f"a: under {edges[0]} s"]
    names += [f"{letter}: {low} to {high} s" for letter, low, high in zip("bcde", edges, edges[1:], strict=False)]
    names += [f"f: {edges[-1]} s or more", ""]
    bucket = np.where(np.isnan(seconds), len(names) - 1, np.searchsorted(edges, seconds, side="right"))
    return pa.DictionaryArray.from_arrays(pa.array(bucket.astype(np.int32)), names)


def _categories(major: NDArray[np.int64], names: Mapping[int, str]) -> tuple[Int32Array, tuple[str, ...]]:
    """Encode the category tags that have items, in order of their ids; 0 (no category tag) comes last.

    Two tags may share a name (29 and 30 are both "Science and law"). The platform distinguishes them, so they stay two
    categories, and the tag is added to the shared name.
    """
    present, code = np.unique(major, return_inverse=True)
    shared = Counter(names.values())
    labels = []
    for tag in present.tolist():
        name = names.get(tag, f"tag {tag}") if tag else UNKNOWN_CATEGORY
        labels.append(f"{name} (tag {tag})" if shared[name] > 1 else name)
    if present[0] == 0:
        labels = labels[1:] + labels[:1]
        code = (code - 1) % len(present)
    return code.astype(np.int32), tuple(labels)


def _tag_names(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    table = read_csv(path, {"tag_id": pa.int64(), "name_en": pa.string()})
    return dict(zip(table["tag_id"].to_pylist(), table["name_en"].to_pylist(), strict=True))


def _log(layout: Layout, user_ids: IntArray, item_ids: IntArray) -> tuple[InteractionLog, tuple[Int32Array, IntArray]]:
    """Read the logs; also return user and time of every standard-policy row as reported, duplicates included."""
    random = layout.folder / RANDOM_LOG
    paths = [layout.folder / name for name in STANDARD_LOGS] + ([random] if random.is_file() else [])
    rows = np.concatenate([_log_rows(path, user_ids, item_ids) for path in paths])
    if len(rows) == 0:
        raise DataError(f"{layout.folder}: the logs hold no row; {AGAIN}")
    user, item, time_ms, flags = rows.T
    standard = flags & 1 == 0
    reports = user[standard].astype(np.int32), time_ms[standard]
    # Sorting by all columns puts equal rows together and orders ties in time by video.
    rows = rows[np.lexsort((flags, item, time_ms, user))]
    user, item, time_ms, flags = rows[np.append(True, (rows[1:] != rows[:-1]).any(axis=1))].T
    log = InteractionLog(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time_ms=np.ascontiguousarray(time_ms),
        feedback=(flags[:, None] >> np.arange(1, 1 + len(BEHAVIOURS)) & 1).astype(np.int8),
        behaviours=BEHAVIOURS,
        randomised=(flags & 1).astype(np.bool_),
    )
    return log, reports


def _log_rows(path: Path, user_ids: IntArray, item_ids: IntArray) -> IntArray:
    """Return one log, shape (rows, 4): user, item, time (ms), and the flags of :func:`log_flags`."""
    table = read_csv(path, LOG_COLUMNS)
    flags = log_flags(table, path)
    if len(flags) == 0:
        return np.empty((0, 4), dtype=np.int64)
    user = join(user_ids, integers(table, "user_id"), f"{path}: user_id, in {USER_FILE}")
    item = join(item_ids, integers(table, "video_id"), f"{path}: video_id, in {ITEM_FILE}")
    return np.stack([user, item, integers(table, "time_ms"), flags], axis=1)


def log_flags(table: pa.Table, path: Path, first_line: int = 2) -> IntArray:
    """Return ``is_rand`` and the behaviours of each row as bits 0, 1, 2, ..., shape (rows,).

    Args:
        table: :data:`LOG_COLUMNS`.
        path: where they were read, for messages.
        first_line: line of the file that the first row stands on.

    Raises:
        DataError: a value is neither 0 nor 1.
    """
    flags = np.zeros(table.num_rows, dtype=np.int64)
    for bit, name in enumerate(("is_rand", *_LOG_BEHAVIOURS)):
        column = integers(table, name)
        if len(bad := np.flatnonzero((column != 0) & (column != 1))):
            line, value = bad[0] + first_line, column[bad[0]]
            raise DataError(f"{path}: line {line}: {name} is {value}; it must be 0 or 1; {AGAIN}")
        flags |= column << bit
    return flags
