"""The one recorder of learning curves: episodes that note how they go while somebody learns from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

CurvePoint = tuple[int, float, float]
"""Steps so far, and mean length and mean return of the episodes that ended since the point before."""


class EpisodeStatistics(VectorWrapper):
    """Counts steps and keeps a learning curve; nothing else changes.

    Args:
        env: episodes that begin anew within the step.
        every: steps of all episodes together between two points of the curve, e.g. one rollout of PPO.
        progress: told the steps so far, at each point of the curve.

    Attributes:
        steps: taken so far, in all episodes together.
        curve: the learning curve; a stretch in which no episode ended has no point.
    """

    def __init__(
        self, env: VectorEnv[Any, Any, Any], every: int, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        super().__init__(env)
        self.steps, self.every = 0, every
        self.curve: list[CurvePoint] = []
        self._progress = progress
        self._lengths, self._returns = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs)
        self._ended: list[tuple[int, float]] = []

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        self._lengths[:], self._returns[:] = 0, 0.0
        return self.env.reset(**arguments)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the episodes and take note of those that end."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        self._lengths += 1
        self._returns += rewards
        for row in np.flatnonzero(terminated | truncated).tolist():
            self._ended.append((int(self._lengths[row]), float(self._returns[row])))
            self._lengths[row], self._returns[row] = 0, 0.0
        before = self.steps
        self.steps += self.num_envs
        if self.steps // self.every > before // self.every:
            if self._ended:
                length, total = np.mean(self._ended, axis=0)
                self.curve.append((self.steps, float(length), float(total)))
                self._ended = []
            self._progress(self.steps)
        return observations, rewards, terminated, truncated, info
