"""Session length by rate of repetition: played through the environment, and computed exactly.

A quit rule that takes 1 for every slate and 1 more for one that repeats a category of the slate before
(``positional``, ``set_overlap``) turns the share of slates that repeat into a session length, and a published length
back into that share. Both are computed here: with scripted slates that repeat with a chosen probability, and by a
recursion over the rule's two outcomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rapport.datasets.schema import FloatArray, Int32Array, IntArray, SessionData
from rapport.envs.session.response.base import MatrixResponse

Rule = Literal["positional", "set_overlap"]
Script = Callable[[Int32Array], IntArray]
"""Categories of the slates before, shape (B, K), -1 where there is none -> categories of the next ones, (B, K)."""

PLANS, PLAN_SIZE = 12, 4
"""The random policy's categories, and how many of them a plan holds."""


@dataclass(frozen=True)
class Lengths:
    """Sessions that were played.

    Attributes:
        lengths: shape (S,), slates.
        repeats: shape (S,), those of them that repeated a category.
    """

    lengths: IntArray
    repeats: IntArray

    @property
    def rate(self) -> float:
        """Share of slates that repeated, of those that could: all but each session's first."""
        return float(self.repeats.sum() / max((self.lengths - 1).sum(), 1))

    @property
    def mean(self) -> float:
        """Mean session length [slates]."""
        return float(self.lengths.mean())

    @property
    def margin(self) -> float:
        """Half the width of the mean's 95 % interval [slates]."""
        return float(1.96 * self.lengths.std(ddof=1) / np.sqrt(len(self.lengths)))


def expected_length(rate: float, budget: int = 20) -> float:
    """Mean length of a session whose slates, but the first, repeat with probability ``rate`` independently [slates].

    With E(b) the slates still to come when b >= 1 is left, E(b) = 1 + (1 - rate) E(b - 1) + rate E(b - 2) and E(b) = 0
    for b < 1; the first slate costs 1.
    """
    ahead = [0.0, 0.0]
    for _ in range(budget - 1):
        ahead.append(1 + (1 - rate) * ahead[-1] + rate * ahead[-2])
    return 1 + ahead[-1]


def scripted(rng: np.random.Generator, n_categories: int, rate: float) -> Script:
    """Slates that repeat one category, in its old place, with probability ``rate``, and otherwise none at all."""

    def next_categories(before: Int32Array) -> IntArray:
        n_envs, slate_size = before.shape
        score = rng.random((n_envs, n_categories))
        rows, places = np.nonzero(before >= 0)
        score[rows, before[rows, places]] = -1.0
        fresh: IntArray = np.argsort(-score, axis=1)[:, :slate_size]
        place = rng.integers(slate_size, size=(n_envs,))
        again = np.flatnonzero((rng.random(n_envs) < rate) & (before[:, 0] >= 0))
        fresh[again, place[again]] = before[again, place[again]]
        return fresh

    return next_categories


def random_plans(rng: np.random.Generator, leak: float = 0.0) -> Script:
    """An untrained policy under random plans of 4 of 12 categories, drawn anew for every slate.

    Args:
        rng: of plans and places.
        leak: share of places whose category is one that the plan leaves out.
    """

    def next_categories(before: Int32Array) -> IntArray:
        order = np.argsort(rng.random((len(before), PLANS)), axis=1)
        place = rng.integers(PLAN_SIZE, size=before.shape)
        outside = rng.integers(PLAN_SIZE, PLANS, size=before.shape)
        return np.take_along_axis(order, np.where(rng.random(before.shape) < leak, outside, place), axis=1)

    return next_categories


def play(
    data: SessionData, script: Script, sessions: int, seed: int, *, rule: Rule = "positional", n_envs: int = 500
) -> Lengths:
    """Play ``sessions`` whole sessions of ``rapport/KuaiRand-v0``, at least one in each of ``n_envs`` slots.

    As many are counted in every slot: the first to end would be the short ones.
    """
    n_envs = min(n_envs, sessions)
    quota = -(-sessions // n_envs)
    envs = gym.make_vec(
        "rapport/KuaiRand-v0",
        num_envs=n_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
        data=data,
        response=_indifferent(data),
        quit_rule=rule,
    )
    envs.reset(seed=seed)
    pick = _items(data, np.random.default_rng(seed))
    before = np.full((n_envs, 6), -1, np.int32)
    steps, repeats = np.zeros(n_envs, np.int64), np.zeros(n_envs, np.int64)
    ended: list[list[tuple[int, int]]] = [[] for _ in range(n_envs)]
    while min(len(own) for own in ended) < quota:
        _, _, left, _, info = envs.step(pick(script(before)))
        steps += 1
        repeats += info["cost"] > 1
        before = info["categories"].copy()
        for slot in np.flatnonzero(left):
            ended[slot].append((int(steps[slot]), int(repeats[slot])))
        steps[left], repeats[left], before[left] = 0, 0, -1
    envs.close()
    kept = np.array([own[:quota] for own in ended]).reshape(-1, 2)[:sessions]
    return Lengths(kept[:, 0], kept[:, 1])


def _indifferent(data: SessionData) -> MatrixResponse:
    """Users who do nothing: these quit rules do not depend on responses."""
    shape = (data.population.n_users, data.catalog.n_items, len(data.log.behaviours))
    return MatrixResponse(np.zeros(shape, np.float32), data.log.behaviours)


def _items(data: SessionData, rng: np.random.Generator) -> Callable[[IntArray], IntArray]:
    """Random items of given categories."""
    sizes = data.catalog.category_sizes
    first: IntArray = np.cumsum(sizes) - sizes
    by_category = np.argsort(data.catalog.category, kind="stable")

    def pick(categories: IntArray) -> IntArray:
        place: FloatArray = rng.random(categories.shape, np.float32)
        return np.asarray(by_category[first[categories] + (place * sizes[categories]).astype(np.int64)])

    return pick
