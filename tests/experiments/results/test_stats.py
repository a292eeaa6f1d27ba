"""The statistics against scipy, against rliable's figures, and against the truth in simulations."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rapport.experiments.results.stats import (
    Estimate,
    Scores,
    cluster_bootstrap,
    cluster_estimate,
    estimate,
    iqm,
    paired_difference,
    percentile_interval,
    t_interval,
)

scipy_stats = pytest.importorskip("scipy.stats")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 10, 25])
def test_iqm_is_scipys_trimmed_mean(n: int) -> None:
    values = generator().normal(size=(6, n))
    np.testing.assert_allclose(iqm(values), scipy_stats.trim_mean(values, 0.25, axis=-1))


def test_iqm_of_five_is_the_mean_of_the_middle_three() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, -50.0]) == pytest.approx(2.0)


def test_seed_level_agrees_with_scipys_bootstrap() -> None:
    values = generator(1).normal(size=12)
    reference = scipy_stats.bootstrap(
        (values,), lambda x, axis: scipy_stats.trim_mean(x, 0.25, axis=axis), method="percentile", rng=generator(2)
    ).confidence_interval
    found = estimate(Scores.mean(values[:, None]), generator(3), resamples=10_000)
    assert found.point == pytest.approx(scipy_stats.trim_mean(values, 0.25))
    assert found.low == pytest.approx(reference.low, abs=0.05)
    assert found.high == pytest.approx(reference.high, abs=0.05)


@pytest.mark.parametrize(
    ("values", "point", "low", "high"),
    [
        ([9.1, 8.4, 9.9, 8.9, 9.4], 9.13333333, 8.56666667, 9.73333333),
        ([3.1, 2.7, 3.9, 3.3, 2.2, 3.0, 3.6, 2.9, 3.4, 4.4], 3.21666667, 2.85, 3.65),
    ],
)
def test_seed_level_agrees_with_rliable(values: list[float], point: float, low: float, high: float) -> None:
    """Reference: rliable 1.2.0, aggregate_iqm and get_interval_estimates with 50,000 repetitions, one task."""
    found = estimate(Scores.mean([[v] for v in values]), generator(), resamples=20_000)
    assert (found.point, found.low, found.high) == pytest.approx((point, low, high), abs=0.04)


def test_session_level_agrees_with_scipys_bootstrap() -> None:
    sessions = generator(4).exponential(size=(1, 400))
    reference = scipy_stats.bootstrap((sessions[0],), np.mean, method="percentile", rng=generator(5))
    found = estimate(Scores.mean(sessions), generator(6), resamples=10_000)
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.01)


def test_a_ratio_is_total_over_total() -> None:
    returns, steps = np.array([[4.0, 1.0], [9.0, 3.0]]), np.array([[8, 12], [10, 10]])
    scores = Scores.ratio(returns, steps)
    np.testing.assert_allclose(scores.per_seed(), [5 / 20, 12 / 20])
    found = estimate(scores, generator(), resamples=500)
    assert 1 / 12 <= found.low <= found.point <= found.high <= 0.9


def test_a_ratio_with_equal_steps_is_the_mean_of_rates() -> None:
    returns = generator(1).uniform(size=(5, 60))
    a = estimate(Scores.ratio(returns, np.full((5, 60), 4)), generator(2))
    b = estimate(Scores.mean(returns / 4), generator(2))
    assert (a.point, a.low, a.high) == pytest.approx((b.point, b.low, b.high))


def test_one_seed_of_the_generator_gives_one_interval() -> None:
    scores = Scores.mean(generator(1).normal(size=(5, 100)))
    assert estimate(scores, generator(7)) == estimate(scores, generator(7))
    assert estimate(scores, generator(7)) != estimate(scores, generator(8))


def test_seeds_may_have_different_numbers_of_sessions() -> None:
    found = estimate(Scores.mean([np.ones(3), np.full(7, 2.0)]), generator(), resamples=200)
    assert (found.point, found.low, found.high, found.n_seeds) == (1.5, 1.0, 2.0, 2)


def test_pairing_takes_out_what_seeds_and_users_share() -> None:
    rng = generator(3)
    shared = rng.normal(0, 3, (5, 1)) + rng.normal(0, 2, (5, 300))
    first, second = Scores.mean(shared + 0.3 + rng.normal(0, 0.1, (5, 300))), Scores.mean(shared)
    paired = paired_difference(first, second, rng)
    loose = paired_difference(first, second, rng, same_sessions=False)
    assert paired.low > 0.25 and paired.high < 0.35
    assert loose.high - loose.low > 3 * (paired.high - paired.low)
    apart = estimate(first, rng)
    assert apart.high - apart.low > 10 * (paired.high - paired.low)


def test_a_difference_turns_its_sign() -> None:
    a, b = (Scores.mean(generator(i).normal(size=(4, 50))) for i in (1, 2))
    forth, back = paired_difference(a, b, generator(3)), paired_difference(b, a, generator(3))
    assert (forth.point, forth.low, forth.high) == pytest.approx((-back.point, -back.high, -back.low))


# --- clusters ---------------------------------------------------------------------------------------------------------


def clustered(rng: np.random.Generator, n: int, between: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Values and clusters (codes with holes) of unequal size, rows in random order."""
    sizes = rng.integers(1, 9, n)
    cluster = np.repeat(7 * rng.permutation(n), sizes)
    values = np.repeat(rng.normal(0, between, n), sizes) + rng.normal(size=len(cluster))
    order = rng.permutation(len(cluster))
    return values[order], cluster[order]


