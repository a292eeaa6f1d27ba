"""Columnar cache of read tables, keyed by the content of their source files.

One folder per key holds three Arrow files, further arrays as ``.npy`` if a reader makes some, and ``meta.json`` with
their names and checksums. A folder appears complete or not at all (it is written elsewhere and renamed), so two
processes may build it at once. A damaged folder is detected by its checksums, logged and built again. Reading it
executes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from rapport.datasets.files.reading import DAMAGE
from rapport.datasets.schema import Catalog, Features, InteractionLog, Population, Tables

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise it when the format of the files changes, so that older caches are not read."""

Arrays = dict[str, NDArray[Any]]
"""Further results of a reader beside the tables, by name."""

_PARTS = ("catalog", "population", "log")
_FURTHER = "further category "
"""Beginning of the names of the catalogue's columns with further categories."""


def key(sources: Sequence[Path], *words: str) -> str:
    """Return 32 hex digits for the bytes of the source files (not their paths) and any settings of the reader."""
    digest = hashlib.sha256(repr((FORMAT, *words)).encode())
    for path in sources:
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def cached(folder: Path, build: Callable[[], Tables]) -> Tables:
    """Return the tables kept in ``folder``, or build and keep them.

    A cache that cannot be written (a full or read-only disk) costs a warning, not the run.
    """
    return cached_with_arrays(folder, lambda: (build(), {}))[0]


def cached_with_arrays(folder: Path, build: Callable[[], tuple[Tables, Arrays]]) -> tuple[Tables, Arrays]:
    """As :func:`cached`, for a reader that also makes named arrays; no array may hold objects."""
    if folder.exists():
        try:
            return _load(folder)
        except (*DAMAGE, OSError, pa.ArrowException) as error:
            logger.warning("cache %s is damaged (%s); building it again", folder, error)
            _discard(folder)
    tables, arrays = build()
    try:
        _store(folder, tables, arrays)
    except OSError as error:
        logger.warning("cannot write the cache %s (%s); the data will be read anew next time", folder, error)
    return tables, arrays


def _store(folder: Path, tables: Tables, arrays: Arrays) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    work.mkdir()
    try:
        parts = {name: _bytes(table) for name, table in zip(_PARTS, _encode(tables), strict=True)}
        further = {name: _array_bytes(array) for name, array in arrays.items()}
        for contents, ending in ((parts, "arrow"), (further, "npy")):
            for name, content in contents.items():
                (work / f"{name}.{ending}").write_bytes(content)
        meta = _meta(tables) | {"sha256": _checksums(parts), "arrays": _checksums(further)}
        (work / "meta.json").write_text(sealed(meta), encoding="utf-8")
        os.rename(work, folder)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        if not folder.exists():  # otherwise another process was faster, with the same content
            raise


def _load(folder: Path) -> tuple[Tables, Arrays]:
    meta = unsealed((folder / "meta.json").read_text(encoding="utf-8"))
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']} instead of {FORMAT}")
    tables = _decode(meta, [_table(folder / f"{name}.arrow", meta["sha256"][name]) for name in _PARTS])
    further = meta.get("arrays", {})  # folders written before there were any have no entry
    return tables, {
        name: np.load(io.BytesIO(_verified(folder / f"{name}.npy", digest)), allow_pickle=False)
        for name, digest in further.items()
    }


def sealed(meta: dict[str, Any]) -> str:
    """A cache's description as JSON, with the SHA-256 of all of it."""
    return json.dumps(meta | {"checksum": _digest(meta)}, ensure_ascii=False)


def unsealed(text: str, required: bool = True) -> dict[str, Any]:
    """What :func:`sealed` wrote.

    Args:
        text: the JSON.
        required: refuse what an earlier version wrote, which kept no checksum of it.

    Raises:
        ValueError: it is damaged.
    """
    meta: dict[str, Any] = json.loads(text)
    checksum = meta.pop("checksum", None)
    if checksum is None and required:
        raise ValueError("meta.json has no checksum")
    if checksum is not None and checksum != _digest(meta):
        raise ValueError("meta.json does not match its checksum")
    return meta


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _discard(folder: Path) -> None:
    """Move a damaged folder out of the way at once, then remove it."""
    grave = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        os.rename(folder, grave)
    except OSError:  # another process has just done it
        return
    if grave.is_dir():
        shutil.rmtree(grave, ignore_errors=True)
    else:
        grave.unlink(missing_ok=True)


def _bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(table, buffer, compression="uncompressed")
    return buffer.getvalue()


def _array_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _checksums(contents: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _verified(path: Path, expected: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{path.name} does not match its checksum")
    return content


def _table(path: Path, expected: str) -> pa.Table:
    return feather.read_table(pa.BufferReader(_verified(path, expected)))


def _encode(tables: Tables) -> tuple[pa.Table, pa.Table, pa.Table]:
    catalog, population, log = tables
    further = {} if catalog.further is None else {f"{_FURTHER}{i}": c for i, c in enumerate(catalog.further.T)}
    return (
        _columns({"id": catalog.item_ids, "category": catalog.category, **further}, catalog.features.codes),
        _columns({"id": population.user_ids}, population.features.codes),
        _columns(
            {"user": log.user, "item": log.item, "time_ms": log.time_ms, "randomised": log.randomised.view(np.int8)},
            log.feedback,
        ),
    )


def _columns(named: dict[str, Any], matrix: Any) -> pa.Table:
    return pa.table(named | {str(i): np.ascontiguousarray(matrix[:, i]) for i in range(matrix.shape[1])})


def _meta(tables: Tables) -> dict[str, Any]:
    catalog, population, log = tables
    return {
        "format": FORMAT,
        "category_names": catalog.category_names,
        "item_features": {"names": catalog.features.names, "values": catalog.features.values},
        "user_features": {"names": population.features.names, "values": population.features.values},
        "behaviours": log.behaviours,
    }


def _decode(meta: dict[str, Any], tables: list[pa.Table]) -> Tables:
    items, users, rows = tables
    further = [_array(items, name) for name in items.column_names if name.startswith(_FURTHER)]
    behaviours = tuple(meta["behaviours"])
    return Tables(
        Catalog(
            _array(items, "id"),
            _array(items, "category"),
            tuple(meta["category_names"]),
            _features(meta, "item", items),
            np.stack(further, axis=1) if further else None,
        ),
        Population(_array(users, "id"), _features(meta, "user", users)),
        InteractionLog(
            user=_array(rows, "user"),
            item=_array(rows, "item"),
            time_ms=_array(rows, "time_ms"),
            feedback=_matrix(rows, len(behaviours)),
            behaviours=behaviours,
            randomised=_array(rows, "randomised").view(np.bool_),
        ),
    )


def _features(meta: dict[str, Any], of: str, table: pa.Table) -> Features:
    words = meta[f"{of}_features"]
    names = tuple(words["names"])
    return Features(names, tuple(tuple(v) for v in words["values"]), _matrix(table, len(names)))


def _array(table: pa.Table, name: str) -> Any:
    return table[name].to_numpy()


def _matrix(table: pa.Table, width: int) -> Any:
    if width == 0:
        return np.empty((table.num_rows, 0), dtype=np.int32)
    return np.stack([_array(table, str(i)) for i in range(width)], axis=1)
