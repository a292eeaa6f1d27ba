"""A Gymnasium vector environment as a Stable-Baselines3 one, without a loop over its environments.

>>> PPO("MultiInputPolicy", rapport.sb3_env("rapport/KuaiRand-v0", 64)).learn(100_000)
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

SEPARATE_PACKAGE = "sb3_contrib"
"""Further algorithms with the interface of Stable-Baselines3's."""
_MARKS = {
    "clip_range": "PPO",
    "cg_max_steps": "TRPO",
    "gae_lambda": "A2C",
    "exploration_rate": "DQN",
    "policy_delay": "TD3",
    "target_entropy": "SAC",
}
"""Settings that one algorithm alone has, or the first of those that have it; DDPG acts as TD3 does."""


def sb3_env(env: str | VectorEnv[Any, Any, Any], num_envs: int = 64, **arguments: Any) -> GymnasiumVecEnv:
    """An environment as the algorithms of Stable-Baselines3 take it, stepped by array operations.

    Args:
        env: an id, e.g. ``"rapport/KuaiRand-v0"``, or what ``gym.make_vec`` returned with
            ``autoreset_mode=AutoresetMode.SAME_STEP``.
        num_envs: users served at once, of an id.
        **arguments: of ``gym.make_vec``, of an id, e.g. ``quit_rule="set_overlap"``.

    Raises:
        gymnasium.error.NameNotFound: there is no such id.
        ValueError: the environment resets in another way.
        TypeError: the environment is none of these, or an argument is unknown.
    """
    if isinstance(env, VectorEnv):
        if arguments:
            raise TypeError(f"{', '.join(arguments)}: give arguments with an id; this environment is made already")
        return GymnasiumVecEnv(env)
    if not isinstance(env, str):
        raise TypeError(
            f"env: {type(env).__name__}; give an id, e.g. 'rapport/KuaiRand-v0', or what gym.make_vec returns"
        )
    arguments = {"autoreset_mode": AutoresetMode.SAME_STEP, **arguments}
    return GymnasiumVecEnv(gym.make_vec(env, num_envs, "vector_entry_point", **arguments))


def algorithm_of(about: Mapping[str, Any]) -> str | None:
    """Name of the algorithm that saved a zip, told by the settings that it alone has; None where none fits.

    Args:
        about: the zip's entry ``data``, as JSON; nothing in it is executed.
    """
    policy = about.get("policy_class")
    module = str(policy.get("__module__", "")) if isinstance(policy, Mapping) else ""
    if module.startswith(SEPARATE_PACKAGE):
        return "MaskablePPO" if ".maskable." in module else None
    return next((name for mark, name in _MARKS.items() if mark in about), None)


def algorithm_class(name: str) -> type[BaseAlgorithm]:
    """An algorithm of Stable-Baselines3 or sb3-contrib by its name.

    Raises:
        ValueError: there is none of that name, or it keeps a state between calls.
    """
    if name.startswith("Recurrent"):
        raise ValueError(f"{name} keeps a state between calls, which a zip alone does not; serve it by a class")
    for package in ("stable_baselines3", SEPARATE_PACKAGE):
        try:
            found = getattr(importlib.import_module(package), name, None)
        except ModuleNotFoundError:
            continue
        if isinstance(found, type) and issubclass(found, BaseAlgorithm):
            return found
    raise ValueError(f"{name!r} is no algorithm of Stable-Baselines3 or sb3-contrib; PPO, A2C, DQN, SAC and TD3 are")


class GymnasiumVecEnv(VecEnv):
    """Adapts a vector environment that resets within the step to Stable-Baselines3.

    The last observation of an ended session stands in its info, as Stable-Baselines3 expects it, with the session's
    return and length.

    Args:
        env: made with ``AutoresetMode.SAME_STEP``; its observations are a Dict or a Box.

    Raises:
        ValueError: the environment resets in another way.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            made = getattr(env.unwrapped.spec, "id", "ID")
            raise ValueError(
                "env: make it with autoreset_mode=AutoresetMode.SAME_STEP, as Stable-Baselines3 expects, or by "
                f"rapport.sb3_env({made!r}, {env.num_envs})"
            )
        self.env = env
        self.render_mode = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions: NDArray[Any] = np.empty(0)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._begun = time.time()

    def reset(self) -> VecEnvObs:
        """Begin all sessions, with the seed that was given to :meth:`seed`, if any."""
        seed = self._seeds[0]
        observations, _ = self.env.reset(seed=seed) if seed is not None else self.env.reset()
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0, 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observations  # type: ignore[no-any-return]

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all sessions."""
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        ended = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended):
            infos[row] = {
                "terminal_observation": info["final_obs"][row],
                "TimeLimit.truncated": bool(truncated[row]),
                "episode": {
                    "r": float(self._returns[row]),
                    "l": int(self._lengths[row]),
                    "t": round(time.time() - self._begun, 6),
                },
            }
        self._returns[ended], self._lengths[ended] = 0, 0
        return observations, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of the vector environment, once per index."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the whole vector environment."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the vector environment once."""
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> Sequence[bool]:  # type: ignore[override]
        """True for Monitor alone, because this class fills ``info["episode"]`` as Monitor does."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]
