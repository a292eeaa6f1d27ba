"""The one-slate cooldown: the categories of the slate just shown may not be shown in the next one."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rapport.agents.planning.planner import BoolArray
from rapport.agents.planning.preference import mark_categories
from rapport.datasets.schema import SessionData


def exclude(
    plans: BoolArray, excluded: BoolArray, category_sizes: NDArray[np.integer], slate_size: int
) -> tuple[BoolArray, BoolArray]:
    """Plans without the categories that are excluded.

    Args:
        plans: shape (B, C).
        excluded: shape (B, C).
        category_sizes: shape (C,), items in each category.
        slate_size: items that have to remain; a plan of which fewer remain stays as it is.

    Returns:
        What remains of the plans, shape (B, C), and where the exclusion was waived, shape (B,).
    """
    remaining = plans & ~excluded
    waived: BoolArray = remaining @ category_sizes < slate_size
    return np.where(waived[:, None], plans, remaining), waived


def items_needed(data: SessionData, slate_size: int) -> int:
    """What the sizes of a plan's categories have to add up to, so that the plan is sure to fill a slate.

    An item of several categories counts in each of them: K items of L categories count at most K * L times.
    """
    return slate_size * int(data.catalog.labels.shape[1])


def add_plan_space(wrapper: VectorWrapper, data: SessionData) -> int:
    """Give a wrapper of sessions an observation space with a ``plan`` (C,) int8; returns the slate size K.

    Raises:
        ValueError: the environment does not reset within the step, or the catalogue cannot fill a slate.
    """
    env: VectorEnv[Any, Any, Any] = wrapper.env
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        raise ValueError("env: make it with autoreset_mode=AutoresetMode.SAME_STEP; ended sessions are planned at once")
    slate_size = int(env.single_action_space.shape[0])  # type: ignore[index]
    if data.catalog.n_items < slate_size:
        raise ValueError(f"slate_size={slate_size}, but there are only {data.catalog.n_items} items")
    inner = env.single_observation_space
    assert isinstance(inner, spaces.Dict)
    plan = spaces.Box(0, 1, (data.catalog.n_categories,), np.int8)
    wrapper.single_observation_space = spaces.Dict({**inner.spaces, "plan": plan})
    wrapper.observation_space = batch_space(wrapper.single_observation_space, wrapper.num_envs)
    return slate_size


class NoRepeatMask(VectorWrapper):
    """Masks the categories of the slate just shown for one step.

    Observations carry ``plan`` (C,) int8, 1 for every category that the next slate may show. Over bare sessions these
    are all categories but those just shown: the no-repeat mask without a planner. Where the environment's observations
    carry a plan already, as under :class:`~rapport.agents.planning.wrapper.PlannedVectorEnv`, the categories just shown
    are taken out of that plan. Where what remains holds fewer items than a slate, the cooldown is waived for that step.
    The mask that follows a session's last slate stands in its ``final_obs``; a session begins without a cooldown.

    Args:
        env: a session vector environment that resets within the step (``AutoresetMode.SAME_STEP``).
        data: its data set.
        once: mask only the first session at each place, as in evaluation; those that follow may show everything.

    Raises:
        ValueError: the environment resets in another way, or the catalogue cannot fill a slate.

    Attributes:
        cooldowns_waived: slates for which the cooldown was waived.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], data: SessionData, once: bool = False) -> None:
        super().__init__(env)
        self.data, self.once = data, once
        self.slate_size = add_plan_space(self, data)
        self.cooldowns_waived = 0
        self._sizes = data.catalog.category_sizes
        self._needed = items_needed(data, self.slate_size)
        self._shown = np.zeros((self.num_envs, len(self._sizes)), bool)
        self._active = np.ones(self.num_envs, bool)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions, none with a cooldown."""
        observations, info = self.env.reset(**arguments)
        self._shown[:], self._active[:] = False, True
        return self._masked(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sessions and mask what they were just shown."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        shown = info["categories"]
        if self.data.catalog.further is not None:  # of which info has the first of each item
            shown = self.data.catalog.labels[np.asarray(actions)].reshape(self.num_envs, -1)
        self._shown = mark_categories(shown, len(self._sizes)) & self._active[:, None]
        ended = np.flatnonzero(terminated | truncated)
        for row in ended.tolist():
            final = info["final_obs"][row]
            final["plan"] = self._allowed(final.get("plan"), self._shown[row : row + 1])[0][0]
        self._shown[ended] = False
        if self.once:
            self._active[ended] = False
        return self._masked(observations), rewards, terminated, truncated, info

    def _masked(self, observations: dict[str, Any]) -> dict[str, Any]:
        masks, waived = self._allowed(observations.get("plan"), self._shown)
        self.cooldowns_waived += int((waived & self._active).sum())
        return {**observations, "plan": masks}

    def _allowed(self, plans: NDArray[np.int8] | None, shown: BoolArray) -> tuple[NDArray[np.int8], BoolArray]:
        """What may be shown next, shape (B, C), and where the cooldown was waived, (B,)."""
        whole = np.ones_like(shown) if plans is None else plans.reshape(shown.shape).astype(bool)
        masks, waived = exclude(whole, shown, self._sizes, self._needed)
        return masks.astype(np.int8), waived
