"""SQLite files that several processes may share and that survive a kill, a crash and their own corruption."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 30.0
_PAUSE_SECONDS = 0.01
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One SQLite database, opened when needed, by each process for itself.

    Every `run` is one transaction, so whatever kills the process leaves it done or not done. A file that turns out to
    be damaged is set aside as ``<name>.corrupt-<number>`` and an empty one takes its place.
    """

    def __init__(self, path: str | PathLike[str] | None, tables: str) -> None:
        """Open or make the database.

        Args:
            path: the file; None for a database in memory.
            tables: SQL statements that make the tables where they are missing.

        Raises:
            ValueError: the file cannot be made or opened.
        """
        self.path = None if path is None else Path(fspath(path))
        self._tables = tables
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        if self.path is not None:
            _make_folder(self.path)
        try:
            self.run(lambda db: None)
        except sqlite3.OperationalError as error:
            raise ValueError(
                f"{self.path} cannot be opened as a database: {error}. Check that its folder exists, can be written to "
                "and is not full, or give another path"
            ) from error

    def run(self, work: Callable[[sqlite3.Connection], T], *, write: bool = False) -> T:
        """Do `work` in one transaction; on a damaged file set it aside and do it on an empty one.

        A transaction that writes says so, and waits for other writers at its start instead of failing in its middle.
        """
        with self._lock:
            try:
                return self._transaction(work, write)
            except sqlite3.DatabaseError as error:
                if self.path is None or not _is_broken(error):
                    raise
                self._close()
                with _alone(self.path):
                    self._set_aside(error)
                return self._transaction(work, write)

    def close(self) -> None:
        """Close the database; the next `run` opens it again."""
        with self._lock:
            self._close()

    def _transaction(self, work: Callable[[sqlite3.Connection], T], write: bool) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            result = work(connection)
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        return result

    def _open(self) -> sqlite3.Connection:
        # A connection must not be used across fork: a child opens its own and leaves its parent's alone.
        if self._connection is None or self._owner != os.getpid():
            self._connection, self._owner = self._connect_when_free(), os.getpid()
        return self._connection

    def _connect_when_free(self) -> sqlite3.Connection:
        # SQLite's own timeout does not cover the change to write-ahead logging, for which two processes that open a
        # new file at once compete, nor the last user's closing of the log.
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _connect(self) -> sqlite3.Connection:
        name = ":memory:" if self.path is None else str(self.path)
        connection = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(self._tables)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        if self._connection is not None and self._owner == os.getpid():
            self._connection.close()
        self._connection = None

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        assert self.path is not None
        if _is_sound(self.path):
            return  # another process has already replaced it
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        logger.warning("%s is damaged (%s): set aside as %s, starting afresh", self.path, error, aside.name)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if self.path.exists():
            self.path.rename(aside)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep all other processes out of the block: of several that find a file damaged, one only may set it aside."""
    lock = path.with_name(path.name + ".lock")
    with closing(sqlite3.connect(lock, timeout=_BUSY_SECONDS, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_broken(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def _is_sound(path: Path) -> bool:
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
        try:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
        finally:
            connection.close()
    except sqlite3.DatabaseError:
        return False


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder of {path} cannot be made: {error}. Give another path") from error
