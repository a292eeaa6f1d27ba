"""The engine as Gymnasium environments: :class:`SessionEnv` for one user, :class:`SessionVectorEnv` for B users.

Both run :class:`~rapport.envs.session.core.SessionCore`. Slot i of a vector environment seeded with s lives through the
same sessions as a single environment seeded with s + i.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rapport.datasets.schema import Int32Array, IntArray
from rapport.envs.session import noise
from rapport.envs.session.core import Observation, SessionCore, StepResult

Info = dict[str, Any]


def observation_space(core: SessionCore) -> spaces.Dict:
    """What an agent sees of one user.

    - ``history_items`` (H,) int32: the last H items seen, oldest first, as index + 1; 0 where there is none.
    - ``history_feedback`` (H * F,) int8: for each of them the F behaviours (``reshape(H, F)``): 1 did, 0 did not, -1 not
      recorded.
    - ``step`` (1,) int32: slates shown so far in this session; the last step * K items of the history are of it.
    - ``user_features`` (G,) int32: codes of the user's features.
    """
    length, n_behaviours = core.histories.feedback.shape[1:]
    cardinalities = np.array(core.data.population.features.cardinalities, np.int32)
    return spaces.Dict(
        {
            "history_feedback": spaces.Box(-1, 1, (length * n_behaviours,), np.int8),
            "history_items": spaces.Box(0, core.data.catalog.n_items, (length,), np.int32),
            "step": spaces.Box(0, core.max_steps, (1,), np.int32),
            "user_features": spaces.Box(np.zeros_like(cardinalities), cardinalities - 1, dtype=np.int32),
        }
    )


def action_space(core: SessionCore) -> spaces.MultiDiscrete:
    """A slate: K item indices, in the order they are shown. An item may appear twice."""
    return spaces.MultiDiscrete([core.data.catalog.n_items] * core.slate_size)


class SessionEnv(gym.Env[Observation, NDArray[np.int64]]):
    """One user at a time.

    Reward: mean click over the slate, in [0, 1]. ``terminated`` when the user leaves, ``truncated`` at the time limit.
    ``info`` holds ``user``, ``budget`` and, after a step, ``categories`` (K,) and ``feedback`` (K, F) of the slate.

    Args:
        core: an engine for one session.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, core: SessionCore) -> None:
        if core.n_envs != 1:
            raise ValueError(f"core.n_envs={core.n_envs}; a SessionEnv holds one session: use SessionVectorEnv for more")
        self.core = core
        self.observation_space = observation_space(core)
        self.action_space = action_space(core)
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin a session; ``options={"user": index}`` chooses whose."""
        super().reset(seed=seed)
        row = np.zeros(1, np.int64)
        if seed is not None or not self._seeded:
            self.core.seed(row, np.array([noise.new_key(self.np_random)]))
            self._seeded = True
        self.core.begin(row, _chosen_users(options, self.core))
        return self._observe(), {"user": int(self.core.user[0]), "budget": float(self.core.budget[0])}

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, Info]:
        """Show the user one slate of K item indices.

        Raises:
            ValueError: an item index is out of range.
        """
        result = self.core.step(_as_slates(np.asarray(action)[None], self.core))
        info = {
            "user": int(self.core.user[0]),
            "budget": float(self.core.budget[0]),
            "categories": result.categories[0],
            "feedback": result.feedback[0],
        }
        return self._observe(), float(result.reward[0]), bool(result.terminated[0]), bool(result.truncated[0]), info

    def _observe(self) -> Observation:
        return {name: value[0] for name, value in self.core.observation().items()}


class SessionVectorEnv(gym.vector.VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """B users at a time, stepped by array operations.

    Rewards, endings and infos as in :class:`SessionEnv`, each with a leading axis B. Ended sessions begin anew by
    themselves: on the next step (Gymnasium's default; that step's action is ignored and its reward 0) or within the same
    step, which then carries the last observation and info of the ended session in ``info["final_obs"]`` and
    ``info["final_info"]`` (arrays of B rows, valid where ``info["_final_obs"]``).

    Args:
        core: an engine for B sessions.
        autoreset_mode: ``AutoresetMode.NEXT_STEP`` or ``AutoresetMode.SAME_STEP``.
    """

    def __init__(self, core: SessionCore, autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> None:
        mode = AutoresetMode(autoreset_mode)
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise ValueError(f"autoreset_mode={autoreset_mode!r}; use AutoresetMode.NEXT_STEP or SAME_STEP")
        self.core = core
        self.num_envs = core.n_envs
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.autoreset_mode = mode
        self.single_observation_space = observation_space(core)
        self.single_action_space = action_space(core)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._all = np.arange(self.num_envs)
        self._seeded = False
        self._ended = np.zeros(self.num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin B sessions; an integer seed s seeds slot i with s + i; ``options={"user": indices}`` chooses whose."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        if seed is not None or not self._seeded:
            seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in self._all]
            if len(seeds) != self.num_envs:
                raise ValueError(f"seed: {len(seeds)} seeds for {self.num_envs} environments; give one each")
            self.core.seed(self._all, np.array([noise.new_key(seeding.np_random(_plain(s))[0]) for s in seeds]))
            self._seeded = True
        self.core.begin(self._all, _chosen_users(options, self.core))
        self._ended[:] = False
        return self.core.observation(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Show every user one slate, shape (B, K) item indices.

        Raises:
            ValueError: an item index is out of range or the shape does not fit.
        """
        slates = _as_slates(np.asarray(actions), self.core)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return self._step_next(slates)
        return self._step_same(slates)

    def _step_next(self, slates: Int32Array) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        begun = np.flatnonzero(self._ended)
        result = self.core.step(slates)
        reward, terminated, truncated = result.reward, result.terminated, result.truncated
        info = self._info(result)
        if len(begun):
            self.core.begin(begun)
            reward[begun], terminated[begun], truncated[begun] = 0.0, False, False
            info["user"][begun], info["budget"][begun] = self.core.user[begun], self.core.budget[begun]
            result.categories[begun], result.feedback[begun] = -1, 0
            info["_categories"] = info["_feedback"] = ~self._ended
        self._ended = terminated | truncated
        return self.core.observation(), reward, terminated, truncated, info

    def _step_same(self, slates: Int32Array) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        result = self.core.step(slates)
        ended = result.terminated | result.truncated
        info = self._info(result)
        if ended.any():
            info["final_obs"], info["_final_obs"] = self.core.observation(), ended
            info["final_info"], info["_final_info"] = self._info(result), ended
            self.core.begin(np.flatnonzero(ended))
            info["user"], info["budget"] = self.core.user.copy(), self.core.budget.copy()
        return self.core.observation(), result.reward, result.terminated, result.truncated, info

    def _info(self, result: StepResult | None = None) -> Info:
        info: Info = {"user": self.core.user.copy(), "budget": self.core.budget.copy()}
        if result is not None:
            info |= {"categories": result.categories, "feedback": result.feedback}
        return info


def _as_slates(actions: NDArray[np.integer], core: SessionCore) -> Int32Array:
    if actions.shape != (core.n_envs, core.slate_size):
        raise ValueError(f"action: shape {actions.shape} where {(core.n_envs, core.slate_size)} item indices are needed")
    n_items = core.data.catalog.n_items
    if actions.min() < 0 or actions.max() >= n_items:
        bad = actions.min() if actions.min() < 0 else actions.max()
        raise ValueError(f"action: item {bad} is outside [0, {n_items}); a slate holds item indices")
    return actions.astype(np.int32)


def _chosen_users(options: dict[str, Any] | None, core: SessionCore) -> IntArray | None:
    chosen = (options or {}).get("user")
    if chosen is None:
        return None
    users = np.broadcast_to(np.asarray(chosen, np.int64), core.n_envs)
    n_users = core.data.population.n_users
    if users.min() < 0 or users.max() >= n_users:
        raise ValueError(f"options['user']: {chosen} is outside [0, {n_users}); give indices of users")
    return users


def _plain(seed: int | None) -> int | None:
    return None if seed is None else int(seed)
