"""Memory of scored texts in SQLite: keeps the newest and samples them by a softmax over their scores."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import one_line
from rapport.agents.llm.sqlite import Store
from rapport.datasets.files.reading import reading

_TABLE = """
CREATE TABLE IF NOT EXISTS {} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    score REAL NOT NULL,
    user INTEGER
)
"""


@dataclass(frozen=True)
class ScoredText:
    """A text with the outcome that it is about.

    Attributes:
        text: the text.
        score: the outcome; higher is better.
        user: index of the user that the text is about; None if it is about no single user.
    """

    text: str
    score: float
    user: int | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.score, int | float) and bool(np.isfinite(self.score))
        if not (isinstance(self.text, str) and number and isinstance(self.user, int | None)):
            raise ValueError(
                f"text={str(self.text)[:40]!r}, score={str(self.score)[:40]!r}, user={str(self.user)[:40]!r}: a scored "
                "text is a text, a finite number, and the index of a user or None"
            )


class ScoredMemory:
    """Keeps the newest `capacity` texts, first in, first out; a softmax over the scores decides which are sampled."""

    def __init__(
        self, path: str | PathLike[str] | None = None, capacity: int = 200, *, table: str = "scored_texts"
    ) -> None:
        """Open or create the memory.

        Args:
            path: SQLite file, which several processes can share; None to keep the texts in memory.
            capacity: most texts kept, at least 1.
            table: name of the table in the file, a Python identifier.

        Raises:
            ValueError: the capacity is below 1, the table no identifier, or the file cannot be opened.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 text; got {capacity}")
        if not table.isidentifier():
            raise ValueError(f"table must be an identifier such as scored_texts; got {table!r}")
        self.capacity = capacity
        self._table = table
        self._store = Store(path, _TABLE.format(table))

    def add(
        self, text: str, score: float, user: int | None = None, *, replaces: Callable[[str], bool] = lambda old: False
    ) -> None:
        """Add a text and drop the oldest beyond the capacity, in one transaction.

        Args:
            text: the text; control characters and runs of spaces become one space.
            score: the outcome that the text is about, finite.
            user: index of the user that the text is about.
            replaces: tells which older texts the new one replaces.

        Raises:
            ValueError: the text is blank, or the score is not finite.
        """
        text = one_line(text)
        if not text:
            raise ValueError("a text must not be blank")
        if not np.isfinite(score):
            raise ValueError(f"score must be a finite number; got {score}")
        table = self._table

        def work(db: sqlite3.Connection) -> None:
            rows = db.execute(f"SELECT id, text FROM {table}").fetchall()
            db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number, old in rows if replaces(old)])
            db.execute(f"INSERT INTO {table} (text, score, user) VALUES (?, ?, ?)", (text, float(score), user))
            newest = f"SELECT id FROM {table} ORDER BY id DESC LIMIT ?"
            db.execute(f"DELETE FROM {table} WHERE id NOT IN ({newest})", (self.capacity,))

        self._store.run(work, write=True)

    def entries(self) -> list[ScoredText]:
        """All texts, oldest first."""
        return self._store.run(lambda db: _entries(db, self._table))

    def sample(self, rng: np.random.Generator, n: int, alpha: float) -> list[ScoredText]:
        """Sample `n` different texts with P(i) proportional to exp(alpha x score_i): LERL's Eq. 4, arXiv 2601.19585.

        Args:
            rng: source of randomness.
            n: texts; if there are no more than n, all of them in random order.
            alpha: inverse temperature; 0 samples uniformly, a negative value prefers low scores.

        Returns:
            Texts in the order of the draws.
        """
        entries = self.entries()
        scores = np.array([entry.score for entry in entries], dtype=np.float64)
        return [entries[index] for index in gumbel_top_k(rng, alpha * scores, n).tolist()]

    def restore(self, entries: Sequence[ScoredText]) -> None:
        """Replace all texts by these, oldest first."""

        def work(db: sqlite3.Connection) -> None:
            db.execute(f"DELETE FROM {self._table}")
            db.executemany(f"INSERT INTO {self._table} (text, score, user) VALUES (?, ?, ?)", map(astuple, entries))

        self._store.run(work, write=True)

    def __len__(self) -> int:
        """Number of texts."""
        return int(self._store.run(lambda db: db.execute(f"SELECT COUNT(*) FROM {self._table}").fetchone()[0]))

    def close(self) -> None:
        """Close the file; a memory without a file is lost."""
        self._store.close()


def read_scored_texts(path: Path, table: str = "scored_texts") -> list[ScoredText]:
    """All texts in the file of a memory, oldest first; the file does not change.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no memory with this table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    with (
        reading(path, f"the table {table}", "give a file that a memory was kept in"),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db,
    ):
        return _entries(db, table)


def gumbel_top_k(rng: np.random.Generator, logits: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Sample `k` indices without replacement, each draw with P(i) proportional to exp(logit_i).

    The k largest of the logits plus Gumbel noise are such a sample, in the order of the draws, and no exponential can
    overflow (Kool et al., 2019, arXiv 1903.06059).

    Args:
        rng: source of randomness.
        logits: shape (N,).
        k: number of indices; all N if N is smaller.

    Returns:
        Shape (min(k, N),).
    """
    keys = logits + rng.gumbel(size=len(logits))
    return np.argsort(-keys, kind="stable")[:k].astype(np.int64)


def _entries(db: sqlite3.Connection, table: str) -> list[ScoredText]:
    return [ScoredText(*row) for row in db.execute(f"SELECT text, score, user FROM {table} ORDER BY id")]
