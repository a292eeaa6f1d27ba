"""SQLite files that several processes can share, and that recover from crashes and corruption."""

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
_MAGIC = b"SQLite format 3\0"
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One SQLite database; each process opens its own connection when it needs one.

    Every `run` is one transaction, which a crash leaves either complete or undone. A damaged file is renamed to
    ``<name>.corrupt-<number>`` and replaced by an empty one.
    """

    def __init__(self, path: str | PathLike[str] | None, tables: str) -> None:
        """Open or create the database.

        Args:
            path: the file; None for a database in memory.
            tables: SQL statements that create missing tables.

        Raises:
            ValueError: the file cannot be created or opened.
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
        """Run `work` in one transaction; on a damaged file, replace the file first.

        With `write`, the transaction waits for other writers at its start instead of failing at its first change.
        """
        with self._lock:
            try:
                return self._transaction(work, write)
            except sqlite3.IntegrityError as error:  # our own constraints never fail
                raise ValueError(
                    f"{self.path}: refuses what is written to it ({error}), so it is no file of ours; give another path"
                ) from error
            except sqlite3.DatabaseError as error:
                if self.path is None or not _is_broken(error):
                    raise
                self._close()
                with _exclusive(self.path):
                    self._replace_damaged(error)
                return self._transaction(work, write)

    def close(self) -> None:
        """Close the connection; the next `run` opens it again."""
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
        # A connection must not be used across a fork: a child process opens its own.
        if self._connection is None or self._owner != os.getpid():
            self._connection, self._owner = self._connect_when_free(), os.getpid()
        return self._connection

    def _connect_when_free(self) -> sqlite3.Connection:
        # SQLite's own timeout does not cover the switch to write-ahead logging, when two processes open a new file at
        # the same time, nor the closing of the log by the last user.
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

    def _replace_damaged(self, error: sqlite3.DatabaseError) -> None:
        assert self.path is not None
        if _is_sound(self.path):
            return  # another process has already replaced it
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        logger.warning("%s is damaged (%s): renamed to %s and replaced by an empty file", self.path, error, aside.name)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        if self.path.exists():
            self.path.rename(aside)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Lock out other processes, so that only one of those that find a file damaged replaces it."""
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


def is_database(path: Path) -> bool:
    """Whether there is a file that begins as SQLite's do."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder of {path} cannot be created: {error}. Give another path") from error