def test_the_cluster_bootstrap_is_a_slow_loop() -> None:
    """Clusters drawn by the same numbers, each time glued together row by row."""
    values, cluster = clustered(generator(1), 12)
    names, rng, expected = np.unique(cluster), generator(2), []
    for _ in range(50):
        glued = np.concatenate([values[cluster == names[i]] for i in rng.integers(len(names), size=len(names))])
        expected.append([glued.mean(), (glued > 0).sum()])
    drawn = cluster_bootstrap(lambda w: (w @ values / w.sum(), w @ (values > 0)), cluster, generator(2), resamples=50)
    assert drawn.shape == (50, 2)
    np.testing.assert_allclose(drawn, expected)


def test_its_spread_is_the_analytic_one_of_a_mean_over_clusters() -> None:
    """With clusters of equal size the mean's variance is that of the cluster means over their number."""
    rng = generator(3)
    means = rng.normal(0, 2, 60)
    values, cluster = np.repeat(means, 5) + rng.normal(size=300), np.repeat(np.arange(60), 5)
    drawn = cluster_bootstrap(lambda w: w @ values / w.sum(), cluster, generator(4), resamples=20_000)
    own = values.reshape(60, 5).mean(axis=1)
    assert drawn.var() == pytest.approx(own.var() / 60, rel=0.03)
    rows = cluster_bootstrap(lambda w: w @ values / w.sum(), np.arange(300), generator(4), resamples=4_000)
    assert drawn.var() > 3 * rows.var()  # rows taken for independent look surer than they are


def test_a_cluster_estimate_is_the_bootstrap_of_its_ratio() -> None:
    top, cluster = clustered(generator(5), 15)
    bottom = generator(6).uniform(0, 3, len(top))
    found = cluster_estimate(top, cluster, generator(7), denominator=bottom, resamples=300, level=0.9)
    drawn = cluster_bootstrap(lambda w: w @ top / (w @ bottom), cluster, generator(7), resamples=300)
    assert found.point == pytest.approx(top.sum() / bottom.sum())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.05, 0.95))))
    assert found.n_seeds == 15
    plain = cluster_estimate(top, cluster, generator(7), resamples=300)
    assert plain.point == pytest.approx(top.mean())


