"""Profiles against plain loops, and a bootstrap that draws sessions one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rapport.experiments.report.figures import profile_figure
from rapport.experiments.report.performance_profile import performance_profile

numbers = st.integers(-8, 8).map(lambda n: n / 2)
seeds_of_scores = st.lists(st.lists(numbers, min_size=1, max_size=9), min_size=1, max_size=4)


def by_loops(seeds: list[list[float]], taus: list[float]) -> list[float]:
    shares = []
    for tau in taus:
        of_seeds = [sum(1 for score in scores if score > tau) / len(scores) for scores in seeds]
        shares.append(sum(of_seeds) / len(of_seeds))
    return shares


def slow_bootstrap(
    seeds: list[NDArray[np.float64]], taus: NDArray[np.float64], resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng, drawn = np.random.default_rng(5), []
    for _ in range(resamples):
        chosen = [seeds[i] for i in rng.integers(0, len(seeds), len(seeds))]
        drawn.append(np.mean([[np.mean(rng.choice(s, len(s)) > tau) for tau in taus] for s in chosen], axis=0))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


@given(seeds_of_scores, st.lists(numbers, min_size=1, max_size=8).map(sorted))
def test_shares_are_those_of_a_plain_loop_and_never_rise(seeds: list[list[float]], taus: list[float]) -> None:
    point, low, high = performance_profile(seeds, taus, np.random.default_rng(0), resamples=20)
    np.testing.assert_allclose(point, by_loops(seeds, taus), atol=1e-12)
    for curve in (point, low, high):
        assert curve.shape == (len(taus),)
        assert (np.diff(curve) <= 1e-12).all()
        assert (curve >= -1e-12).all() and (curve <= 1 + 1e-12).all()
    assert (low <= high).all()


def test_the_band_is_that_of_a_bootstrap_of_sessions() -> None:
    rng = np.random.default_rng(1)
    seeds = [rng.normal(shift, 1, size) for shift, size in ((0.0, 40), (0.4, 60), (-0.3, 50))]
    taus = np.array([-1.0, 0.0, 0.5, 1.5])
    _, low, high = performance_profile(seeds, taus, np.random.default_rng(2), resamples=4_000)
    expected = slow_bootstrap(seeds, taus, 1_500)
    np.testing.assert_allclose([low, high], expected, atol=0.02)
    assert (high - low > 0.05).all()


def test_the_same_seed_draws_the_same_band() -> None:
    scores = [np.random.default_rng(3).normal(size=30) for _ in range(3)]
    taus = np.linspace(-2, 2, 9)
    bands = [performance_profile(scores, taus, np.random.default_rng(seed), resamples=50) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(bands[0], bands[1])
    assert not np.array_equal(bands[0], bands[2])


@pytest.mark.parametrize(
    ("seeds", "taus", "said"),
    [
        ([], [0.0], "no seed"),
        ([[]], [0.0], "seed number 0"),
        ([[1.0], [np.nan]], [0.0], "seed number 1"),
        ([[1.0]], [1.0, 0.0], "taus"),
        ([[1.0]], [], "taus"),
        ([[1.0]], [np.nan], "taus"),
        ([[1.0], [[1.0]]], [0.0], "seed number 1"),
    ],
)
def test_what_cannot_be_profiled_is_named(seeds: list[list[float]], taus: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        performance_profile(seeds, taus, np.random.default_rng(0))


def test_the_figure_has_a_curve_and_a_band_for_each() -> None:
    pytest.importorskip("plotly")
    taus = np.array([0.0, 1.0, 2.0])
    profile = performance_profile([[0.5, 1.5], [2.5, 0.5]], taus, np.random.default_rng(0), resamples=50)
    point, low, high = profile
    figure = profile_figure({"<b>LERL": profile, "PPO": profile}, taus, "Profiles", "R_cum")
    band, curve = figure.data[:2]
    assert len(figure.data) == 4
    assert curve.name == "&lt;b&gt;LERL"
    np.testing.assert_array_equal(curve.y, point)
    np.testing.assert_array_equal(band.y, [*high, *low[::-1]])
    np.testing.assert_array_equal(band.x, [*taus, *taus[::-1]])
    assert figure.data[3].line.color != curve.line.color


@pytest.mark.parametrize(("level", "resamples"), [(1.0, 5), (0.0, 5), (0.9, 0)])
def test_a_band_needs_a_level_and_resamples(level: float, resamples: int) -> None:
    with pytest.raises(ValueError, match="level, resamples"):
        performance_profile([[1.0]], [0.0], np.random.default_rng(0), level=level, resamples=resamples)
