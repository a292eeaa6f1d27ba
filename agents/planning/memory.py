"""Reflections recalled by similarity: those on sessions of similar users, in place of a draw by outcome.

BiLLP's planner and actor read the entries of their memory that are nearest to the present situation (Shi et al.,
"Large Language Models are Learnable Planners for Long-Term Recommendation", SIGIR 2024, section 4.2). BiLLP compares
texts by a language model's embeddings; here users are compared by the categories they click more or less than others.
"""

from __future__ import annotations

import numpy as np

from rapport.agents.planning.preference import FloatArray, IntArray
from rapport.agents.planning.reflection import ReflectionPool
from rapport.datasets.schema import SessionData


class SimilarSessions:
    """Recalls the reflections on sessions of the most similar users.

    Args:
        pool: reflections with their users.
        data: its log before the test days gives the users' preferences.
        n: reflections recalled for each session.
    """

    def __init__(self, pool: ReflectionPool, data: SessionData, n: int = 3) -> None:
        self.pool, self.n = pool, n
        self._preference = preferences(data)

    def recall(self, users: IntArray) -> list[list[str]]:
        """At most n texts for each of B users, shape (B,), the most similar user's first."""
        known = [(entry.text, entry.user) for entry in self.pool.entries() if entry.user is not None]
        if not known:
            return [[] for _ in users]
        about = np.array([user for _, user in known])
        similarity = self._preference[users] @ self._preference[about].T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : self.n]
        return [[known[i][0] for i in row] for row in nearest.tolist()]


def preferences(data: SessionData) -> FloatArray:
    """Clicks of each user in each category minus those expected at its overall rate, at unit length, shape (U, C).

    A user without recorded feedback has zeros.
    """
    log, n_categories = data.log, data.catalog.n_categories
    rows = np.flatnonzero((log.time_ms < data.test_from_ms) & (log.feedback[:, 0] >= 0))
    cell = log.user[rows].astype(np.int64) * n_categories + data.catalog.category[log.item[rows]]
    size = data.population.n_users * n_categories
    seen = np.bincount(cell, minlength=size).reshape(-1, n_categories)
    clicked = np.bincount(cell[log.feedback[rows, 0] > 0], minlength=size).reshape(-1, n_categories)
    expected = seen * (clicked.sum(axis=0) / np.maximum(seen.sum(axis=0), 1))
    beyond = clicked - expected
    length = np.linalg.norm(beyond, axis=1, keepdims=True)
    preference: FloatArray = beyond / np.where(length > 0, length, 1.0)
    return preference