def test_single_rows_as_clusters_are_scipys_bootstrap() -> None:
    values = generator(8).exponential(size=300)
    reference = scipy_stats.bootstrap((values,), np.mean, method="percentile", rng=generator(9)).confidence_interval
    found = cluster_estimate(values, np.arange(300), generator(10), resamples=10_000)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.01)


@pytest.mark.slow
def test_coverage_over_clusters() -> None:
    rng, hits = generator(12), 0
    for _ in range(300):
        values, cluster = clustered(rng, 60)
        found = cluster_estimate(values, cluster, rng, resamples=400)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_a_t_interval_is_scipys() -> None:
    values = generator(1).normal(3, 2, 9)
    for level in (0.5, 0.95):
        expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(level)
        found = t_interval(values, level)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert (found.point, found.n_seeds) == (values.mean(), 9)


def test_a_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ModuleNotFoundError, match=r"t-intervals need scipy.*rapport-gym\[stats\]"):
        t_interval([1.0, 2.0])


def test_estimates_as_text() -> None:
    value = Estimate(9.1, 8.765, 9.449, 5)
    assert value.shown(2) == "9.10 [8.77, 9.45]"
    assert value.shown(1, signed=True) == "+9.1 [+8.8, +9.4]"
    assert Estimate(-0.2, -0.5, 0.1, 5).shown(1, signed=True) == "-0.2 [-0.5, +0.1]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "between", "least", "most"),
    [(5, 0.1, 0.94, 1.0), (5, 1.0, 0.80, 0.93), (10, 1.0, 0.88, 0.98)],
)
def test_coverage(seeds: int, between: float, least: float, most: float) -> None:
    """How often a 95 % interval holds the truth 0, with unit variation of sessions: what the docstring says."""
    rng, trials = generator(11), 300
    hits = 0
    for _ in range(trials):
        found = estimate(
            Scores.mean(rng.normal(0, between, (seeds, 1)) + rng.normal(size=(seeds, 50))), rng, resamples=400
        )
        hits += found.low <= 0 <= found.high
    assert least <= hits / trials <= most


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scores.mean([]), "give one array of each per seed, and at least one seed"),
        (lambda: Scores.mean([[]]), "at least one session"),
        (lambda: Scores.ratio([[1.0, 2.0]], [[1.0]]), r"has shapes \(2,\) and \(1,\)"),
        (lambda: Scores.ratio([[1.0]], [[0.0]]), "a denominator <= 0"),
        (lambda: Scores.mean([[float("nan")]]), "not finite"),
        (lambda: estimate(Scores.mean([[1.0]]), generator(), resamples=0), "resamples: 0"),
        (lambda: estimate(Scores.mean([[1.0]]), generator(), level=95), r"level: 95 is not in \(0, 1\)"),
        (
            lambda: paired_difference(Scores.mean([[1.0]]), Scores.mean([[1.0], [2.0]]), generator()),
            "1 and 2 seeds; give the seeds both have",
        ),
        (
            lambda: paired_difference(Scores.mean([[1.0]]), Scores.mean([[1.0, 2.0]]), generator()),
            "pass same_sessions=False",
        ),
        (lambda: cluster_bootstrap(np.sum, np.arange(3), generator(), resamples=0), "resamples: 0"),
        (lambda: cluster_estimate([1.0, 2.0], np.arange(3), generator()), r"numerator \(2,\), .* clusters \(3,\)"),
        (lambda: cluster_estimate([], np.arange(0), generator()), "at least one row"),
        (
            lambda: cluster_estimate([1.0, 2.0], np.arange(2), generator(), denominator=[1.0, 0.0]),
            "a cluster's denominators sum to 0",
        ),
        (lambda: percentile_interval(np.arange(3.0), 0.0), r"level: 0.0 is not in \(0, 1\)"),
        (lambda: t_interval([1.0]), r"values of shape \(1,\); give at least two"),
        (lambda: t_interval([1.0, 2.0], 1.0), r"level: 1.0 is not in \(0, 1\)"),
    ],
)
def test_bad_input_is_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
