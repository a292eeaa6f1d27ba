"""Look-ahead search: values of plans by rollouts in a copy of the simulator.

An agent must not read the simulator, and look-ahead does. It is an upper bound to compare planners with, and the source
of the embedded planner's target plans, on training users only.
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
from rapport.agents.policies.hyper_action import allowed_items, best_items
from rapport.agents.policies.slate_policy import SlatePolicy
from rapport.envs.session.engine.core import Observation, SessionCore


class FixedPlanPolicy:
    """The low-level policy under plans that hold, with the one-slate cooldown of categories.

    Args:
        policy: the low-level policy, which acts by its mean.
        category: category of each item, as of :func:`~rapport.agents.policies.hyper_action.allowed_items`.
        sizes: shape (C,), items in each category.
        slate_size: K.
    """

    def __init__(self, policy: SlatePolicy, category: NDArray[np.integer], sizes: IntArray, slate_size: int) -> None:
        policy.set_training_mode(False)
        self.policy, self.sizes, self.slate_size = policy, sizes, slate_size
        self._category = torch.from_numpy(category.astype(np.int64))
        self._needed = slate_size * (1 if category.ndim == 1 else category.shape[1])  # of sizes that count items twice
        with torch.no_grad():
            self._items = policy.encoder.items()

    @torch.no_grad()
    def slates(self, core: SessionCore, plans: BoolArray) -> NDArray[np.int32]:
        """The next slates of B sessions under plans of shape (B, C): items, shape (B, K)."""
        shown = mark_categories(core.previous, plans.shape[1])
        mask, _ = exclude(plans, shown, self.sizes, self._needed)
        observation: Observation = {**core.observation(), "plan": mask.astype(np.int8)}
        tensors: Any = self.policy.obs_to_tensor(observation)[0]
        mean = self.policy.mean_action(self.policy.extract_features(tensors))  # type: ignore[arg-type]
        allowed = allowed_items(torch.from_numpy(mask), self._category)
        return best_items(mean, self._items, allowed, self.slate_size).numpy().astype(np.int32)


def plan_values(core: SessionCore, low_level: FixedPlanPolicy, plans: BoolArray, horizon: int) -> FloatArray:
    """Values of plans that hold over the next slates: expected click rates summed until the user leaves, shape (B,).

    The rollout is in a copy of the engine with the same random streams. Expected clicks are summed, not sampled ones.
    Both reduce the variance, so that few sessions suffice to compare plans.

    Args:
        core: B running sessions; they do not change.
        low_level: chooses the slates.
        plans: shape (B, C).
        horizon: slates of the rollout.
    """
    rollout = copy.deepcopy(core)
    value, running = np.zeros(core.n_envs), np.ones(core.n_envs, bool)
    for _ in range(horizon):
        slates = low_level.slates(rollout, plans)
        chance = rollout.response.probabilities(rollout.state, rollout.user, slates)
        value += running * chance[:, :, 0].mean(axis=1)
        result = rollout.step(slates)
        running &= ~(result.terminated | result.truncated)
        if not running.any():
            break
    return value


def best_plans(
    core: SessionCore, low_level: FixedPlanPolicy, candidates: list[BoolArray], horizon: int
) -> tuple[BoolArray, FloatArray]:
    """The best of M candidate plans for each of B sessions, shape (B, C), and the values of all, shape (B, M)."""
    values = np.stack([plan_values(core, low_level, plans, horizon) for plans in candidates], axis=1)
    best = values.argmax(axis=1)
    return np.stack(candidates, axis=1)[np.arange(core.n_envs), best], values


def candidate_plans(
    scores: FloatArray, sizes: IntArray, slate_size: int, n: int, rng: np.random.Generator, fewest: int, most: int
) -> list[BoolArray]:
    """The plans of the best scores, and n - 1 plans of the best scores with random noise added.

    Args:
        scores: shape (B, C), log odds of a click in each category.
        sizes: shape (C,), items in each category.
        slate_size: K.
        n: number of candidates.
        rng: source of the noise.
        fewest: fewest categories in a plan.
        most: most categories in a plan.

    Returns:
        n arrays of shape (B, C).
    """
    everywhere = np.ones(scores.shape, bool)
    plans = [take_best(scores, everywhere, sizes, most, slate_size)]
    while len(plans) < n:
        size = int(rng.integers(fewest, most + 1))
        noisy = scores + rng.gumbel(scale=rng.choice([0.1, 0.3, 0.6]), size=scores.shape)
        plans.append(take_best(noisy, everywhere, sizes, size, slate_size))
    return plans
