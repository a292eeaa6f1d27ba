"""The satiation study: against dense algebra, plain loops, and logs whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.datasets.schema import SessionData
from rapport.datasets.twin import twin
from rapport.experiments.satiation.exposures import Exposures, exposures, recent_count
from rapport.experiments.satiation.fit import fade, spread, undiluted, when_full
from rapport.experiments.satiation.fixed_effects import FixedEffects, forward_deviations, instrumented, least_squares
from rapport.experiments.satiation.measure import (
    loads,
    run_before,
    since_same,
    visit_place,
)
from rapport.experiments.satiation.panel import BY_TASTE, FORWARD_TASTE, PLAIN, Panel
from rapport.experiments.satiation.placebos import dealt_labels, next_exposure, platform_answer, shuffled_order

pytest.importorskip("scipy")


def made(user: np.ndarray, item: np.ndarray, category: np.ndarray, minute: np.ndarray, click: np.ndarray) -> Exposures:
    n = len(user)
    nothing = np.zeros(n, np.int64)
    feedback = np.stack([click, click], axis=1).astype(np.float64)
    day = (minute // 1440).astype(np.int64)
    names = ("click", "long_view")
    n_categories = int(category.max()) + 1
    return Exposures(user, item, category, minute, day, feedback, names, nothing, nothing, ("all",), n_categories)


def generated(
    rng: np.random.Generator, users: int, rows: int, effect: float, answer: float = 0.0, taste: float = 0.0
) -> Exposures:
    """A log in which the same category just before changes the chance of a click by ``effect``.

    The platform shows the category again with chance ``answer`` after a click, and else one of four at random.
    """
    quality, liking = 0.1 * rng.standard_normal(40), taste * rng.standard_normal((users, 4))
    base = 0.5 + 0.1 * rng.standard_normal(users)
    category, click = np.zeros((users, rows), np.int64), np.zeros((users, rows))
    item = rng.integers(10, size=(users, rows))
    for t in range(rows):
        again = (rng.random(users) < answer * click[:, t - 1]) if t else np.zeros(users, bool)
        category[:, t] = np.where(again, category[:, t - 1], rng.integers(4, size=users))
        same = category[:, t] == category[:, t - 1] if t else False
        item[:, t] += 10 * category[:, t]
        chance = base + quality[item[:, t]] + liking[np.arange(users), category[:, t]] + effect * same
        click[:, t] = rng.random(users) < np.clip(chance, 0.02, 0.98)
    minute = np.cumsum(rng.exponential(20.0, (users, rows)) + 0.01, axis=1)
    user = np.repeat(np.arange(users), rows)
    return made(user, item.ravel(), category.ravel(), minute.ravel(), click.ravel())


def same_before(e: Exposures, how: str) -> tuple[float, float]:
    effect = Panel(e, how).effects("", "click", e.outcome("click"), {"same": e.same_as(1)}, [~e.first])[0]
    return effect.value, effect.error


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_residuals_are_those_of_dummy_variables(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second, x = rng.integers(6, size=60), rng.integers(9, size=60), rng.standard_normal((60, 2))
    effects = FixedEffects(first, second)
    dummies = np.concatenate([np.eye(6)[first], np.eye(9)[second]], axis=1)
    coefficients = np.linalg.lstsq(dummies, x, rcond=None)[0]
    np.testing.assert_allclose(effects.residual(x), x - dummies @ coefficients, atol=1e-6)
    np.testing.assert_allclose(FixedEffects(first).residual(effects.without(x, 1)), effects.residual(x), atol=1e-6)


def test_clustered_errors_are_the_textbook_sandwich() -> None:
    rng = np.random.default_rng(0)
    x, z, y, cluster = rng.standard_normal((80, 2)), rng.standard_normal((80, 2)), rng.standard_normal(80), None
    z += x
    cluster = rng.integers(12, size=80)
    found = instrumented(y, x, z, cluster)
    bread = np.linalg.inv(z.T @ x)
    residual = y - x @ (bread @ z.T @ y)
    meat = sum(
        np.outer(z[cluster == g].T @ residual[cluster == g], z[cluster == g].T @ residual[cluster == g])
        for g in range(12)
    )
    expected = 12 / 11 * 79 / 78 * bread @ meat @ bread.T
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9)
    exact = least_squares(x @ [2.0, -1.0], x, cluster)
    np.testing.assert_allclose(exact.value, [2.0, -1.0])


def test_forward_deviations_by_hand() -> None:
    x = np.array([[1.0], [10.0], [4.0], [7.0], [20.0]])
    moved, kept = forward_deviations(x, np.array([0, 1, 0, 0, 1]))
    np.testing.assert_array_equal(kept, [True, True, True, False, False])
    np.testing.assert_allclose(
        moved[kept, 0], [(1 - 5.5) * np.sqrt(2 / 3), (10 - 20) * np.sqrt(1 / 2), (4 - 7) * np.sqrt(1 / 2)]
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.floats(0.5, 100.0))
def test_recent_counts_are_the_sum_over_earlier_rows(seed: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    user = np.sort(rng.integers(3, size=30))
    group = user * 4 + rng.integers(4, size=30)
    clock = np.concatenate([np.sort(rng.random(n) * 50) for n in np.bincount(user, minlength=3)])
    counted = rng.random(30) < 0.6
    expected = np.array(
        [
            sum(np.exp(-(clock[t] - clock[s]) / tau) for s in range(t) if group[s] == group[t] and counted[s])
            for t in range(30)
        ]
    )
    np.testing.assert_allclose(recent_count(group, clock, tau, counted), expected, atol=1e-9)


def test_places_visits_and_runs_by_hand() -> None:
    user = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    category = np.array([2, 2, 1, 2, 2, 2, 2, 2])
    minute = np.array([0.0, 1, 2, 3, 40, 41, 0, 0])
    e = made(user, np.arange(8), category, minute, np.zeros(8))
    np.testing.assert_array_equal(e.same_as(1), [0, 1, 0, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(e.same_as(-1), [1, 0, 0, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(e.same_as(2), [0, 0, 0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(e.follows(-2), [1, 1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(visit_place(e), [0, 1, 2, 3, 0, 1, 0, 1])
    np.testing.assert_array_equal(since_same(e), [0, 1, 0, 2, 0, 1, 0, 1])
    np.testing.assert_array_equal(run_before(e), [0, 1, 0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(e.known_gap, [1, 1, 1, 1, 1, 1, 1, 0])
    assert [int(b.sum()) for b in e.gap_bins()] == [5, 0, 0, 1, 0]


def test_known_satiation_is_recovered_with_nominal_coverage() -> None:
    found = np.array([same_before(generated(np.random.default_rng(s), 150, 15, -0.08), PLAIN) for s in range(60)])
    covered = np.abs(found[:, 0] + 0.08) < 1.96 * found[:, 1]
    assert covered.mean() > 0.87  # 60 draws of 0.95: below with chance 1 in 200
    assert found[:, 0].mean() == pytest.approx(-0.08, abs=4 * found[:, 1].mean() / np.sqrt(60))


def test_a_platform_that_answers_fools_the_within_estimator_and_not_the_forward_one() -> None:
    logs = [generated(np.random.default_rng(s), 200, 15, 0.0, answer=0.6, taste=0.1) for s in range(25)]
    within = np.array([same_before(e, BY_TASTE) for e in logs])
    forward = np.array([same_before(e, FORWARD_TASTE) for e in logs])
    assert within[:, 0].mean() < -0.02
    assert abs(forward[:, 0].mean()) < 4 * forward[:, 0].std() / np.sqrt(25)
    assert (np.abs(forward[:, 0]) < 1.96 * forward[:, 1]).mean() > 0.8


def test_the_platforms_answer_is_seen_for_the_videos_sake() -> None:
    answers = platform_answer(generated(np.random.default_rng(0), 3_000, 15, 0.0, answer=0.5))
    for effect in answers:
        # The same video again counts as no answer: a tenth of them.
        assert effect.value == pytest.approx(0.5 * 0.75 * 0.9, abs=4 * effect.error)
    silent = platform_answer(generated(np.random.default_rng(1), 1_000, 15, 0.0))
    assert all(abs(effect.value) < 4 * effect.error for effect in silent)


def test_placebos_find_nothing_where_there_is_nothing_and_satiation_only_before() -> None:
    e = generated(np.random.default_rng(3), 1_500, 20, -0.1)
    by_name = {x.what: x for x in next_exposure(e) if x.behaviour == "click"}
    assert by_name["before, within 30 min"].high < -0.05
    assert abs(by_name["next, within 30 min"].value) < 4 * by_name["next, within 30 min"].error
    rng = np.random.default_rng(0)
    for placebo in (shuffled_order(e, rng, 4), dealt_labels(e, rng, 6)):
        assert abs(placebo[0].value) < 0.03


def test_halves_undo_what_a_thin_log_hides() -> None:
    rng = np.random.default_rng(0)
    users, rows = 400, 400
    user = np.repeat(np.arange(users), rows)
    busy = np.repeat(rng.random((users, rows // 40)) < 0.5, 40, axis=1)
    minute = np.cumsum(np.where(busy, 0.5, 15.0), axis=1).ravel()
    mine = np.repeat(rng.integers(2, size=(users, rows // 40)), 40, axis=1).ravel()
    e = made(user, rng.integers(50, size=user.size), mine, minute, np.zeros(user.size))
    click = rng.random(user.size) < 0.9 - loads(e, 20.0) @ [0.005, 0.01]
    seen = rng.random(user.size) < 0.2
    thin = replace(e, feedback=np.stack([click, click], axis=1).astype(np.float64)).take(seen)
    attenuated = Panel(thin).fit(thin.outcome("click"), [*loads(thin, 20.0).T]).value.sum()
    found = [x for x in undiluted(thin, 20.0, rng, splits=6) if x.behaviour == "click"]
    truth = -0.015 / 0.2
    assert abs(attenuated) < 0.9 * abs(truth)
    assert sum(x.value for x in found) == pytest.approx(truth, rel=0.1)
    assert [x.value for x in found] == pytest.approx([-0.025, -0.05], abs=3 * found[1].error)
    full = when_full(found, tau=20.0, seconds=30.0, share=0.2)[0]
    assert full.value == pytest.approx(found[0].value * 0.2 * 40)


def test_spread_and_fade_of_made_people() -> None:
    rng = np.random.default_rng(1)
    users, rows = 300, 60
    user = np.repeat(np.arange(users), rows)
    minute = np.cumsum(rng.choice([2.0, 400.0], (users, rows), p=[0.8, 0.2]), axis=1).ravel()
    e = made(user, rng.integers(30, size=user.size), rng.integers(5, size=user.size), minute, np.zeros(user.size))
    load = loads(e, 15.0)[:, 1]
    for sd, wanted in ((0.0, False), (0.05, True)):
        slope = -0.06 + sd * rng.standard_normal(users)
        click = rng.random(user.size) < np.clip(0.75 + slope[user] * load, 0.02, 0.98)
        people = replace(e, feedback=np.stack([click, click], axis=1).astype(np.float64))
        differs = spread(people, 15.0, rng, resamples=200)
        assert (differs.variance_low > 0) == wanted
        if not wanted:
            constant = fade(people, rng, resamples=50)
            assert constant.low <= 15.0 <= constant.high and constant.high <= 60.0


def test_twins_never_satiate() -> None:
    found = np.array([same_before(exposures(twin(n_users=250, n_items=200, seed=s)), PLAIN) for s in range(12)])
    ratio = found[:, 0] / found[:, 1]
    assert abs(ratio.mean()) < 4 / np.sqrt(12) and np.abs(ratio).max() < 4


def test_only_whole_rows_of_the_platform_are_taken(small_data: SessionData) -> None:
    surface = np.arange(len(small_data.log))
    e = exposures(small_data, surface)
    kept = (small_data.log.feedback >= 0).all(axis=1) & ~small_data.log.randomised
    np.testing.assert_array_equal(e.surface, surface[kept])
    assert e.behaviours == small_data.log.behaviours and len(e.group_names) > 1
    with pytest.raises(ValueError, match="how='guess' is unknown; choose one of user, video"):
        Panel(e, "guess")
