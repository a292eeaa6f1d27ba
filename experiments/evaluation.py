"""Playing whole sessions of held-out users: the one way every row of every table is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from rapport.datasets.schema import IntArray, SessionData

Act = Callable[[dict[str, Any]], NDArray[Any]]
"""From observations of B sessions to what their environment takes."""


class Played(NamedTuple):
    """S complete sessions.

    Attributes:
        lengths: shape (S,), slates until the user left.
        returns: shape (S,), summed rewards.
    """

    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]


def evaluation_users(data: SessionData, sessions: int, seed: int) -> IntArray:
    """The held-out users of one seed, shape (sessions,): each at most once where there are enough.

    The same for every method, so that methods are compared on the same people.
    """
    held_out = np.flatnonzero(data.held_out)
    rng = np.random.default_rng([seed, 1])
    return rng.choice(held_out, sessions, replace=sessions > len(held_out))


def play(env: VectorEnv[Any, Any, Any], act: Act, users: IntArray, seed: int) -> Played:
    """Play one session per user to its end, all at once; the users' luck depends on the seed alone."""
    observations, _ = env.reset(seed=seed, options={"user": users})
    lengths, returns = np.zeros(len(users), np.int64), np.zeros(len(users))
    running = np.ones(len(users), bool)
    while running.any():
        observations, rewards, terminated, truncated, _ = env.step(act(observations))
        lengths += running
        returns += np.where(running, rewards, 0.0)
        running &= ~(terminated | truncated)
    return Played(lengths, returns)
