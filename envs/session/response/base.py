"""Response models: how users respond to a slate. The protocol, and the simplest model, a table that is looked up."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rapport.datasets.schema import FloatArray, Int8Array, Int32Array, IntArray

Profile = Literal["corrected", "official"]
"""Of a fitted model: ``official`` is that of LERL's released code."""


class ResponseModel(Protocol):
    """Probability of each behaviour for each item of a slate, given the user's history.

    The history is carried in a state, one row of floats per user, so that a step costs O(slate), not O(history), and
    sessions are copied, stored and reset by array operations. The engine writes into the states that it is given: they
    must be new arrays, not views of the model's. ``docs/kuairand.md`` has one of one's own as an example.
    """

    behaviours: tuple[str, ...]
    """F names, those of the log."""

    def initial_state(self, users: IntArray) -> FloatArray:
        """States after the users' logged histories, shape (B, D), float32."""
        ...

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """Probability of each behaviour for each item, shape (B, K, F), in [0, 1], for slates of shape (B, K)."""
        ...

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D), after slates of shape (B, K) with feedback of shape (B, K, F) in {0, 1}."""
        ...

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """Log-odds of the first behaviour for every item, shape (B, N): for oracle controls alone.

        The score is the item's own: effects of the slate around it and of satiation are left out. The engine does not
        call this method, so a model without it still serves sessions.
        """
        ...


class ReadsHistories(ResponseModel, Protocol):
    """A response model that can start from any history, not only from the users' logged ones."""

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """States, shape (B, D), after histories as in
        :class:`~rapport.envs.session.engine.initial_histories.Histories`.
        """
        ...


class MatrixResponse:
    """Behaviour probabilities read from a table: users without memory.

    Args:
        matrix: shape (S, N) for one behaviour or (S, N, F), probabilities in [0, 1].
        behaviours: F names.
        users: shape (S,), the users of the rows, increasing; by default 0, 1, ..., S - 1. No other user may be asked
            about.

    Raises:
        ValueError: shapes do not fit or a probability lies outside [0, 1].
    """

    def __init__(
        self, matrix: NDArray[np.generic], behaviours: tuple[str, ...] = ("click",), users: IntArray | None = None
    ) -> None:
        table = np.asarray(matrix, dtype=np.float32)
        table = table[..., None] if table.ndim == 2 else table
        if table.ndim != 3 or table.shape[2] != len(behaviours):
            raise ValueError(
                f"matrix: shape {np.shape(matrix)} does not hold one probability per user, item and behaviour "
                f"({', '.join(behaviours)}); give (U, N, {len(behaviours)})"
            )
        if not ((table >= 0) & (table <= 1)).all():
            raise ValueError(f"matrix: values from {table.min()} to {table.max()}; probabilities must lie in [0, 1]")
        if users is not None and len(users) != len(table):
            raise ValueError(f"users: {len(users)} where the matrix has {len(table)} rows; give one for each")
        self.matrix = table
        self.behaviours = behaviours
        self.users = users
        self.certain = bool(((table == 0) | (table == 1)).all())
        """Whether every probability is 0 or 1."""
        self._flat = np.ascontiguousarray(table).reshape(-1, len(behaviours))
        self._flat = self._flat[:, 0] if len(behaviours) == 1 else self._flat
        self._first = self._first_entries(users)
        self._marks = (self._flat > 0).astype(np.int8) if self.certain else None

    def _first_entries(self, users: IntArray | None) -> IntArray:
        """Index of each user's row in the flattened table, shape (U,)."""
        n_rows, n_items = self.matrix.shape[:2]
        if users is None:
            return np.arange(0, n_rows * n_items, n_items, dtype=np.int64)
        first = np.full(int(users[-1]) + 1, np.iinfo(np.int64).max // 2, np.int64)  # users without a row: an IndexError
        first[users] = np.arange(n_rows) * n_items
        return first

    def initial_state(self, users: IntArray) -> FloatArray:
        """No memory: shape (B, 0)."""
        return np.zeros((len(users), 0), np.float32)

    def probabilities(self, state: FloatArray, users: IntArray, slates: Int32Array) -> FloatArray:
        """The table's entries, shape (B, K, F)."""
        entries: FloatArray = self._flat.take(self._first.take(users)[:, None] + slates, axis=0)
        return entries.reshape(*slates.shape, len(self.behaviours))

    def click_scores(self, state: FloatArray, users: IntArray) -> FloatArray:
        """Log-odds of the first behaviour for every item, shape (B, N), between -14 and 14."""
        chance = self.matrix[self._first.take(users) // self.matrix.shape[1], :, 0].clip(1e-6, 1 - 1e-6)
        scores: FloatArray = np.log(chance / (1.0 - chance))
        return scores

    def responses(self, users: IntArray, slates: Int32Array) -> Int8Array:
        """Feedback where every probability is 0 or 1, shape (B, K, F), int8 in {0, 1}.

        Raises:
            ValueError: a probability lies between 0 and 1.
        """
        if self._marks is None:
            raise ValueError("matrix: holds probabilities between 0 and 1; responses must be drawn")
        marks: Int8Array = self._marks.take(self._first.take(users)[:, None] + slates, axis=0)
        return marks.reshape(*slates.shape, len(self.behaviours))

    def response_table(self) -> tuple[IntArray, Int8Array]:
        """Index of users' rows in the table of :meth:`responses`, shape (U,), and the table, shape (S * N * F,)."""
        if self._marks is None:
            raise ValueError("matrix: holds probabilities between 0 and 1; responses must be drawn")
        return self._first, self._marks.reshape(-1)

    def state_after(self, users: IntArray, items: Int32Array, feedback: Int8Array) -> FloatArray:
        """No memory: shape (B, 0)."""
        return self.initial_state(users)

    def advance(self, state: FloatArray, users: IntArray, slates: Int32Array, feedback: Int8Array) -> FloatArray:
        """The same state: there is no memory."""
        return state
