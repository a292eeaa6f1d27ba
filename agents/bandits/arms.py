"""Bandits without context: counts of A arms, and the values by which B rounds choose among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
TopArms = Callable[[Floats, Bools, int], NDArray[np.int64]]
"""From values (B, A), available arms (B, A) and k to the k best available arms of each round, (B, k), best first."""


class ArmCounts:
    """Pulls and summed rewards of A arms; a prior is given as pulls and rewards that were never made.

    Args:
        pulls: shape (A,).
        rewards: shape (A,).

    Attributes:
        pulls: shape (A,), float64.
        rewards: shape (A,), float64.
    """

    def __init__(self, pulls: ArrayLike, rewards: ArrayLike) -> None:
        self.pulls: Floats = np.array(pulls, np.float64)
        self.rewards: Floats = np.array(rewards, np.float64)

    def update(self, arms: NDArray[np.integer], rewards: NDArray[np.integer | np.floating]) -> None:
        """Add pulls of arms, any shape, and their rewards, the same shape."""
        self.pulls += np.bincount(arms.ravel(), minlength=len(self.pulls))
        self.rewards += np.bincount(arms.ravel(), rewards.ravel(), minlength=len(self.pulls))

    @property
    def means(self) -> Floats:
        """Mean reward of each arm, shape (A,); 0 where it was never pulled."""
        return np.divide(self.rewards, self.pulls, out=np.zeros_like(self.pulls), where=self.pulls > 0)


def ucb1(arms: ArmCounts, width: float = 1.0) -> Floats:
    """UCB1 (Auer, Cesa-Bianchi & Fischer 2002, Figure 1), shape (A,): mean + width * sqrt(2 ln n / n_a).

    n_a are an arm's pulls, n those of all arms. An arm that was never pulled has an infinite bound.

    Args:
        arms: what was counted.
        width: factor of the bound; 1 as published.
    """
    pulled = arms.pulls > 0
    pulls = np.where(pulled, arms.pulls, 1.0)
    bounds = arms.means + width * np.sqrt(2.0 * np.log(max(arms.pulls.sum(), 1.0)) / pulls)
    return np.where(pulled, bounds, np.inf)


def top_arms(values: Floats, available: Bools, k: int) -> NDArray[np.int64]:
    """The k best available arms of each round, shape (B, k), best first; of equal ones the lower index.

    Args:
        values: shape (B, A).
        available: shape (B, A); where fewer than k are, others follow.
        k: arms to choose.
    """
    order: NDArray[np.int64] = np.lexsort((-values, ~available), axis=1)
    return order[:, :k]


def epsilon_greedy(
    values: Floats, available: Bools, k: int, epsilon: float, rng: np.random.Generator, top: TopArms = top_arms
) -> Floats:
    """Values of which the k best are an epsilon-greedy choice, shape (B, A).

    Each of the k best available arms gives its place, with probability epsilon, to any available arm without a place.

    Args:
        values: shape (A,).
        available: shape (B, A).
        k: arms to choose.
        epsilon: share of places to explore.
        rng: source of all randomness.
        top: finds the best arms; it decides which of equal ones come first.
    """
    everyone = np.broadcast_to(values, available.shape)
    if epsilon == 0.0:
        return everyone
    best = top(everyone, available, k)
    kept = np.zeros_like(available)
    np.put_along_axis(kept, best, rng.random(best.shape) >= epsilon, axis=1)
    return np.where(kept, everyone - values.min() + 1.0, rng.random(available.shape))
