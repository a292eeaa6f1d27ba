"""The engine as Gymnasium environments: :class:`SessionEnv` for one user, :class:`SessionVectorEnv` for B users.

Both run :class:`~rapport.envs.session.core.SessionCore`. Slot i of a vector environment seeded with s lives through the
same sessions as a single environment seeded with s + i.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
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
    - ``history_feedback`` (H * F,) int8: for each of them the F behaviours (``reshape(H, F)``): 1 did, 0 did not, -1
      not recorded.
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

    Raises:
        ValueError: the engine holds more than one session.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, core: SessionCore) -> None:
        if core.n_envs != 1:
            raise ValueError(
                f"core.n_envs={core.n_envs}; a SessionEnv holds one session: use SessionVectorEnv for more"
            )
        self.core = core
        self.observation_space = observation_space(core)  # type: ignore[assignment] # typed by its spaces, not by arrays
        self.action_space = action_space(core)
        self._seeded = False
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin a session; ``options={"user": index}`` chooses whose, whether of the pool or not.

        Raises:
            ValueError: there is no such user.
        """
        super().reset(seed=seed)
        users = _chosen_users(options, self.core)
        row = np.zeros(1, np.int64)
        if seed is not None or not self._seeded:
            self.core.seed(row, np.array([noise.new_key(self.np_random)]))
            self._seeded = True
        self.core.begin(row, users)
        self._running = True
        return self._observe(), {"user": int(self.core.user[0]), "budget": float(self.core.budget[0])}

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, Info]:
        """Show the user one slate of K item indices.

        Raises:
            ValueError: the slate has another shape than (K,) or holds what is no item's index.
            ResetNeeded: no session is running.
        """
        if not self._running:
            raise ResetNeeded("no session is running: call reset() first")
        result = self.core.step(_checked(action, (self.core.slate_size,), self.core)[None])
        info = {
            "user": int(self.core.user[0]),
            "budget": float(self.core.budget[0]),
            "categories": result.categories[0],
            "feedback": result.feedback[0],
        }
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        self._running = not (terminated or truncated)
        return self._observe(), float(result.reward[0]), terminated, truncated, info

    def _observe(self) -> Observation:
        return {name: value[0] for name, value in self.core.observation().items()}


