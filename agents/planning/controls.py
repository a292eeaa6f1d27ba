"""Planners without a language model: the controls of every table.

A language model is only worth its calls if its plans beat these. Under LERL's quit rule a random plan of 4 out of 12
categories already keeps users for 14.8 steps, so every comparison needs `RandomPlanner`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from rapport.agents.planning.planner import BoolArray, SessionViews
from rapport.agents.planning.preference import (
    IntArray,
    check_views,
    checked_prior,
    checked_sizes,
    recent_categories,
    smoothed_click_rate,
    take_best,
)

PRIOR_STRENGTH = 10.0
"""Impressions a category's global click rate is worth against a user's own clicks."""


class NoPlanner:
    """Allows every category: the policy alone decides."""

    name = "none"

    def __init__(self, category_sizes: ArrayLike) -> None:
        """Plan for C categories.

        Args:
            category_sizes: shape (C,), items in each category.
        """
        self._sizes = checked_sizes(category_sizes)

    def plan(self, views: SessionViews) -> BoolArray:
        """All categories, shape (B, C)."""
        return np.ones((len(views), len(self._sizes)), dtype=np.bool_)


class RandomPlanner:
    """Draws `n` categories for every session and step, and more where they hold fewer items than a slate."""

    name = "random"

    def __init__(self, category_sizes: ArrayLike, rng: np.random.Generator, n: int = 4) -> None:
        """Plan `n` categories at random.

        Args:
            category_sizes: shape (C,), items in each category.
            rng: source of all randomness.
            n: categories in a plan.
        """
        self._sizes = checked_sizes(category_sizes)
        self._rng = rng
        self._n = _checked_n(n)

    def plan(self, views: SessionViews) -> BoolArray:
        """Uniformly random categories that hold items, shape (B, C)."""
        scores = self._rng.random((len(views), len(self._sizes)))
        return take_best(scores, np.ones(scores.shape, dtype=np.bool_), self._sizes, self._n, views.slate_size)


class ConstantPlanner:
    """Plans the same categories for everybody, whoever the user is and whatever was clicked.

    Where it does as well as a planner that looks at the user, a plan has nothing personal to win.
    """

    name = "constant"

    def __init__(self, category_sizes: ArrayLike, scores: ArrayLike, n: int = 8) -> None:
        """Choose the `n` categories of highest score, once.

        Args:
            category_sizes: shape (C,), items in each category.
            scores: shape (C,), higher is better, e.g. click rates in the training log; ties go to the lower index.
            n: categories in the plan; more where these hold fewer items than a slate.

        Raises:
            ValueError: there is not one finite score per category, or `n` is below 1.
        """
        self._sizes = checked_sizes(category_sizes)
        self._scores = np.asarray(scores, dtype=np.float64)
        if self._scores.shape != self._sizes.shape or not np.isfinite(self._scores).all():
            raise ValueError(
                f"scores must hold a finite number for each of {len(self._sizes)} categories; "
                f"got shape {self._scores.shape}"
            )
        self._n = _checked_n(n)

    def plan(self, views: SessionViews) -> BoolArray:
        """The same plan in every row, shape (B, C)."""
        everything = np.ones((1, len(self._sizes)), dtype=np.bool_)
        plan = take_best(self._scores[None], everything, self._sizes, self._n, views.slate_size)
        return np.repeat(plan, len(views), axis=0)


class RotationPlanner:
    """Takes fixed blocks of categories in turn, the same for every user: variety without knowledge of preferences.

    Blocks are disjoint and each holds at least a slate. Two consecutive plans therefore share no category, as long as
    the catalogue is large enough for two blocks.
    """

    name = "rotation"

    def __init__(self, category_sizes: ArrayLike, rng: np.random.Generator, n: int = 4) -> None:
        """Cut a random order of the categories into blocks.

        Args:
            category_sizes: shape (C,), items in each category.
            rng: draws the order, once.
            n: categories in a block; a block grows where these hold fewer items than a slate.
        """
        self._sizes = checked_sizes(category_sizes)
        self._n = _checked_n(n)
        self._order: IntArray = rng.permutation(np.flatnonzero(self._sizes > 0))

    def blocks(self, slate_size: int) -> BoolArray:
        """The blocks in the order they are taken, shape (blocks, C); categories too few for a block join the last."""
        cuts, first, held = [0], 0, 0
        for position, category in enumerate(self._order):
            held += int(self._sizes[category])
            if position + 1 - first >= self._n and held >= slate_size:
                first, held = position + 1, 0
                cuts.append(first)
        ends = [0, *cuts[1:-1], len(self._order)]
        blocks = np.zeros((len(ends) - 1, len(self._sizes)), dtype=np.bool_)
        for block, (start, stop) in enumerate(pairwise(ends)):
            blocks[block, self._order[start:stop]] = True
        return blocks

    def plan(self, views: SessionViews) -> BoolArray:
        """Block number ``step`` modulo the number of blocks, shape (B, C)."""
        blocks = self.blocks(views.slate_size)
        return blocks[views.step % len(blocks)]


class GreedyPreferencePlanner:
    """Plans the categories that each user clicks most: good for the next slate alone, as it ignores satiation."""

    name = "greedy preference"

    def __init__(
        self, category_sizes: ArrayLike, prior: ArrayLike, n: int = 4, strength: float = PRIOR_STRENGTH
    ) -> None:
        """Plan each user's best `n` categories by smoothed click rate.

        Args:
            category_sizes: shape (C,), items in each category.
            prior: shape (C,), click rate of each category over all training users.
            n: categories in a plan; more where these hold fewer items than a slate.
            strength: impressions the prior is worth.
        """
        self._sizes = checked_sizes(category_sizes)
        self._prior = checked_prior(prior, len(self._sizes))
        self._n = _checked_n(n)
        self._strength = _checked_strength(strength)

    def plan(self, views: SessionViews) -> BoolArray:
        """The best categories of each user, shape (B, C)."""
        check_views(views, len(self._sizes))
        rates = smoothed_click_rate(views, self._prior, self._strength)
        return take_best(rates, np.ones(rates.shape, dtype=np.bool_), self._sizes, self._n, views.slate_size)


class GreedyRotationPlanner:
    """Plans each user's best categories among those that the last slates did not show.

    A plan shares no category with the last `window` slates unless all others together hold fewer items than a slate.
    """

    name = "greedy rotation"

    def __init__(
        self,
        category_sizes: ArrayLike,
        prior: ArrayLike,
        n: int = 4,
        window: int = 1,
        strength: float = PRIOR_STRENGTH,
    ) -> None:
        """Plan each user's best `n` categories that were not just shown.

        Args:
            category_sizes: shape (C,), items in each category.
            prior: shape (C,), click rate of each category over all training users.
            n: categories in a plan; more where these hold fewer items than a slate.
            window: last slates whose categories are left out.
            strength: impressions the prior is worth.
        """
        self._sizes = checked_sizes(category_sizes)
        self._prior = checked_prior(prior, len(self._sizes))
        self._n = _checked_n(n)
        if window < 1:
            raise ValueError(f"window must be at least 1 slate; got {window}")
        self._window = window
        self._strength = _checked_strength(strength)

    def plan(self, views: SessionViews) -> BoolArray:
        """The best categories of each user outside the last slates, shape (B, C)."""
        check_views(views, len(self._sizes))
        rates = smoothed_click_rate(views, self._prior, self._strength)
        fresh = ~recent_categories(views, len(self._sizes), self._window)
        return take_best(rates, fresh, self._sizes, self._n, views.slate_size)


def _checked_n(n: int) -> int:
    if n < 1:
        raise ValueError(f"n, the number of categories in a plan, must be at least 1; got {n}")
    return n


def _checked_strength(strength: float) -> float:
    if not strength > 0:
        raise ValueError(f"strength, the impressions the prior is worth, must be above 0; got {strength}")
    return strength
