"""An interaction log as a data set, from files and a manifest in TOML that describes them.

.. code-block:: toml

    name = "my-shop"
    licence = "CC BY 4.0"                # optional, for the pages
    citation = "Doe (2026), My shop"

    [interactions]
    path = "log.csv"
    time = "when"

    [interactions.behaviours]            # the first is the one that is rewarded
    click = "clicked"
    like = { column = "rating", at_least = 4 }

    [items]
    path = "items.parquet"
    category = { column = "genres", separator = "|" }
    features = ["brand", { column = "price", bins = 5 }]

Keys are the arguments of :func:`rapport.datasets.custom.frames.from_frames`; ``docs/own_log.md`` lists all of them.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from rapport._deprecation import renamed
from rapport.datasets.custom.files import read_columns, whole_numbers
from rapport.datasets.custom.frames import (
    Bins,
    Labels,
    Threshold,
    behaviour_columns,
    category_column,
    check_name,
    clock_offset_ms,
    feature_columns,
    frame_tables,
    row_ids,
)
from rapport.datasets.files import cache
from rapport.datasets.files.directory import cache_directory
from rapport.datasets.schema import DataError, SessionData, Tables
from rapport.datasets.splits import assemble

READER_VERSION = 2
"""Raise it when the same files and manifest give other tables, so that caches are built again."""

_TOP = {
    "name": str,
    **{key: dict for key in ("interactions", "items", "users", "splits", "environment")},
    **{key: str for key in ("licence", "citation")},
}
_INTERACTIONS = {
    **{key: str for key in ("path", "user", "item", "time", "time_unit", "randomised")},
    "behaviours": dict,
}
_ITEMS = {"path": str, "id": str, "category": (str, dict), "features": list}
_USERS = {"path": str, "id": str, "features": list}
_SPLITS = {
    **{key: float for key in ("test_share", "valid_share", "held_out_share", "utc_offset_hours")},
    "seed": int,
}


@dataclass(frozen=True)
class Table:
    """One file and the column that holds its ids."""

    path: Path
    id: str


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest, checked as far as possible without reading the data.

    Attributes:
        file: path of the manifest.
        name: of the data set.
        interactions: the log; its ``id`` is the user's.
        items: the items.
        users: the users, if there is a table of them.
        reading: further arguments of :func:`rapport.datasets.custom.frames.from_frames`.
        splits: arguments of :func:`rapport.datasets.splits.assemble`.
        licence: of the data, as pages state it; empty where the manifest does not.
        citation: likewise.
        environment: the table ``[environment]``, unchecked: default arguments of the environment over this data.
    """

    file: Path
    name: str
    interactions: Table
    items: Table
    users: Table | None
    reading: dict[str, Any]
    splits: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""

    @property
    def files(self) -> list[Path]:
        """The files with the data."""
        return [table.path for table in (self.interactions, self.items, self.users) if table is not None]

    def item_ids(self) -> pd.Index[Any]:
        """Ids of the items as in the files: entry i is that of item i."""
        return row_ids(_ids_of(self.items))

    def user_ids(self) -> pd.Index[Any]:
        """Ids of the users as in the files: entry u is that of user u."""
        return row_ids(_ids_of(self.users or self.interactions))


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DataError: it is missing or not TOML, a key is unknown, missing or of the wrong type, or a file is missing.
    """
    file = Path(path).expanduser()
    content = _read_toml(file)
    top = _checked(content, _TOP, f"{file}", ("name", "interactions", "items"))
    check_name(top["name"])
    log = _checked(top["interactions"], _INTERACTIONS, f"{file}: [interactions]", ("path", "behaviours"))
    items = _checked(top["items"], _ITEMS, f"{file}: [items]", ("path",))
    users = _checked(top["users"], _USERS, f"{file}: [users]", ("path",)) if "users" in top else None
    splits = _checked(top.get("splits", {}), _SPLITS, f"{file}: [splits]")
    if splits.get("seed", 0) < 0:
        raise DataError(f"{file}: [splits]: seed = {splits['seed']}; give 0 or more")
    if "utc_offset_hours" in splits:
        splits["offset_ms"] = clock_offset_ms(splits.pop("utc_offset_hours"))
    user, item = log.get("user", "user_id"), log.get("item", "item_id")
    reading = {
        "user": user,
        "item": item,
        "time": log.get("time", "time"),
        "time_unit": log.get("time_unit", "s"),
        "category": _category(items.get("category", "category"), f"{file}: [items] category"),
        "behaviours": _behaviours(log["behaviours"], f"{file}: [interactions.behaviours]"),
        "item_features": _features(items, f"{file}: [items]"),
        "user_features": _features(users or {}, f"{file}: [users]"),
        "randomised": log.get("randomised"),
    }
    found = Manifest(
        file=file,
        name=top["name"],
        interactions=Table(_path(file, log["path"]), user),
        items=Table(_path(file, items["path"]), items.get("id", item)),
        users=None if users is None else Table(_path(file, users["path"]), users.get("id", user)),
        reading=reading,
        splits={"offset_ms": 0} | splits,
        environment=top.get("environment", {}),
        licence=_printable(top.get("licence", ""), f"{file}: licence"),
        citation=_printable(top.get("citation", ""), f"{file}: citation"),
    )
    for data in found.files:
        if not data.is_file():
            raise DataError(f"{file}: {data} is not there; paths are relative to the manifest")
    return found


def from_manifest(path: str | Path | Manifest, *, use_cache: bool = True) -> SessionData:
    """Load the data set of a manifest.

    Args:
        path: path of the manifest, or the manifest as read.
        use_cache: keep the encoded tables in the cache directory, and use those that are there.

    Raises:
        DataError: as of :func:`read_manifest` and :func:`rapport.datasets.custom.frames.from_frames`.
    """
    manifest = path if isinstance(path, Manifest) else read_manifest(path)

    def build() -> Tables:
        return _tables(manifest)

    if use_cache:
        digest = cache.key(manifest.files, repr((READER_VERSION, manifest.reading, *_ids(manifest))))
        tables = cache.cached(cache_directory() / "tables" / f"{manifest.name}-{digest}", build)
    else:
        tables = build()
    try:
        data = assemble(manifest.name, tables, **manifest.splits)
    except DataError as error:
        raise DataError(f"{manifest.file}: {error}") from error
    return replace(data, licence=manifest.licence, citation=manifest.citation)


def is_manifest(data: object) -> bool:
    """Whether something that names data is the path of a manifest: its name ends in ``.toml``."""
    return isinstance(data, str | Path) and str(data).endswith(".toml")


def manifest_data(path: str | Path) -> SessionData:
    """The data of a manifest, read once in a process for all who ask for it as long as no file changes.

    Raises:
        DataError: as of :func:`from_manifest`.
    """
    manifest = read_manifest(path)
    stats = [(file, file.stat()) for file in (manifest.file, *manifest.files)]
    return _read_once(str(manifest.file), tuple((str(f), s.st_mtime_ns, s.st_size) for f, s in stats))


@functools.lru_cache(maxsize=4)
def _read_once(path: str, files: tuple[tuple[str, int, int], ...]) -> SessionData:
    return from_manifest(path)


def _ids(manifest: Manifest) -> tuple[str, str | None]:
    return manifest.items.id, manifest.users.id if manifest.users else None


def _tables(manifest: Manifest) -> Tables:
    """Read the files and encode them as tables."""
    reading = manifest.reading
    user, item = reading["user"], reading["item"]
    behaviours = [column for column, _ in behaviour_columns(reading["behaviours"]).values()]
    random = [reading["randomised"]] if reading["randomised"] else []
    log = read_columns(manifest.interactions.path, [user, item, reading["time"], *behaviours, *random], (user, item))
    category, _ = category_column(reading["category"])
    items = _read_table(manifest.items, {category: None, **feature_columns(reading["item_features"])}, item)
    users = None
    if manifest.users is not None:
        users = _read_table(manifest.users, feature_columns(reading["user_features"]), user)
    try:
        whole_numbers(item, items, log)
        whole_numbers(user, log, *([] if users is None else [users]))
        return frame_tables(log, items, users, **reading)
    except DataError as error:
        raise DataError(f"{manifest.file}: {error}") from error


def _read_table(table: Table, columns: Mapping[str, int | None], called: str) -> pd.DataFrame:
    """Read a table's ids and columns, those without a number of bins as names."""
    names = (table.id, *(column for column, bins in columns.items() if bins is None))
    return read_columns(table.path, [table.id, *columns], names).rename(columns={table.id: called})


