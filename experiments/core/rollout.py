"""Playing whole episodes: the one way every row of every table is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.vector import VectorEnv
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
