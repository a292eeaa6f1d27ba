"""Playing whole episodes, the one way every row is measured; and the one recorder of learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

Act = Callable[[Any], Any]
"""From the observations of B episodes to what their environment takes."""
Arrays = Mapping[str, NDArray[Any]]
"""One number per episode, by name: each of shape (E,)."""


class Counter(Protocol):
    """Measures episodes while they are played."""

    def count(self, rewards: NDArray[np.float64], info: Mapping[str, Any], running: NDArray[np.bool_]) -> None:
        """Take in one step of the E episodes; those that have ended are False in ``running``, shape (E,)."""
        ...

    def measured(self, lengths: NDArray[np.int64]) -> Arrays:
        """What was counted, given the episodes' lengths, shape (E,)."""
        ...


class Episodes(NamedTuple):
    """E complete episodes.

    Attributes:
        arrays: one number per episode, by name; ``length`` [steps] and ``return`` [summed reward] always.
        units: unit of each array.
        ids: shape (E,), whose episode it was, so that two rows can be compared pair by pair; None where nobody's.
        meter: what was spent on the way, by name.
        notes: what a reader has to know.
    """

    arrays: Arrays
    units: Mapping[str, str]
    ids: NDArray[np.int64] | None = None
    meter: Mapping[str, float] = {}
    notes: tuple[str, ...] = ()


UNITS = {"length": "steps", "return": "summed reward"}


def play(
    env: VectorEnv[Any, Any, Any],
    act: Act,
    seed: int,
    options: Mapping[str, Any] | None = None,
    counters: Sequence[Counter] = (),
) -> dict[str, NDArray[Any]]:
    """Play one episode at every place to its end; all chance comes from the seed.

    Args:
        env: E places that begin anew within the step (``AutoresetMode.SAME_STEP``); what follows a place's first
            episode does not count.
        act: serves them.
        seed: of the environment.
        options: of its reset.
        counters: measure more than length and return.

    Returns:
        ``length``, int64, and ``return``, float64, and what the counters measured, each of shape (E,).
    """
    observations, _ = env.reset(seed=seed, options=None if options is None else dict(options))
    lengths, returns = np.zeros(env.num_envs, np.int64), np.zeros(env.num_envs)
    running = np.ones(env.num_envs, bool)
    while running.any():
        observations, rewards, terminated, truncated, info = env.step(act(observations))
        told = step_info(info)
        lengths += running
        returns += np.where(running, rewards, 0.0)
        for counter in counters:
            counter.count(rewards, told, running)
        running &= ~(terminated | truncated)
    arrays: dict[str, NDArray[Any]] = {"length": lengths, "return": returns}
    for counter in counters:
        arrays |= counter.measured(lengths)
    return arrays


def step_info(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a step told of every episode, shape (E, ...) by name.

    Gymnasium keeps the entries of episodes that ended with the step apart, in ``final_info``; here they are in place.
    """
    last = info.get("final_info")
    if not isinstance(last, dict):
        return info
    told = dict(info)
    for name, values in last.items():
        ended = last.get(f"_{name}")
        if ended is not None and name not in told:
            told[name] = values
        elif ended is not None:
            told[name] = np.where(ended.reshape(-1, *(1,) * (np.ndim(values) - 1)), values, told[name])
    return told


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
