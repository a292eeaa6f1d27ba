"""Logs larger than memory: sorted on disk, stored as columns, and used as views of memory-mapped files.

An external sort in two passes. :class:`Spill` splits rows, in any order, over files by ranges of users;
:func:`write_log` then sorts one range after another in memory and appends it to the columns. Memory is that of one
block of rows and one range, whatever the length of the log. Spilled rows are plain records and columns are ``.npy``
files, not Arrow files, because both can be appended to and mapped in one piece, feedback as a matrix.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.files.cache import sealed, unsealed
from rapport.datasets.schema import Catalog, DataError, Features, InteractionLog, Population, Tables

ROW = np.dtype([("user", "<i4"), ("item", "<i4"), ("time_ms", "<i8"), ("flags", "<u2")])
"""One exposure: bit 0 of the flags is set if it was random, bit 1 + f if behaviour f happened (all are recorded)."""

Rows = NDArray[np.void]
"""Shape (rows,), of :data:`ROW`."""

MAX_PARTS = 400
"""Maximum number of open files; most systems allow a process 1,024."""

_SPILL_FOLDER = "spill"
_BUFFER = 1 << 16


class Spill:
    """Rows on disk, split by ranges of users.

    Args:
        folder: as given by :func:`whole_folder`.
        n_users: users in all.
        parts: number of ranges.
    """

    def __init__(self, folder: Path, n_users: int, parts: int) -> None:
        self.users_per_part = -(-n_users // max(1, min(parts, n_users, MAX_PARTS)))
        self.paths = [folder / _SPILL_FOLDER / f"{i:03d}.rows" for i in range(-(-n_users // self.users_per_part))]
        self._stack = ExitStack()
        self._files = [self._stack.enter_context(path.open("wb", _BUFFER)) for path in self.paths]

    def __enter__(self) -> Spill:
        """Return itself; the files are closed on exit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stack.close()

    def add(self, rows: Rows) -> None:
        """Append each row to the file of its user's range."""
        part = (rows["user"] // self.users_per_part).astype(np.uint16)
        rows = rows[np.argsort(part, kind="stable")]
        ends = np.bincount(part, minlength=len(self.paths)).cumsum().tolist()
        for file, start, end in zip(self._files, [0, *ends], ends, strict=False):
            if start < end:
                file.write(rows[start:end].tobytes())

    def drain(self) -> Iterator[Rows]:
        """Yield the rows of one range of users after another and delete their files; nothing can be added after."""
        self._stack.close()
        for path in self.paths:
            rows = np.fromfile(path, dtype=ROW)
            path.unlink()
            yield rows


def write_log(
    folder: Path, spill: Spill, behaviours: tuple[str, ...], selected: Callable[[Rows], Rows]
) -> tuple[int, int]:
    """Sort the spilled rows and write them as a log, without duplicates.

    Args:
        folder: folder of the columns.
        spill: rows of all blocks.
        behaviours: names of bits 1, 2, ... of the flags.
        selected: returns the rows of one range that are kept, with items numbered as in the catalogue.

    Returns:
        Rows kept by the selection, and rows written.
    """
    kept = 0
    with _Columns(folder, len(behaviours)) as columns:
        for rows in spill.drain():
            rows = selected(rows)
            kept += len(rows)
            columns.append(sort_rows(rows))
    return kept, columns.rows


def sort_rows(rows: Rows) -> Rows:
    """Return the rows sorted by user, time, item and flags, without duplicates."""
    rows = rows[np.lexsort((rows["flags"], rows["item"], rows["time_ms"], rows["user"]))]
    return rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows


def store_people(folder: Path, catalog: Catalog, population: Population, note: dict[str, Any]) -> None:
    """Write catalogue, population and a note that JSON can hold beside the log."""
    arrays = {
        "item_ids": catalog.item_ids,
        "category": catalog.category,
        "item_features": catalog.features.codes,
        "user_ids": population.user_ids,
        "user_features": population.features.codes,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(array), allow_pickle=False)
    meta = {
        "note": note,
        "category_names": catalog.category_names,
        "item_features": {"names": catalog.features.names, "values": catalog.features.values},
        "user_features": {"names": population.features.names, "values": population.features.values},
    }
    (folder / "meta.json").write_text(sealed(meta), encoding="utf-8")


def open_tables(folder: Path, behaviours: tuple[str, ...]) -> tuple[Tables, dict[str, Any]]:
    """Return written tables and their note.

    The arrays are read-only views of memory-mapped files.

    Raises:
        ValueError: a file is shorter than its header says, or (:class:`DataError`) they do not fit together.
        OSError: a file is missing.
        KeyError: ``meta.json`` lacks an entry.
    """
    meta = unsealed((folder / "meta.json").read_text(encoding="utf-8"), required=False)

    def column(name: str) -> NDArray[Any]:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    def features(of: str) -> Features:
        names, values = meta[of]["names"], meta[of]["values"]
        return Features(tuple(names), tuple(map(tuple, values)), column(of))

    names = tuple(meta["category_names"])
    catalog = Catalog(column("item_ids"), column("category"), names, features("item_features"))
    population = Population(column("user_ids"), features("user_features"))
    log = InteractionLog(
        user=column("user"),
        item=column("item"),
        time_ms=column("time_ms"),
        feedback=column("feedback"),
        behaviours=behaviours,
        randomised=column("randomised"),
    )
    return Tables(catalog, population, log), meta["note"]


class _Columns:
    """The columns of a log, written block by block; headers are written last, when the length is known."""

    def __init__(self, folder: Path, n_behaviours: int) -> None:
        self.rows = 0
        self._bits = np.arange(1, 1 + n_behaviours, dtype=np.uint16)
        kinds: dict[str, tuple[str, tuple[int, ...]]] = {
            "user": ("<i4", ()),
            "item": ("<i4", ()),
            "time_ms": ("<i8", ()),
            "feedback": ("|i1", (n_behaviours,)),
            "randomised": ("|b1", ()),
        }
        self._kinds = kinds
        self._stack = ExitStack()
        self._files = {name: self._stack.enter_context((folder / f"{name}.npy").open("wb")) for name in kinds}
        for name in kinds:
            self._header(name)

    def __enter__(self) -> _Columns:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            if kind is None:
                for name, file in self._files.items():
                    file.seek(0)
                    self._header(name)

    def append(self, rows: Rows) -> None:
        flags = rows["flags"]
        contents = {name: np.ascontiguousarray(rows[name]) for name in ("user", "item", "time_ms")}
        contents["feedback"] = (flags[:, None] >> self._bits & 1).astype(np.int8)
        contents["randomised"] = (flags & 1).astype(np.bool_)
        for name, file in self._files.items():
            contents[name].tofile(file)
        self.rows += len(rows)

    def _header(self, name: str) -> None:
        """Write a header; NumPy pads it so that its length does not depend on the number of rows."""
        kind, width = self._kinds[name]
        header = {"descr": kind, "fortran_order": False, "shape": (self.rows, *width)}
        file: IO[bytes] = self._files[name]
        np.lib.format.write_array_header_1_0(file, header)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces ``folder`` on success and is removed on failure.

    It has a subfolder for a :class:`Spill`, which is removed in either case. Temporary folders of processes that no
    longer run are removed first.

    Raises:
        DataError: the disk is full or not writable.
    """
    work = folder.parent / f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        (work / _SPILL_FOLDER).mkdir(parents=True)
        yield work
        shutil.rmtree(work / _SPILL_FOLDER)
        _replace(folder, work)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: the conversion failed there ({error}); make room, or name another folder with "
            "RAPPORT_CACHE_DIR"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _replace(folder: Path, work: Path) -> None:
    """Replace ``folder`` by ``work``; views of the old files stay valid if the system supports that."""
    if folder.exists():
        old = folder.parent / f"{work.name}.old"
        os.rename(folder, old)
        os.rename(work, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(work, folder)


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of processes that no longer run."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if not _running(left.name.removeprefix(f".{folder.name}.").partition(".")[0]):
            shutil.rmtree(left, ignore_errors=True)


def _running(process: str) -> bool:
    if os.name == "nt":  # where signal 0 is Ctrl+C, not a query
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # it runs, under another user
        return True
    return True
