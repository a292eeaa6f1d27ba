"""Puts a planner between an agent and its sessions: observations carry the plan, finished sessions reach the critic."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from rapport.agents.planning.planner import BoolArray, Critic, FinishedSession, Planner, SessionViews
from rapport.agents.planning.surprise import ClickWatch
from rapport.datasets.schema import SessionData


def widen(plans: BoolArray, previous: BoolArray, category_sizes: NDArray[np.integer], slate_size: int) -> BoolArray:
    """Plans that can fill a slate, shape (B, C): a plan with too few items gives way to the one before, then to all."""
    result = plans.copy()
    for remedy in (previous, np.ones_like(plans)):
        short = result @ category_sizes < slate_size
        result[short] = remedy[short]
    return result


def rested(
    plans: BoolArray, shown: BoolArray, category_sizes: NDArray[np.integer], slate_size: int
) -> tuple[BoolArray, BoolArray]:
    """Plans without the categories that need a rest.

    Args:
        plans: shape (B, C).
        shown: shape (B, C), categories of the slate just shown.
        category_sizes: shape (C,), items in each category.
        slate_size: items that have to remain; where they do not, the plan stays as it is.

    Returns:
        What is left of the plans, shape (B, C), and where the rest had to be waived, shape (B,).
    """
    fresh = plans & ~shown
    waived: BoolArray = fresh @ category_sizes < slate_size
    return np.where(waived[:, None], plans, fresh), waived


class PlannedVectorEnv(VectorWrapper):
    """Adds ``plan`` (C,) int8, 1 for every allowed category, to the observations of a session environment.

    A plan is made when a session begins, every ``period`` steps after and, where ``surprise`` is given, when the
    session goes otherwise than expected (:class:`~rapport.agents.planning.surprise.ClickWatch`). With ``rest`` it is a
    plan for the coming slates rather than for the next one: the categories of the slate just shown are taken out of it
    for one step, so that one plan serves a whole session without repeating itself. LERL plans anew at every step.

    The critic is handed each finished session as it was lived, slate by slate, gathered here while it ran and never
    read from an observation, which belongs to the next user once a session has ended.

    Args:
        env: a session vector environment that resets within the step (``AutoresetMode.SAME_STEP``).
        data: its data set.
        planner: makes the plans.
        critic: is told of finished sessions; optional.
        period: steps a plan holds.
        rest: leave out the categories of the slate just shown, unless what is left of the plan cannot fill a slate.
        surprise: standard deviations from the clicks expected beyond which a session is planned anew; None for never.
        once: only the first session at each place counts, as in evaluation: those that follow it are not planned for,
            may be shown everything and are kept from the critic.

    Raises:
        ValueError: the environment resets in another way, the period is below 1, the surprise is not above 0, or the
            catalogue cannot fill a slate.

    Attributes:
        plans_made: how many plans were asked for.
        plans_widened: how many of them could not fill a slate.
        surprises: how many of them were asked for before their time.
        rests_waived: slates for which the whole plan was allowed because what was left of it could not fill them.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        data: SessionData,
        planner: Planner,
        critic: Critic | None = None,
        period: int = 1,
        rest: bool = False,
        surprise: float | None = None,
        once: bool = False,
    ) -> None:
        super().__init__(env)
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError(
                "env: make it with autoreset_mode=AutoresetMode.SAME_STEP; ended sessions are planned at once"
            )
        if period < 1:
            raise ValueError(f"period={period}; a plan holds at least one step")
        self.data, self.planner, self.critic, self.period = data, planner, critic, period
        self.rest, self.once = rest, once
        self.slate_size = int(env.single_action_space.shape[0])  # type: ignore[index]
        if data.catalog.n_items < self.slate_size:
            raise ValueError(f"slate_size={self.slate_size}, but there are only {data.catalog.n_items} items")
        n_categories = data.catalog.n_categories
        inner = env.single_observation_space
        assert isinstance(inner, spaces.Dict)
        self.single_observation_space = spaces.Dict(
            {**inner.spaces, "plan": spaces.Box(0, 1, (n_categories,), np.int8)}
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.plans_made = self.plans_widened = self.surprises = self.rests_waived = 0
        self._surprise = surprise
        self._sizes = data.catalog.category_sizes
        behaviours = data.log.behaviours
        # Some early exposures are known by their long views alone: the stricter sign then stands in for the click.
        self._stand_in = behaviours.index("long_view") if "long_view" in behaviours else 0
        self._category = np.concatenate([[-1], data.catalog.category]).astype(np.int64)
        self._plan = np.ones((self.num_envs, n_categories), bool)
        self._begin()
        longest = int(inner["step"].high[0])  # type: ignore[attr-defined]
        self._categories = np.zeros((self.num_envs, longest, self.slate_size), np.int64)
        self._clicks = np.zeros((self.num_envs, longest, self.slate_size), np.int8)

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Begin sessions and plan for them."""
        observations, info = self.env.reset(**arguments)
        self._begin()
        self._user = info["user"]
        return self._planned(observations), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the sessions, hand finished ones to the critic and plan the next slates."""
        place = self._step
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        rows = np.arange(self.num_envs)
        self._categories[rows, place] = info["categories"]
        self._clicks[rows, place] = info["feedback"][:, :, 0]
        self._shown[:] = False
        self._shown[rows[:, None], info["categories"]] = True
        if self._watch is not None:
            self._watch.count(np.flatnonzero(self._counts), self._clicks[self._counts, place[self._counts]])
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            masks, _ = self._masks()
            for row in ended.tolist():
                info["final_obs"][row]["plan"] = masks[row]
            self._finish(ended, place)
        self._user = info["user"]
        return self._planned(observations), rewards, terminated, truncated, info

    def _begin(self) -> None:
        self._plan[:] = True
        self._shown = np.zeros_like(self._plan)
        self._counts = np.ones(self.num_envs, bool)
        self._watch = None if self._surprise is None else ClickWatch(self.num_envs, self._surprise)

    def _finish(self, ended: NDArray[np.int64], place: NDArray[np.int64]) -> None:
        """Tell the critic of sessions that ended and make room for those that follow."""
        told = ended[self._counts[ended]]
        if self.critic is not None and len(told):
            self.critic.reflect([self._finished(row, int(place[row]) + 1) for row in told.tolist()])
        self._plan[ended], self._shown[ended] = True, False
        if self._watch is not None:
            self._watch.begun(ended)
        if self.once:
            self._counts[ended] = False

    def _due(self) -> NDArray[np.int64]:
        """Sessions that need a plan now."""
        due = self._counts & (self._step % self.period == 0)
        if self._watch is not None:
            surprised = self._counts & ~due & self._watch.surprised()
            self.surprises += int(surprised.sum())
            due |= surprised
            self._watch.planned(np.flatnonzero(due))
        return np.flatnonzero(due)

    def _masks(self) -> tuple[NDArray[np.int8], int]:
        """What the next slates may be drawn from, and for how many of them a rest was waived."""
        if not self.rest:
            return self._plan.astype(np.int8), 0
        masks, waived = rested(self._plan, self._shown, self._sizes, self.slate_size)
        masks[~self._counts] = True
        return masks.astype(np.int8), int((waived & self._counts).sum())

    def _planned(self, observations: dict[str, Any]) -> dict[str, Any]:
        self._step = observations["step"][:, 0].astype(np.int64)
        due = self._due()
        if len(due):
            asked = self.planner.plan(self._views(observations, due))
            if asked.shape != (len(due), len(self._sizes)):
                raise ValueError(
                    f"planner {self.planner.name!r}: a plan of shape {asked.shape} for {len(due)} sessions; "
                    f"{(len(due), len(self._sizes))} is needed"
                )
            plans = widen(asked, self._plan[due], self._sizes, self.slate_size)
            self.plans_made += len(due)
            self.plans_widened += int((plans != asked).any(axis=1).sum())
            self._plan[due] = plans
        masks, waived = self._masks()
        self.rests_waived += waived
        return {**observations, "plan": masks}

    def _views(self, observations: dict[str, Any], rows: NDArray[np.int64]) -> SessionViews:
        items = observations["history_items"][rows]
        feedback = observations["history_feedback"][rows].reshape(*items.shape, -1)
        clicks = np.where(feedback[..., 0] >= 0, feedback[..., 0], feedback[..., self._stand_in])
        return SessionViews(self._user[rows], self._step[rows], self._category[items], clicks, self.slate_size)

    def _finished(self, row: int, length: int) -> FinishedSession:
        return FinishedSession(
            int(self._user[row]), self._categories[row, :length].copy(), self._clicks[row, :length].copy()
        )
