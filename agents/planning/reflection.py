"""The pool of reflections: what finished sessions have taught, drawn by how well those sessions went."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rapport.agents.llm.base.interface import printable
from rapport.agents.llm.sqlite import Store

_TABLES = """
CREATE TABLE IF NOT EXISTS reflections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    score REAL NOT NULL,
    user INTEGER
)
"""
_ENTRIES = "SELECT text, score, user FROM reflections ORDER BY id"
_SAME = 0.92
"""Share of words in common from which two texts are one: in 20 words one may be added, but none exchanged."""


@dataclass(frozen=True)
class Reflection:
    """What one session has taught.

    Attributes:
        text: the reflection.
        score: S_u, the sum of clicks of the session it is about.
        user: index of the session's user; None where unknown.
    """

    text: str
    score: float
    user: int | None = None


class ReflectionPool:
    """Keeps the newest reflections and draws some of them, those of good sessions more often.

    At most `capacity` are kept, first in, first out (LERL, arXiv 2601.19585: N_r = 200). A reflection in nearly the
    same words as an older one takes its place instead of standing beside it.
    """

    def __init__(self, path: str | PathLike[str] | None = None, capacity: int = 200) -> None:
        """Open or make the pool.

        Args:
            path: SQLite file in which the pool outlives the process; None to keep it in memory.
            capacity: most reflections kept.
        """
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 reflection; got {capacity}")
        self.capacity = capacity
        self._store = Store(path, _TABLES)

    def add(self, text: str, score: float, user: int | None = None) -> None:
        """Take in a reflection; blank ones are refused.

        Args:
            text: the reflection.
            score: S_u, the sum of clicks of the session it is about.
            user: index of the session's user.
        """
        text = " ".join("".join(c if c.isprintable() else " " for c in printable(text)).split())
        if not text:
            raise ValueError("a reflection must say something; got a blank text")
        if not np.isfinite(score):
            raise ValueError(f"a reflection's score must be a finite number; got {score}")
        words = _words(text)

        def work(db: sqlite3.Connection) -> None:
            rows = db.execute("SELECT id, text FROM reflections").fetchall()
            same = [(number,) for number, old in rows if _overlap(words, _words(old)) >= _SAME]
            db.executemany("DELETE FROM reflections WHERE id = ?", same)
            db.execute("INSERT INTO reflections (text, score, user) VALUES (?, ?, ?)", (text, float(score), user))
            db.execute(
                "DELETE FROM reflections WHERE id NOT IN (SELECT id FROM reflections ORDER BY id DESC LIMIT ?)",
                (self.capacity,),
            )

        self._store.run(work, write=True)

    def entries(self) -> list[Reflection]:
        """All reflections, oldest first."""
        return [Reflection(*row) for row in self._store.run(lambda db: db.execute(_ENTRIES).fetchall())]

    def sample(self, rng: np.random.Generator, n: int = 3, alpha: float = 0.1) -> list[Reflection]:
        """Draw `n` different reflections with P(u) proportional to exp(alpha x S_u), LERL's Eq. 4.

        Args:
            rng: source of randomness.
            n: reflections drawn; all of them, in random order, where the pool has no more.
            alpha: how much more often good sessions are drawn; 0 draws all alike, below 0 bad ones more often.

        Returns:
            Reflections in the order they were drawn.
        """
        entries = self.entries()
        scores = np.array([entry.score for entry in entries], dtype=np.float64)
        return [entries[index] for index in softmax_draw(rng, alpha * scores, n).tolist()]

    def shuffled(self, rng: np.random.Generator) -> ReflectionPool:
        """A copy in memory with the scores dealt to other texts, at random: what is drawn no longer tells what paid."""
        pool, entries = ReflectionPool(capacity=self.capacity), self.entries()
        for entry, place in zip(entries, rng.permutation(len(entries)).tolist(), strict=True):
            pool.add(entry.text, entries[place].score, entry.user)
        return pool

    def restore(self, entries: Sequence[Reflection]) -> None:
        """Hold these reflections, oldest first, and no others."""
        rows = [(entry.text, entry.score, entry.user) for entry in entries]

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM reflections")
            db.executemany("INSERT INTO reflections (text, score, user) VALUES (?, ?, ?)", rows)

        self._store.run(work, write=True)

    def __len__(self) -> int:
        """Number of reflections kept."""
        return int(self._store.run(lambda db: db.execute("SELECT COUNT(*) FROM reflections").fetchone()[0]))

    def close(self) -> None:
        """Close the file; a pool in memory is lost."""
        self._store.close()


def read_reflections(path: Path) -> list[Reflection]:
    """All reflections in a pool's file, oldest first; the file is left as it is.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no pool of reflections.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; runs with a language model keep reflections-seed0.sqlite and others"
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return [Reflection(*row) for row in db.execute(_ENTRIES)]
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is no pool of reflections ({error}); give a file like reflections.sqlite") from error


def softmax_draw(rng: np.random.Generator, logits: NDArray[np.float64], n: int) -> NDArray[np.int64]:
    """Draw `n` indices one after the other, without replacement, each with P proportional to exp(logit).

    The `n` largest of logits with Gumbel noise added are exactly such a draw, in order, and no exponential can overflow
    (Kool et al. 2019, arXiv 1903.06059).

    Args:
        rng: source of randomness.
        logits: shape (N,).
        n: indices drawn; all N where N is smaller.

    Returns:
        Shape (min(n, N),).
    """
    keys = logits + rng.gumbel(size=len(logits))
    return np.argsort(-keys, kind="stable")[:n].astype(np.int64)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) or frozenset({text})


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Words that two texts share, of all their words."""
    return len(first & second) / len(first | second)