def _ids_of(table: Table) -> pd.Series[Any]:
    frame = read_columns(table.path, [table.id], (table.id,))
    try:
        whole_numbers(table.id, frame)
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error
    return frame[table.id]


def _path(file: Path, path: str) -> Path:
    return file.parent / Path(path).expanduser()


def _behaviours(content: Mapping[str, Any], where: str) -> dict[str, str | Threshold]:
    found: dict[str, str | Threshold] = {}
    for name, source in content.items():
        if isinstance(source, dict):
            kinds = {"column": str, "at_least": float}
            source = Threshold(**_checked(source, kinds, f"{where} {name}", ("column", "at_least")))
        elif not isinstance(source, str):
            raise DataError(f"{where}: {name} = {source!r}; give a column, or {{column = ..., at_least = ...}}")
        found[name] = source
    if not found:
        raise DataError(f"{where}: empty; name at least one behaviour and its column")
    return found


def _category(content: str | Mapping[str, Any], where: str) -> str | Labels:
    if isinstance(content, str):
        return content
    return Labels(**_checked(content, {"column": str, "separator": str}, where, ("column",)))


def _features(content: Mapping[str, Any], where: str) -> tuple[str | Bins, ...]:
    found: list[str | Bins] = []
    for source in content.get("features", []):
        if isinstance(source, dict):
            found.append(Bins(**_checked(source, {"column": str, "bins": int}, f"{where} features", ("column",))))
        elif isinstance(source, str):
            found.append(source)
        else:
            raise DataError(f"{where}: features holds {source!r}; give columns, or {{column = ..., bins = ...}}")
    return tuple(found)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            raise DataError(f"{file}: no such file; give the path of a manifest in TOML")
        if (size := file.stat().st_size) > _LARGEST:
            raise DataError(f"{file}: {size:,} bytes are no manifest (at most {_LARGEST:,}); see docs/own_log.md")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}; give a manifest that can be read") from error
    except RecursionError as error:
        raise DataError(f"{file}: nested too deeply; manifests have tables of keys, see docs/own_log.md") from error
    except DataError:
        raise
    except ValueError as error:  # of TOML, of its encoding, of a number's size, and of a path that is none
        raise DataError(f"{file}: {error}; manifests are TOML in UTF-8, see docs/own_log.md") from error


