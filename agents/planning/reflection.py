"""LERL's pool of reflections (arXiv 2601.19585): texts on finished sessions, sampled by the sessions' clicks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from rapport.agents.llm.base.interface import one_line
from rapport.agents.llm.memory import ScoredMemory, ScoredText, read_scored_texts

Reflection = ScoredText
"""A reflection on one session: its text, its score S_u (the session's sum of clicks), and the session's user."""

_TABLE = "reflections"
_SAME = 0.92
"""Share of common words from which two texts count as one: of 20 words one may be added, and none exchanged."""


class ReflectionPool:
    """Keeps the newest reflections (N_r = 200 in LERL), and samples those of good sessions more often (Eq. 4).

    A reflection in nearly the same words as an older one replaces it.
    """

    def __init__(self, path: str | PathLike[str] | None = None, capacity: int = 200) -> None:
        """Open or create the pool.

        Args:
            path: SQLite file; None to keep the pool in memory.
            capacity: most reflections kept.

        Raises:
            ValueError: the capacity is below 1, or the file cannot be opened.
        """
        self.capacity = capacity
        self._memory = ScoredMemory(path, capacity, table=_TABLE)

    def add(self, text: str, score: float, user: int | None = None) -> None:
        """Add a reflection.

        Args:
            text: the reflection.
            score: S_u, the sum of clicks of the session.
            user: index of the session's user.

        Raises:
            ValueError: the text is blank, or the score is not finite.
        """
        words = _words(one_line(text))
        self._memory.add(text, score, user, replaces=lambda old: _overlap(words, _words(old)) >= _SAME)

    def entries(self) -> list[Reflection]:
        """All reflections, oldest first."""
        return self._memory.entries()

    def sample(self, rng: np.random.Generator, n: int = 3, alpha: float = 0.1) -> list[Reflection]:
        """Sample `n` different reflections with P(u) proportional to exp(alpha x S_u), LERL's Eq. 4.

        Args:
            rng: source of randomness.
            n: reflections; if the pool has no more, all of them in random order.
            alpha: weight of the score; 0 samples uniformly, a negative value prefers bad sessions.

        Returns:
            Reflections in the order of the draws.
        """
        return self._memory.sample(rng, n, alpha)

    def shuffled(self, rng: np.random.Generator) -> ReflectionPool:
        """A copy in memory with randomly permuted scores, so that sampling is independent of the outcomes."""
        pool, entries = ReflectionPool(capacity=self.capacity), self.entries()
        for entry, place in zip(entries, rng.permutation(len(entries)).tolist(), strict=True):
            pool.add(entry.text, entries[place].score, entry.user)
        return pool

    @classmethod
    def copy_of(cls, path: Path) -> ReflectionPool:
        """A copy in memory of the pool in a file, which does not change; an empty pool where there is no file.

        Raises:
            ValueError: the file is no pool of reflections.
        """
        pool = cls()
        if path.exists():
            pool.restore(read_reflections(path))
        return pool

    def restore(self, entries: Sequence[Reflection]) -> None:
        """Replace all reflections by these, oldest first."""
        self._memory.restore(entries)

    def __len__(self) -> int:
        """Number of reflections."""
        return len(self._memory)

    def close(self) -> None:
        """Close the file; a pool in memory is lost."""
        self._memory.close()


def read_reflections(path: Path) -> list[Reflection]:
    """All reflections in a pool's file, oldest first; the file does not change.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no pool of reflections.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; runs with a language model keep reflections-lerl-seed0.sqlite and others"
        )
    try:
        return read_scored_texts(path, _TABLE)
    except ValueError as error:
        raise ValueError(f"{path} is no pool of reflections ({error}); give a file like reflections.sqlite") from error


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold())) or frozenset({text})


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    """Share of the words of two texts that both have."""
    return len(first & second) / len(first | second)
