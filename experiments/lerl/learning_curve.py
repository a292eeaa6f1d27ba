"""Sessions that write down how they go while somebody learns from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

POINT_EVERY = 1_280
"""Transitions between two points of a learning curve: one rollout of LERL's PPO."""


class Watched(VectorWrapper):
    """Counts transitions and keeps a learning curve; nothing else changes.

    Args:
        env: sessions that begin anew within the step.
        progress: told the transitions so far, at each point of the curve.

    Attributes:
        transitions: slates served so far.
        curve: points of (transitions, mean length, mean return) of the sessions that ended since the point before.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], progress: Callable[[int], None]) -> None:
        super().__init__(env)
        self.transitions = 0
        self.curve: list[tuple[int, float, float]] = []
        self._progress = progress
        self._lengths, self._returns = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs)
        self._ended: list[tuple[int, float]] = []

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions."""
        self._lengths[:], self._returns[:] = 0, 0.0
        return self.env.reset(**arguments)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sessions and take note of those that end."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._lengths += 1
        self._returns += rewards
        for row in np.flatnonzero(terminated | truncated).tolist():
            self._ended.append((int(self._lengths[row]), float(self._returns[row])))
            self._lengths[row], self._returns[row] = 0, 0.0
        before = self.transitions
        self.transitions += self.num_envs
        if self.transitions // POINT_EVERY > before // POINT_EVERY:
            if self._ended:
                length, total = np.mean(self._ended, axis=0)
                self.curve.append((self.transitions, float(length), float(total)))
                self._ended = []
            self._progress(self.transitions)
        return observations, rewards, terminated, truncated, info
