from __future__ import annotations

import numpy as np
import pytest

from rapport.datasets.effects import additive_offsets, latent_correlation, sigmoid, variances


@pytest.mark.parametrize(("rate", "rho"), [(0.5, 0.3), (0.45, 0.1), (0.1, 0.5), (0.9, 0.2)])
def test_latent_correlation_of_simulated_pairs(rate: float, rho: float) -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=400_000), rng.normal(size=(2, 400_000))
    latent = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
    first, second = latent > np.quantile(latent, 1 - rate)
    covariance = float((first * second).mean() - first.mean() * second.mean())
    assert latent_correlation(covariance, rate) == pytest.approx(rho, abs=0.015)


def test_latent_correlation_at_one_half_has_a_closed_form() -> None:
    """P(both > 0) = 1/4 + asin(rho) / 2 pi."""
    for rho in (0.0, 0.2, 0.6):
        assert latent_correlation(np.arcsin(rho) / (2 * np.pi), 0.5) == pytest.approx(rho, abs=1e-4)
    assert latent_correlation(-0.01, 0.5) == 0.0


@pytest.mark.parametrize("truth", [(0.5, 1.0, 0.3), (0.0, 0.8, 0.0), (0.8, 0.0, 0.6)])
def test_variances_are_recovered(truth: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    n_rows, n_users, n_items, n_categories = 400_000, 4_000, 1_500, 12
    user, item = rng.integers(0, n_users, n_rows), rng.integers(0, n_items, n_rows)
    category = (np.arange(n_items) % n_categories)[item]
    q, g, t = (
        np.sqrt(v) * rng.normal(size=s) for v, s in zip(truth, (n_items, n_users, n_users * n_categories), strict=True)
    )
    chance = sigmoid(-0.3 + q[item] + g[user] + t[user * n_categories + category])
    click = (rng.random(n_rows) < chance).astype(np.float64)
    found = variances(click - click.mean(), float(click.mean()), user, item, category)
    np.testing.assert_allclose(found, truth, atol=0.09)


def test_offsets_hit_both_sets_of_rates() -> None:
    rng = np.random.default_rng(2)
    first, second, noise = rng.integers(0, 5, 50_000), rng.integers(0, 3, 50_000), rng.normal(size=50_000)
    chance = sigmoid(np.linspace(-1, 1, 5)[first] + np.array([-0.5, 0.0, 0.5])[second] + noise)
    wanted = tuple(np.bincount(i, weights=chance) / np.bincount(i) for i in (first, second))
    a, b = additive_offsets((wanted[0], wanted[1]), (first, second), noise)
    reached = sigmoid(a[first] + b[second] + noise)
    for i, rates in zip((first, second), wanted, strict=True):
        np.testing.assert_allclose(np.bincount(i, weights=reached) / np.bincount(i), rates, atol=1e-4)
