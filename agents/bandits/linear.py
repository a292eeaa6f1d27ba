"""Bandits with contexts whose expected reward is linear in them: one ridge regression, shared by all arms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class RidgeRegression:
    """A Bayesian linear regression of rewards on contexts, with unit noise.

    Args:
        mean: shape (d,), prior mean of the weights.
        strength: prior precision of every weight, above 0.

    Attributes:
        precision: shape (d, d), A = strength * I + sum of x x'.
        moment: shape (d,), b = strength * mean + sum of rewards * x.
    """

    def __init__(self, mean: Floats, strength: float) -> None:
        self.precision: Floats = strength * np.eye(len(mean))
        self.moment: Floats = strength * mean

    def update(self, x: Floats, rewards: NDArray[np.integer | np.floating]) -> None:
        """Add contexts (n, d) and their rewards (n,)."""
        self.precision += x.T @ x
        self.moment += rewards @ x

    @property
    def mean(self) -> Floats:
        """Posterior mean of the weights, A^-1 b, shape (d,)."""
        return np.asarray(np.linalg.solve(self.precision, self.moment), np.float64)

    @property
    def covariance(self) -> Floats:
        """Posterior covariance of the weights, A^-1, shape (d, d)."""
        return np.asarray(np.linalg.inv(self.precision), np.float64)

    @property
    def root(self) -> Floats:
        """Lower-triangular L with L L' = A^-1, shape (d, d)."""
        return np.asarray(np.linalg.cholesky(self.covariance), np.float64)

    def sample(self, n: int, scale: float, rng: np.random.Generator) -> Floats:
        """Weights drawn from N(A^-1 b, scale^2 A^-1), shape (n, d): linear Thompson sampling.

        The best arm under each draw is played (Agrawal & Goyal, ICML 2013, where the scale is v).
        """
        root = scale * self.root
        return self.mean + rng.standard_normal((n, len(root))) @ root.T


def linucb(ridge: RidgeRegression, x: Floats, width: float) -> Floats:
    """LinUCB's upper bounds (Li, Chu, Langford & Schapire, WWW 2010, Algorithm 1): x' A^-1 b + width * sqrt(x' A^-1 x).

    Args:
        ridge: the regression.
        x: contexts, shape (..., d).
        width: alpha in the paper.

    Returns:
        Shape (...).
    """
    bounds: Floats = x @ ridge.mean + width * np.linalg.norm(x @ ridge.root, axis=-1)
    return bounds