class SessionVectorEnv(gym.vector.VectorEnv[Observation, NDArray[np.int64], NDArray[Any]]):
    """B users at a time, stepped by array operations.

    Rewards, endings and infos as in :class:`SessionEnv`, each with a leading axis B. Ended sessions begin anew by
    themselves:

    - ``NEXT_STEP`` (Gymnasium's default): on the step after. That step's action is ignored, its reward is 0, and
      ``info["_categories"]`` and ``info["_feedback"]`` are false where it began a session instead of showing a slate.
    - ``SAME_STEP``: within the step. Observation, ``user`` and ``budget`` are then the new session's. The last
      observation of the ended one stands in ``info["final_obs"]`` (B objects: a dict, or None where none ended), its
      info in ``info["final_info"]`` (valid where ``info["_final_info"]``); ``categories`` and ``feedback`` are always
      those of the slate just shown.

    Args:
        core: an engine for B sessions.
        autoreset_mode: ``AutoresetMode.NEXT_STEP`` or ``AutoresetMode.SAME_STEP``.

    Raises:
        ValueError: the autoreset mode is another.
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
        """Begin B sessions.

        Args:
            seed: an integer s seeds slot i with s + i; a list gives one seed each, None leaving a slot's luck as it is.
            options: ``{"user": index or indices}`` chooses whose sessions, whether of the pool or not.

        Raises:
            ValueError: the number of seeds or of users is not B, or there is no such user.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed: {len(seeds)} seeds for {self.num_envs} environments; give one each")
        users = _chosen_users(options, self.core)
        rows = np.array([i for i in self._all if seeds[i] is not None or not self._seeded], np.int64)
        if len(rows):
            self.core.seed(rows, np.array([noise.new_key(seeding.np_random(seeds[i])[0]) for i in rows]))
            self._seeded = True
        self.core.begin(self._all, users)
        self._ended[:] = False
        return self.core.observation(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observation, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], Info]:
        """Show every user one slate, shape (B, K) item indices.

        Raises:
            ValueError: the slates have another shape or hold what is no item's index.
            ResetNeeded: ``reset`` was never called.
        """
        if not self._seeded:
            raise ResetNeeded("no session is running: call reset() first")
        slates = _checked(actions, (self.num_envs, self.core.slate_size), self.core)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            return self._step_next(slates)
        return self._step_same(slates)

    def _step_next(self, slates: Int32Array) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        begun = np.flatnonzero(self._ended)
        result = self.core.step(slates)
        reward, terminated, truncated = result.reward, result.terminated, result.truncated
        if len(begun):
            self.core.begin(begun)
            reward[begun], terminated[begun], truncated[begun] = 0.0, False, False
            result.categories[begun], result.feedback[begun] = -1, 0
        info = self._info(result, shown=~self._ended)
        self._ended = terminated | truncated
        return self.core.observation(), reward, terminated, truncated, info

    def _step_same(self, slates: Int32Array) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        result = self.core.step(slates)
        ended = result.terminated | result.truncated
        info = self._info(result)
        rows = np.flatnonzero(ended)
        if len(rows):
            last = self.core.observation(rows)
            final = np.full(self.num_envs, None, dtype=object)
            for i, row in enumerate(rows):
                final[row] = {name: value[i] for name, value in last.items()}
            self.core.begin(rows)
            ending, info = info, self._info(result)
            info |= {"final_obs": final, "_final_obs": ended, "final_info": ending, "_final_info": ended.copy()}
        return self.core.observation(), result.reward, result.terminated, result.truncated, info

    def _info(self, result: StepResult | None = None, shown: NDArray[np.bool_] | None = None) -> Info:
        """Values and, as in Gymnasium's own vector environments, masks that say in which rows they are valid."""
        everywhere = np.ones(self.num_envs, bool)
        info: Info = {"user": self.core.user.copy(), "budget": self.core.budget.copy()}
        info |= {"_user": everywhere, "_budget": everywhere}
        if result is not None:
            valid = everywhere if shown is None else shown
            info |= {"categories": result.categories, "feedback": result.feedback}
            info |= {"_categories": valid, "_feedback": valid}
        return info


def _checked(action: Any, shape: tuple[int, ...], core: SessionCore) -> Int32Array:
    """Slates as int32, or an error that says what is wrong with them."""
    slates = np.asarray(action)
    if slates.shape != shape:
        raise ValueError(f"action: shape {slates.shape} where {shape} item indices are needed")
    if not np.issubdtype(slates.dtype, np.integer):
        raise ValueError(f"action: dtype {slates.dtype}; a slate holds item indices, whole numbers")
    n_items = core.data.catalog.n_items
    lowest, highest = slates.min(), slates.max()
    if lowest < 0 or highest >= n_items:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"action: item {bad} is outside [0, {n_items}); a slate holds item indices")
    return slates.astype(np.int32)


def _chosen_users(options: dict[str, Any] | None, core: SessionCore) -> IntArray | None:
    chosen = (options or {}).get("user")
    if chosen is None:
        return None
    users = np.asarray(chosen)
    if users.shape not in ((), (core.n_envs,)) or not np.issubdtype(users.dtype, np.integer):
        raise ValueError(f"options['user']: {chosen!r}; give the index of a user, or {core.n_envs} of them")
    n_users = core.data.population.n_users
    lowest, highest = users.min(), users.max()
    if lowest < 0 or highest >= n_users:
        bad = lowest if lowest < 0 else highest
        raise ValueError(f"options['user']: {bad} is outside [0, {n_users}); give indices of users")
    return np.broadcast_to(users.astype(np.int64), core.n_envs)