def _printable(text: str, where: str) -> str:
    """A text that pages and terminals show.

    Raises:
        DataError: it has characters that would not be shown as they are, or is too long.
    """
    if not text.isprintable() or len(text) > 500:
        raise DataError(f"{where} = {ascii(text)[:80]}; give one line of at most 500 printable characters")
    return text


def _checked(
    content: Mapping[str, Any], kinds: Mapping[str, Any], where: str, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Check the keys of a table and the types of their values.

    Raises:
        DataError: a key is unknown or missing, or a value is of another type.
    """
    for key, value in content.items():
        if key not in kinds:
            raise DataError(f"{where}: unknown key {key!r}; known are {', '.join(kinds)}")
        numeric = kinds[key] is float and isinstance(value, int) and abs(value) < 2**53
        if isinstance(value, bool) or not (numeric or isinstance(value, kinds[key])):
            raise DataError(f"{where}: {key} = {value!r}; give {_KIND_NAMES[kinds[key]]}")
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{where}: {key} = {value}; give a finite number")
    for key in required:
        if key not in content:
            raise DataError(f"{where}: no key {key!r}; give {_KIND_NAMES[kinds[key]]}")
    return dict(content)


_LARGEST = 1 << 20
"""Bytes of a manifest."""
_KIND_NAMES = {
    (str, dict): "a column, or {column = ..., separator = ...}",
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    list: "a list",
}

__getattr__ = renamed(
    __name__, {"Description": "Manifest", "describe": "read_manifest", "from_description": "from_manifest"}
)
