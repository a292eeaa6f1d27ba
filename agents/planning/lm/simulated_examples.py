"""Examples from simulated sessions of training users: plans found by look-ahead, and rule-based reflections."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from rapport.agents.lm.example import Example
from rapport.agents.planning.build import category_click_rates
from rapport.agents.planning.lm.examples import (
    MAX_CATEGORIES,
    MIN_CATEGORIES,
    PRIOR_STRENGTH,
    plan_completion,
    prompt_critic,
    prompt_planner,
    reflection_completion,
    visible_counts,
)
from rapport.agents.planning.lm.lookahead import FixedPlanPolicy, best_plans, candidate_plans
from rapport.agents.planning.lm.rule_reflection import rule_reflection
from rapport.agents.planning.planner import BoolArray, FinishedSession, SessionViews, session_views
from rapport.agents.planning.preference import FloatArray
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.datasets.schema import SessionData
from rapport.envs.session.env import SessionVectorEnv

HORIZON = 10
"""Slates that look-ahead plays."""
CANDIDATES = 16
"""Plans that look-ahead compares, twice: around the user's estimated taste, then around the best of these."""
_ROWS = 64
"""Prompts in an example."""


class SimulatedExamples:
    """Plays training users' sessions and turns them into examples.

    Args:
        env: B sessions of training users, all of which begin together.
        data: their data set.
        policy: the low-level policy.
        rng: source of randomness of candidates, replanning steps and reflections.
    """

    def __init__(self, env: SessionVectorEnv, data: SessionData, policy: SlatePolicy, rng: np.random.Generator) -> None:
        self.env, self.data, self.rng = env, data, rng
        self.rates = category_click_rates(data)
        self.names = list(data.catalog.category_names)
        self.low_level = FixedPlanPolicy(policy, data.catalog.labels, data.catalog.category_sizes, env.core.slate_size)
        self.planner = prompt_planner(self.names, self.rates)
        self.critic = prompt_critic(self.names)
        self.reflections: list[str] = []

    def rounds(self, n: int, report: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Example]:
        """Examples of n rounds of B sessions: plans at the first and at a later step, then reflections.

        Args:
            n: rounds.
            report: called with the number of rounds done and n.
        """
        for number in range(n):
            report(number, n)
            yield from self._round(int(self.rng.integers(2**31)))
        report(n, n)

    def _round(self, seed: int) -> Iterator[Example]:
        core = self.env.core
        self.env.reset(seed=seed)
        later = int(self.rng.integers(1, 20))
        shown, clicked, running = [], [], np.ones(core.n_envs, bool)
        lengths = np.zeros(core.n_envs, np.int64)
        plans = np.ones((core.n_envs, len(self.names)), bool)
        for step in range(core.max_steps):
            if step in (0, later):
                plans = yield from self._plan()
            result = core.step(self.low_level.slates(core, plans))
            shown.append(result.categories)
            clicked.append(result.feedback[:, :, 0])
            lengths += running
            running &= ~(result.terminated | result.truncated)
            if not running.any():
                break
        yield from self._reflect(np.stack(shown, axis=1), np.stack(clicked, axis=1), lengths)

    def _plan(self) -> Generator[Example, None, BoolArray]:
        views = session_views(self.env.core.observation(), self.env.core.user, self.data, self.env.core.slate_size)
        plans = self.lookahead_plans(views)
        for rows in _groups(len(views)):
            some = views.rows(rows)
            reflections = self.rng.permutation(self.reflections)[: self.rng.integers(0, 4)]
            prompts = self.planner.prompts_with(some, [str(text) for text in reflections])
            chosen = [np.flatnonzero(plans[row]).tolist() for row in rows]
            completions = [plan_completion(categories, self.names, self.rates) for categories in chosen]
            yield Example.from_prompts(prompts, completions)
        return plans

    def lookahead_plans(self, views: SessionViews) -> BoolArray:
        """The best plans that look-ahead finds, shape (B, C)."""
        core, sizes = self.env.core, self.low_level.sizes
        seen, clicked = visible_counts(views, len(self.names))
        rate: FloatArray = (clicked + PRIOR_STRENGTH * self.rates) / (seen + PRIOR_STRENGTH)
        score = np.log(rate / (1 - rate))
        for _ in range(2):
            candidates = candidate_plans(
                score, sizes, core.slate_size, CANDIDATES, self.rng, MIN_CATEGORIES, MAX_CATEGORIES
            )
            plans, _values = best_plans(core, self.low_level, candidates, HORIZON)
            score = score + plans  # the second search is around the best plans of the first
        return plans

    def _reflect(
        self, shown: NDArray[np.int32], clicked: NDArray[np.int8], lengths: NDArray[np.int64]
    ) -> Iterator[Example]:
        sessions = [
            FinishedSession(0, shown[row, :length].astype(np.int64), clicked[row, :length])
            for row, length in enumerate(lengths.tolist())
        ]
        texts = [rule_reflection(session, self.names) for session in sessions]
        self.reflections = [*texts, *self.reflections][:200]
        for rows in _groups(len(sessions)):
            prompts = [self.critic.prompt(sessions[row]) for row in rows]
            yield Example.from_prompts(prompts, [reflection_completion(texts[row]) for row in rows])


def _groups(n: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(n), max(1, n // _ROWS))
