"""Linear bandits against closed forms and against inverses taken anew, context by context."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.agents.bandits import RidgeRegression, linucb

pytestmark = pytest.mark.filterwarnings("error")


def test_the_posterior_is_the_closed_form_after_every_update() -> None:
    """Least squares on rows that stand for the prior and on all that was counted so far."""
    rng = np.random.default_rng(0)
    prior, strength = rng.normal(size=7), 3.0
    ridge = RidgeRegression(prior, strength)
    rows, targets = [math.sqrt(strength) * np.eye(7)], [math.sqrt(strength) * prior]
    for _ in range(5):
        x, rewards = rng.normal(size=(4, 7)), rng.integers(2, size=4)
        ridge.update(x, rewards)
        rows.append(x)
        targets.append(rewards)
        stacked = np.concatenate(rows)
        expected = np.linalg.lstsq(stacked, np.concatenate(targets), rcond=None)[0]
        np.testing.assert_allclose(ridge.mean, expected, rtol=1e-8)
        pseudo = np.linalg.pinv(stacked)
        np.testing.assert_allclose(ridge.covariance, pseudo @ pseudo.T, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(ridge.root @ ridge.root.T, ridge.covariance, rtol=1e-7, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(width=st.floats(0, 3), d=st.integers(1, 6), n=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_linucb_matches_a_direct_inverse(width: float, d: int, n: int, seed: int) -> None:
    """Algorithm 1 of the paper, written down as it is printed, one context at a time."""
    rng = np.random.default_rng(seed)
    a, b = 2.0 * np.eye(d), 2.0 * (prior := rng.normal(size=d))
    ridge = RidgeRegression(prior, 2.0)
    for _ in range(n):
        x, reward = rng.normal(size=d), rng.integers(2)
        a = a + np.outer(x, x)
        b = b + reward * x
        ridge.update(x[None], np.array([reward]))
    contexts = rng.normal(size=(3, 4, d))
    bounds = linucb(ridge, contexts, width)
    for row in range(3):
        for arm in range(4):
            x, inverse = contexts[row, arm], np.linalg.inv(a)
            assert bounds[row, arm] == pytest.approx(x @ inverse @ b + width * math.sqrt(x @ inverse @ x), rel=1e-6)


def test_linucb_finds_the_weights_it_is_rewarded_by() -> None:
    rng, truth = np.random.default_rng(0), np.array([0.6, -0.3, 0.2])
    ridge = RidgeRegression(np.zeros(3), 1.0)
    late = []
    for step in range(600):
        contexts = rng.normal(size=(8, 5, 3))
        best = linucb(ridge, contexts, 0.5).argmax(axis=1)
        chosen = contexts[np.arange(8), best]
        ridge.update(chosen, chosen @ truth + rng.normal(scale=0.5, size=8))
        if step >= 500:
            late.append(((contexts @ truth).max(axis=1) - chosen @ truth).mean())
    np.testing.assert_allclose(ridge.mean, truth, atol=0.05)
    assert np.mean(late) < 0.01


def test_samples_are_from_the_posterior() -> None:
    rng, n = np.random.default_rng(1), 40_000
    ridge = RidgeRegression(rng.normal(size=5), 2.0)
    ridge.update(rng.normal(size=(30, 5)) * [3, 1, 1, 0.2, 1], rng.integers(2, size=30))
    drawn = ridge.sample(n, 0.5, np.random.default_rng(0))
    inverse = np.linalg.inv(ridge.precision)
    spread = 0.5 * np.sqrt(np.diag(inverse))
    assert drawn.shape == (n, 5)
    assert (np.abs(drawn.mean(axis=0) - inverse @ ridge.moment) < 5 * spread / math.sqrt(n)).all()
    correlation = (np.cov(drawn.T) - 0.25 * inverse) / np.outer(spread, spread)
    assert np.abs(correlation).max() < 0.05
