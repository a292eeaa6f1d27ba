"""Lessons from simulated sessions of training users: plans found by look-ahead, reflections on what happened."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from rapport.agents.lm.example import Lesson, lesson_of
from rapport.agents.planning.build import category_click_rates
from rapport.agents.planning.lm.examples import (
    FEWEST,
    MOST,
    PRIOR,
    plan_answer,
    prompting_critic,
    prompting_planner,
    reflection_answer,
    visible_counts,
)
from rapport.agents.planning.lm.lookahead import HeldPlans, best_of, candidate_plans
from rapport.agents.planning.lm.rule_reflection import composed_reflection
from rapport.agents.planning.planner import BoolArray, FinishedSession, SessionViews, session_views
from rapport.agents.planning.preference import FloatArray
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv

HORIZON = 10
"""Slates that look-ahead plays on."""
CANDIDATES = 16
"""Plans that look-ahead tries, twice: around the user's known taste, then around the best of these."""
_GROUP = 64
"""Prompts in a lesson."""


class LivedLessons:
    """Plays training users' sessions and makes lessons of them.

    Args:
        env: sessions of training users, all of which begin together.
        data: their data set.
        policy: the low level.
        rng: of candidates, moments and reflections.
    """

    def __init__(self, env: SessionVectorEnv, data: SessionData, policy: SlatePolicy, rng: np.random.Generator) -> None:
        self.env, self.data, self.rng = env, data, rng
        self.rates = category_click_rates(data)
        self.names = list(data.catalog.category_names)
        self.low_level = HeldPlans(policy, data.catalog.category, data.catalog.category_sizes, env.core.slate_size)
        self.planner = prompting_planner(self.names, self.rates)
        self.critic = prompting_critic(self.names)
        self.reflections: list[str] = []

    def rounds(self, n: int, report: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Lesson]:
        """Lessons of n times B sessions: plans at the beginning and somewhere later, then reflections on the whole."""
        for number in range(n):
            report(number, n)
            yield from self._round(int(self.rng.integers(2**31)))
        report(n, n)

    def _round(self, seed: int) -> Iterator[Lesson]:
        core = self.env.core
        self.env.reset(seed=seed)
        later = int(self.rng.integers(1, 20))
        shown, clicked, there = [], [], np.ones(core.n_envs, bool)
        lengths = np.zeros(core.n_envs, np.int64)
        plans = np.ones((core.n_envs, len(self.names)), bool)
        for step in range(core.max_steps):
            if step in (0, later):
                plans = yield from self._plan()
            result = core.step(self.low_level.slates(core, plans))
            shown.append(result.categories)
            clicked.append(result.feedback[:, :, 0])
            lengths += there
            there &= ~(result.terminated | result.truncated)
            if not there.any():
                break
        yield from self._look_back(np.stack(shown, axis=1), np.stack(clicked, axis=1), lengths)

    def _plan(self) -> Generator[Lesson, None, BoolArray]:
        views = session_views(self.env.core.observation(), self.env.core.user, self.data, self.env.core.slate_size)
        plans = self.searched(views)
        for rows in _groups(len(views)):
            some = views.rows(rows)
            taught = self.rng.permutation(self.reflections)[: self.rng.integers(0, 4)]
            prompts = self.planner.prompts_with(some, [str(text) for text in taught])
            chosen = [np.flatnonzero(plans[row]).tolist() for row in rows]
            yield lesson_of(prompts, [plan_answer(categories, self.names, self.rates) for categories in chosen])
        return plans

    def searched(self, views: SessionViews) -> BoolArray:
        """Plans found by look-ahead, shape (B, C)."""
        core, sizes = self.env.core, self.low_level.sizes
        seen, clicked = visible_counts(views, len(self.names))
        rate: FloatArray = (clicked + PRIOR * self.rates) / (seen + PRIOR)
        score = np.log(rate / (1 - rate))
        for _ in range(2):
            tried = candidate_plans(score, sizes, core.slate_size, CANDIDATES, self.rng, FEWEST, MOST)
            plans, _values = best_of(core, self.low_level, tried, HORIZON)
            score = score + plans  # look further around the best so far
        return plans

    def _look_back(
        self, shown: NDArray[np.int32], clicked: NDArray[np.int8], lengths: NDArray[np.int64]
    ) -> Iterator[Lesson]:
        sessions = [
            FinishedSession(0, shown[row, :length].astype(np.int64), clicked[row, :length])
            for row, length in enumerate(lengths.tolist())
        ]
        texts = [composed_reflection(session, self.names) for session in sessions]
        self.reflections = [*texts, *self.reflections][:200]
        for rows in _groups(len(sessions)):
            prompts = [self.critic.prompt(sessions[row]) for row in rows]
            yield lesson_of(prompts, [reflection_answer(texts[row]) for row in rows])


def _groups(n: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(n), max(1, n // _GROUP))
