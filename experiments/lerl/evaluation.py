"""Playing whole sessions of held-out users: the one way every row of every table is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rapport.datasets.schema import IntArray, SessionData
from rapport.envs.session.engine.core import SessionCore

Act = Callable[[dict[str, Any]], NDArray[Any]]
"""From observations of B sessions to what their environment takes."""


class Played(NamedTuple):
    """S complete sessions.

    Attributes:
        lengths: shape (S,), slates until the user left.
        returns: shape (S,), summed rewards.
        coverage: shape (S,), share of all categories that the session showed.
        intra: shape (S,), diversity within slates: share of a slate's pairs of items that are of two categories, mean
            over the session's slates; 1 for slates of one item.
        between: shape (S,), diversity between slates: 1 - |A & B| / |A | B| of the categories of a slate and of the one
            before, mean over the session's slates after the first; 1 for a session of one slate, which repeats nothing.
    """

    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    coverage: NDArray[np.float64]
    intra: NDArray[np.float64]
    between: NDArray[np.float64]

    @property
    def variety(self) -> dict[str, NDArray[np.float64]]:
        """How varied the sessions were, by name."""
        return {"coverage": self.coverage, "intra": self.intra, "between": self.between}


def evaluation_users(data: SessionData, sessions: int, seed: int, among: IntArray | None = None) -> IntArray:
    """The held-out users of one seed, shape (sessions,): each at most once where there are enough.

    The same for every method, so that methods are compared on the same people. ``among`` are those who can be served,
    where not all can.
    """
    held_out = np.flatnonzero(data.held_out) if among is None else among[data.held_out[among]]
    rng = np.random.default_rng([seed, 1])
    return rng.choice(held_out, sessions, replace=sessions > len(held_out))


def play(env: VectorEnv[Any, Any, Any], act: Act, users: IntArray, seed: int) -> Played:
    """Play one session per user to its end, all at once; the users' luck depends on the seed alone."""
    observations, _ = env.reset(seed=seed, options={"user": users})
    lengths, returns = np.zeros(len(users), np.int64), np.zeros(len(users))
    running = np.ones(len(users), bool)
    core: SessionCore = env.unwrapped.core  # type: ignore[attr-defined]
    variety = Variety(len(users), core.data.catalog.n_categories)
    while running.any():
        observations, rewards, terminated, truncated, info = env.step(act(observations))
        lengths += running
        returns += np.where(running, rewards, 0.0)
        variety.count(info["categories"], running)
        running &= ~(terminated | truncated)
    return Played(lengths, returns, *variety.measured(lengths))


class Variety:
    """Counts how varied sessions are, slate by slate.

    Args:
        sessions: S.
        n_categories: C.
    """

    def __init__(self, sessions: int, n_categories: int) -> None:
        self._ever = np.zeros((sessions, n_categories), bool)
        self._last = np.zeros((sessions, n_categories), bool)
        self._intra, self._between = np.zeros(sessions), np.zeros(sessions)
        self._begun = False

    def count(self, categories: NDArray[np.integer], running: NDArray[np.bool_]) -> None:
        """Take in the slates' categories, shape (S, K), of the sessions that run, shape (S,)."""
        size = categories.shape[1]
        now = np.zeros_like(self._ever)
        np.put_along_axis(now, categories.astype(np.int64), True, axis=1)
        if size > 1:
            alike = (categories[:, :, None] == categories[:, None, :]).sum(axis=(1, 2)) - size
            self._intra += np.where(running, 1.0 - alike / (size * (size - 1)), 0.0)
        if self._begun:
            both = (now & self._last).sum(axis=1) / (now | self._last).sum(axis=1)
            self._between += np.where(running, 1.0 - both, 0.0)
        self._ever |= now & running[:, None]
        self._last, self._begun, self._size = now, True, size

    def measured(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
        """Coverage, diversity within and diversity between slates, each of shape (S,)."""
        intra = self._intra / lengths if self._size > 1 else np.ones(len(lengths))
        between = np.where(lengths > 1, self._between / np.maximum(lengths - 1, 1), 1.0)
        return self._ever.mean(axis=1), intra, between
