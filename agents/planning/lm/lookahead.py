"""Look-ahead: what a plan is worth, by playing on from where the sessions stand, in the simulator itself.

An agent must not read the simulator's people. Look-ahead does: it is the bound that planners are held against, and the
teacher of the embedded planner model, on training users alone.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rapport.agents.planning.no_repeat import exclude
from rapport.agents.planning.planner import BoolArray
from rapport.agents.planning.preference import FloatArray, IntArray, mark_categories, take_best
from rapport.agents.policies.hyper_action import best_items
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.envs.session.engine.core import Observation, SessionCore


class HeldPlans:
    """A low level that serves sessions under plans that are held, each category resting after a slate that showed it.

    Args:
        policy: the low level; it acts by its mean.
        category: shape (N,), category of each item.
        sizes: shape (C,), items in each category.
        slate_size: K.
    """

    def __init__(self, policy: SlatePolicy, category: NDArray[np.integer], sizes: IntArray, slate_size: int) -> None:
        policy.set_training_mode(False)
        self.policy, self.sizes, self.slate_size = policy, sizes, slate_size
        self._category = torch.from_numpy(category.astype(np.int64))
        with torch.no_grad():
            self._items = policy.encoder.items()

    @torch.no_grad()
    def slates(self, core: SessionCore, plans: BoolArray) -> NDArray[np.int32]:
        """What is shown next under the plans (B, C): shape (B, K)."""
        shown = mark_categories(core.previous, plans.shape[1])
        mask, _ = exclude(plans, shown, self.sizes, self.slate_size)
        observation: Observation = {**core.observation(), "plan": mask.astype(np.int8)}
        tensors: Any = self.policy.obs_to_tensor(observation)[0]
        mean = self.policy.mean_action(self.policy.extract_features(tensors))  # type: ignore[arg-type]
        allowed = torch.from_numpy(mask)[:, self._category]
        return best_items(mean, self._items, allowed, self.slate_size).numpy().astype(np.int32)


def plan_values(core: SessionCore, low_level: HeldPlans, plans: BoolArray, horizon: int) -> FloatArray:
    """What holding a plan over the next slates is worth: the sum of expected click rates until the user leaves, (B,).

    Plays on in a copy of the engine. Expected, not drawn, clicks are counted, and copies share their luck, so that
    plans can be compared by few sessions.

    Args:
        core: B sessions where they stand; left as it is.
        low_level: serves the slates.
        plans: shape (B, C).
        horizon: slates to look ahead.
    """
    ahead = copy.deepcopy(core)
    value, there = np.zeros(core.n_envs), np.ones(core.n_envs, bool)
    for _ in range(horizon):
        slates = low_level.slates(ahead, plans)
        chance = ahead.response.probabilities(ahead.state, ahead.user, slates)
        value += there * chance[:, :, 0].mean(axis=1)
        result = ahead.step(slates)
        there &= ~(result.terminated | result.truncated)
        if not there.any():
            break
    return value


def best_of(
    core: SessionCore, low_level: HeldPlans, candidates: list[BoolArray], horizon: int
) -> tuple[BoolArray, FloatArray]:
    """The best of M candidate plans for each of B sessions, shape (B, C), and what each is worth, shape (B, M)."""
    values = np.stack([plan_values(core, low_level, plans, horizon) for plans in candidates], axis=1)
    best = values.argmax(axis=1)
    return np.stack(candidates, axis=1)[np.arange(core.n_envs), best], values


def candidate_plans(
    scores: FloatArray, sizes: IntArray, slate_size: int, n: int, rng: np.random.Generator, fewest: int, most: int
) -> list[BoolArray]:
    """Plans worth a look: the best by score, and others around it.

    Args:
        scores: shape (B, C), log odds of a click in each category.
        sizes: shape (C,), items in each category.
        slate_size: K.
        n: how many candidates.
        rng: of the noise that sets them apart.
        fewest: fewest categories in a plan.
        most: most.
    """
    everywhere = np.ones(scores.shape, bool)
    plans = [take_best(scores, everywhere, sizes, most, slate_size)]
    while len(plans) < n:
        size = int(rng.integers(fewest, most + 1))
        noisy = scores + rng.gumbel(scale=rng.choice([0.1, 0.3, 0.6]), size=scores.shape)
        plans.append(take_best(noisy, everywhere, sizes, size, slate_size))
    return plans
