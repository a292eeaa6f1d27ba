"""Puts a planner between an agent and its sessions: observations carry the plan, finished sessions reach the critic."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rapport.agents.planning.no_repeat import NoRepeatMask, add_plan_space, exclude, items_needed
from rapport.agents.planning.planner import BoolArray, Critic, Planner, session_views
from rapport.agents.planning.schedule import PlanSchedule
from rapport.agents.planning.session_buffer import SessionBuffer
from rapport.datasets.schema import SessionData


def widen(plans: BoolArray, previous: BoolArray, category_sizes: NDArray[np.integer], slate_size: int) -> BoolArray:
    """Plans that can fill a slate, shape (B, C): a plan with too few items gives way to the one before, then to all."""
    result = plans.copy()
    for remedy in (previous, np.ones_like(plans)):
        short = result @ category_sizes < slate_size
        result[short] = remedy[short]
    return result


class PlannedVectorEnv(VectorWrapper):
    """Adds ``plan`` (C,) int8, 1 for every allowed category, to the observations of a session environment.

    A plan is made when a session begins, every ``period`` steps after and, with ``replan_threshold``, when the
    session's click rate changes (:class:`~rapport.agents.planning.schedule.ReplanTrigger`). With ``cooldown`` the
    categories of the slate just shown are left out of the plan for one step
    (:class:`~rapport.agents.planning.no_repeat.NoRepeatMask`), so that one plan serves a whole session without
    repeating itself. LERL makes a plan at every step.

    The critic is told of each finished session (:class:`~rapport.agents.planning.session_buffer.SessionBuffer`).

    Args:
        env: a session vector environment that resets within the step (``AutoresetMode.SAME_STEP``).
        data: its data set.
        planner: makes the plans.
        critic: is told of finished sessions; optional.
        period: steps a plan holds.
        cooldown: leave out the categories of the slate just shown, unless what remains of the plan cannot fill a slate.
        replan_threshold: standard deviations from the expected clicks beyond which a session gets a new plan; None for
            never.
        once: only the first session at each place counts, as in evaluation: those that follow are not planned for, may
            show everything and are kept from the critic.
        rest: the old name of ``cooldown``.
        surprise: the old name of ``replan_threshold``.

    Raises:
        ValueError: the environment resets in another way, the period is below 1, the threshold is not above 0, or the
            catalogue cannot fill a slate.

    Attributes:
        plans_made: how many plans were asked for.
        plans_widened: how many of them could not fill a slate.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        data: SessionData,
        planner: Planner,
        critic: Critic | None = None,
        period: int = 1,
        cooldown: bool = False,
        replan_threshold: float | None = None,
        once: bool = False,
        *,
        rest: bool | None = None,
        surprise: float | None = None,
    ) -> None:
        if rest is not None:
            _warn("rest", "cooldown")
            cooldown = rest
        if surprise is not None:
            _warn("surprise", "replan_threshold")
            replan_threshold = surprise
        super().__init__(NoRepeatMask(env, data, once) if cooldown else env)
        self.slate_size = add_plan_space(self, data)
        self.data, self.planner, self.critic, self.once = data, planner, critic, once
        self.plans_made = self.plans_widened = 0
        self._sizes = data.catalog.category_sizes
        self._needed = items_needed(data, self.slate_size)
        self._schedule = PlanSchedule(self.num_envs, period, replan_threshold)
        longest = int(env.single_observation_space["step"].high[0])  # type: ignore[index]
        self._sessions = SessionBuffer(self.num_envs, longest, self.slate_size)
        self._plan = np.ones((self.num_envs, len(self._sizes)), bool)
        self._active = np.ones(self.num_envs, bool)
        self._waived = 0

    @property
    def replans_triggered(self) -> int:
        """How many plans were asked for before their period was over."""
        return self._schedule.triggered

    @property
    def cooldowns_waived(self) -> int:
        """Slates for which the whole plan was allowed because what the cooldown left of it could not fill them."""
        below = self.env.cooldowns_waived if isinstance(self.env, NoRepeatMask) else 0
        return self._waived + below

    @property
    def surprises(self) -> int:
        """The old name of :attr:`replans_triggered`."""
        _warn("surprises", "replans_triggered")
        return self.replans_triggered

    @property
    def rests_waived(self) -> int:
        """The old name of :attr:`cooldowns_waived`."""
        _warn("rests_waived", "cooldowns_waived")
        return self.cooldowns_waived

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions and plan for them."""
        observations, info = self.env.reset(**arguments)
        self._plan[:] = True
        self._active[:] = True
        self._schedule.reset()
        self._sessions.reset()
        self._user = info["user"]
        return self._planned(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sessions, hand finished ones to the critic and plan the next slates."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        clicks = info["feedback"][:, :, 0]
        self._sessions.add(info["categories"], clicks)
        self._schedule.count(np.flatnonzero(self._active), clicks[self._active])
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            for row in ended.tolist():
                final = info["final_obs"][row]
                final["plan"] = self._allowed(self._plan[row : row + 1], final.get("plan"))[0][0]
            self._end(ended)
        self._user = info["user"]
        return self._planned(observations), rewards, terminated, truncated, info

    def _end(self, ended: NDArray[np.int64]) -> None:
        """Tell the critic of the sessions that count among those that ended; the next ones begin in their places."""
        counted = self._active[ended]
        finished = self._sessions.finish(ended, self._user[ended])
        if self.critic is not None and counted.any():
            self.critic.reflect([session for session, count in zip(finished, counted, strict=True) if count])
        self._plan[ended] = True
        self._schedule.begin(ended)
        if self.once:
            self._active[ended] = False

    def _planned(self, observations: dict[str, Any]) -> dict[str, Any]:
        due = self._schedule.due(observations["step"][:, 0].astype(np.int64), self._active)
        if len(due):
            self._plan[due] = self._ask(observations, due)
        masks, waived = self._allowed(self._plan, observations.get("plan"))
        self._waived += waived
        return {**observations, "plan": masks}

    def _ask(self, observations: dict[str, Any], due: NDArray[np.int64]) -> BoolArray:
        """New plans for the sessions in these rows, shape (len(due), C), each of which can fill a slate."""
        seen = {name: observations[name][due] for name in ("history_items", "history_feedback", "step")}
        asked = self.planner.plan(session_views(seen, self._user[due], self.data, self.slate_size))
        if asked.shape != (len(due), len(self._sizes)):
            raise ValueError(
                f"planner {self.planner.name!r}: a plan of shape {asked.shape} for {len(due)} sessions; "
                f"{(len(due), len(self._sizes))} is needed"
            )
        plans = widen(asked, self._plan[due], self._sizes, self._needed)
        self.plans_made += len(due)
        self.plans_widened += int((plans != asked).any(axis=1).sum())
        return plans

    def _allowed(self, plans: BoolArray, mask: NDArray[np.int8] | None) -> tuple[NDArray[np.int8], int]:
        """What of the plans the environment's own mask allows, shape (B, C), and for how many it was waived."""
        if mask is None:
            return plans.astype(np.int8), 0
        masks, waived = exclude(plans, mask.reshape(plans.shape) == 0, self._sizes, self._needed)
        return masks.astype(np.int8), int(waived.sum())


def _warn(old: str, new: str) -> None:
    """Say that a name of this module's class has another one now."""
    warnings.warn(
        f"PlannedVectorEnv: {old} is called {new} now; the old name goes with version 0.2",
        DeprecationWarning,
        stacklevel=3,
    )
